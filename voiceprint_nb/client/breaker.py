"""A service that fails again and again is left alone for a while, instead of failing row after row."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from voiceprint_nb.errors import ServiceUnavailable

STREAK = 5
PATIENCE_S = 600.0

_PAUSES_S = (1.0, 30.0)  # before the first probe, and at most


class Breaker:
    """Circuit breaker of one client: opens after a streak of equal failures, closes when a probe succeeds.

    Parameters
    ----------
    probe : callable
        Asks the service whether it works, without passing this breaker.
    streak : int
        So many failures of one kind, with no success between them, open it.
    patience_s : float
        A service that is down for longer ends the run.
    clock, sleep
        Monotonic seconds and an awaitable sleep; tests pass their own.

    Attributes
    ----------
    n_outages : int
        How often it has opened.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[bool]],
        *,
        streak: int = STREAK,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._probe, self._streak, self._patience_s = probe, streak, patience_s
        self._clock, self._sleep = clock, sleep
        self._kind, self._n_failed = "", 0
        self.n_outages = 0
        self._recovery: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests wait for the service to come back."""
        return self._recovery is not None

    async def passed(self) -> None:
        """Return when the service may be asked.

        Raises
        ------
        ServiceUnavailable
            It has been down for too long; concerns all rows.
        """
        if self._recovery is not None:
            await asyncio.shield(self._recovery)

    def succeeded(self) -> None:
        """The service has answered as it should."""
        self._n_failed = 0

    def failed(self, kind: str) -> None:
        """The service has failed in this way."""
        self._n_failed = self._n_failed + 1 if kind == self._kind else 1
        self._kind = kind
        if self._n_failed >= self._streak and self._recovery is None:
            self.n_outages += 1
            self._recovery = asyncio.create_task(self._wait_for_recovery())

    async def close(self) -> None:
        """Stop asking."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)

    async def _wait_for_recovery(self) -> None:
        until, (pause_s, longest_s) = self._clock() + self._patience_s, _PAUSES_S
        while self._clock() < until:
            await self._sleep(pause_s)
            if await self._probe():
                self._n_failed, self._recovery = 0, None
                return
            pause_s = min(2 * pause_s, longest_s)
        error = ServiceUnavailable(
            f"The service has been failing for {self._patience_s / 60:.0f} minutes ({self._kind}): "
            "resume() goes on when it works again.",
            sent=False,  # whoever waits here has sent nothing, or nothing that may not be sent twice
        )
        error.concerns_all_rows = True
        raise error
