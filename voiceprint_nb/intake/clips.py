"""A local file becomes a clip that the service will take, or every reason why not."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from voiceprint_nb import audio, contract
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake.looking import LocalFile

Fit = Literal["error", "best", "head"]
FITS: tuple[Fit, ...] = ("error", "best", "head")

_SHORT_S = 2.0
_FRAME_S = 0.02
_ACTIVE_DB = 35.0  # frames within this of the loud ones count as speech


@dataclass(frozen=True)
class Clip:
    """Audio within the limits.

    Attributes
    ----------
    path : Path
        The file to submit.
    n_bytes : int
        Its size.
    digest : str
        64 hex digits that name its content, and the stretch if it was cut.
    facts : AudioFacts
        Of the original file.
    duration_s : float
        Seconds that are submitted.
    warning : str or None
        What lowers the quality, in a sentence.
    is_cut : bool
        Whether it is a stretch of a longer file.
    """

    path: Path = field(repr=False)
    n_bytes: int
    digest: str
    facts: audio.AudioFacts
    duration_s: float
    warning: str | None = None
    is_cut: bool = False


def admit(file: LocalFile, *, fit: Fit, scratch: Path) -> Clip:
    """Check a file against the limits: 30 s, 100 MiB, readable to its end, audible.

    Parameters
    ----------
    file : LocalFile
        What was found.
    fit : {"error", "best", "head"}
        For longer audio: refuse it, take the most speech-rich 30 s, or the first 30 s.
    scratch : Path
        Folder for a cut clip.

    Raises
    ------
    RowError
        Any ``invalid`` code; with several reasons the first one's code and all sentences.
    """
    facts = audio.probe(file.path)
    try:
        return _admit(file, facts, fit, scratch)
    except RowError as error:
        error.facts = facts
        raise


def _admit(file: LocalFile, facts: audio.AudioFacts, fit: Fit, scratch: Path) -> Clip:
    limit_s = contract.MAX_DURATION_S
    too_long = facts.duration_s > limit_s
    if too_long and fit != "error":
        return _cut(file, facts, fit, scratch)
    reasons = []
    if too_long:
        reasons.append(
            RowError(
                "too_long",
                f"The clip lasts {facts.duration_s:.1f} s and the limit is {limit_s:.0f} s: cut it, or pass "
                "fit='best' or fit='head'.",
            )
        )
    if file.n_bytes > contract.MAX_BYTES:
        reasons.append(
            RowError(
                "too_large",
                f"The file has {file.n_bytes / 2**20:.1f} MiB and the limit is "
                f"{contract.MAX_BYTES / 2**20:.0f} MiB: store it as FLAC or with fewer channels.",
            )
        )
    if reasons:
        raise RowError(reasons[0].code, " ".join(str(reason) for reason in reasons))
    samples = audio.read_mono(file.path, sample_rate_hz=facts.sample_rate_hz)
    _refuse_silence(samples)
    warning = None
    if facts.duration_s < _SHORT_S:
        warning = (
            f"Only {facts.duration_s:.1f} s of audio: prints of clips under {_SHORT_S:.0f} s are unreliable."
        )
    return Clip(file.path, file.n_bytes, file.sha256, facts, facts.duration_s, warning)


def best_start_s(path: Path, *, window_s: float = contract.MAX_DURATION_S) -> float:
    """Start of the window with the most speech-like frames, in seconds, to a tenth.

    A frame of 20 ms counts as speech when its level is within 35 dB of the 95th percentile of all frames.
    The earliest of equally good windows wins. Memory grows with the number of frames, not of samples.
    """
    levels = []
    for block, sample_rate_hz in audio.mono_blocks(path, block_s=_FRAME_S * 500):
        step = max(1, round(_FRAME_S * sample_rate_hz))
        whole = block[: len(block) // step * step].reshape(-1, step)
        levels.append(10 * np.log10(np.mean(whole**2, axis=1, dtype=np.float64) + 1e-12))
    level_db = np.concatenate(levels)
    active = level_db > np.percentile(level_db, 95) - _ACTIVE_DB
    count = np.concatenate([[0], np.cumsum(active)])
    width = min(round(window_s / _FRAME_S), len(active))
    start = int(np.argmax(count[width:] - count[:-width]))
    return int(start * _FRAME_S * 10) / 10


def _cut(file: LocalFile, facts: audio.AudioFacts, fit: Fit, scratch: Path) -> Clip:
    limit_s = contract.MAX_DURATION_S
    start_s = best_start_s(file.path) if fit == "best" else 0.0
    samples = audio.read_mono(file.path, start_s=start_s, max_duration_s=limit_s)
    _refuse_silence(samples)
    samples = samples[: round(limit_s * audio.WORK_RATE_HZ)]
    data = audio.encode_flac(samples, audio.WORK_RATE_HZ)
    path = scratch / uuid.uuid4().hex
    path.write_bytes(data)
    duration_s = len(samples) / audio.WORK_RATE_HZ
    digest = hashlib.sha256(f"{file.sha256} {start_s:.1f}+{limit_s:.1f}".encode()).hexdigest()
    warning = (
        f"Only {start_s:.1f} s to {start_s + duration_s:.1f} s of {facts.duration_s:.1f} s is used "
        f"(fit={fit!r})."
    )
    return Clip(path, len(data), digest, facts, duration_s, warning, is_cut=True)


def _refuse_silence(samples: audio.Samples) -> None:
    if audio.is_silent(samples):
        raise RowError("silent", "Nothing can be heard in the clip: check the microphone or the export.")
