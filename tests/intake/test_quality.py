"""Quality of a clip: known levels, noise, clipping and speech are found; a second voice on real speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech import speech_folder

from voiceprint_nb import audio
from voiceprint_nb.engine.embedder import Embedder
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import quality
from voiceprint_nb.intake.clips import Clip
from voiceprint_nb.intake.quality import Quality, clipped_share, measure, sentences, spread

RATE_HZ = 16_000
GOOD = Quality(4.0, -25.0, 0.0, 30.0, 0.1)


def no_network(samples: audio.Samples) -> np.ndarray:
    raise AssertionError("too little speech for the network")


def one_voice(samples: audio.Samples) -> np.ndarray:
    return np.ones((2, 1), np.float32)


def bursts(n_bursts: int, *, level: float = 0.1, seed: int = 1) -> audio.Samples:
    """Half a second of noise, half a second of next to nothing, and so on."""
    noise = np.random.default_rng(seed).normal(0, level, n_bursts * RATE_HZ)
    loud = np.tile(np.repeat([1.0, 1e-3], RATE_HZ // 2), n_bursts)
    return (noise * loud).astype(np.float32)


def measured(samples: audio.Samples, rate_hz: int = RATE_HZ) -> Quality:
    return measure(samples.astype(np.float32), rate_hz, embed=one_voice)


@pytest.mark.parametrize("n_bursts", [1, 2, 5])
@pytest.mark.parametrize("level", [0.001, 0.1])
def test_speech_and_its_level(n_bursts: int, level: float) -> None:
    found = measured(bursts(n_bursts, level=level))
    assert found.speech_s == pytest.approx(n_bursts / 2, abs=0.02)
    assert found.level_dbfs == pytest.approx(20 * np.log10(level), abs=0.1)
    assert found.clipped < 1e-3


@pytest.mark.parametrize("snr_db", [5, 10, 20, 30])
def test_noise_of_a_known_ratio(snr_db: int) -> None:
    """Real speech peaks 4 dB above its mean, which these bursts do not."""
    noise = np.random.default_rng(2).normal(0, 0.1 * 10 ** (-snr_db / 20), 5 * RATE_HZ)
    assert measured(bursts(5) + noise).snr_db == pytest.approx(snr_db - 4, abs=1.2)


def test_padding_tells_nothing_of_the_noise() -> None:
    noisy = bursts(5) + np.random.default_rng(2).normal(0, 0.03, 5 * RATE_HZ)
    padded = np.concatenate([np.zeros(5 * RATE_HZ), noisy, np.zeros(5 * RATE_HZ)])
    assert measured(padded).snr_db == pytest.approx(measured(noisy).snr_db, abs=0.5)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 1.4])
@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_what_gain_and_offset_change(gain: float, offset: float) -> None:
    noisy = bursts(5) + np.random.default_rng(2).normal(0, 0.03, 5 * RATE_HZ)
    plain, changed = measured(noisy), measured(noisy * gain + offset)
    assert changed.snr_db == pytest.approx(plain.snr_db, abs=0.01)
    assert changed.speech_s == plain.speech_s
    assert changed.level_dbfs == pytest.approx(plain.level_dbfs + 20 * np.log10(gain), abs=0.01)


@pytest.mark.parametrize("turned_down", [1.0, 0.1])
def test_clipped_samples_are_counted(turned_down: float) -> None:
    t = np.arange(RATE_HZ) / RATE_HZ
    loud = 2 * np.sin(2 * np.pi * 100 * t).astype(np.float32)
    expected = np.mean(np.abs(loud) >= 0.98)
    assert clipped_share(np.clip(loud, -1, 1) * np.float32(turned_down)) == pytest.approx(expected, abs=1e-6)


def test_peaks_are_not_clipping() -> None:
    assert clipped_share(np.array([0, 1, 1, 0, -1, -1, 0, 1], np.float32)) == 0.0  # runs of two
    assert clipped_share(np.array([1, -1] * 8, np.float32)) == 0.0
    assert clipped_share(np.array([0, 1.5, 1.2, 1.0, 0], np.float32)) == 0.6  # beyond full scale
    assert clipped_share(np.zeros(8, np.float32)) == clipped_share(np.zeros(0, np.float32)) == 0.0


def test_clipping_is_counted_at_the_stored_rate() -> None:
    noise = np.random.default_rng(3).normal(0, 0.5, 48_000).astype(np.float32)
    slow = np.repeat(noise, 3)  # runs of three
    assert measured(np.clip(slow, -1, 1), 48_000).clipped == pytest.approx(np.mean(np.abs(slow) >= 0.98))


@pytest.mark.parametrize("n_samples", [1, 319, 320, 5000])
def test_next_to_nothing_can_be_measured(n_samples: int) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, n_samples).astype(np.float32)
    found = measure(noise, RATE_HZ, embed=no_network)
    assert found.voice_spread is None
    assert (found.level_dbfs is None) == (found.speech_s == 0.0)
    assert next(iter(sentences(found))) == "speech_s"


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=2000), st.sampled_from([8000, 16_000]))
@settings(deadline=None, max_examples=50)
def test_any_samples_can_be_measured(values: list[float], rate_hz: int) -> None:
    found = measure(np.repeat(np.array(values, np.float32), 8), rate_hz, embed=one_voice)
    assert 0 <= found.speech_s <= len(values) * 8 / rate_hz + 0.02
    assert 0 <= found.clipped <= 1
    assert all(value is None or np.isfinite(value) for value in (found.level_dbfs, found.snr_db))


def test_spread_of_two_voices() -> None:
    ada, ben = np.eye(2, dtype=np.float32)
    assert spread(np.stack([ada] * 5)) == 0.0
    assert spread(np.stack([ada, ben, ada, ada, ben])) == pytest.approx(1.0)
    assert spread(np.stack([ada])) is None
    near = np.array([[1, 0.01], [1, -0.01], [0.6, 0.8], [0.59, 0.8]], np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    assert spread(near) == pytest.approx(0.4, abs=0.01)
    assert spread(near[[2, 0, 3, 1]]) == pytest.approx(spread(near))


def test_a_good_clip_has_no_sentence() -> None:
    assert sentences(GOOD) == {}


@pytest.mark.parametrize(
    ("bad", "about"),
    [
        (Quality(0.5, -25.0, 0.0, 30.0, None), "speech_s"),
        (Quality(4.0, -70.0, 0.0, 30.0, 0.1), "level_dbfs"),
        (Quality(4.0, -25.0, 0.1, 30.0, 0.1), "clipped"),
        (Quality(4.0, -25.0, 0.0, 5.0, 0.1), "snr_db"),
        (Quality(4.0, -25.0, 0.0, 30.0, 0.4), "voice_spread"),
    ],
)
def test_each_measure_has_its_sentence(bad: Quality, about: str) -> None:
    ((name, sentence),) = sentences(bad).items()
    assert (name, sentence[-1]) == (about, ".")
    assert ": " in sentence  # what is wrong, and what to do


def clip_of(path: Path) -> Clip:
    return Clip(path, 1, "d", audio.probe(path), 1.0, warning="First.")


def test_a_clip_carries_its_measures_and_sentences(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(audio.encode_wav(bursts(2), RATE_HZ))
    found = quality.with_quality(clip_of(path), one_voice)
    assert found.quality is not None
    assert found.quality.speech_s == pytest.approx(1.0, abs=0.02)
    assert found.warning == f"First. {sentences(found.quality)['speech_s']}"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RowError("silent", "Nothing can be heard: check."),
            "was not measured: Nothing can be heard: check.",
        ),
        (RuntimeError("secret"), "was not measured (RuntimeError)."),
    ],
)
def test_a_failed_measurement_is_told_and_costs_no_row(tmp_path: Path, error: Exception, told: str) -> None:
    def fail(samples: audio.Samples) -> np.ndarray:
        raise error

    path = tmp_path / "clip.wav"
    path.write_bytes(audio.encode_wav(bursts(5), RATE_HZ))
    found = quality.with_quality(clip_of(path), fail)
    assert (found.quality, found.warning) == (None, f"First. Its quality {told}")


# --- real speech ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder()


def speech_of(*names: str) -> list[audio.Samples]:
    folder = speech_folder()
    return [audio.read_mono(path) for name in names for path in sorted((folder / name).rglob("*.*"))[:3]]


def test_real_speech_is_good_until_it_is_damaged(embedder: Embedder) -> None:
    for clip in speech_of("librispeech"):
        plain = measure(clip, RATE_HZ, embed=embedder.embed_parts)
        assert sentences(plain) == {}
        loud = np.random.default_rng(4).normal(0, np.sqrt(10 ** (plain.level_dbfs / 10)), len(clip))
        for snr_db in (0, 5, 10):
            noisy = (clip + loud * 10 ** (-snr_db / 20)).astype(np.float32)
            found = measure(noisy, RATE_HZ, embed=embedder.embed_parts)
            assert found.snr_db == pytest.approx(snr_db, abs=2.5)
            assert "snr_db" in sentences(found)
        clipped = np.clip(clip * np.float32(8 / np.abs(clip).max()), -1, 1)
        assert "clipped" in sentences(measure(clipped, RATE_HZ, embed=embedder.embed_parts))


def test_a_second_voice_is_suspected(embedder: Embedder) -> None:
    folder = speech_folder()
    people = sorted(path for path in (folder / "librispeech").iterdir() if path.is_dir())
    first, *others = [
        [audio.read_mono(path) for path in sorted(person.rglob("*.*"))[:2]] for person in people
    ]

    def told(*clips: audio.Samples) -> bool:
        joined = np.concatenate(clips)
        return "voice_spread" in sentences(measure(joined, RATE_HZ, embed=embedder.embed_parts))

    assert not told(*first)
    assert all(told(first[0], other[0]) for other in others)
