"""A job's audio as samples, and what the caller may read about it when it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb import audio
from voiceprint_nb.contract import MAX_DURATION_S
from voiceprint_nb.decoded import Decoded
from voiceprint_nb.errors import RowError

LOAD_FAILURE = "Could not load audio"  # the hosted service's words

_GRACE_S = 0.01  # resampling may add a sample


def load_clip(
    path: Path, *, max_duration_s: float = MAX_DURATION_S, decoded: Decoded | None = None
) -> NDArray[np.float32]:
    """Decode a clip for the engine, unless it is decoded already: ``(samples,) float32``, 16 kHz mono.

    Raises
    ------
    RowError
        Not there, not audio, or too long.
    """
    if not path.exists():
        raise RowError("file_not_found", "Nothing is stored under this key: upload the clip.")
    try:
        samples = None if decoded is None else decoded.take(path)
        if samples is None:
            samples = audio.read_mono(path, max_duration_s=max_duration_s + 1.0)
        duration_s = len(samples) / audio.WORK_RATE_HZ
        if duration_s <= max_duration_s + _GRACE_S:
            return samples
        duration_s = audio.probe(path).duration_s
    except FileNotFoundError as error:
        raise RowError("file_not_found", "Nothing is stored under this key: upload the clip.") from error
    raise RowError(
        "too_long", f"The audio is {duration_s:.1f} s long and the limit is {max_duration_s:g} s: cut it."
    )


def failure_text(error: BaseException) -> str:
    """``output.error`` of a failed job: no path, no signed link."""
    if not isinstance(error, RowError):
        return "Internal error of the service"
    if error.code == "too_long":
        return str(error)
    if error.code == "silent":
        return f"No speech found: {error}"
    return f"{LOAD_FAILURE}: {error}"
