"""Remake `data/samples/`: short clips of freely licensed synthetic voices, and the awkward files.

Run from anywhere: `python tools/make_samples.py` (writes into the repository) or with `--out DIR`.
The synthesizers are Debian's flite and festival; a missing part is named, with the line that installs it.
Two runs with the same synthesizer versions give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile as sf
import soxr

Samples = npt.NDArray[np.float64]

SAMPLES_DIR = Path("data/samples")
REPOSITORY = Path(__file__).resolve().parents[1]
APT_LINE = "apt-get install flite festival festvox-kdlpc16k festvox-ru"
PEAK_LIMIT = 0.97
LONG_CLIP_S = 31.0
LONG_LEAD_S = 2.0
# File name suffix: libsndfile's names of the file format and of the usual sample encoding.
STORED_AS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}


@dataclass(frozen=True)
class Voice:
    """A synthesizer and the name of its voice."""

    program: str
    name: str


@dataclass(frozen=True)
class Clip:
    """One clip: how it is stored, how slowly and how loud it is said, and what.

    `stretch` above 1 is slower speech; `gains` has one factor per channel; without `subtype` the encoding is
    the usual one of the file format.
    """

    file: str
    sample_rate_hz: int
    stretch: float
    level_dbfs: float
    text: str
    subtype: str | None = None
    gains: tuple[float, ...] = (1.0,)

    @property
    def speaker(self) -> str:
        """The first part of the file name."""
        return self.file.split("-")[0]


VOICES = {
    "ada": Voice("flite", "slt"),
    "ben": Voice("flite", "awb"),
    "carl": Voice("flite", "rms"),
    "dima": Voice("festival", "msu_ru_nsh_clunits"),
    "emil": Voice("flite", "kal16"),
    "fred": Voice("festival", "ked_diphone"),
}

CLIPS = (
    Clip("ada-1.wav", 16000, 1.0, -23, "The ferry leaves at nine, so be at the pier by half past eight."),
    Clip("ada-2.flac", 22050, 1.1, -26, "My sister keeps three hens and a very noisy goose."),
    Clip("ada-3.mp3", 44100, 0.95, -20, "Could you turn the lamp a little to the left, please?"),
    Clip("ada-4.ogg", 48000, 1.05, -24, "After the storm, the whole street smelled of wet leaves."),
    Clip("ben-1.wav", 16000, 1.0, -23, "The baker on the corner opens long before sunrise.", "PCM_24"),
    Clip("ben-2.flac", 16000, 1.1, -19, "I left my umbrella on the train again yesterday evening."),
    Clip(
        "ben-3.opus",
        48000,
        0.95,
        -27,
        "Two of the bridges were closed, and we walked home along the canal. It took us until supper, but the"
        " swans were out with their young.",
    ),
    Clip("carl-1.wav", 16000, 1.05, -20, "Our neighbour plays the cello every Sunday."),
    Clip("carl-2.flac", 16000, 1.0, -24, "It is an hour to the top of the watch tower.", gains=(1.0, 0.7)),
    Clip(
        "carl-3.ogg",
        22050,
        0.95,
        -26,
        "The museum has a small room full of clocks and compasses. Every noon they strike together, or very"
        " nearly so.",
    ),
    Clip("dima-1.wav", 22050, 1.0, -23, "Завтра рано утром мы поедем в лес за грибами."),
    Clip("dima-2.mp3", 22050, 1.05, -20, "Последний автобус уходит сразу после полуночи."),
    Clip(
        "dima-3.ogg",
        16000,
        0.95,
        -27,
        "Сестра покрасила дверь зелёной краской. Теперь каждый гость спрашивает, какого цвета будет крыша.",
        "OPUS",
    ),
    Clip("emil-1.wav", 16000, 1.0, -21, "There is fresh bread on the table and soup on the stove."),
    Clip("emil-2.flac", 48000, 1.1, -25, "A cold wind blew across the empty market square."),
    Clip("emil-3.mp3", 16000, 0.95, -23, "We counted forty seals on the rocks below the lighthouse."),
    Clip("fred-1.wav", 8000, 1.0, -22, "The library will be closed on Friday for repairs.", "ULAW"),
    Clip(
        "fred-2.ogg",
        44100,
        1.1,
        -26,
        "He folded the map and put it back in his coat pocket. From here on, he said, we only have to follow"
        " the river.",
    ),
    Clip("fred-3.opus", 24000, 0.95, -23, "Nobody knew who had left the piano in the garden."),
)
ORIGINAL, DUPLICATE = "ada-1.wav", "ada-1-again.wav"
LONG_CLIP = Clip(
    "ben-long.opus",
    16000,
    1.0,
    -23,
    "Good morning, and welcome to the harbour walk. We begin at the fish market, where the first boats"
    " come in before five. Behind it stands the rope house, the longest building in the town. Sailors once"
    " bought their lines there by the fathom. If you look up, you can see the hook that lifted the coils."
    " We cross the yard now, and please mind the tram. On the far side is the customs office, with its two"
    " stone lions. People say that one of them is smiling, but nobody agrees which one it is. Let us go and"
    " see for ourselves.",
)


def missing_parts() -> list[str]:
    """Names of the programs and voices that are not installed."""
    missing = [program for program in ("flite", "festival", "text2wave") if shutil.which(program) is None]
    if missing:
        return missing
    flite = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=True).stdout.split()
    missing += [v.name for v in VOICES.values() if v.program == "flite" and v.name not in flite]
    voices = subprocess.run(
        ["festival", "-b", "(print (voice.list))"], capture_output=True, text=True, check=True
    ).stdout
    return missing + [v.name for v in VOICES.values() if v.program == "festival" and v.name not in voices]


def speech_command(voice: Voice, stretch: float, text_file: Path, wav_file: Path) -> list[str]:
    """The command that speaks a text file into a WAV file."""
    text, wav = str(text_file), str(wav_file)
    if voice.program == "flite":
        return ["flite", "-voice", voice.name, "--setf", f"duration_stretch={stretch}", "-f", text, "-o", wav]
    setup = f"(begin (voice_{voice.name}) (Parameter.set 'Duration_Stretch {stretch}))"
    return ["text2wave", "-eval", setup, text, "-o", wav]


def speak(clip: Clip) -> tuple[Samples, int]:
    """Synthesize a clip: `(samples,)` float64 in [-1, 1], and the sample rate in Hz."""
    voice = VOICES[clip.speaker]
    with tempfile.TemporaryDirectory() as folder:
        text_file, wav_file = Path(folder, "text.txt"), Path(folder, "speech.wav")
        text_file.write_text(clip.text + "\n", encoding="utf-8")
        subprocess.run(
            speech_command(voice, clip.stretch, text_file, wav_file), check=True, stdout=subprocess.DEVNULL
        )
        samples, sample_rate_hz = sf.read(wav_file, dtype="float64")
    return samples, int(sample_rate_hz)


def shaped(samples: Samples, sample_rate_hz: int, clip: Clip) -> Samples:
    """Bring speech to the clip's sample rate, level and channels: `(samples, channels)`."""
    resampled = soxr.resample(samples, sample_rate_hz, clip.sample_rate_hz, quality="VHQ")
    levelled = resampled * (10 ** (clip.level_dbfs / 20) / np.sqrt(np.mean(resampled**2)))
    levelled *= min(1.0, PEAK_LIMIT / np.abs(levelled).max())
    return np.asarray(levelled[:, np.newaxis] * np.array(clip.gains))


