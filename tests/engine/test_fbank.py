"""Filter banks against Kaldi's, as kaldi-native-fbank computes them, and what clips become for a network."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from voiceprint_nb.engine import fbank
from voiceprint_nb.engine.fbank import SCALES, FilterBanks
from voiceprint_nb.engine.front_ends import Waveform
from voiceprint_nb.errors import RowError, UsageError

RATE_HZ = 16_000


def speech_like(seconds: float = 3.1) -> np.ndarray:
    """Noise and a tone on an offset, with a gap of digital silence: (samples,) float32."""
    random = np.random.default_rng(5)
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    samples = random.normal(scale=0.05, size=len(time_s)) + 0.2 * np.sin(2 * np.pi * 220 * time_s) + 0.03
    samples[RATE_HZ : RATE_HZ + 4000] = 0
    return samples.astype(np.float32)


@pytest.mark.parametrize("window", ["povey", "hamming"])
@pytest.mark.parametrize("scale", ["unit", "int16"])
@pytest.mark.parametrize("bands", [80, 40])
def test_banks_are_kaldis(bands: int, scale: str, window: str) -> None:
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = window
    options.mel_opts.num_bins = bands
    banks = knf.OnlineFbank(options)
    samples = speech_like()
    banks.accept_waveform(RATE_HZ, (samples * SCALES[scale]).tolist())
    banks.input_finished()
    theirs = np.stack([banks.get_frame(index) for index in range(banks.num_frames_ready)])
    ours = FilterBanks(bands, window, scale).frames(samples)  # type: ignore[arg-type]
    assert ours.shape == theirs.shape == (1 + (len(samples) - 400) // 160, bands)
    assert np.abs(ours - theirs).max() < 1e-3


def test_a_tone_is_in_its_band() -> None:
    """Band 17 of 80 is centred on 440 Hz: mels are 1127 ln(1 + f / 700), 35.1 of them a band."""
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    edges = 1127 * np.log1p(np.array([20, 440, 8000]) / 700)
    band = round((edges[1] - edges[0]) / ((edges[2] - edges[0]) / 81)) - 1
    assert set(FilterBanks().frames(tone).argmax(axis=1)) == {band}


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FilterBanks().frames(speech_like())
    monkeypatch.setattr(fbank, "_BLOCK_FRAMES", 7)
    np.testing.assert_allclose(FilterBanks().frames(speech_like()), whole, atol=1e-5)


def test_banks_are_the_same_with_one_thread_of_blas() -> None:
    """A product that OpenBLAS shares out rounds otherwise, and takes the cores of other workers."""
    code = (
        "import hashlib, numpy as np; from voiceprint_nb.engine.fbank import FilterBanks; "
        "samples = np.random.default_rng(0).normal(size=16_000).astype(np.float32); "
        "banks = [FilterBanks(bands).frames(samples).tobytes() for bands in (40, 80, 128)]; "
        "print(hashlib.sha256(b''.join(banks)).hexdigest())"
    )
    environments = [os.environ | {"OPENBLAS_NUM_THREADS": threads} for threads in ("1", "2")]
    done = [
        subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=60
        )
        for environment in environments
    ]
    assert done[0].stdout == done[1].stdout


def test_the_scale_adds_and_the_mean_takes_it_away() -> None:
    loud = np.random.default_rng(1).normal(scale=0.1, size=RATE_HZ).astype(np.float32)
    unit, whole = FilterBanks().frames(loud), FilterBanks(scale="int16").frames(loud)
    np.testing.assert_allclose(whole - unit, 2 * np.log(32768), atol=1e-3)
    np.testing.assert_allclose(FilterBanks(scale="int16").inputs(loud), FilterBanks().inputs(loud), atol=1e-3)
    assert np.abs(FilterBanks().inputs(loud).mean(axis=1)).max() < 1e-5
    np.testing.assert_array_equal(FilterBanks(subtract_mean=False).inputs(loud)[0], unit)


def test_silence_within_a_clip_is_at_the_floor() -> None:
    banks = FilterBanks(floor=1e-3).frames(speech_like())
    assert banks.min() == np.float32(np.log(1e-3))


@pytest.mark.parametrize("samples", [2, 399, 400, 15_999, 16_000])
def test_clips_shorter_than_a_second_repeat(samples: int) -> None:
    clip = speech_like()[:samples]
    assert FilterBanks().inputs(clip).shape == (1, 98, 80)
    assert Waveform().inputs(clip).shape == (1, RATE_HZ)
    np.testing.assert_array_equal(Waveform().inputs(clip)[0, :samples], clip)


def test_waveforms_are_scaled_and_shaped() -> None:
    clip = speech_like()
    np.testing.assert_array_equal(Waveform("int16", channel_axis=True).inputs(clip), clip[None, None] * 32768)
    assert np.shares_memory(Waveform().inputs(clip), clip)


@pytest.mark.parametrize("front_end", [FilterBanks(), Waveform()])
@pytest.mark.parametrize(
    ("samples", "code"), [([], "empty_audio"), ([0.0] * 16000, "silent"), ([np.nan] * 9, "bad_samples")]
)
def test_what_cannot_be_heard_is_refused(
    front_end: FilterBanks | Waveform, samples: list[float], code: str
) -> None:
    with pytest.raises(RowError) as refused:
        front_end.inputs(np.array(samples, np.float32))
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": "hann"}, "Unknown window='hann': use one of 'povey', 'hamming'"),
        ({"scale": "int8"}, "Unknown scale='int8'"),
        ({"bands": 5}, "not bands=5"),
        ({"bands": "80"}, "not bands='80'"),
        ({"subtract_mean": 1}, "Unknown subtract_mean=1: use one of False, True"),
        ({"floor": 0.0}, "not 0.0"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        FilterBanks(**options)  # type: ignore[arg-type]


def test_a_waveform_has_two_options() -> None:
    with pytest.raises(UsageError, match="Unknown scale='float'"):
        Waveform("float")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Unknown channel_axis='yes'"):
        Waveform(channel_axis="yes")  # type: ignore[arg-type]
