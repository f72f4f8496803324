"""The sample clips are what `data/samples/manifest.csv` and the README beside it say."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

REPOSITORY = Path(__file__).resolve().parents[1]
SAMPLES = REPOSITORY / "data" / "samples"
LIMIT_S = 30.0
MAX_BYTES = 3 * 1024 * 1024

# File: (container, encoding, sample rate in Hz, channels), for every clip a check accepts.
FORMATS = {
    "ada-1.wav": ("WAV", "PCM_16", 16000, 1),
    "ada-1-again.wav": ("WAV", "PCM_16", 16000, 1),
    "ada-2.flac": ("FLAC", "PCM_16", 22050, 1),
    "ada-3.mp3": ("MP3", "MPEG_LAYER_III", 44100, 1),
    "ada-4.ogg": ("OGG", "VORBIS", 48000, 1),
    "ben-1.wav": ("WAV", "PCM_24", 16000, 1),
    "ben-2.flac": ("FLAC", "PCM_16", 16000, 1),
    "ben-3.opus": ("OGG", "OPUS", 48000, 1),
    "carl-1.wav": ("WAV", "PCM_16", 16000, 1),
    "carl-2.flac": ("FLAC", "PCM_16", 16000, 2),
    "carl-3.ogg": ("OGG", "VORBIS", 22050, 1),
    "dima-1.wav": ("WAV", "PCM_16", 22050, 1),
    "dima-2.mp3": ("MP3", "MPEG_LAYER_III", 22050, 1),
    "dima-3.ogg": ("OGG", "OPUS", 16000, 1),
    "emil-1.wav": ("WAV", "PCM_16", 16000, 1),
    "emil-2.flac": ("FLAC", "PCM_16", 48000, 1),
    "emil-3.mp3": ("MP3", "MPEG_LAYER_III", 16000, 1),
    "fred-1.wav": ("WAV", "ULAW", 8000, 1),
    "fred-2.ogg": ("OGG", "VORBIS", 44100, 1),
    "fred-3.opus": ("OGG", "OPUS", 24000, 1),
}


def read_manifest() -> list[dict[str, str]]:
    with (SAMPLES / "manifest.csv").open(encoding="ascii", newline="") as file:
        return list(csv.DictReader(file))


def good_rows() -> list[dict[str, str]]:
    return [row for row in read_manifest() if not row["note"]]


def test_manifest_has_its_columns_and_every_file_once():
    rows = read_manifest()
    assert {tuple(row) for row in rows} == {("audio", "speaker", "note")}
    assert all(None not in row.values() for row in rows)
    listed = [row["audio"] for row in rows]
    on_disk = [p for p in SAMPLES.iterdir() if p.name not in {"manifest.csv", "README.md"}]
    assert sorted(listed) == sorted(p.relative_to(REPOSITORY).as_posix() for p in on_disk)


def test_twenty_rows_are_within_the_limit():
    accepted = set()
    for row in read_manifest():
        try:
            info = sf.info(REPOSITORY / row["audio"])
        except sf.LibsndfileError:
            continue
        samples, _ = sf.read(REPOSITORY / row["audio"])
        if info.duration <= LIMIT_S and np.any(samples):
            accepted.add(Path(row["audio"]).name)
    assert accepted == set(FORMATS)
    assert len(accepted) == 20


def test_samples_stay_small():
    assert sum(p.stat().st_size for p in SAMPLES.iterdir()) <= MAX_BYTES


def test_at_least_five_speakers_have_three_different_clips():
    clips = Counter(row["speaker"] for row in good_rows())
    assert "" not in clips
    assert len(clips) >= 5
    assert min(clips.values()) >= 3
    assert len({(REPOSITORY / row["audio"]).read_bytes() for row in good_rows()}) == len(good_rows()) == 19


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_as_claimed(name):
    info = sf.info(SAMPLES / name)
    assert (info.format, info.subtype, info.samplerate, info.channels) == FORMATS[name]


@pytest.mark.parametrize("name", FORMATS)
def test_clip_is_short_audible_and_unclipped(name):
    samples, sample_rate_hz = sf.read(SAMPLES / name)
    assert 2.5 <= len(samples) / sample_rate_hz <= 9.0
    assert -30.0 < 20 * np.log10(np.sqrt(np.mean(samples**2))) < -15.0
    assert np.abs(samples).max() < 1.0


def test_stereo_clip_has_a_quieter_right_channel():
    samples, _ = sf.read(SAMPLES / "carl-2.flac")
    left, right = np.sqrt(np.mean(samples**2, axis=0))
    assert right / left == pytest.approx(0.7, abs=0.01)


def test_duplicate_names_a_file_with_the_same_bytes():
    (row,) = [row for row in read_manifest() if row["note"].startswith("duplicate of ")]
    original = SAMPLES / row["note"].removeprefix("duplicate of ")
    duplicate = REPOSITORY / row["audio"]
    assert duplicate != original
    assert duplicate.read_bytes() == original.read_bytes()
    speakers = {r["audio"]: r["speaker"] for r in read_manifest()}
    assert row["speaker"] == speakers[original.relative_to(REPOSITORY).as_posix()]


def test_long_clip_is_31_seconds_after_a_silent_lead():
    info = sf.info(SAMPLES / "ben-long.opus")
    assert info.frames == 31 * info.samplerate
    samples, sample_rate_hz = sf.read(SAMPLES / "ben-long.opus")
    lead, rest = np.split(samples, [round(1.9 * sample_rate_hz)])
    assert np.abs(lead).max() < 0.01
    last_second = rest[-sample_rate_hz:]
    assert np.sqrt(np.mean(last_second**2)) > 0.01


def test_silent_clip_is_three_seconds_of_zeros():
    samples, sample_rate_hz = sf.read(SAMPLES / "silent.flac")
    assert len(samples) == 3 * sample_rate_hz
    assert not samples.any()


def test_empty_file_has_no_bytes():
    assert (SAMPLES / "empty.wav").read_bytes() == b""


def test_text_file_is_text_and_not_audio():
    assert (SAMPLES / "not-audio.wav").read_text(encoding="ascii").startswith("This is a text file")
    with pytest.raises(sf.LibsndfileError):
        sf.info(SAMPLES / "not-audio.wav")
