"""The front end against librosa's numbers (0.11.0, recorded once) and against what can be checked by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voiceprint_nb.engine import features
from voiceprint_nb.errors import RowError


def chirp(gain: float = 0.3) -> NDArray[np.float32]:
    t = np.arange(16_000) / 16_000
    return (gain * np.sin(2 * np.pi * (100 * t + 3500 * t * t))).astype(np.float32)


def test_mel_filters_equal_librosa() -> None:
    filters = features.mel_filters()
    assert filters.shape == (201, 40)
    assert filters.dtype == np.float32
    np.testing.assert_allclose(filters[:5, 0], [0, 0.0073902095, 0.012404521, 0.0050143115, 0], atol=2e-9)
    np.testing.assert_allclose(filters[41:44, 20], [0.00081763975, 0.0031602401, 0.00550284], atol=2e-9)
    last = [0.0010694719, 0.0012005657, 0.0013316594, 0.001462753, 0.0015938467, 0.0017249404, 0.0017012155]
    np.testing.assert_allclose(filters[180:187, 39], last, atol=2e-9)


def test_mel_filters_are_triangles_of_area_one() -> None:
    filters = features.mel_filters()
    bins = [np.flatnonzero(band) for band in filters.T]
    assert all(len(band) == band[-1] - band[0] + 1 for band in bins)  # without gaps
    slopes = [np.sign(np.diff(filters[rows, band])) for band, rows in enumerate(bins)]
    assert all(np.all(np.diff(slope) <= 0) for slope in slopes)  # one peak each
    np.testing.assert_allclose(filters.sum(axis=0) * 40, 1.0, atol=0.05)  # 40 Hz bins sample the area
    with pytest.raises(ValueError, match="read-only"):
        filters[0, 0] = 1


def test_mel_frames_equal_librosa() -> None:
    mels = features.mel_frames(chirp())
    assert mels.shape == (101, 40)
    assert mels.dtype == np.float32
    first = [3.5760069, 3.7902298, 0.73214269, 0.030382771, 0.010794375, 0.0047998158, 0.0023482221]
    last = [0.000108547676, 0.000156585462, 0.000252533704, 0.000476113404, 0.00117852248]
    np.testing.assert_allclose(mels[0, :7], first, rtol=1e-5)
    np.testing.assert_allclose(mels[100, -8:-3], last, rtol=1e-5)
    np.testing.assert_allclose(mels[100, -2:], [0.772074103, 0.465068251], rtol=1e-5)
    assert mels.sum(dtype=np.float64) == pytest.approx(732.7507691685992, rel=1e-6)


@pytest.mark.parametrize("samples", [1, 159, 160, 400, 25_600, 64 * 160, 64 * 160 - 1, 480_000])
def test_frames_are_the_same_in_any_block(samples: int) -> None:
    clip = np.random.default_rng(samples).normal(0, 0.1, samples).astype(np.float32)
    mels = features.mel_frames(clip)
    assert mels.shape == (1 + samples // 160, 40)
    middle = len(mels) // 2  # one frame by the definition: its 400 samples, zeros outside the clip
    frame = np.pad(clip, 200)[160 * middle : 160 * middle + 400].astype(np.float64)
    hann = np.sin(np.pi * np.arange(400) / 400) ** 2
    expected = np.abs(np.fft.rfft(frame * hann)) ** 2 @ features.mel_filters()
    np.testing.assert_allclose(mels[middle], expected, rtol=1e-4, atol=1e-9)


def test_gain_is_applied_to_the_waveform() -> None:
    np.testing.assert_allclose(
        features.mel_frames(chirp(), gain=2.0), 4 * features.mel_frames(chirp()), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("seconds", "even", "stepped"),
    [(0.1, 1, 1), (1.6, 1, 1), (1.7, 2, 1), (3.2, 2, 3), (10.0, 7, 12), (30.0, 19, 38)],
)
def test_count_of_windows(seconds: float, even: int, stepped: int) -> None:
    clip = np.random.default_rng(1).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    assert features.windows(clip, features.ROBUST).shape == (even, 160, 40)
    assert features.windows(clip, features.COMPATIBLE).shape == (stepped, 160, 40)


def test_even_windows_reach_from_the_first_to_the_last_frame() -> None:
    clip = np.random.default_rng(2).normal(0, 0.1, 100_000).astype(np.float32)
    gain = 10 ** ((-22 - features.level_dbfs(clip)) / 20)
    mels, windows = features.mel_frames(clip, gain=gain), features.windows(clip, features.ROBUST)
    np.testing.assert_array_equal(windows[0], mels[:160])
    np.testing.assert_array_equal(windows[-1], mels[-160:])


def test_short_clips_repeat_in_the_robust_recipe_and_end_in_zeros_in_the_other() -> None:
    short = chirp()[:8000]
    np.testing.assert_allclose(
        features.windows(short, features.ROBUST),
        features.windows(np.tile(short, 4)[:25_600], features.ROBUST),
        rtol=1e-3,
        atol=1e-6,
    )
    assert not features.windows(short, features.COMPATIBLE)[0, 60:].any()


def test_level_of_the_recipes() -> None:
    quiet, loud = chirp(0.01), chirp(0.9)
    robust = [features.windows(clip, features.ROBUST) for clip in (quiet, loud)]
    np.testing.assert_allclose(robust[0], robust[1], rtol=1e-3, atol=1e-6)
    raised = features.windows(quiet, features.COMPATIBLE)[0, :100]
    gain = 10 ** ((-30 - features.level_dbfs(quiet)) / 20)
    np.testing.assert_allclose(raised, features.mel_frames(quiet, gain=gain)[:100], rtol=1e-5, atol=1e-9)
    untouched = features.windows(loud, features.COMPATIBLE)[0, :100]
    np.testing.assert_array_equal(untouched, features.mel_frames(loud)[:100])


def test_level_is_rms() -> None:
    assert features.level_dbfs(np.full(100, 0.1, np.float32)) == pytest.approx(-20.0, abs=1e-4)
    assert features.level_dbfs(np.zeros(100, np.float32)) == -np.inf


@pytest.mark.parametrize(
    ("clip", "code"),
    [
        (np.zeros(0), "empty_audio"),
        (np.zeros(16_000), "silent"),
        (np.full(16_000, 0.5), "silent"),  # a constant offset is no sound
        (chirp(1e-4), "silent"),
        (np.full(16_000, np.nan), "bad_samples"),
        (np.array([0.1, np.inf, -np.inf]), "bad_samples"),
    ],
)
def test_what_cannot_be_heard_is_refused(clip: NDArray[np.float32], code: str) -> None:
    with pytest.raises(RowError) as caught:
        features.windows(clip.astype(np.float32), features.ROBUST)
    assert caught.value.code == code


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 120_000))
def test_windows_always_lie_inside_the_frames(samples: int) -> None:
    frames = 1 + max(samples, 25_600) // 160
    even = features._even_starts(frames)
    assert even[0] == 0
    assert even == sorted(even)
    assert all(0 <= start <= frames - 160 for start in even)
    assert even[-1] >= frames - 161  # one window of exactly 1.6 s leaves the very last frame out
    assert all(later - earlier <= 161 for earlier, later in itertools.pairwise(even))  # as do two, in between
    stepped = features._stepped_starts(samples, features.COMPATIBLE)
    assert stepped == list(range(0, 77 * len(stepped), 77))
    assert samples - stepped[-1] * 160 >= 0.75 * 25_600 or len(stepped) == 1
