"""Samples that a check has decoded, kept for the engine of the same process."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Decoded:
    """Samples by file, up to a number of bytes; usable from any thread.

    What finds no room, or was taken already, is decoded again: nothing depends on what is kept here.

    Parameters
    ----------
    max_bytes : int
        Of all samples together; more is not kept.

    Examples
    --------
    >>> decoded = Decoded(100)
    >>> decoded.has_room(10), decoded.has_room(26)
    (True, False)
    >>> decoded.keep(Path("a.mp3"), np.ones(25, np.float32))
    >>> decoded.has_room(1)
    False
    >>> len(decoded.take(Path("a.mp3"))), decoded.take(Path("a.mp3"))
    (25, None)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: dict[Path, NDArray[np.float32]] = {}
        self._n_bytes = 0

    def has_room(self, n_samples: int) -> bool:
        """Whether so many float32 samples would be kept now."""
        return self._n_bytes + n_samples * np.float32().itemsize <= self._max_bytes

    def keep(self, path: Path, samples: NDArray[np.float32]) -> None:
        """Keep a file's samples, in the place of those that are here, unless there is no room."""
        with self._lock:
            self._forget(path)
            if self.has_room(len(samples)):
                self._kept[path] = samples
                self._n_bytes += samples.nbytes

    def take(self, path: Path) -> NDArray[np.float32] | None:
        """A file's samples, which are not kept any longer; None if they are not here."""
        with self._lock:
            return self._forget(path)

    def _forget(self, path: Path) -> NDArray[np.float32] | None:
        samples = self._kept.pop(path, None)
        if samples is not None:
            self._n_bytes -= samples.nbytes
        return samples
