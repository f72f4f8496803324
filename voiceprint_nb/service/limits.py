"""How often a team may call each endpoint: fixed windows, as in section 9 of the contract."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from voiceprint_nb.contract import RATE_WINDOW_S, READS_PER_WINDOW, WRITES_PER_WINDOW


@dataclass(frozen=True)
class Allowance:
    """What one request learns of its window.

    Attributes
    ----------
    limit, remaining : int
        Requests of a whole window, and those left in this one.
    reset_s : int
        Whole seconds until the window has surely ended, at least 1.
    allowed : bool
        Whether the request may go on.

    Examples
    --------
    >>> Allowance(100, 0, 7, allowed=False).headers()["Retry-After"]
    '7'
    """

    limit: int
    remaining: int
    reset_s: int
    allowed: bool

    def headers(self) -> dict[str, str]:
        """Headers of the answer; ``Retry-After`` only when refused."""
        told = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_s),
        }
        return told if self.allowed else told | {"Retry-After": str(self.reset_s)}


@dataclass
class _Window:
    started_s: float
    used: int = 0


class RateLimits:
    """One window per team and endpoint, shared by the team's keys; usable from any thread.

    A window starts with the first request after the last one ended. Windows are kept, so endpoints are the
    service's routes, not the addresses that callers write.

    Parameters
    ----------
    writes, reads : int or None
        Requests per window to an endpoint that changes or reads; None is no limit.
    window_s : float
        Length of a window in seconds.
    clock : callable
        Seconds from any start, never going back.

    Examples
    --------
    >>> limits = RateLimits(writes=1, clock=lambda: 0.0)
    >>> limits.take("default", "/v1/voiceprint", read=False)
    Allowance(limit=1, remaining=0, reset_s=60, allowed=True)
    >>> limits.take("default", "/v1/voiceprint", read=False).allowed
    False
    """

    def __init__(
        self,
        *,
        writes: int | None = WRITES_PER_WINDOW,
        reads: int | None = READS_PER_WINDOW,
        window_s: float = RATE_WINDOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.writes, self.reads = writes, reads
        self._window_s = window_s
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}
        self._lock = threading.Lock()

    def take(self, team: str, endpoint: str, *, read: bool) -> Allowance | None:
        """Count one request unless it must be refused; None: this kind has no limit."""
        limit = self.reads if read else self.writes
        if limit is None:
            return None
        with self._lock:
            now_s = self._clock()
            window = self._windows.get((team, endpoint))
            if window is None or now_s - window.started_s >= self._window_s:
                window = self._windows[team, endpoint] = _Window(now_s)
            allowed = window.used < limit
            window.used += allowed
            left_s = self._window_s - (now_s - window.started_s)  # never sum first: it may round up to 61
            return Allowance(limit, limit - window.used, math.ceil(left_s), allowed)
