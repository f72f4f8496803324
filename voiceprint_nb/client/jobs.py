"""Submit jobs, and wait for many of them with one scheduler."""

from __future__ import annotations

import asyncio
import contextlib

from voiceprint_nb import contract
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import RequestRefused, RowError

_FEW = 3  # up to so many open jobs are read one by one; more are swept through the list
_MOST_PAGES = 20


async def submit(api: Api, request: contract.VoiceprintRequest) -> contract.JobCreated:
    """Create a voiceprint job.

    Raises
    ------
    RequestRefused
        The service will not take this request.
    ServiceUnavailable
        With ``sent`` true it is unknown whether the job was created.
    """
    answer = await api.post(
        contract.VOICEPRINT_PATH, request.to_wire(), pacer=api.submit_pacer, repeatable=False
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
    while few are; an output is fetched once. Unknown states count as running.

    Parameters
    ----------
    api : Api
        The open client.
    interval_s : float
        Pause between rounds, in seconds.
    """

    def __init__(self, api: Api, *, interval_s: float) -> None:
        self._api = api
        self._interval_s = interval_s
        self._open: dict[str, asyncio.Future[contract.Job | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._has_list = True

    async def wait(self, job_id: str, *, timeout_s: float) -> contract.Job | None:
        """The finished job, or None if the service does not know it.

        Raises
        ------
        RowError
            ``job_timeout`` when it does not end in time.
        """
        future = self._open.setdefault(job_id, asyncio.get_running_loop().create_future())
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._rounds())
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise RowError(
                "job_timeout",
                f"The job did not end within {timeout_s:.0f} s: resume() asks for it again.",
            ) from None
        finally:
            self._open.pop(job_id, None)

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _rounds(self) -> None:
        try:
            while self._open:
                await asyncio.sleep(self._interval_s)
                many = len(self._open) > _FEW and self._has_list
                ended = await self._sweep() if many else list(self._open)
                for job_id in ended:
                    await self._fetch(job_id)
        except Exception as error:  # every row that waits must hear of it
            for future in self._open.values():
                if not future.done():
                    future.set_exception(error)

    async def _sweep(self) -> list[str]:
        """Ids of open jobs that the list shows as ended, oldest first, and of those it does not show."""
        unseen, ended = set(self._open), []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            try:
                found = await page(self._api, cursor)
            except RequestRefused:
                self._has_list = False
                return list(self._open)
            for item in found.items:
                if item.id in unseen and contract.is_terminal(item.status):
                    ended.append(item.id)
                unseen.discard(item.id)
            cursor = found.next_cursor
            if not unseen or cursor is None:
                break
        return list(unseen) + ended[::-1]

    async def _fetch(self, job_id: str) -> None:
        future = self._open.get(job_id)
        if future is None or future.done():
            return
        job = await read(self._api, job_id)
        if not future.done() and (job is None or contract.is_terminal(job.status)):
            future.set_result(job)
