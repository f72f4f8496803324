"""Requests spread evenly under a limit that the service tells, and paused together when it says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_MARGIN = 1.005  # requests that leave at an even pace arrive a little less evenly

_NAP_S = 2.0  # who waits looks so often whether a new limit has brought the turn forward


class Pacer:
    """Even pace for one group of endpoints, shared by everything that calls them.

    Slots are spread over the window instead of let through in a burst: a burst of the whole limit at the
    end of one window and the start of the next would be twice the limit within a minute. Those who wait
    stand in a queue: their turns follow from the time of the first one's turn, so that a pause or a new
    limit moves all of them and lets no burst through behind it.

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
        self._issued = 0  # numbers given out to callers
        self._next = 0  # number of the first caller that has not had its turn
        self._next_at = float("-inf")  # time of that turn
        self.waiting = 0

    async def slot(self) -> None:
        """Return when the next request may be sent."""
        number = self._issued
        self._issued += 1
        if self._left_s(number) > 0:
            self.waiting += 1
            try:
                while (left_s := self._left_s(number)) > 0:
                    await self._sleep(min(left_s, _NAP_S))
            finally:
                self.waiting -= 1
        self._passed(number)

    def learn(self, limit: int | None) -> None:
        """Take over the limit that an answer's headers tell; it holds for those who wait, too."""
        if limit and limit > 0:
            self._per_window = limit

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long: the service has said that it is too much."""
        self._next_at = max(self._next_at, self._clock() + seconds)

    def _interval_s(self) -> float:
        return self._window_s / self._per_window * _MARGIN if self._per_window else 0.0

    def _left_s(self, number: int) -> float:
        return self._next_at + max(0, number - self._next) * self._interval_s() - self._clock()

    def _passed(self, number: int) -> None:
        ahead = max(0, number - self._next)  # callers that gave up have left a gap
        turn_at = max(self._next_at + ahead * self._interval_s(), self._clock())
        self._next_at = turn_at + self._interval_s()
        self._next = max(self._next, number + 1)
