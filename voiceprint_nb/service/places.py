"""How many requests of a team are answered at once: one caller must not take all connections."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE = 100  # of the 1,000 connections that are served; clients of this project use 16


class TooManyAtOnce(Exception):
    """So many requests of the team are being answered already."""


class Places:
    """A bounded number of places for each team; usable from any thread.

    Parameters
    ----------
    at_once : int
        Places of a team.

    Examples
    --------
    >>> places = Places(at_once=1)
    >>> with places.taken("ada"), places.taken("bob"):
    ...     pass
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, team: str) -> Iterator[None]:
        """Hold a place; raises `TooManyAtOnce` if there is none."""
        with self._lock:
            if self._taken[team] >= self._at_once:
                raise TooManyAtOnce
            self._taken[team] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[team] -= 1
                if not self._taken[team]:
                    del self._taken[team]
