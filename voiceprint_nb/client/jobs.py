"""Submit jobs, and wait for many of them with one scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from voiceprint_nb import contract
from voiceprint_nb.client.joblist import START, JobList
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import (
    KeyRefused,
    NoCredit,
    RequestRefused,
    RowError,
    ServiceError,
)

_FEW = 3  # up to so many open jobs are read one by one; more are swept through the list
_LEAST_PAGES = 5  # of the list that are looked at in one round; jobs further back are read one by one
_FIRST_PAUSE = 1 / 8  # of the interval, before the first round
_GROWTH = 1.5
_LAST_LOOK_S = 120.0  # at a job whose time is over, when no outage holds it up
_MOST_MISSES = 3  # rounds in a row in which the service does not know a job


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


class Events(Protocol):
    """Where the ends of jobs are told, such as a `Receiver`."""

    @property
    def problem(self) -> str | None:
        """Why events do not come, in a sentence."""

    def listen(self, job_id: str, callback: Callable[[contract.Job], None]) -> Callable[[], None]:
        """Call back, from any thread, for each event of a job; the result ends that."""


class Waiter:
    """Waits for jobs: one task asks for all of them, however many wait.

    Each round sweeps the job list (100 states in a request) while many jobs are open, or reads single jobs
    while few are, or if there is no list; an output is fetched once, of the oldest jobs first. Unknown states
    count as running. A round without a usable answer is forgiven, as long as the row may wait; one in which
    the service does not know the job, twice.

    The first rounds come soon, for who waits for one clip; then the pauses grow, as in a long run each round
    finds many jobs that have ended.

    With events, a wait ends by its event: a voiceprint in it is taken as it is, any other end costs one read.
    The rounds are slow then, for events that were lost; not while something keeps all events from coming.

    Parameters
    ----------
    api : Api
        The open client.
    interval_s : float
        Longest pause between rounds without events, in seconds.
    events : Events, optional
        Tells of jobs that were submitted with its address as their webhook.
    sweep_s : float
        Pause between rounds with events, in seconds.
    """

    def __init__(
        self,
        api: Api,
        *,
        interval_s: float,
        events: Events | None = None,
        sweep_s: float = 60.0,
    ) -> None:
        self._api = api
        self._interval_s, self._sweep_s = interval_s, sweep_s
        self._events = events
        self._unlisten: dict[str, Callable[[], None]] = {}
        self._reads: dict[str, asyncio.Task[None]] = {}  # of jobs that an event told of
        self._open: dict[str, asyncio.Future[contract.Job | None]] = {}
        self._opened_at: dict[str, float] = {}
        self._misses: Counter[str] = Counter()
        self._hearing = threading.Lock()
        self._heard: list[contract.Job] = []  # ends of jobs, told in other threads
        self._task: asyncio.Task[None] | None = None
        self._list = JobList(api, patient=False)  # without it jobs are read one by one

    @property
    def n_open(self) -> int:
        """Jobs that are waited for."""
        return len(self._open)

    async def wait(
        self, job_id: str, *, timeout_s: float, opened_at: float = 0.0, look_first: bool = False
    ) -> contract.Job | None:
        """The finished job, or None if the service does not know it.

        Jobs with a smaller ``opened_at`` (Unix seconds) are older: their outputs expire, and are read, first.
        With ``look_first``, a job of an earlier run is read at once where only its event would end the wait:
        that may have come and gone before.

        Raises
        ------
        RowError
            ``job_timeout`` when it does not end in time.
        ServiceError
            At the end of that time the service gave no usable answer; what became of the job is not known.
        """
        if (future := self._open.get(job_id)) is None:
            future = self._open[job_id] = asyncio.get_running_loop().create_future()
            self._opened_at[job_id] = opened_at
            future.add_done_callback(lambda _: self._close_job(job_id))
            if self._events is not None:
                self._listen(self._events, job_id)
                if look_first:
                    self._read_soon(job_id)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._told_to_all(self._rounds))
        while not future.done():
            n_outages = self._api.n_outages
            await asyncio.wait([future], timeout=timeout_s)
            if future.done():
                break
            try:  # nobody may have been able to ask for long
                async with asyncio.timeout(None if self._api.is_down else _LAST_LOOK_S):
                    await self._fetch(job_id)
            except TimeoutError:
                pass
            except ServiceError:
                self._close_job(job_id)
                raise
            if not future.done() and self._api.n_outages == n_outages:
                self._close_job(job_id)
                raise RowError(
                    "job_timeout",
                    f"The job did not end within {timeout_s:.0f} s: resume() asks for it again.",
                )
        return await future

    async def close(self) -> None:
        """Stop asking and listening."""
        for unlisten in self._unlisten.values():
            unlisten()
        self._unlisten.clear()
        self._open.clear()
        tasks = [*self._reads.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _close_job(self, job_id: str) -> None:
        self._open.pop(job_id, None)
        self._opened_at.pop(job_id, None)
        self._misses.pop(job_id, None)
        if unlisten := self._unlisten.pop(job_id, None):
            unlisten()

    # --- events -----------------------------------------------------------------------------------------

    def _listen(self, events: Events, job_id: str) -> None:
        loop = asyncio.get_running_loop()

        def hear(job: contract.Job) -> None:
            with self._hearing:
                self._heard.append(job)
                if len(self._heard) > 1:  # the loop is on its way
                    return
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the wait
                loop.call_soon_threadsafe(self._told_all)

        self._unlisten[job_id] = events.listen(job_id, hear)

    def _told_all(self) -> None:
        with self._hearing:
            heard, self._heard = self._heard, []
        for job in heard:
            self._told(job)

    def _told(self, job: contract.Job) -> None:
        future = self._open.get(job.job_id)
        if future is None or future.done() or not contract.is_terminal(job.status):
            return
        if job.status == contract.SUCCEEDED and job.voiceprint:
            future.set_result(job)
        else:
            self._read_soon(job.job_id)

    def _read_soon(self, job_id: str) -> asyncio.Task[None]:
        """Its read, in a task of its own; one at a time."""
        if (read := self._reads.get(job_id)) is None:
            read = self._reads[job_id] = asyncio.create_task(
                self._told_to_all(partial(self._collect, job_id))
            )
            read.add_done_callback(lambda _: self._reads.pop(job_id))
        return read

    # --- rounds -----------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        pause_s, busy_s = self._interval_s * _FIRST_PAUSE, 0.0
        while self._open:
            if self._reads:  # first looks: of a job that the service does not know comes no event
                await asyncio.wait(list(self._reads.values()), timeout=self._interval_s)
            by_event = self._events is not None and self._events.problem is None
            by_event = by_event and not any(self._misses.values())
            await self._api.sleep(self._sweep_s if by_event else max(pause_s - busy_s, pause_s / 4))
            pause_s, began_s = min(_GROWTH * pause_s, self._interval_s), self._api.clock()
            ended = sorted(await self._ended(), key=lambda job_id: self._opened_at.get(job_id, 0.0))
            if reads := [self._read_soon(job_id) for job_id in ended]:
                # a read that hangs holds up none but itself
                await asyncio.wait(reads, timeout=self._interval_s)
            busy_s = self._api.clock() - began_s  # reads wait for their turns: the beat goes on

    async def _told_to_all(self, work: Callable[[], Awaitable[None]]) -> None:
        """Every row that waits must hear of what stops the asking."""
        try:
            await work()
        except Exception as error:
            for future in list(self._open.values()):
                _fail(future, error)

    async def _collect(self, job_id: str) -> None:
        """Read one job; a failure of its own is forgiven until its row has waited long enough."""
        try:
            await self._fetch(job_id)
        except ServiceError as error:
            if _concerns_all(error):
                raise

    async def _ended(self) -> list[str]:
        """Ids of open jobs to read: those that have ended, and those of which nothing is known."""
        if len(self._open) <= _FEW or not self._list.exists:
            return list(self._open)
        try:
            return await self._sweep()
        except ServiceError as error:
            if _concerns_all(error):
                raise
            return list(self._open)

    async def _sweep(self) -> list[str]:
        """Ids of open jobs that the list shows as ended, and of those it does not show."""
        unseen, ended = dict.fromkeys(self._open), []
        position = START
        for _ in range(max(_LEAST_PAGES, 2 * math.ceil(len(unseen) / contract.MAX_PAGE_ITEMS))):
            try:
                items, following = await self._list.page(position)
            except RequestRefused:
                break
            for item in items:
                if item.id not in unseen:
                    continue
                del unseen[item.id]
                if contract.is_terminal(item.status):
                    ended.append(item.id)
                else:
                    self._misses[item.id] = 0
            if not unseen or following is None:
                break
            position = following
        return list(unseen) + ended

    async def _fetch(self, job_id: str) -> None:
        future = self._open.get(job_id)
        if future is None or future.done():
            return
        job = await read(self._api, job_id)
        if future.done():
            return
        self._misses[job_id] = self._misses[job_id] + 1 if job is None else 0  # it may be a slip
        if self._misses[job_id] >= _MOST_MISSES or (job is not None and contract.is_terminal(job.status)):
            future.set_result(job)


def _concerns_all(error: ServiceError) -> bool:
    return error.concerns_all_rows or isinstance(error, (KeyRefused, NoCredit))


def _fail(future: asyncio.Future[contract.Job | None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as seen: whoever waited may have been cancelled
