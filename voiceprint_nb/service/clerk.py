"""The clerk: one thread that owns everything that changes while jobs run.

Others leave notes; the clerk reads all notes that lie there, then takes a turn at its duties. A fault ends
neither: the turn is taken again after a pause, and until one succeeds the clerk says that it is not well.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from voiceprint_nb.threads import give_way

PAUSES_S = (0.5, 60.0)  # after a first fault, and at most: each further one doubles it

Note = Callable[[], None]

_log = logging.getLogger(__name__)


class Clerk:
    """A thread that waits for notes, and for the moment of which its last turn told.

    Parameters
    ----------
    turn : callable
        Does what is to do; returns the seconds until it must run again without a note, or None.
    is_done : callable
        Asked after each turn: whether the thread ends.
    at_end : callable
        Runs last on the thread, whatever ended it.
    """

    def __init__(
        self, turn: Callable[[], float | None], *, is_done: Callable[[], bool], at_end: Callable[[], None]
    ) -> None:
        self._turn, self._is_done, self._at_end = turn, is_done, at_end
        self._inbox: queue.SimpleQueue[Note | None] = queue.SimpleQueue()
        self._pause_s = 0.0  # until a turn that failed is taken again
        self._thread = threading.Thread(target=self._work, name="voiceprint-clerk", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread works, and its last turn did not fail."""
        return self._thread.is_alive() and not self._pause_s

    def start(self) -> None:
        """Begin, with a turn."""
        self._thread.start()

    def note(self, note: Note | None = None) -> None:
        """Leave a note, from any thread; without one, only wake the clerk."""
        self._inbox.put(note)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread's end; whether it came in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        give_way()
        try:
            wait_s: float | None = 0.0
            while not self._is_done():
                for note in self._notes(wait_s):
                    self._read(note)
                wait_s = self._take_turn()
        finally:
            self._at_end()

    def _notes(self, wait_s: float | None) -> list[Note]:
        try:
            notes = [self._inbox.get(timeout=wait_s)]
        except queue.Empty:
            return []
        while not self._inbox.empty():
            notes.append(self._inbox.get())
        return [note for note in notes if note is not None]

    def _read(self, note: Note) -> None:
        try:
            note()
        except Exception:
            _log.exception("a step failed by a fault of the service")

    def _take_turn(self) -> float | None:
        first_s, most_s = PAUSES_S
        try:
            wait_s = self._turn()
        except Exception:
            _log.exception("jobs are not worked on")
            self._pause_s = min(self._pause_s * 2, most_s) or first_s
            return self._pause_s
        if self._pause_s:
            _log.warning("jobs are worked on again")
            self._pause_s = 0.0
        return wait_s
