"""A service that fails again and again is left alone for a while, instead of failing row after row."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable

from voiceprint_nb.errors import ProtocolError, ServiceError, ServiceUnavailable

STREAK = 5
PATIENCE_S = 600.0

_MOST_TRIALS = 3  # of a request, on the average: with others to try, each of them comes first
_PAUSES_S = (1.0, 30.0)  # before the first probe, and at most


class Breaker:
    """Circuit breaker of one group of endpoints.

    It opens after five failures in a row; while it is open, requests wait. When a probe finds that the
    service answers, one request goes as a trial: it closes the breaker, or the next pause is longer. If all
    failures were of one request, and the first probe succeeds, the request is to blame, and it was no outage.
    The same holds for a few that have been the trial again and again, with nobody else to try: they no longer
    count.

    Parameters
    ----------
    probe : callable
        Asks the service whether it answers at all, without passing this breaker.
    clock, sleep
        Monotonic seconds and an awaitable sleep; tests pass their own.

    Attributes
    ----------
    n_outages : int
        How often there was one.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[bool]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._probe, self._clock, self._sleep = probe, clock, sleep
        self._n_failed, self._failed, self._said = 0, set[Hashable](), ""
        self._tried: Counter[Hashable] = Counter()  # trials that failed in this outage
        self._blamed: set[Hashable] = set()
        self.n_outages = 0
        self._recovery: asyncio.Task[None] | None = None
        self._trial: asyncio.Future[bool] | None = None  # how the trial ends; set while one is wanted
        self._news: asyncio.Future[None] | None = None  # who waits may look again

    @property
    def is_open(self) -> bool:
        """Whether requests wait for the service to come back."""
        return self._recovery is not None and not self._recovery.done()

    @contextlib.asynccontextmanager
    async def passing(
        self, request: Hashable, *, turn: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Around one attempt: it begins when the service may be asked, and its end is heard.

        Parameters
        ----------
        request : hashable
            Whose attempts they are.
        turn : callable, optional
            Waits for what else must be waited for, before the attempt.

        Raises
        ------
        ServiceUnavailable
            It has been down for too long; concerns all rows.
        """
        trial = await self._admitted()
        try:
            if turn is not None:
                await turn()
                while trial is None and self.is_open:  # opened meanwhile
                    trial = await self._admitted()
                    await turn()
        except BaseException:
            self._give_back(trial)
            raise
        try:
            yield
        except (ServiceUnavailable, ProtocolError) as error:
            self._heard_failure(request, error, trial)
            raise
        except ServiceError:  # it works, and refuses
            self._heard_success(trial)
            raise
        except BaseException:
            self._give_back(trial)
            raise
        self._heard_success(trial)

    async def close(self) -> None:
        """Stop asking."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)

    async def _admitted(self) -> asyncio.Future[bool] | None:
        """Return when a request may go; as the trial, with the future that is to tell how it ends."""
        while self._recovery is not None:
            if self._recovery.done():
                await self._recovery  # raises
            if (trial := self._trial) is not None:
                self._trial = None
                return trial
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._news)
        return None

    def _give_back(self, trial: asyncio.Future[bool] | None) -> None:
        """The attempt has told nothing: another may be the trial."""
        if trial is not None and not trial.done():
            self._trial = trial
            self._wake()

    def _heard_success(self, trial: asyncio.Future[bool] | None) -> None:
        self._n_failed = 0
        self._failed.clear()
        if trial is not None and not trial.done():
            trial.set_result(True)

    def _heard_failure(self, request: Hashable, error: Exception, trial: asyncio.Future[bool] | None) -> None:
        self._said = str(error).rstrip(".")
        if trial is not None and not trial.done():
            self._tried[request] += 1
            trial.set_result(False)
        if request in self._blamed:
            return
        self._n_failed += 1
        self._failed.add(request)
        if self._n_failed >= STREAK and self._recovery is None:
            is_outage = len(self._failed) > 1
            self.n_outages += is_outage
            self._recovery = asyncio.create_task(self._wait_for_recovery(is_outage=is_outage))
            self._recovery.add_done_callback(lambda _: self._wake())

    def _few_are_to_blame(self) -> bool:
        if self._tried.total() < _MOST_TRIALS * len(self._tried):
            return False
        self._blamed |= self._tried.keys()
        return True

    async def _trial_succeeds(self) -> bool:
        """Let one request go, and hear how it ends."""
        trial = self._trial = asyncio.get_running_loop().create_future()
        self._wake()
        has_gone_well: bool = await trial
        return has_gone_well

    def _wake(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set_result(None)

    async def _wait_for_recovery(self, *, is_outage: bool) -> None:
        until, (pause_s, longest_s) = self._clock() + PATIENCE_S, _PAUSES_S
        while self._clock() < until:
            await self._sleep(pause_s)
            answers = await self._probe()
            if not (is_outage or answers):
                is_outage = True
                self.n_outages += 1
            if answers and (not is_outage or await self._trial_succeeds() or self._few_are_to_blame()):
                self._n_failed, self._recovery = 0, None
                self._failed.clear()
                self._tried.clear()
                return
            pause_s = min(2 * pause_s, longest_s)
        error = ServiceUnavailable(
            f"The service has been failing for {PATIENCE_S / 60:.0f} minutes ({self._said}): "
            "resume() goes on when it works again.",
            sent=False,  # whoever waits here has sent nothing, or nothing that may not be sent twice
        )
        error.concerns_all_rows = True
        raise error
