"""Log filter banks as Kaldi computes them, the input of most published speaker networks, in NumPy.

Kaldi's ``compute-fbank-feats`` at 16 kHz with its defaults but for dither, which would make prints differ
from call to call: frames of 25 ms every 10 ms that lie wholly inside the clip (``snip_edges``), mean of each
frame removed, pre-emphasis 0.97, window, power spectrum of 512 points, triangular bands from 20 Hz to 8 kHz
on the mel scale 1127 ln(1 + f / 700), natural logarithm. After ``feat/feature-window.cc``,
``feat/mel-computations.cc`` and ``feat/feature-fbank.cc`` of Kaldi, which torchaudio's ``compliance.kaldi``
and ``kaldi-native-fbank`` follow; the tests compare with the latter.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.engine import features
from voiceprint_nb.errors import UsageError

Window = Literal["povey", "hamming"]
Scale = Literal["unit", "int16"]

SCALES = {"unit": 1.0, "int16": 32768.0}
"""Factors of samples in [-1, 1]."""

SHORTEST_SAMPLES = features.SAMPLE_RATE_HZ
"""Shorter clips repeat until they last a second, as in training: a network wants more than a few frames."""

_FFT_SAMPLES = 512
_PRE_EMPHASIS = np.float32(0.97)
_LOW_HZ, _HIGH_HZ = 20.0, 8000.0
_FLOOR = float(np.finfo(np.float32).eps)
_BLOCK_FRAMES = 128  # 0.22 ms for a second of audio on one core; 64 and 256 take as long, 512 takes 0.38
_PRODUCT_SIZE = 500_000  # rows * bins * bands; from 2**19 on OpenBLAS leaves the calling thread


@dataclass(frozen=True)
class FilterBanks:
    """What a network hears that was trained on Kaldi's filter banks; by default as 3D-Speaker has them.

    Parameters
    ----------
    bands : int
        Mel bands, 20 to 128.
    window : {"povey", "hamming"}
        ``povey``: Kaldi's own, Hann to the power of 0.85.
    scale : {"unit", "int16"}
        Range of the samples: -1 to 1, or -32768 to 32767.
    subtract_mean : bool
        Whether each band's mean over the clip is removed.
    floor : float
        Least power of a band before the logarithm.

    Raises
    ------
    UsageError
        An option has no such value.

    Examples
    --------
    >>> tone = np.sin(np.arange(16000) * 0.2).astype(np.float32)
    >>> FilterBanks(window="hamming", scale="int16").inputs(tone).shape
    (1, 98, 80)
    """

    bands: int = 80
    window: Window = "povey"
    scale: Scale = "unit"
    subtract_mean: bool = True
    floor: float = _FLOOR

    is_windowed = False

    def __post_init__(self) -> None:
        refuse_unknown("window", self.window, get_args(Window))
        refuse_unknown("scale", self.scale, tuple(SCALES))
        if type(self.bands) is not int or not 20 <= self.bands <= 128:
            raise UsageError(f"Filter banks have 20 to 128 bands, not bands={self.bands!r}.")
        refuse_unknown("subtract_mean", self.subtract_mean, (False, True))
        if not (isinstance(self.floor, float) and 0 < self.floor < 1e6):
            raise UsageError(f"floor= is a power above 0, not {self.floor!r}.")

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of one input; None along time."""
        return (None, self.bands)

    def facts(self) -> dict[str, object]:
        """All that decides the inputs, as JSON values."""
        return {"features": "kaldi-fbank"} | asdict(self)

    def inputs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter banks of one clip.

        Parameters
        ----------
        samples : (samples,) float32
            16 kHz mono in [-1, 1].

        Returns
        -------
        (1, frames, bands) float32
            ``frames`` is ``1 + (samples - 400) // 160``.

        Raises
        ------
        RowError
            As `features.check_audible`.
        """
        features.check_audible(samples)
        banks = self.frames(long_enough(samples))
        if self.subtract_mean:
            banks -= banks.mean(axis=0, dtype=np.float64).astype(np.float32)
        return banks[np.newaxis]

    def frames(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logarithm of power in each band, (frames, bands) float32, of at least 400 samples at 16 kHz."""
        emphasised = np.empty_like(samples)
        np.multiply(samples[:-1], -_PRE_EMPHASIS, out=emphasised[1:])
        emphasised[1:] += samples[1:]
        raw, sharp = _framed(samples), _framed(emphasised)
        # the transform divides by its length: with this norm NumPy stays in float32 (`features`)
        window = _window(self.window) * np.float32(SCALES[self.scale] * _FFT_SAMPLES)
        banks = np.empty((len(raw), self.bands), np.float32)
        step = _PRODUCT_SIZE // _filters(self.bands).size
        padded = np.zeros((min(len(raw), _BLOCK_FRAMES), _FFT_SAMPLES), np.float32)
        for start in range(0, len(raw), _BLOCK_FRAMES):
            rows = slice(start, start + _BLOCK_FRAMES)
            _sharpened(raw[rows], sharp[rows], window, out=padded)
            spectrum = np.fft.rfft(padded[: len(raw[rows])], axis=1, norm="forward")
            spectrum = spectrum[:, :-1]  # no band reaches the last bin
            power = np.square(spectrum.real)
            power += np.square(spectrum.imag)
            for row in range(0, len(power), step):
                part = slice(row, row + step)
                np.matmul(power[part], _filters(self.bands), out=banks[rows][part], casting="same_kind")
        np.maximum(banks, np.float32(self.floor), out=banks)
        return np.log(banks, out=banks)


