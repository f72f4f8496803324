"""Submit jobs, and wait for many of them with one scheduler."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

from voiceprint_nb import contract
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import (
    KeyRefused,
    NoCredit,
    ProtocolError,
    RequestRefused,
    RowError,
    ServiceError,
)

_FEW = 3  # up to so many open jobs are read one by one; more are swept through the list
_MOST_PAGES = 5  # of the list in one round; jobs further back are read one by one
_MOST_MISSES = 3  # rounds in a row without a usable answer, before a job's row hears of it


async def submit(
    api: Api, request: contract.VoiceprintRequest, *, before: Callable[[], None] | None = None
) -> contract.JobCreated:
    """Create a voiceprint job; ``before`` is called right before the request leaves, each time.

    Raises
    ------
    RequestRefused
        The service will not take this request.
    ServiceUnavailable
        With ``sent`` true it is unknown whether the job was created.
    ProtocolError
        The answer cannot be read: it is unknown whether the job was created.
    """
    answer = await api.post(
        contract.VOICEPRINT_PATH, request.to_wire(), pacer=api.submit_pacer, repeatable=False, before=before
    )
    return contract.JobCreated.from_wire(answer)


async def read(api: Api, job_id: str) -> contract.Job | None:
    """One job's state and output; None if the service does not know it."""
    path = contract.JOB_PATH.format(job_id=job_id)
    try:
        return contract.Job.from_wire(await api.get(path, pacer=api.read_pacer))
    except RequestRefused as error:
        if error.status == 404:
            return None
        raise


async def page(api: Api, cursor: str | None = None) -> contract.JobPage:
    """One page of the job list, newest first."""
    params = {"limit": str(contract.MAX_PAGE_ITEMS)} | ({"cursor": cursor} if cursor else {})
    return contract.JobPage.from_wire(await api.get(contract.JOBS_PATH, pacer=api.list_pacer, params=params))


class Waiter:
    """Waits for jobs: one task asks for all of them, however many wait.

    Each round sweeps the job list (100 states in a request) while many jobs are open, or reads single jobs
    while few are; an output is fetched once. Unknown states count as running. A round without a usable
    answer is forgiven; after three in a row the rows hear why.

    Parameters
    ----------
    api : Api
        The open client.
    interval_s : float
        Pause between rounds, in seconds.
    sleep
        An awaitable sleep; tests pass their own.
    """

    def __init__(
        self,
        api: Api,
        *,
        interval_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._interval_s = interval_s
        self._sleep = sleep
        self._open: dict[str, asyncio.Future[contract.Job | None]] = {}
        self._misses: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._has_list = True

    async def wait(self, job_id: str, *, timeout_s: float) -> contract.Job | None:
        """The finished job, or None if the service does not know it.

        Raises
        ------
        RowError
            ``job_timeout`` when it does not end in time.
        ServiceError
            The service gave no usable answer; what became of the job is not known.
        """
        if (future := self._open.get(job_id)) is None:
            future = self._open[job_id] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda _: self._close_job(job_id))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._rounds())
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            self._close_job(job_id)
            raise RowError(
                "job_timeout",
                f"The job did not end within {timeout_s:.0f} s: resume() asks for it again.",
            ) from None

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _close_job(self, job_id: str) -> None:
        self._open.pop(job_id, None)
        self._misses.pop(job_id, None)

    async def _rounds(self) -> None:
        try:
            while self._open:
                await self._sleep(self._interval_s)
                await self._round()
        except Exception as error:  # every row that waits must hear of it
            for future in list(self._open.values()):
                _fail(future, error)

    async def _round(self) -> None:
        ended = await self._ended()  # fetched side by side: each waits for its turn among uploads
        failures = await asyncio.gather(*map(self._fetch, ended), return_exceptions=True)
        for job_id, failure in zip(ended, failures, strict=True):
            if isinstance(failure, ServiceError) and not isinstance(failure, (KeyRefused, NoCredit)):
                self._missed(job_id, failure)
            elif failure is not None:
                raise failure

    async def _ended(self) -> list[str]:
        """Ids of open jobs to read: those that have ended, and those of which nothing is known."""
        if len(self._open) <= _FEW or not self._has_list:
            return list(self._open)
        try:
            return await self._sweep()
        except (KeyRefused, NoCredit):
            raise
        except ProtocolError:
            return list(self._open)
        except ServiceError as error:
            for job_id in list(self._open):
                self._missed(job_id, error)
            return []

    async def _sweep(self) -> list[str]:
        """Ids of open jobs that the list shows as ended, oldest first, and of those it does not show."""
        unseen, ended = dict.fromkeys(self._open), []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            try:
                found = await page(self._api, cursor)
            except RequestRefused:
                self._has_list = cursor is not None and self._has_list
                break
            for item in found.items:
                if item.id not in unseen:
                    continue
                del unseen[item.id]
                if contract.is_terminal(item.status):
                    ended.append(item.id)
                else:
                    self._misses.pop(item.id, None)
            cursor = found.next_cursor
            if not unseen or cursor is None:
                break
        return list(unseen) + ended[::-1]

    async def _fetch(self, job_id: str) -> None:
        future = self._open.get(job_id)
        if future is None or future.done():
            return
        job = await read(self._api, job_id)
        self._misses.pop(job_id, None)
        if not future.done() and (job is None or contract.is_terminal(job.status)):
            future.set_result(job)

    def _missed(self, job_id: str, error: ServiceError) -> None:
        self._misses[job_id] += 1
        if self._misses[job_id] >= _MOST_MISSES and (future := self._open.get(job_id)) is not None:
            _fail(future, error)


def _fail(future: asyncio.Future[contract.Job | None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as seen: whoever waited may have been cancelled
