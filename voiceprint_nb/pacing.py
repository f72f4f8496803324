"""Requests spread evenly under a limit that the service tells, and paused together when it says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pacer:
    """Even pace for one group of endpoints, shared by everything that calls them.

    Slots are spread over the window instead of let through in a burst: a burst of the whole limit at the
    end of one window and the start of the next would be twice the limit within a minute.

    Parameters
    ----------
    per_window : int or None
        Requests allowed in a window; None until the service tells a limit.
    window_s : float
        Length of the window in seconds.
    clock, sleep
        Monotonic seconds and an awaitable sleep; tests pass their own.
    """

    def __init__(
        self,
        *,
        per_window: int | None = None,
        window_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_window = per_window
        self._window_s = window_s
        self._clock = clock
        self._sleep = sleep
        self._next_slot = 0.0
        self.waiting = 0

    async def slot(self) -> None:
        """Return when the next request may be sent."""
        now = self._clock()
        slot = max(now, self._next_slot)
        self._next_slot = slot + (self._window_s / self._per_window if self._per_window else 0.0)
        if slot <= now:
            return
        self.waiting += 1
        try:
            while (left := slot - self._clock()) > 0:
                await self._sleep(left)
        finally:
            self.waiting -= 1

    def learn(self, limit: int | None) -> None:
        """Take over the limit that an answer's headers tell."""
        if limit:
            self._per_window = limit

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long: the service has said that it is too much."""
        self._next_slot = max(self._next_slot, self._clock() + seconds)
