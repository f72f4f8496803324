"""Clips within the limits are admitted; all others say every reason; long ones are cut where speech is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from voiceprint_nb import audio
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import clips
from voiceprint_nb.intake.looking import LocalFile

RATE_HZ = 16_000
Look = Callable[[Path], LocalFile]
Write = Callable[..., Path]
Tone = Callable[..., np.ndarray]


def speech_like(duration_s: float, *, level: float = 0.1, seed: int = 1) -> np.ndarray:
    """Noise in syllables of a fifth of a second."""
    noise = np.random.default_rng(seed).normal(0, level, round(duration_s * RATE_HZ))
    t = np.arange(len(noise)) / RATE_HZ
    return (noise * (0.1 + 0.9 * (np.sin(2 * np.pi * 2.5 * t) > -0.3))).astype(np.float32)


def refusal(file: LocalFile, scratch: Path, fit: clips.Fit = "error") -> RowError:
    with pytest.raises(RowError) as caught:
        clips.admit(file, fit=fit, scratch=scratch)
    assert str(caught.value).endswith(".") and ": " in str(caught.value)
    return caught.value


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16_000, 44_100, 48_000, 384_000])
def test_thirty_seconds_are_the_limit(
    write: Write, look: Look, scratch: Path, tone: Tone, rate_hz: int
) -> None:
    samples = tone(30.01, rate_hz, 0.2)
    file = look(write(samples[: 30 * rate_hz], rate_hz))
    clip = clips.admit(file, fit="error", scratch=scratch)
    assert (clip.duration_s, clip.path, clip.is_cut, clip.warning) == (30.0, file.path, False, None)
    error = refusal(look(write(samples, rate_hz)), scratch)
    assert error.code == "too_long"
    assert error.facts.duration_s == pytest.approx(30.01, abs=1e-4)
    assert "fit='best'" in str(error)
    assert refusal(look(write(samples[: 30 * rate_hz + 1], rate_hz)), scratch).code == "too_long"


def test_a_clip_keeps_the_content_s_digest(write: Write, look: Look, scratch: Path, tone: Tone) -> None:
    file = look(write(tone()))
    clip = clips.admit(file, fit="error", scratch=scratch)
    assert (clip.digest, clip.n_bytes, clip.duration_s) == (file.sha256, file.n_bytes, 2.5)
    assert str(file.path) not in repr(clip)
    assert not list(scratch.iterdir())


def test_short_clips_carry_a_warning(write: Write, look: Look, scratch: Path, tone: Tone) -> None:
    warning = clips.admit(look(write(tone(1.9))), fit="error", scratch=scratch).warning
    assert warning is not None and warning.startswith("Only 1.9 s") and warning.endswith(".")
    assert clips.admit(look(write(tone(2.0))), fit="error", scratch=scratch).warning is None


@pytest.mark.parametrize("fit", clips.FITS)
@pytest.mark.parametrize("duration_s", [3.0, 40.0])
@pytest.mark.parametrize("level", [0.0, 0.9e-3])
def test_silence(
    *, write: Write, look: Look, scratch: Path, tone: Tone, fit: clips.Fit, duration_s: float, level: float
) -> None:
    error = refusal(look(write(tone(duration_s, level=level), subtype="FLOAT")), scratch, fit)
    assert error.code == ("too_long" if fit == "error" and duration_s > 30 else "silent")
    assert error.facts.duration_s == duration_s


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fit", ["best", "head"])
def test_bad_samples_of_long_clips(
    *, write: Write, look: Look, scratch: Path, tone: Tone, value: float, fit: clips.Fit
) -> None:
    samples = tone(40.0)
    samples[100:1000] = value
    assert refusal(look(write(samples, subtype="FLOAT")), scratch, "head").code == "bad_samples"
    if fit == "best":
        samples[:] = value
        assert refusal(look(write(samples, subtype="FLOAT")), scratch, fit).code == "bad_samples"


# --- fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total_s", "from_s", "length_s", "background"),
    [
        (120.0, 61.3, 25.0, 0.0),  # digital silence around
        (600.0, 412.0, 12.0, 0.0),  # less than a twentieth is speech
        (120.0, 61.3, 25.0, 0.003),  # a hissing room, 30 dB below the speech
        (240.0, 200.0, 30.0, 0.0003),
        (45.0, 15.0, 30.0, 0.001),
    ],
)
@pytest.mark.parametrize("container", ["WAV", "FLAC"])
def test_best_finds_the_speech(
    *,
    write: Write,
    look: Look,
    scratch: Path,
    total_s: float,
    from_s: float,
    length_s: float,
    background: float,
    container: str,
) -> None:
    samples = np.random.default_rng(2).normal(0, 1, round(total_s * RATE_HZ)).astype(np.float32) * background
    speech = speech_like(length_s)
    at = round(from_s * RATE_HZ)
    samples[at : at + len(speech)] += speech
    samples[:: RATE_HZ * 50] = 0.9  # a click now and then
    file = look(write(samples, format=container, subtype="PCM_16"))
    start_s = clips.best_start_s(file.path)
    assert start_s <= from_s + 0.3 and start_s + 30.0 >= from_s + length_s - 0.3
    clip = clips.admit(file, fit="best", scratch=scratch)
    assert (clip.is_cut, clip.duration_s, clip.path.parent) == (True, 30.0, scratch)
    assert clip.warning is not None and f"Only {start_s:.1f} s to {start_s + 30:.1f} s" in clip.warning
    cut = audio.read_mono(clip.path)
    part = samples[round(start_s * RATE_HZ) :][: len(cut)]
    assert len(cut) == 30 * RATE_HZ and np.abs(cut - part).max() < 2e-4


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 48_000])
def test_best_keeps_time_at_every_rate(write: Write, rate_hz: int) -> None:
    samples = np.zeros(300 * rate_hz, np.float32)
    samples[250 * rate_hz : 275 * rate_hz] = np.random.default_rng(3).normal(0, 0.1, 25 * rate_hz)
    start_s = clips.best_start_s(write(samples, rate_hz))
    assert 244.9 <= start_s <= 250.1


def test_the_earliest_of_equal_windows_wins(write: Write, tone: Tone) -> None:
    assert clips.best_start_s(write(tone(90.0))) == 0.0


def test_head_takes_the_first_thirty_seconds(write: Write, look: Look, scratch: Path) -> None:
    samples = speech_like(70.0)
    file = look(write(samples))
    clip = clips.admit(file, fit="head", scratch=scratch)
    assert (clip.duration_s, clip.facts.duration_s, clip.is_cut) == (30.0, 70.0, True)
    assert np.abs(audio.read_mono(clip.path) - samples[: 30 * RATE_HZ]).max() < 1e-4
    assert clip.digest != file.sha256
    again = clips.admit(file, fit="head", scratch=scratch)
    assert (again.digest, again.path != clip.path) == (clip.digest, True)


@pytest.mark.parametrize("fit", ["best", "head"])
def test_short_clips_are_not_cut(write: Write, look: Look, scratch: Path, tone: Tone, fit: clips.Fit) -> None:
    file = look(write(tone(29.0)))
    clip = clips.admit(file, fit=fit, scratch=scratch)
    assert (clip.is_cut, clip.digest) == (False, file.sha256)


def test_best_of_a_long_mp3_and_of_a_stream_of_open_length(write: Write, look: Look, scratch: Path) -> None:
    samples = np.zeros(50 * RATE_HZ, np.float32)
    samples[20 * RATE_HZ :] = speech_like(30.0)
    mp3 = look(write(samples, name="a.mp3"))
    assert clips.admit(mp3, fit="best", scratch=scratch).duration_s == 30.0
    flac = write(samples, name="a.flac")
    data = bytearray(flac.read_bytes())
    data[21], data[22:26] = data[21] & 0xF0, bytes(4)
    flac.write_bytes(data)
    clip = clips.admit(look(flac), fit="best", scratch=scratch)
    assert clip.facts.duration_s == 50.0
    assert np.abs(audio.read_mono(clip.path)[-RATE_HZ:] - samples[-RATE_HZ:]).max() < 1e-3


# --- size -----------------------------------------------------------------------------------------------


def sparse(path: Path, n_bytes: int) -> Path:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(n_bytes)
    return path


def test_a_file_beyond_the_size_limit_is_refused_at_once(
    write: Write, look: Look, scratch: Path, tone: Tone, tmp_path: Path
) -> None:
    started = time.monotonic()
    error = refusal(look(sparse(tmp_path / "zeros.wav", 101 << 20)), scratch)
    assert error.code == "too_large" and "101.0 MiB" in str(error)
    assert refusal(look(sparse(write(tone()), 101 << 20)), scratch).code == "too_large"
    assert time.monotonic() - started < 2.0


def test_every_reason_is_told(look: Look, scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    n_bytes = 101 << 20
    head = b"RIFF" + (n_bytes - 8).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    head += bytes.fromhex("01000100803e0000007d000002001000") + b"data" + (n_bytes - 44).to_bytes(4, "little")
    path.write_bytes(head)
    error = refusal(look(sparse(path, n_bytes)), scratch)
    assert error.code == "too_long"
    assert "3309.6 s" in str(error) and "101.0 MiB" in str(error)
    assert refusal(look(path), scratch, "head").code == "silent"  # it may be cut, and then it is looked at


def test_a_file_that_vanishes_between_two_looks(write: Write, look: Look, scratch: Path, tone: Tone) -> None:
    file = look(write(tone()))
    os.unlink(file.path)  # noqa: PTH108 - the way a user's program would
    assert refusal(file, scratch).code == "not_readable"
