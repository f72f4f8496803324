"""What is written is what is read back; nothing but a RowError comes out of any bytes."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voiceprint_nb import audio
from voiceprint_nb.decoded import Decoded
from voiceprint_nb.errors import RowError

RATE_HZ = 16_000
LOSSLESS = ("PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32")
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)


def tone(duration_s: float = 1.0, rate_hz: int = RATE_HZ, *, level: float = 0.3) -> np.ndarray:
    """A tone of 440 Hz that fades in and out, so that codecs of all kinds keep its level."""
    t = np.arange(round(duration_s * rate_hz)) / rate_hz
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.05)
    return (level * fade * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def encoded(samples: np.ndarray, rate_hz: int = RATE_HZ, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, **options)
    return buffer.getvalue()


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def code_of(work: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(RowError) as caught:
        work(path)
    assert str(caught.value).endswith(".")
    return caught.value.code


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "clip") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


Put = Callable[..., Path]


def _combinations() -> Iterator[tuple[str, str]]:
    for container in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"):
        for subtype in soundfile.available_subtypes(container):
            if soundfile.check_format(container, subtype):
                yield container, subtype


_UNWRITABLE = {  # libsndfile lists them, and cannot write them
    ("MP3", "MPEG_LAYER_I"),
    ("MP3", "MPEG_LAYER_II"),
    ("WAV", "MPEG_LAYER_III"),
    ("AIFF", "DWVW_12"),
}
_RATE_HZ = {"G721_32": 8000, "G723_24": 8000, "G723_40": 8000, "NMS_ADPCM_16": 8000} | {
    "NMS_ADPCM_24": 8000,
    "NMS_ADPCM_32": 8000,
    "GSM610": 8000,
}


@pytest.mark.parametrize(("container", "subtype"), [c for c in _combinations() if c not in _UNWRITABLE])
def test_every_format_keeps_length_and_level(put: Put, container: str, subtype: str) -> None:
    rate_hz = _RATE_HZ.get(subtype, RATE_HZ)
    written = tone(2.0, rate_hz)
    path = put(encoded(written, rate_hz, format=container, subtype=subtype))
    facts = audio.probe(path)
    read = audio.read_mono(path, sample_rate_hz=rate_hz)
    assert (facts.subtype, facts.channels, facts.sample_rate_hz) == (subtype, 1, rate_hz)
    assert facts.duration_s == pytest.approx(2.0, abs=0.13)  # block codecs round up
    assert len(read) == round(facts.duration_s * rate_hz)
    assert rms(read) == pytest.approx(rms(written), rel=0.1)
    if subtype in LOSSLESS:
        assert len(read) == len(written)
        assert np.abs(read - written).max() < 1e-4


@pytest.mark.parametrize("rate_hz", [8000, 11025, 12000, 22050, 44100, 48000, 96000, 192_000, 384_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_rates_and_channels(put: Put, rate_hz: int, channels: int) -> None:
    one = tone(0.5, rate_hz)
    path = put(encoded(np.stack([one] * channels, axis=1), rate_hz, format="WAV", subtype="PCM_16"))
    facts = audio.probe(path)
    assert (facts.duration_s, facts.sample_rate_hz, facts.channels) == (len(one) / rate_hz, rate_hz, channels)
    mono = audio.read_mono(path)
    assert len(mono) == pytest.approx(8000, abs=1)
    assert rms(mono) == pytest.approx(rms(one), rel=0.01)


@given(rate_hz=st.integers(8000, 384_000), channels=st.integers(1, 8))
@EXAMPLES
def test_any_rate_and_channel_count(tmp_path: Path, rate_hz: int, channels: int) -> None:
    path = tmp_path / "any.wav"
    path.write_bytes(encoded(np.stack([tone(0.1, rate_hz)] * channels, axis=1), rate_hz, format="WAV"))
    facts = audio.probe(path)
    assert (facts.sample_rate_hz, facts.channels) == (rate_hz, channels)
    assert len(audio.read_mono(path)) == pytest.approx(facts.duration_s * audio.WORK_RATE_HZ, abs=1)


def test_channels_are_averaged(put: Put) -> None:
    left, right = tone(level=0.4), np.zeros(RATE_HZ, np.float32)
    path = put(encoded(np.stack([left, right], axis=1), format="WAV", subtype="FLOAT"))
    assert np.allclose(audio.read_mono(path), left / 2, atol=1e-7)


def test_a_file_is_read_at_its_own_rate(put: Put) -> None:
    stereo = np.stack([tone(rate_hz=44_100), tone(rate_hz=44_100, level=0.1)], axis=1)
    samples, rate_hz = audio.read_stored(put(encoded(stereo, 44_100, format="WAV", subtype="FLOAT")))
    assert (rate_hz, samples.dtype) == (44_100, np.float32)
    np.testing.assert_allclose(samples, stereo.mean(axis=1), atol=1e-6)


def test_more_channels_than_anyone_has_are_read_within_bounded_memory(put: Put) -> None:
    path = put(encoded(np.stack([tone(0.2)] * 1024, axis=1), format="WAV"))
    assert audio.probe(path).channels == 1024
    assert rms(audio.read_mono(path)) == pytest.approx(rms(tone(0.2)), rel=0.01)


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")])
def test_a_stretch_is_the_same_stretch_of_the_whole(put: Put, container: str, subtype: str) -> None:
    path = put(
        encoded(np.random.default_rng(3).normal(0, 0.1, 3 * RATE_HZ), format=container, subtype=subtype)
    )
    whole = audio.read_mono(path)
    part = audio.read_mono(path, start_s=1.25, max_duration_s=0.5)
    assert np.array_equal(part, whole[20_000:28_000])


def test_a_stretch_of_mp3_is_exact(put: Put) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, 6 * RATE_HZ)
    path = put(encoded(noise, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5))
    whole = audio.read_mono(path)
    part = audio.read_mono(path, start_s=4.5, max_duration_s=1.0)
    assert np.abs(part - whole[72_000:88_000]).max() < 1e-6


def test_a_stretch_behind_the_end_is_empty(put: Put) -> None:
    path = put(encoded(tone(), format="WAV"))
    assert code_of(lambda p: audio.read_mono(p, start_s=5.0), path) == "empty_audio"


@pytest.mark.parametrize(
    "name", ["clip.raw", "clip.gsm", "clip.vox", "clip.mp3", 'a\'b "c"\n.wav', "\udcff\udcfe.wav", "-i.wav"]
)
def test_the_name_of_a_file_says_nothing_about_its_content(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(encoded(tone(), format="WAV"))
    assert audio.probe(path).format == "WAV"
    path.write_bytes(b"just a line of text\n" * 200)
    assert code_of(audio.probe, path) == "not_audio"


# --- damaged and contradictory files --------------------------------------------------------------------


def test_empty_and_foreign_bytes(put: Put) -> None:
    assert code_of(audio.probe, put(b"")) == "empty_file"
    assert code_of(audio.probe, put(b"hello")) == "not_audio"
    assert code_of(audio.probe, put(b"\0" * 5000)) == "not_audio"
    assert code_of(audio.probe, put(encoded(np.zeros(0), format="WAV"))) == "empty_audio"


def test_a_file_that_vanished_is_a_row_error(tmp_path: Path) -> None:
    assert code_of(audio.probe, tmp_path / "gone.wav") == "not_readable"


def wav_with_data_size(size: int) -> bytes:
    data = bytearray(encoded(tone(), format="WAV", subtype="PCM_16"))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    return bytes(data)


def test_wav_sizes(put: Put) -> None:
    assert code_of(audio.probe, put(wav_with_data_size(0))) == "bad_header"
    assert code_of(audio.probe, put(wav_with_data_size(RATE_HZ * 2 * 3600 * 5))) == "truncated"  # 5 hours
    for streamed in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFF00):
        path = put(wav_with_data_size(streamed))
        assert audio.probe(path).duration_s == 1.0
        assert len(audio.read_mono(path)) == RATE_HZ


def test_zero_hertz(put: Put) -> None:
    wav = bytearray(encoded(tone(), format="WAV", subtype="PCM_16"))
    wav[24:28] = b"\0\0\0\0"
    assert code_of(audio.probe, put(bytes(wav))) == "bad_header"
    flac = bytearray(encoded(tone(), format="FLAC"))
    flac[18:21] = bytes([0, 0, flac[20] & 0x0F])
    assert code_of(audio.probe, put(bytes(flac))) == "bad_header"


def test_a_rate_that_is_no_audio(put: Put) -> None:
    assert code_of(audio.probe, put(encoded(tone(), 50, format="WAV"))) == "bad_header"
    assert code_of(audio.probe, put(encoded(tone(), 3_000_000, format="WAV"))) == "bad_header"


def flac_with_total(samples: int, *, duration_s: float = 1.0) -> bytes:
    data = bytearray(encoded(tone(duration_s), format="FLAC", subtype="PCM_16"))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(data)


@pytest.mark.parametrize("duration_s", [0.05, 1.0, 4.0, 7.0, 20.0])
def test_a_flac_stream_of_open_length_is_measured(put: Put, duration_s: float) -> None:
    path = put(flac_with_total(0, duration_s=duration_s))
    assert audio.probe(path).duration_s == duration_s
    assert np.abs(audio.read_mono(path) - tone(duration_s)).max() < 1e-4
    part = audio.read_mono(path, start_s=duration_s / 2, max_duration_s=duration_s / 4)
    assert np.abs(part - tone(duration_s)[len(tone(duration_s)) // 2 :][: len(part)]).max() < 1e-4
    assert audio.inspect(path, max_duration_s=30.0).duration_s == duration_s


def test_a_flac_header_that_claims_hours(put: Put) -> None:
    path = put(flac_with_total(RATE_HZ * 3600 * 5))
    assert code_of(audio.probe, path) == "truncated"


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("values", [(np.nan, 0.0), (np.inf, np.inf), (np.inf, -np.inf), (3e38, 3e38)])
def test_samples_that_are_no_numbers(put: Put, subtype: str, values: tuple[float, float]) -> None:
    samples = np.stack([tone(), tone()], axis=1).astype(np.float64)
    samples[500] = values
    path = put(encoded(samples, format="WAV", subtype=subtype))
    assert audio.probe(path).duration_s == 1.0
    assert code_of(audio.read_mono, path) == "bad_samples"


FILES = {
    "wav": encoded(tone(3.0), format="WAV", subtype="PCM_16"),
    "wav-float": encoded(tone(3.0), format="WAV", subtype="FLOAT"),
    "flac": encoded(tone(3.0), format="FLAC"),
    "mp3-cbr": encoded(tone(3.0), format="MP3", bitrate_mode="CONSTANT"),
    "mp3-vbr": encoded(tone(3.0), format="MP3", bitrate_mode="VARIABLE"),
    "vorbis": encoded(tone(3.0), format="OGG", subtype="VORBIS"),
    "opus": encoded(tone(3.0), format="OGG", subtype="OPUS"),
    "aiff": encoded(tone(3.0), format="AIFF"),
    "au": encoded(tone(3.0), format="AU"),
    "rf64": encoded(tone(3.0), format="RF64"),
    "caf": encoded(tone(3.0), format="CAF"),
    "w64": encoded(tone(3.0), format="W64"),
}


def outcome(path: Path) -> str:
    """How reading ends; anything but a RowError or a plausible result fails the test."""
    try:
        facts = audio.probe(path)
        samples = audio.read_mono(path, sample_rate_hz=facts.sample_rate_hz)
    except RowError as error:
        assert str(error).endswith(".")
        return error.code
    assert facts.duration_s > 0 and facts.channels > 0
    assert abs(len(samples) / facts.sample_rate_hz - facts.duration_s) <= 0.11
    assert samples.dtype == np.float32 and np.isfinite(samples).all()
    return "read"


@pytest.mark.parametrize("kind", ["wav", "wav-float", "flac", "mp3-cbr", "mp3-vbr", "vorbis", "opus", "aiff"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.75, 0.9, 0.97])
def test_a_cut_file_is_refused(put: Put, kind: str, part: float) -> None:
    data = FILES[kind]
    assert outcome(put(data)) == "read"
    assert outcome(put(data[: int(len(data) * part)])) == "truncated"


@pytest.mark.parametrize("kind", ["au", "rf64"])
def test_a_cut_file_of_a_rarer_kind_is_refused(put: Put, kind: str) -> None:
    assert outcome(put(FILES[kind][: len(FILES[kind]) // 2])) == "truncated"


@given(kind=st.sampled_from(sorted(FILES)), part=st.floats(0, 1))
@EXAMPLES
def test_a_file_cut_anywhere(tmp_path: Path, kind: str, part: float) -> None:
    path = tmp_path / "cut"
    path.write_bytes(FILES[kind][: int(len(FILES[kind]) * part)])
    outcome(path)


@given(kind=st.sampled_from(sorted(FILES)), data=st.data())
@settings(EXAMPLES, max_examples=250)
def test_flipped_bits(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    damaged = bytearray(FILES[kind])
    reach = data.draw(st.sampled_from([64, 512, len(damaged)]))
    for at in data.draw(st.lists(st.integers(0, min(reach, len(damaged)) - 1), min_size=1, max_size=6)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    outcome(path)


@given(
    head=st.sampled_from([data[:n] for data in FILES.values() for n in (0, 4, 12, 40)]),
    tail=st.binary(max_size=600),
)
@settings(EXAMPLES, max_examples=150)
def test_random_bytes(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "random"
    path.write_bytes(head + tail)
    outcome(path)


# --- what a look has decoded is kept ---------------------------------------------------------------------


def look(path: Path, *, room_bytes: int = 1 << 24) -> tuple[Any, np.ndarray | None]:
    """The verdict, and the samples if they are kept."""
    try:
        return audio.inspect_and_read(path, max_duration_s=30.0, is_wanted=Decoded(room_bytes).has_room)
    except RowError as error:
        return (error.code, str(error), error.facts), None


def mere_look(path: Path) -> Any:
    return look(path, room_bytes=0)[0]


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44_100])
@pytest.mark.parametrize(("container", "subtype"), [("FLAC", "PCM_16"), ("MP3", None), ("WAV", "FLOAT")])
def test_a_look_gives_what_will_be_read(put: Put, container: str, subtype: str | None, rate_hz: int) -> None:
    path = put(encoded(tone(2.0, rate_hz), rate_hz, format=container, subtype=subtype))
    facts, samples = look(path)
    assert facts == mere_look(path)
    np.testing.assert_array_equal(samples, audio.read_mono(path))


@pytest.mark.parametrize("duration_s", [0.05, 1.0, 7.0])
def test_a_look_gives_a_flac_stream_of_open_length(put: Put, duration_s: float) -> None:
    path = put(flac_with_total(0, duration_s=duration_s))
    facts, samples = look(path)
    assert facts == mere_look(path)
    np.testing.assert_array_equal(samples, audio.read_mono(path))


def test_a_look_gives_what_begins_with_silence(put: Put) -> None:
    path = put(encoded(np.concatenate([np.zeros(20_000), tone()]), format="FLAC"))
    facts, samples = look(path)
    assert facts == mere_look(path)
    np.testing.assert_array_equal(samples, audio.read_mono(path))


@pytest.mark.parametrize("kind", ["silence", "steps", "slow steps", "cut", "plain", "too long", "no room"])
def test_a_look_gives_nothing_else(put: Put, kind: str) -> None:
    data = {
        "silence": encoded(np.zeros(RATE_HZ), format="FLAC"),
        "steps": encoded(np.repeat([0.1, 0.2], RATE_HZ), format="FLAC"),  # each second is silent by itself
        "slow steps": encoded(np.repeat([0.1, 0.2], 1000), 1000, format="FLAC"),
        "cut": FILES["flac"][:-40],
        "plain": FILES["wav"],
        "too long": encoded(tone(31.0), format="FLAC"),
        "no room": FILES["flac"],
    }
    path = put(data[kind])
    facts, samples = look(path, room_bytes=3 * RATE_HZ * 4 - 1 if kind == "no room" else 1 << 24)
    assert facts == mere_look(path)
    assert samples is None


@given(kind=st.sampled_from(sorted(FILES)), part=st.floats(0, 1))
@EXAMPLES
def test_a_cut_file_looks_the_same(tmp_path: Path, kind: str, part: float) -> None:
    path = tmp_path / "cut"
    path.write_bytes(FILES[kind][: int(len(FILES[kind]) * part)])
    facts, samples = look(path)
    assert facts == mere_look(path)
    if samples is not None:
        np.testing.assert_array_equal(samples, audio.read_mono(path))


@given(kind=st.sampled_from(sorted(FILES)), data=st.data())
@EXAMPLES
def test_a_damaged_file_looks_the_same(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    damaged = bytearray(FILES[kind])
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    facts, samples = look(path)
    if samples is not None:  # what can be read to its end is taken, wherever a mere look stumbles
        np.testing.assert_array_equal(samples, audio.read_mono(path))
    else:
        assert facts == mere_look(path)


# --- MP3 ------------------------------------------------------------------------------------------------


def speech_like(duration_s: float) -> np.ndarray:
    """Noise that comes and goes, so that a variable bitrate varies."""
    noise = np.random.default_rng(11).normal(0, 0.15, round(duration_s * RATE_HZ))
    t = np.arange(len(noise)) / RATE_HZ
    return (noise * np.clip(np.sin(2 * np.pi * 0.7 * t), 0, 1)).astype(np.float32)


def without_first_frame(mp3: bytes) -> bytes:
    """An MP3 of libsndfile without its Xing frame: the next frame starts where a decoder would look."""
    version_1, word = mp3[1] & 0x08, int.from_bytes(mp3[:4], "big")
    rates = {8: (44100, 48000, 32000), 0: (22050, 24000, 16000)}[version_1]
    bitrates = {
        8: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        0: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    }[version_1]
    size = (144 if version_1 else 72) * bitrates[word >> 12 & 15] * 1000 // rates[word >> 10 & 3]
    assert mp3[size] == 0xFF
    return mp3[size:]


VBR = encoded(speech_like(8.0), format="MP3", bitrate_mode="VARIABLE", compression_level=0.4)


def test_vbr_without_a_header_is_measured_and_read_to_its_end(put: Put) -> None:
    bare = without_first_frame(VBR)
    assert b"Xing" not in bare and b"Info" not in bare
    path = put(bare)
    full = soundfile.read(io.BytesIO(VBR), dtype="float32")[0]
    facts = audio.probe(path)
    assert facts.duration_s == pytest.approx(8.0, abs=0.12)  # the encoder's padding stays
    read = audio.read_mono(path)
    assert len(read) == round(facts.duration_s * RATE_HZ)
    shift = 4000  # the longer decode holds the same samples, delayed
    delay = int(np.argmax(np.correlate(read[shift : shift + 8000], full[shift : shift + 4000], "valid")))
    assert np.abs(read[delay : delay + len(full)] - full)[2000:].max() < 1e-4


def id3v2(payload: int, *, footer: bool) -> bytes:
    size = bytes([payload >> 21 & 127, payload >> 14 & 127, payload >> 7 & 127, payload & 127])
    tag = b"ID3\x04\x00" + bytes([0x10 if footer else 0]) + size + b"\0" * payload
    return tag + (b"3DI\x04\x00\x10" + size if footer else b"")


@pytest.mark.parametrize("mp3", [VBR, without_first_frame(VBR)], ids=["xing", "bare"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (id3v2(3000, footer=False), b""),
        (id3v2(3000, footer=True), b""),
        (id3v2(300_000, footer=False), b""),
        (b"", b"TAG" + b"A title".ljust(125, b"\0")),
        (b"", b"APETAGEX" + bytes(range(256)) * 8),
        (id3v2(10, footer=False) + b"\0" * 700, b"\0" * 4000),
    ],
    ids=["id3v2", "id3v2-footer", "id3v2-picture", "id3v1", "ape", "zeros"],
)
def test_tags_do_not_change_what_is_read(put: Put, mp3: bytes, before: bytes, after: bytes) -> None:
    plain, tagged = put(mp3, "plain"), put(before + mp3 + after, "tagged")
    assert audio.probe(tagged).duration_s == audio.probe(plain).duration_s
    assert np.abs(audio.read_mono(tagged) - audio.read_mono(plain)).max() < 1e-5


def test_joined_mp3_files_are_measured_as_a_whole(put: Put) -> None:
    tagged = VBR + b"TAG".ljust(128, b"\0") + id3v2(500, footer=False) + VBR
    path = put(tagged)
    assert audio.probe(path).duration_s == pytest.approx(16.0, abs=0.3)
    samples = audio.read_mono(path)
    assert rms(samples[-3 * RATE_HZ :]) > 0.5 * rms(samples[: 3 * RATE_HZ])


def test_an_xing_header_that_claims_hours(put: Put) -> None:
    data = bytearray(VBR)
    at = data.index(b"Xing") + 8
    data[at : at + 4] = struct.pack(">I", 500_000)
    assert code_of(audio.probe, put(bytes(data))) == "truncated"


def test_an_xing_header_that_hides_audio(put: Put) -> None:
    data = bytearray(VBR)
    at = data.index(b"Xing") + 8
    data[at : at + 4] = struct.pack(">I", 20)
    path = put(bytes(data))
    assert audio.probe(path).duration_s == pytest.approx(8.0, abs=0.12)
    assert len(audio.read_mono(path)) == pytest.approx(8.0 * RATE_HZ, abs=0.12 * RATE_HZ)


def test_reading_mp3_prints_nothing(put: Put) -> None:
    apes = b"APETAGEX" + bytes(range(256)) * 40
    bare = without_first_frame(VBR)
    files = [VBR, bare, VBR + apes, bare + apes, id3v2(3000, footer=True) + VBR]
    paths = [str(put(data, f"{number}.mp3")) for number, data in enumerate(files)]
    program = (
        "import sys; from pathlib import Path; from voiceprint_nb import audio\n"
        "for name in sys.argv[1:]: print(len(audio.read_mono(Path(name))))"
    )
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.split()) == len(files)


# --- ffmpeg ---------------------------------------------------------------------------------------------

FOREIGN = {
    "MP4/M4A": b"\0\0\0\x20ftypM4A \0\0\0\0" + b"\0" * 100,
    "WebM/Matroska": b"\x1aE\xdf\xa3" + b"\0" * 100,
    "WMA": b"\x30\x26\xb2\x75" + b"\0" * 100,
    "AMR": b"#!AMR\n" + b"\0" * 100,
    "AAC": b"\xff\xf1\x50\x80" + b"\0" * 100,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_without_ffmpeg_the_sentence_says_so(put: Put, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(RowError) as caught:
        audio.probe(put(FOREIGN[kind]))
    assert caught.value.code == "needs_ffmpeg"
    assert kind in str(caught.value) and "install" in str(caught.value)


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@needs_ffmpeg
@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus"), ("a.mp4", "aac")])
def test_ffmpeg_reads_the_rest(put: Put, tmp_path: Path, name: str, codec: str) -> None:
    source, target = put(encoded(tone(2.0), format="WAV"), "source.wav"), tmp_path / name
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(source), "-c:a", codec, str(target)], check=True)
    assert audio.probe(target).duration_s == pytest.approx(2.0, abs=0.1)
    assert rms(audio.read_mono(target)) == pytest.approx(rms(tone(2.0)), rel=0.1)


@needs_ffmpeg
def test_ffmpeg_finds_nothing(put: Put) -> None:
    assert code_of(audio.probe, put(FOREIGN["MP4/M4A"])) == "not_audio"


# --- small things ---------------------------------------------------------------------------------------


def test_silence() -> None:
    assert audio.is_silent(np.zeros(100, np.float32))
    assert audio.is_silent(np.zeros(0, np.float32))
    assert audio.is_silent(np.full(100, -0.5, np.float32))  # an offset is no sound
    assert audio.is_silent(np.tile([0.5009, 0.4991], 50).astype(np.float32))
    assert not audio.is_silent(np.tile([0.5011, 0.4989], 50).astype(np.float32))


def test_loud_samples_are_clipped_not_wrapped(put: Put) -> None:
    read = audio.read_mono(put(audio.encode_flac(tone(level=3.0), RATE_HZ)))
    assert np.abs(read - np.clip(tone(level=3.0), -1, 1)).max() < 1e-4


def test_frame_powers_are_those_of_the_frames(put: Put) -> None:
    noise = np.random.default_rng(5).normal(0, 0.1, (11_025 * 30, 2)).astype(np.float32)
    path = put(encoded(noise, 11_025, format="WAV", subtype="FLOAT"))
    powers, frame_s = audio.frame_powers(path, frame_s=0.02)
    step = round(frame_s * 11_025)
    assert frame_s == step / 11_025
    mono = noise.mean(axis=1)
    wanted = np.square(mono[: len(mono) // step * step]).reshape(-1, step).mean(axis=1)
    assert np.allclose(powers, wanted, rtol=1e-4)


def test_an_envelope_holds_powers_and_extremes(put: Put) -> None:
    noise = np.random.default_rng(5).normal(0, 0.1, 11_025 * 30 + 7).astype(np.float32)
    path = put(encoded(noise, 11_025, format="WAV", subtype="FLOAT"))
    heard: list[float] = []
    found = audio.envelope(path, frame_s=0.02, tick=heard.append)
    powers, frame_s = audio.frame_powers(path, frame_s=0.02)
    step = round(frame_s * 11_025)
    frames = noise[: len(noise) // step * step].reshape(-1, step)
    assert found.frame_s == frame_s and np.array_equal(found.powers, powers)
    assert np.array_equal(found.lows, frames.min(axis=1))
    assert np.array_equal(found.highs, frames.max(axis=1))
    assert heard == sorted(heard) and len(heard) > 1 and heard[-1] == pytest.approx(30.0, abs=0.02)


def test_reading_ends_when_its_listener_wants(put: Put) -> None:
    path = put(encoded(np.zeros(48_000 * 60, np.float32), 48_000, format="FLAC", subtype="PCM_16"))
    heard = []

    def tick(read_s: float) -> None:
        heard.append(read_s)
        raise StopIteration

    for read in (audio.envelope, lambda path, **_: audio.write_copy(path, path.with_name("x"), tick=tick)):
        with pytest.raises(StopIteration):
            read(path, frame_s=0.02, tick=tick)
    assert max(heard) < 10.0


@pytest.mark.parametrize(("container", "subtype"), [("MP3", "MPEG_LAYER_III"), ("WAV", "FLOAT")])
def test_a_copy_sounds_the_same(put: Put, container: str, subtype: str) -> None:
    path = put(encoded(tone(20.0, 44_100), 44_100, format=container, subtype=subtype))
    copy = put(b"", "copy")
    audio.write_copy(path, copy)
    facts = audio.probe(copy)
    assert (facts.sample_rate_hz, facts.channels, facts.subtype) == (16_000, 1, "PCM_16")
    whole = audio.read_mono(path)
    read = audio.read_mono(copy)
    assert abs(len(read) - len(whole)) <= 1
    n = min(len(read), len(whole))
    assert np.abs(read[:n] - whole[:n]).max() < 1e-3
