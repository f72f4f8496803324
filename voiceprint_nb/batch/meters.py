"""Views over snapshots for places without widgets: a bar in a terminal, lines in logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from voiceprint_nb.batch.progress import Snapshot

_LINE_EVERY_S = 10.0


class Meter(Protocol):
    """A view over snapshots."""

    def show(self, snapshot: Snapshot) -> None:
        """Draw; called at most five times a second, and once more at the end."""


class LineMeter:
    """One line every ten seconds and one at the end, for logs and pipes."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last_s = clock()
        self._ended = False

    def show(self, snapshot: Snapshot) -> None:
        """Write a line if it is time; the last one only once."""
        now = self._clock()
        if not self._ended and (snapshot.ended or now - self._last_s >= _LINE_EVERY_S):
            self._last_s = now
            self._ended = snapshot.ended
            print(snapshot, file=self._stream, flush=True)


class BarMeter:
    """A bar in a terminal, drawn by tqdm."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._ended = False

    def show(self, snapshot: Snapshot) -> None:
        """Move the bar; at the end, replace it by a line."""
        from tqdm import tqdm

        if self._ended:
            return
        if self._bar is None:
            self._bar = tqdm(
                total=snapshot.n_rows, desc=snapshot.title, unit="row", file=self._stream, leave=False
            )
        parts = [f"{state} {n}" for state, n in snapshot.parts.items() if state != "queued"]
        self._bar.n = snapshot.done
        self._bar.set_postfix_str(", ".join([*parts, *snapshot.asides]))
        if snapshot.ended:
            self._ended = True
            self._bar.close()
            print(snapshot, file=self._stream, flush=True)
