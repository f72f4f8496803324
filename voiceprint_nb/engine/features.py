"""Waveform to mel windows, the network's input, in NumPy.

The front end of the GE2E voice encoder: power spectrum of 25 ms Hann frames every 10 ms, 40 Slaney mel
bands, no logarithm. It equals ``librosa.feature.melspectrogram(sr=16000, n_fft=400, hop_length=160,
n_mels=40)``, which Resemblyzer 0.1.4 (``resemblyzer/audio.py``) calls, to float32 rounding. Linear power
means that level matters to the network, so a recipe fixes the level too.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import audio
from voiceprint_nb.errors import RowError

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 400
HOP_SAMPLES = 160
MEL_BANDS = 40
WINDOW_FRAMES = 160
"""Frames in one window of the network: 1.6 s, ``partials_n_frames`` of Resemblyzer."""

_WINDOW_SAMPLES = WINDOW_FRAMES * HOP_SAMPLES
# The largest block whose matrix product OpenBLAS keeps on the calling thread. More frames also take memory
# that the system may hand out anew each time: 256 cost 1.9 ms a clip of 6 s in a worker of Dask, 64 cost 0.8.
_BLOCK_FRAMES = 64


@dataclass(frozen=True)
class Recipe:
    """How a waveform becomes windows for the GE2E network: level, then where the windows lie.

    Parameters
    ----------
    name : str
        What users write.
    level_dbfs : float
        RMS level that the clip is scaled to.
    only_raise : bool
        Leave clips alone that are louder.
    layout : {"even", "stepped"}
        ``even``: clips under 1.6 s repeat; one window per started 1.6 s, spread evenly from the first to
        the last frame. ``stepped``: a window every `step_frames`, zeros behind the end.
    step_frames : int
        Distance of stepped windows.
    min_coverage : float
        A last stepped window with a smaller share of audio is dropped, unless it is the only one.
    """

    name: str
    level_dbfs: float
    only_raise: bool
    layout: Literal["even", "stepped"]
    step_frames: int = 0
    min_coverage: float = 0.0

    is_windowed = True

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of one window; None along time, where networks take any number of frames."""
        return (None, MEL_BANDS)

    def facts(self) -> dict[str, object]:
        """All that decides the inputs, as JSON values."""
        return {"features": "mel40-linear-power"} | asdict(self)

    def inputs(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mel windows of one clip; see `windows`."""
        return windows(samples, self)


ROBUST = Recipe("robust", level_dbfs=-22.0, only_raise=False, layout="even")
"""The default: one level for every clip, so that gain changes nothing, and about half the windows."""

COMPATIBLE = Recipe(
    "compatible", level_dbfs=-30.0, only_raise=True, layout="stepped", step_frames=77, min_coverage=0.75
)
"""Resemblyzer 0.1.4 value for value, without its voice-activity trimming (``rate=1.3``)."""


@functools.cache
def mel_filters() -> NDArray[np.float32]:
    """Slaney mel filter bank from 0 to 8000 Hz: (201, 40) float32, spectrum bins by bands, read-only.

    Triangles on the scale of Slaney's Auditory Toolbox (1998): 200/3 Hz per mel up to 1000 Hz, then 27 mels
    per factor of 6.4. Each has area 1 over frequency, so its peak is 2 / width in 1/Hz.
    """
    top_mel = 15.0 + 27.0 * math.log(SAMPLE_RATE_HZ / 2 / 1000.0) / math.log(6.4)
    mels = np.linspace(0.0, top_mel, MEL_BANDS + 2)
    corners_hz = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * 6.4 ** ((mels - 15.0) / 27.0))
    bins_hz = np.arange(FRAME_SAMPLES // 2 + 1)[:, np.newaxis] * (SAMPLE_RATE_HZ / FRAME_SAMPLES)
    widths_hz = np.diff(corners_hz)
    rising = (bins_hz - corners_hz[:-2]) / widths_hz[:-1]
    falling = (corners_hz[2:] - bins_hz) / widths_hz[1:]
    areas_hz = (corners_hz[2:] - corners_hz[:-2]) / 2
    filters: NDArray[np.float32] = (np.maximum(0.0, np.minimum(rising, falling)) / areas_hz).astype(
        np.float32
    )
    filters.setflags(write=False)
    return filters


@functools.cache
def _scaled_hann() -> NDArray[np.float32]:
    """Periodic Hann window of one frame times its length, read-only.

    The length makes up for ``norm="forward"``, with which NumPy 2 stays in float32: without it, NumPy 2.4
    computes the transform of float32 in float64.
    """
    phase = 2 * np.pi * np.arange(FRAME_SAMPLES) / FRAME_SAMPLES
    window: NDArray[np.float32] = (FRAME_SAMPLES * (0.5 - 0.5 * np.cos(phase))).astype(np.float32)
    window.setflags(write=False)
    return window


def mel_frames(samples: NDArray[np.float32], *, gain: float = 1.0) -> NDArray[np.float32]:
    """Power in 40 mel bands, every 10 ms.

    Parameters
    ----------
    samples : (samples,) float32
        16 kHz mono.
    gain : float
        Factor applied to the samples first.

    Returns
    -------
    (1 + samples // 160, 40) float32
        Frame ``t`` is centred on sample ``160 * t``; zeros lie outside the clip.
    """
    padded = np.zeros(len(samples) + FRAME_SAMPLES, np.float32)
    np.multiply(samples, np.float32(gain), out=padded[FRAME_SAMPLES // 2 : FRAME_SAMPLES // 2 + len(samples)])
    shape, step = (1 + len(samples) // HOP_SAMPLES, FRAME_SAMPLES), padded.itemsize
    frames: NDArray[np.float32] = np.ndarray(shape, padded.dtype, padded, 0, (HOP_SAMPLES * step, step))
    mels = np.empty((len(frames), MEL_BANDS), np.float32)
    for start in range(0, len(frames), _BLOCK_FRAMES):
        rows = slice(start, start + _BLOCK_FRAMES)
        spectrum = np.fft.rfft(frames[rows] * _scaled_hann(), axis=1, norm="forward")
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        np.matmul(power, mel_filters(), out=mels[rows], casting="same_kind")
    return mels


def level_dbfs(samples: NDArray[np.float32]) -> float:
    """RMS level in dB relative to 1.0, offset included, as Resemblyzer measures it; silence is ``-inf``."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return 10.0 * math.log10(power) if power > 0 else -math.inf


def check_audible(samples: NDArray[np.float32]) -> None:
    """Refuse what the network would answer with a valid-looking but empty voiceprint.

    Raises
    ------
    RowError
        ``empty_audio``: not one sample. ``bad_samples``: NaN or infinite values. ``silent``: as
        `voiceprint_nb.audio.is_silent` defines it.
    """
    if not len(samples):
        raise RowError("empty_audio", "The audio has no samples: check that the file was written completely.")
    if not np.isfinite(samples).all():
        raise RowError("bad_samples", "The audio holds NaN or infinite samples: export the clip again.")
    if audio.is_silent(samples):
        raise RowError("silent", "The clip is silent: check the recording, or choose another clip.")


def windows(samples: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
    """Mel windows of one clip, ready for the network.

    Parameters
    ----------
    samples : (samples,) float32
        16 kHz mono, any level.
    recipe : Recipe
        `ROBUST` or `COMPATIBLE`.

    Returns
    -------
    (windows, 160, 40) float32
        At least one window.

    Raises
    ------
    RowError
        The clip is empty, silent or holds values that are not finite (see `check_audible`).
    """
    check_audible(samples)
    missing_db = recipe.level_dbfs - level_dbfs(samples)
    gain = 1.0 if recipe.only_raise and missing_db < 0 else 10 ** (missing_db / 20)
    if recipe.layout == "even":
        if len(samples) < _WINDOW_SAMPLES:
            samples = np.resize(samples, _WINDOW_SAMPLES)
        mels = mel_frames(samples, gain=gain)
        starts = _even_starts(len(mels))
    else:
        starts = _stepped_starts(len(samples), recipe)
        missing = starts[-1] * HOP_SAMPLES + _WINDOW_SAMPLES - len(samples)
        mels = mel_frames(np.pad(samples, (0, max(0, missing))), gain=gain)
    return np.stack([mels[start : start + WINDOW_FRAMES] for start in starts])


def _even_starts(frames: int) -> list[int]:
    """First frames of one window per started 1.6 s; ``frames`` counts one frame more than whole hops."""
    count = max(1, math.ceil((frames - 1) / WINDOW_FRAMES))
    step = (frames - WINDOW_FRAMES) / max(1, count - 1)
    return [round(number * step) for number in range(count)]


def _stepped_starts(samples: int, recipe: Recipe) -> list[int]:
    """First frames as in ``VoiceEncoder.compute_partial_slices`` of Resemblyzer 0.1.4."""
    frames = math.ceil((samples + 1) / HOP_SAMPLES)
    starts = list(range(0, max(1, frames - WINDOW_FRAMES + recipe.step_frames + 1), recipe.step_frames))
    coverage = (samples - starts[-1] * HOP_SAMPLES) / _WINDOW_SAMPLES
    if coverage < recipe.min_coverage and len(starts) > 1:
        starts.pop()
    return starts
