"""How good a clip is for a voiceprint: five numbers, and a sentence for each that hurts.

The limits of the sentences come from ``python -m benchmarks.clip_quality``: real speech that was damaged on
purpose, and what that cost in score.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import audio
from voiceprint_nb.audio import Samples
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake.clips import FRAME_S, Clip, speech_frames

Embed = Callable[[Samples], NDArray[np.float32]]
"""From ``(samples,) float32`` at 16 kHz to unit vectors ``(windows, dimensions) float32``."""

LEAST_SPEECH_S = 1.2
LEAST_LEVEL_DBFS = -65.0
MOST_CLIPPED = 0.03
LEAST_SNR_DB = 14.0
MOST_VOICE_SPREAD = 0.23

_FRAME_SAMPLES = round(FRAME_S * audio.WORK_RATE_HZ)
_TWO_WINDOWS_S = 2.0  # of 1.6 s each, 0.4 s apart
_NEAR_PEAK, _LEAST_RUN = 0.98, 3
_PEAK_PERCENTILE, _NOISE_PERCENTILE = 95.0, 20.0
_PEAK_ABOVE_MEAN_DB = 4.0  # the 95th percentile of frames of clean speech over the mean of its speech frames
_PADDING = 1e-7  # 70 dB under the peak: digital silence between words says nothing about the noise in them
_MOST_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured of a clip; None where it cannot be told.

    Attributes
    ----------
    speech_s : float
        Seconds of speech-like frames of 20 ms, as `voiceprint_nb.intake.clips.speech_frames` finds them:
        pauses and soft sounds do not count, so it is about half of a clip of read speech.
    level_dbfs : float or None
        RMS of these frames, each about its mean, in dB relative to 1.0.
    clipped : float
        Share of samples, 0 to 1, at the stored rate, that lie in runs of three or more on one side within
        2 % of the clip's own peak, or of full scale where the peak is beyond. Found after the clip was turned
        down, too. Of the mean of all channels; a pure tone has 0.13.
    snr_db : float or None
        Estimate of the speech's power over the noise's: ``10 log10((P95 - P20) / P20) - 4``, where ``Pq`` is
        the ``q``-th percentile of the variances of 20 ms frames, without those 70 dB under the first.
    voice_spread : float or None
        Cosine distance, 0 to 2, of the two centres into which two-means splits the network's windows of 1.6 s
        of the speech-like frames, 0.4 s apart. None for less than 2 s of speech.

    Notes
    -----
    The ratio follows ``stnr`` of NIST's Speech Quality Assurance package, which takes the 95th percentile of
    the variances of 20 ms frames for the peak of the speech and the lowest mode of their histogram for the
    noise; a low percentile needs no fit. 4 dB is how far that peak lies above the mean of the speech.
    """

    speech_s: float
    level_dbfs: float | None
    clipped: float
    snr_db: float | None
    voice_spread: float | None


MEASURES = tuple(field.name for field in fields(Quality))


def with_quality(clip: Clip, embed: Embed) -> Clip:
    """The clip with its measures, and with their sentences in its warning.

    A clip is none the worse for a measurement that fails, which its warning then says.

    Parameters
    ----------
    clip : Clip
        With a file.
    embed : callable
        As in `measure`.
    """
    try:
        quality = measure(*audio.read_stored(clip.path), embed=embed)
    except RowError as error:
        return _warned(clip, f"Its quality was not measured: {error}")
    except Exception as error:  # decoder and network may fail in any way
        return _warned(clip, f"Its quality was not measured ({type(error).__name__}).")
    return _warned(replace(clip, quality=quality), *sentences(quality).values())


def _warned(clip: Clip, *told: str) -> Clip:
    return replace(clip, warning=" ".join(filter(None, (clip.warning, *told))) or None)