def exactly_long(samples: Samples, sample_rate_hz: int) -> Samples:
    """Put a silent lead before the speech, and end it after `LONG_CLIP_S` seconds.

    The lead makes the first 30 s differ from the 30 s with most speech.
    """
    lead = np.zeros((round(LONG_LEAD_S * sample_rate_hz), samples.shape[1]))
    whole = np.concatenate([lead, samples])
    frames = round(LONG_CLIP_S * sample_rate_hz)
    if len(whole) < frames:
        raise SystemExit(f"The long text lasts only {len(whole) / sample_rate_hz:.1f} s: add a sentence.")
    return whole[:frames]


@functools.cache
def ogg_crc_table() -> tuple[int, ...]:
    """Table of the Ogg page checksum (polynomial 0x04c11db7, not reflected)."""
    table = []
    for byte in range(256):
        crc = byte << 24
        for _ in range(8):
            crc = (crc << 1) ^ (0x04C11DB7 if crc & 0x80000000 else 0)
        table.append(crc & 0xFFFFFFFF)
    return tuple(table)


def ogg_pages(data: bytes) -> Iterator[bytes]:
    """The pages of an Ogg file (RFC 3533: 27 bytes, segment table, segments)."""
    start = 0
    while start < len(data):
        segments = data[start + 26]
        end = start + 27 + segments + sum(data[start + 27 : start + 27 + segments])
        yield data[start:end]
        start = end