def long_enough(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The clip, (samples,) float32, repeated until it lasts `SHORTEST_SAMPLES`."""
    return np.resize(samples, SHORTEST_SAMPLES) if len(samples) < SHORTEST_SAMPLES else samples


def refuse_unknown(option: str, value: object, known: tuple[object, ...]) -> None:
    """Raise `UsageError` for an option's value that is not one of those known."""
    if not any(value is one or (isinstance(value, str) and value == one) for one in known):
        raise UsageError(f"Unknown {option}={value!r}: use one of {', '.join(map(repr, known))}.")


def _framed(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """All frames that lie inside the clip, (frames, 400) float32, as a view."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, features.FRAME_SAMPLES)
    return frames[:: features.HOP_SAMPLES]


def _sharpened(
    raw: NDArray[np.float32],
    sharp: NDArray[np.float32],
    window: NDArray[np.float32],
    *,
    out: NDArray[np.float32],
) -> None:
    """Frames without their mean, pre-emphasised and windowed.

    Kaldi removes the mean, then has the first sample of a frame follow itself. Both being linear, the clip is
    pre-emphasised once, and each frame of it loses its share of the mean.

    Parameters
    ----------
    raw, sharp : (frames, 400) float32
        Of the clip, and of the pre-emphasised clip.
    window : (400,) float32
        Applied last.
    out : (at least frames, 512) float32
        Its first 400 columns are written.
    """
    frames = out[: len(raw), : features.FRAME_SAMPLES]
    means = raw.mean(axis=1, keepdims=True)
    np.subtract(sharp, (1 - _PRE_EMPHASIS) * means, out=frames)
    frames[:, 0] = (1 - _PRE_EMPHASIS) * (raw[:, 0] - means[:, 0])
    frames *= window


@functools.cache
def _window(name: Window) -> NDArray[np.float32]:
    """Symmetric window of one frame, (400,) float32, read-only."""
    cosine = np.cos(2 * np.pi * np.arange(features.FRAME_SAMPLES) / (features.FRAME_SAMPLES - 1))
    curve = (0.5 - 0.5 * cosine) ** 0.85 if name == "povey" else 0.54 - 0.46 * cosine
    return _kept(curve)


@functools.cache
def _filters(bands: int) -> NDArray[np.float32]:
    """Triangles of height 1, even on the mel scale: (256, bands) float32, read-only."""
    corners = np.linspace(_mels(_LOW_HZ), _mels(_HIGH_HZ), bands + 2)
    mels = _mels(np.linspace(0, features.SAMPLE_RATE_HZ / 2, _FFT_SAMPLES // 2, endpoint=False))
    mels = mels[:, np.newaxis]
    width = corners[1] - corners[0]
    return _kept(np.maximum(0.0, np.minimum(mels - corners[:-2], corners[2:] - mels) / width))


def _mels(hz: float | NDArray[np.float64]) -> Any:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


def _kept(values: NDArray[np.float64]) -> NDArray[np.float32]:
    kept: NDArray[np.float32] = values.astype(np.float32)
    kept.setflags(write=False)
    return kept