def measure(samples: Samples, rate_hz: int, *, embed: Embed) -> Quality:
    """Measure a clip.

    Parameters
    ----------
    samples : (samples,) float32
        The clip at the rate that it is stored in: clipping does not outlast another rate.
    rate_hz : int
        That rate.
    embed : callable
        Gives the network's vectors of overlapping windows.

    Examples
    --------
    >>> hiss = np.random.default_rng(1).normal(0, 0.1, 16_000).astype(np.float32)
    >>> loud = np.repeat([0.01, 1.0, 0.01], [4_000, 8_000, 4_000]).astype(np.float32)
    >>> quality = measure(hiss * loud, 16_000, embed=lambda samples: samples)
    >>> quality.speech_s, round(quality.level_dbfs), quality.clipped, quality.voice_spread
    (0.52, -20, 0.0, None)
    """
    heard = audio.resample(samples, rate_hz, audio.WORK_RATE_HZ)
    frames = heard[: len(heard) // _FRAME_SAMPLES * _FRAME_SAMPLES].reshape(-1, _FRAME_SAMPLES)
    powers = np.var(frames, axis=1, dtype=np.float64)
    active = speech_frames(powers, FRAME_S)
    speech_s = round(int(active.sum()) * FRAME_S, 2)
    return Quality(
        speech_s=speech_s,
        level_dbfs=10.0 * math.log10(powers[active].mean()) if active.any() else None,
        clipped=clipped_share(samples),
        snr_db=_snr_db(powers),
        voice_spread=spread(embed(frames[active].ravel())) if speech_s >= _TWO_WINDOWS_S else None,
    )


def clipped_share(samples: Samples) -> float:
    """Share of ``(samples,) float32`` that is clipped, as `Quality` defines it.

    Examples
    --------
    >>> clipped_share(np.array([0, 0.5, 1, 1, 1, 0.5, -1, -1, 0, 0], np.float32))
    0.3
    """
    peak = min(float(np.abs(samples).max(initial=0.0)), 1.0)
    if not peak:
        return 0.0
    sides = np.where(np.abs(samples) >= _NEAR_PEAK * peak, np.sign(samples), 0)
    starts = np.flatnonzero(np.diff(sides, prepend=0.0))
    lengths = np.diff(starts, append=len(sides))
    is_run = (sides[starts] != 0) & (lengths >= _LEAST_RUN)
    return float(lengths[is_run].sum() / len(samples))


def _snr_db(powers: NDArray[np.float64]) -> float | None:
    if not powers.any():
        return None
    peak = np.percentile(powers, _PEAK_PERCENTILE)
    noise = np.percentile(powers[powers >= _PADDING * peak], _NOISE_PERCENTILE)
    return float(10.0 * math.log10(max(peak / noise - 1.0, 0.01)) - _PEAK_ABOVE_MEAN_DB)


def spread(vectors: NDArray[np.float32]) -> float | None:
    """Cosine distance of the two centres of spherical two-means, begun at the two farthest vectors.

    Parameters
    ----------
    vectors : (windows, dimensions) float32
        Of unit length.

    Returns
    -------
    float or None
        0 for equal vectors; None for fewer than two.

    Examples
    --------
    >>> spread(np.eye(2, dtype=np.float32)[[0, 0, 1, 0]])
    1.0
    """
    if len(vectors) < 2:
        return None
    first, second = np.unravel_index(np.argmin(vectors @ vectors.T), (len(vectors),) * 2)
    centres = vectors[[first, second]]
    for _ in range(_MOST_ROUNDS):
        is_second = vectors @ (centres[1] - centres[0]) > 0
        if not 0 < is_second.sum() < len(vectors):
            return 0.0
        moved = np.stack([vectors[~is_second].mean(axis=0), vectors[is_second].mean(axis=0)])
        moved /= np.linalg.norm(moved, axis=1, keepdims=True)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return float(1.0 - centres[0] @ centres[1])


def sentences(quality: Quality) -> dict[str, str]:
    """What lowers the print's quality and what to do about it, by measure; empty for a good clip.

    Examples
    --------
    >>> sentences(Quality(3.0, -25.0, 0.0, 8.4, None))["snr_db"]
    'The speech is only about 8 dB above the noise: record it nearer to the mouth or in a quieter place.'
    """
    told = {}
    if quality.speech_s < LEAST_SPEECH_S:
        told["speech_s"] = f"Only {quality.speech_s:.1f} s of speech were found: use a clip with more of it."
    if quality.level_dbfs is not None and quality.level_dbfs < LEAST_LEVEL_DBFS:
        told["level_dbfs"] = (
            f"The speech is very quiet ({quality.level_dbfs:.0f} dBFS): record it louder, for turning it up "
            "does not bring back what was rounded away."
        )
    if quality.clipped > MOST_CLIPPED:
        told["clipped"] = f"{quality.clipped:.0%} of the samples are clipped: record with less gain."
    if quality.snr_db is not None and quality.snr_db < LEAST_SNR_DB:
        told["snr_db"] = (
            f"The speech is only about {quality.snr_db:.0f} dB above the noise: record it nearer to the "
            "mouth or in a quieter place."
        )
    if quality.voice_spread is not None and quality.voice_spread > MOST_VOICE_SPREAD:
        told["voice_spread"] = (
            "There may be more than one voice: listen to it, and use a stretch with one alone."
        )
    return told