def fix_ogg_serial(path: Path) -> None:
    """Give an Ogg file the stream serial number 1: libsndfile draws one by the clock."""
    pages = []
    for page in ogg_pages(path.read_bytes()):
        fixed = bytearray(page)
        fixed[14:18] = (1).to_bytes(4, "little")
        fixed[22:26] = bytes(4)
        crc = 0
        for byte in fixed:
            crc = ((crc << 8) & 0xFFFFFFFF) ^ ogg_crc_table()[(crc >> 24) ^ byte]
        fixed[22:26] = crc.to_bytes(4, "little")
        pages.append(bytes(fixed))
    path.write_bytes(b"".join(pages))


def store(clip: Clip, samples: Samples, folder: Path) -> None:
    """Encode `(samples, channels)` audio as the clip says."""
    path = folder / clip.file
    container, usual = STORED_AS[path.suffix]
    sf.write(path, samples, clip.sample_rate_hz, format=container, subtype=clip.subtype or usual)
    if container == "OGG":
        fix_ogg_serial(path)


def make_awkward(folder: Path) -> list[tuple[str, str, str]]:
    """Write the duplicate and the clips that a check refuses; return their manifest rows."""
    shutil.copyfile(folder / ORIGINAL, folder / DUPLICATE)
    speech = shaped(*speak(LONG_CLIP), LONG_CLIP)
    store(LONG_CLIP, exactly_long(speech, LONG_CLIP.sample_rate_hz), folder)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "not-audio.wav").write_text("This is a text file whose name ends in .wav.\n", encoding="ascii")
    sf.write(folder / "silent.flac", np.zeros(3 * 16000), 16000, subtype="PCM_16")
    return [
        (DUPLICATE, "ada", f"duplicate of {ORIGINAL}"),
        (LONG_CLIP.file, LONG_CLIP.speaker, f"too long: {LONG_CLIP_S:g} s"),
        ("empty.wav", "", "empty file: 0 bytes"),
        ("not-audio.wav", "", "not audio: a text file"),
        ("silent.flac", "", "silent: 3 s of zeros"),
    ]


def write_manifest(rows: list[tuple[str, str, str]], folder: Path) -> None:
    """Write `manifest.csv`; paths in it are relative to the repository root."""
    with (folder / "manifest.csv").open("w", encoding="ascii", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("audio", "speaker", "note"))
        writer.writerows(((SAMPLES_DIR / name).as_posix(), speaker, note) for name, speaker, note in rows)


def main(arguments: list[str] | None = None) -> int:
    """Remake every sample; the exit status is 1 where a synthesizer is missing."""
    parser = argparse.ArgumentParser(description="Remake data/samples with free speech synthesizers.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / SAMPLES_DIR, help="folder to write into")
    folder: Path = parser.parse_args(arguments).out
    if missing := missing_parts():
        print(f"Not installed: {', '.join(missing)}. On Debian: {APT_LINE}", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for clip in CLIPS:
        store(clip, shaped(*speak(clip), clip), folder)
        print(clip.file)
    rows = [(clip.file, clip.speaker, "") for clip in CLIPS]
    write_manifest(rows + make_awkward(folder), folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
