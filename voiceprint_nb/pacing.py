"""Requests spread evenly under a limit that the service tells, and paused together when it says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

LONGEST_PAUSE_S = 120.0  # whatever a service asks for

_MARGIN = 1.005  # requests that leave at an even pace arrive a little less evenly
_MADE_UP_S = 0.25  # of the 0.3 s by which the margin lengthens a window of 60 s
_NAP_S = 2.0  # who waits looks so often whether a new limit has brought the turn forward
_ROUNDING_S = 1.0  # services tell whole seconds until the window's end, rounded up


def made_up_s(interval_s: float) -> float:
    """By how much the next turn may come early after a late one: less than the margin holds in a window."""
    return min(interval_s / 2, _MADE_UP_S)


class Turns(Protocol):
    """When a request may leave: one row of turns for everybody who shares it."""

    def take(self, interval_s: float) -> float:
        """Take the next turn if it has come, and let the one after follow later by the interval.

        Returns
        -------
        float
            Seconds until the turn comes; 0 if it was taken.
        """

    def pause(self, seconds: float) -> None:
        """Let no turn come for so long."""


class OwnTurns:
    """Turns of one pacer alone.

    Parameters
    ----------
    clock : callable
        Monotonic seconds.

    Examples
    --------
    >>> turns = OwnTurns(clock=lambda: 5.0)
    >>> turns.take(0.6), round(turns.take(0.6), 1)
    (0.0, 0.6)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next_at = float("-inf")

    def take(self, interval_s: float) -> float:
        """As `Turns` says."""
        now = self._clock()
        if self._next_at > now:
            return self._next_at - now
        late_s = now - self._next_at  # a late wake-up is made up for, a rest is not
        self._next_at = (
            now + interval_s - (min(late_s, made_up_s(interval_s)) if late_s < interval_s else 0.0)
        )
        return 0.0

    def pause(self, seconds: float) -> None:
        """As `Turns` says."""
        self._next_at = max(self._next_at, self._clock() + seconds)


class Pacer:
    """Even pace for one group of endpoints, shared by everything that calls them.

    Turns are spread over the window instead of let through in a burst: a burst of the whole limit at the
    end of one window and the start of the next would be twice the limit within a minute. When the service
    tells that less is left of the window than the pace would use, because others have the same account,
    the pace follows what is left.

    Parameters
    ----------
    per_window : int or None
        Requests allowed in a window; None until the service tells a limit.
    window_s : float
        Length of the window in seconds.
    turns : Turns, optional
        Shared with other processes; by default its own.
    clock, sleep
        Monotonic seconds and an awaitable sleep; tests pass their own.

    Attributes
    ----------
    waiting, n_taken : int
        Requests that wait for their turn now, and those that had theirs.
    """

    def __init__(
        self,
        *,
        per_window: int | None = None,
        window_s: float = 60.0,
        turns: Turns | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._per_window = per_window
        self._window_s = window_s
        self._own = OwnTurns(clock)
        self._shared = turns
        self._clock = clock
        self._sleep = sleep
        self._queue = asyncio.Lock()  # first come, first served
        self._scarce_s, self._scarce_until = 0.0, float("-inf")
        self._used, self._used_until = 0, float("-inf")
        self.waiting = self.n_taken = 0

    @property
    def used_of_limit(self) -> tuple[int, int] | None:
        """Requests used and allowed in the window that the service has last told of; None when it is over."""
        if not self._per_window or self._clock() >= self._used_until:
            return None
        return self._used, self._per_window

    async def slot(self) -> None:
        """Return when the next request may be sent."""
        if not self.waiting and not self._take():
            return
        self.waiting += 1
        try:
            async with self._queue:
                while (left_s := self._take()) > 0:
                    await self._sleep(min(left_s, _NAP_S))
        finally:
            self.waiting -= 1

    def learn(self, limit: int | None, *, remaining: int | None = None, reset_s: float | None = None) -> None:
        """Take over what an answer tells of the limit and of its window; it holds for those who wait, too."""
        if limit and limit > 0:
            self._per_window = limit
        if remaining is None or reset_s is None:
            return
        reset_s = min(reset_s, LONGEST_PAUSE_S)
        self._used = max(0, (self._per_window or 0) - remaining)
        self._used_until = self._clock() + reset_s
        if remaining <= 0:
            self.pause(reset_s)
        else:
            self._scarce_s = max(0.0, reset_s - _ROUNDING_S) / remaining
            self._scarce_until = self._clock() + reset_s

    def pause(self, seconds: float) -> None:
        """Let nobody through for so long: the service has said that it is too much."""
        for turns in (self._own, self._shared):
            if turns is not None:
                turns.pause(seconds)

    def _take(self) -> float:
        interval_s = self._interval_s()
        shared = self._shared if interval_s else None  # without a limit there is nothing to share
        left_s = (shared or self._own).take(interval_s)
        self.n_taken += left_s <= 0
        return left_s

    def _interval_s(self) -> float:
        even_s = self._window_s / self._per_window * _MARGIN if self._per_window else 0.0
        return max(even_s, self._scarce_s) if self._clock() < self._scarce_until else even_s
