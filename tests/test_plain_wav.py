"""The quick look at plain WAV files says what the decoder says, or leaves the file to it."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voiceprint_nb import audio
from voiceprint_nb.errors import RowError

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "samples"
EXAMPLES = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    database=None,
)
PLAIN = ("PCM_16", "PCM_24", "PCM_32")


def said(path: Path, *, max_duration_s: float = 0.5) -> object:
    """Facts, or the reason why not, with what the header told."""
    try:
        return audio.inspect(path, max_duration_s=max_duration_s)
    except RowError as error:
        return error.code, str(error), error.facts


def said_by_the_decoder(path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    with monkeypatch.context() as patch:
        patch.setattr(audio, "_plain_and_heard", lambda path: None)
        return said(path)


def chunk(tag: bytes, content: bytes) -> bytes:
    return tag + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def sized(wav: bytes) -> bytes:
    """With the size of the whole in the header."""
    return wav[:4] + struct.pack("<I", len(wav) - 8) + wav[8:]


def spread(n_frames: int, channels: int, level: float, silent_frames: int) -> np.ndarray:
    """Noise of this peak on another offset in each channel, after silence."""
    noise = np.random.default_rng(5).uniform(-level, level, (n_frames, channels)) + np.arange(channels) / 40
    noise[:silent_frames] = 0.01
    return noise


@st.composite
def wav_files(draw: st.DrawFn) -> bytes:
    samples = spread(
        draw(st.sampled_from([0, 1, 900, 3000, 5000])),
        draw(st.sampled_from([1, 1, 2, 3])),
        draw(st.sampled_from([0.0, 4e-4, 9.5e-4, 1e-3, 1.05e-3, 2e-3, 0.3])),
        draw(st.sampled_from([0, 0, 500, 2900])),
    )
    buffer = io.BytesIO()
    container = draw(st.sampled_from(["WAV", "WAV", "WAVEX", "RF64"]))
    subtype = draw(st.sampled_from([*PLAIN, *PLAIN, "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW"]))
    soundfile.write(
        buffer, samples, draw(st.sampled_from([1000, 8000, 44_100])), format=container, subtype=subtype
    )
    wav = buffer.getvalue()
    for tag in draw(st.lists(st.sampled_from([b"LIST", b"LIST", b"JUNK", b"bext", b"fact"]), max_size=2)):
        at = draw(st.sampled_from([12, max(wav.find(b"data"), 12), len(wav)]))
        content = b"INFOISFT" + struct.pack("<I", 4) + b"abc\0"
        wav = wav[:at] + chunk(tag, content[: draw(st.sampled_from([16, 16, 9, 4]))]) + wav[at:]
    return sized(wav) if draw(st.booleans()) else wav


@EXAMPLES
@given(wav=wav_files(), data=st.data())
def test_all_wav_files_are_told_as_by_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wav: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(wav)
    for at in data.draw(st.lists(st.integers(0, min(100, len(wav) - 1)), max_size=2)):
        damaged[at] = data.draw(st.sampled_from([0, 1, 3, 16, 0xFE, 0xFF]) | st.integers(0, 255))
    end = data.draw(st.sampled_from([0, 0, 0, 1, 2, 60]))
    path = tmp_path / "clip.wav"
    path.write_bytes(damaged[: len(damaged) - end] + bytes(data.draw(st.sampled_from([0, 0, 0, 1, 2, 9]))))
    assert said(path) == said_by_the_decoder(path, monkeypatch)


@pytest.mark.parametrize("container", ["WAV", "WAVEX"])
@pytest.mark.parametrize("subtype", PLAIN)
@pytest.mark.parametrize("channels", [1, 2])
def test_plain_files_need_no_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, subtype: str, channels: int
) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, spread(4000, channels, 0.1, 3000), 8000, format=container, subtype=subtype)
    expected = said_by_the_decoder(path, monkeypatch)
    monkeypatch.delattr(audio, "_opened")
    assert said(path) == expected == audio.AudioFacts(container, subtype, 0.5, 8000, channels)


def test_words_before_the_samples_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wav = (SAMPLES / "ada-1.wav").read_bytes()
    path = tmp_path / "clip.wav"
    path.write_bytes(
        sized(wav[:36] + chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 3) + b"abc\0") + wav[36:])
    )
    expected = said_by_the_decoder(path, monkeypatch)
    monkeypatch.delattr(audio, "_opened")
    assert said(path) == expected


@pytest.mark.parametrize("rate_hz", [1000, 8000])
def test_what_is_silent_in_every_second_is_left_to_the_decoder(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "clip.wav"
    steps = np.repeat([0.1, 0.2], rate_hz)
    soundfile.write(path, steps, rate_hz, subtype="PCM_16")
    with pytest.raises(RowError, match="heard"):
        audio.inspect(path, max_duration_s=30.0)
