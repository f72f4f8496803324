"""The desk: takes jobs in, has them done, keeps the answers, tells webhooks, forgets in time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.contract import (
    CANCELED,
    FAILED,
    OUTPUT_LIFE_S,
    WEBHOOK_RETRY_DELAYS_S,
    Job,
    JobCreated,
    JobPage,
    JobSlice,
    VoiceprintRequest,
)
from voiceprint_nb.service.clerk import Clerk
from voiceprint_nb.service.clips import load_clip
from voiceprint_nb.service.ends import Callback, Ends
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.meter import Meter, NullMeter
from voiceprint_nb.service.outside import Outside, plain_client
from voiceprint_nb.service.records import UPLOAD, line_of
from voiceprint_nb.service.webhooks import Deliveries
from voiceprint_nb.service.workbench import Engine, Workbench

if TYPE_CHECKING:
    import httpx

IN_FLIGHT = 32
MAX_WAITING = 10_000
DEADLINE_S = 600.0
CLOSE_WAIT_S = 10.0
RECORD_LIFE_S = 30 * 24 * 3600.0  # the hosted service keeps jobs longer than outputs, how long is not known
SWEEP_EVERY_S = 3600.0

_MOST_STARTS = 5  # after which a job that the engine had whenever the process died is given up
_MAX_WAIT_S = OUTPUT_LIFE_S  # its upload may be gone afterwards
_BROKEN_OFF = "Internal error of the service: it broke off each time it worked on this clip"
_SWEPT_AT_ONCE = 1000
_log = logging.getLogger(__name__)


class DeskFull(Exception):
    """As many jobs wait as the desk takes, of all or of this team; some will be done in a moment."""


class Desk:
    """Accepts jobs and sees them through; usable from any thread and event loop.

    Parameters
    ----------
    data_dir : Path
        Folder of the job table and of downloads; one desk at a time may use it.
    pool : Engine
        Where clips are decoded and embedded; stays the caller's to close, after the desk.
    media : MediaStore
        Where ``media://`` keys lie.
    load : callable
        Samples of a file for the engine.
    voiceprint : callable
        Text of an embedding.
    webhook_secret : callable
        Secret that signs a team's webhooks.
    plain_webhooks : bool
        Whether events may go to http addresses.
    clock : callable
        Unix time in seconds.
    timer : callable
        Seconds for the deadline of running jobs.
    max_waiting : int
        Accepted jobs that have not ended; more are refused with `DeskFull`. A team fills more than half of it
        only while no other needs it.
    in_flight : int
        Jobs on uploads in work at once; should keep the engine's threads busy.
    deadline_s : float
        A job that is in work for longer is canceled.
    new_client : callable
        Makes the HTTP client that downloads linked clips and sends webhooks.
    meter : Meter
        Counts what happens.
    lasting : bool
        Whether the folder outlives the process.
    """

    def __init__(
        self,
        data_dir: Path,
        pool: Engine,
        media: MediaStore,
        *,
        load: Callable[[Path], NDArray[np.float32]] = load_clip,
        voiceprint: Callable[[NDArray[np.float32]], str],
        webhook_secret: Callable[[str], str],
        plain_webhooks: bool = False,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        max_waiting: int = MAX_WAITING,
        in_flight: int = IN_FLIGHT,
        deadline_s: float = DEADLINE_S,
        new_client: Callable[[], httpx.AsyncClient] = plain_client,
        meter: Meter | None = None,
        lasting: bool = True,
    ) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._table = JobTable(data_dir / "jobs.sqlite3", lasting=lasting)
        self._media, self._clock, self._max_waiting = media, clock, max_waiting
        self._outside = Outside(new_client)
        self._ends = Ends(self.job)
        self._clerk = Clerk(self._turn, is_done=self._is_done, at_end=self._end)
        meter = meter or NullMeter()
        self._quiet = threading.Condition()  # guards the next two, tells when no job is open
        self._refused: set[str] = set()  # teams that found the desk full, until it is half empty
        self._swept_s = -math.inf
        self._closing = False
        try:
            media.discard_partial()
            self._bench = Workbench(
                self._table,
                pool,
                media,
                self._outside,
                downloads=data_dir / "downloads",
                load=load,
                voiceprint=voiceprint,
                timer=timer,
                in_flight=in_flight,
                deadline_s=deadline_s,
                clock=clock,
                note=self._clerk.note,
                meter=meter,
            )
            self._deliveries = Deliveries(
                self._table,
                self._outside,
                secret_of=webhook_secret,
                plain=plain_webhooks,
                clock=clock,
                note=self._clerk.note,
                meter=meter,
            )
            self._open = Counter(self._table.reopen())
            self._bench.end_waiting(self._table.started(_MOST_STARTS), FAILED, _BROKEN_OFF)
            self._clerk.start()
        except BaseException:
            self._table.close()
            raise

    # --- for the routes ---------------------------------------------------------------------------------

    def submit(self, team: str, request: VoiceprintRequest) -> JobCreated:
        """Accept a job: it survives the end of the process, if not a power cut, when this returns.

        Raises
        ------
        DeskFull
            Too many jobs wait.
        """
        if self._closing:
            raise RuntimeError("the desk is closed")
        self._admit(team)
        try:
            job_id = self._ends.open(team, partial(self._table.add, team, request, now_ms=self._now_ms()))
        except BaseException:
            self._discount(Counter([team]))
            raise
        if not self._bench.is_full or line_of(request.url) != UPLOAD:
            self._clerk.note()
        return JobCreated(job_id)

    def _admit(self, team: str) -> None:
        with self._quiet:
            has, total = self._open[team], self._open.total()
            others_come = total > has or self._refused - {team}
            if total >= self._max_waiting or (others_come and 2 * has >= self._max_waiting):
                self._refused.add(team)
                raise DeskFull
            self._open[team] += 1

    def _discount(self, ended: Counter[str]) -> None:
        with self._quiet:
            self._open -= ended
            if 2 * self._open.total() < self._max_waiting:
                self._refused.clear()
            self._quiet.notify_all()

    def job(self, team: str, job_id: str) -> Job | None:
        """State and, for 24 h after its end, output of a team's job."""
        stored = self._table.find(team, job_id)
        return None if stored is None else stored.to_job(now_ms=self._now_ms())

    def listen(self, team: str, job_id: str, callback: Callback) -> Callable[[], None]:
        """Have a job's end told in this process once it is on disk; see `Ends.listen`."""
        return self._ends.listen(team, job_id, callback)

    def page(self, team: str, limit: int, *, cursor: str | None = None, status: str | None = None) -> JobPage:
        """A team's jobs from the newest on, or those older than the id `cursor`."""
        jobs = self._table.newest(team, limit + 1, before=cursor, status=status)
        items = tuple(job.to_item() for job in jobs[:limit])
        return JobPage(items, items[-1].id if len(jobs) > limit else None)

    def slice(self, team: str, take: int, *, skip: int = 0, status: str | None = None) -> JobSlice:
        """A team's jobs from the newest on, without the first `skip`."""
        jobs = self._table.newest(team, take, skip=skip, status=status)
        return JobSlice(tuple(job.to_item() for job in jobs), self._table.count(team, status=status))

    # --- for operators ----------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        """Whether accepted jobs are worked on."""
        return self._clerk.is_alive

    @property
    def n_open(self) -> int:
        """Jobs that have not ended."""
        with self._quiet:
            return self._open.total()

    def counts(self) -> Mapping[str, int]:
        """Jobs of all teams by status."""
        return self._table.counts()

    def wake(self) -> None:
        """Have the clock looked at now: what is due is done, without waiting for it."""
        self._clerk.note()

    def wait_idle(self, timeout_s: float) -> bool:
        """Block until every accepted job has ended; whether that was so in time."""
        with self._quiet:
            return self._quiet.wait_for(lambda: not self._open, timeout_s)

    def close(self, timeout_s: float = CLOSE_WAIT_S) -> bool:
        """Stop: waiting jobs stay on disk for the next desk; whether all that ran has ended in time."""
        self._clerk.note(self._begin_closing)
        return self._clerk.join(timeout_s)

    # --- the clerk's thread -----------------------------------------------------------------------------

    def _turn(self) -> float | None:
        waits_s = [self._bench.stop_overdue()]
        if not self._closing:
            waits_s.append(self._sweep_in_time())
            while self._bench.take():
                pass
        self._store()
        if not self._closing:
            waits_s.append(self._deliveries.turn())
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)

    def _store(self) -> None:
        if ended := self._bench.store():
            self._discount(Counter(job.team for job, _ in ended))
            now_ms = self._now_ms()
            jobs = {(job.team, job.id): job.ended(how) for job, how in ended}
            self._ends.tell(jobs, lambda name: jobs[name].to_job(now_ms=now_ms))

    def _sweep_in_time(self) -> float:
        """Forget what is too old, hasten what is due too late, once an hour; seconds until the next time."""
        now_s = self._clock()
        if not 0 <= now_s - self._swept_s < SWEEP_EVERY_S:  # less than 0: the clock was set back
            self._swept_s = now_s
            stale = self._table.waiting_since(int((now_s - _MAX_WAIT_S) * 1000), limit=_SWEPT_AT_ONCE)
            self._bench.end_waiting(stale, CANCELED, "Stopped: the job waited longer than its upload is kept")
            self._store()  # before any of them is taken
            self._table.expire(
                outputs_before_ms=int((now_s - OUTPUT_LIFE_S) * 1000),
                records_before_ms=int((now_s - RECORD_LIFE_S) * 1000),
            )
            self._table.hasten(latest_ms=int((now_s + max(WEBHOOK_RETRY_DELAYS_S)) * 1000))
            n_media = self._media.expire()
            _log.info("swept", extra={"canceled_jobs": len(stale), "deleted_uploads": n_media})
        return self._swept_s + SWEEP_EVERY_S - now_s

    def _begin_closing(self) -> None:
        self._closing = True
        self._bench.give_back()

    def _is_done(self) -> bool:
        return self._closing and self._bench.is_empty

    def _end(self) -> None:
        self._closing = True
        try:
            self._outside.close()
        finally:
            self._table.close()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
