"""The desk: takes jobs in, hands their audio to the engine, keeps the answers.

One thread, the clerk, owns everything that changes while jobs run. Others leave notes in its inbox; it reads
all notes that lie there, stores their results in one transaction, then starts waiting jobs. Jobs that wait
are rows of the table and nothing else; only a few dozen are in memory or have a downloaded file.
"""

from __future__ import annotations

import functools
import json
import logging
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.contract import (
    FAILED,
    RUNNING,
    SUCCEEDED,
    Job,
    JobCreated,
    JobPage,
    VoiceprintRequest,
)
from voiceprint_nb.errors import RowError
from voiceprint_nb.service.clips import failure_text, load_clip
from voiceprint_nb.service.fetches import Fetcher, plain_client
from voiceprint_nb.service.jobs import Change, JobTable, WaitingJob
from voiceprint_nb.service.media import MediaStore

if TYPE_CHECKING:
    import httpx

IN_FLIGHT = 32
MAX_WAITING = 10_000

_CLOSE_WAIT_S = 10.0
_log = logging.getLogger(__name__)


class Engine(Protocol):
    """What the desk asks of the engine: decode in a worker thread, then embed."""

    def submit(self, load: Callable[[], NDArray[np.float32]]) -> Future[NDArray[np.float32]]:
        """Queue one clip; what `load` raises becomes the future's exception."""
        ...


class DeskFull(Exception):
    """As many jobs wait as the desk takes; some will be done in a moment."""


class UnknownCursor(Exception):
    """No job has the id that a list should continue after."""


@dataclass
class _Flight:
    """A job that is being worked on: its present step, and the file downloaded for it."""

    step: Future[Any]
    file: Path | None = None


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
    voiceprint : callable
        Text of an embedding.
    clock : callable
        Unix time in seconds.
    max_waiting : int
        Accepted jobs that have not ended; more are refused with `DeskFull`.
    in_flight : int
        Jobs in memory at once; should keep the engine's threads busy.
    fetch_client : callable
        Makes the HTTP client that downloads linked clips.
    """

    def __init__(
        self,
        data_dir: Path,
        pool: Engine,
        media: MediaStore,
        *,
        voiceprint: Callable[[NDArray[np.float32]], str],
        clock: Callable[[], float] = time.time,
        max_waiting: int = MAX_WAITING,
        in_flight: int = IN_FLIGHT,
        fetch_client: Callable[[], httpx.AsyncClient] = plain_client,
    ) -> None:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._table = JobTable(data_dir / "jobs.sqlite3")
        self._pool, self._media, self._voiceprint, self._clock = pool, media, voiceprint, clock
        self._fetcher = Fetcher(fetch_client)
        self._downloads = data_dir / "downloads"
        shutil.rmtree(self._downloads, ignore_errors=True)
        self._downloads.mkdir(mode=0o700)
        media.discard_partial()
        self._max_waiting, self._in_flight = max_waiting, in_flight
        self._quiet = threading.Condition()  # guards the count, tells when it is 0
        self._open = self._table.reopen()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._flights: dict[int, _Flight] = {}  # this and the next three belong to the clerk
        self._changes: list[Change] = []  # not yet stored
        self._ended = 0  # of them, how many end a job
        self._taken_seq = 0
        self._closing = False
        self._clerk = threading.Thread(target=self._work, name="voiceprint-desk", daemon=True)
        self._clerk.start()
        self._inbox.put(None)

    # --- for the routes ---------------------------------------------------------------------------------

    def submit(self, request: VoiceprintRequest) -> JobCreated:
        """Accept a job: it is on disk, and survives a restart, when this returns.

        Raises
        ------
        DeskFull
            Too many jobs wait.
        """
        if self._closing:
            raise RuntimeError("the desk is closed")
        with self._quiet:
            if self._open >= self._max_waiting:
                raise DeskFull
            self._open += 1
        job_id = str(uuid.uuid4())
        try:
            self._table.add(job_id, request.url, now_ms=self._now_ms())
        except BaseException:
            with self._quiet:
                self._open -= 1
            raise
        self._inbox.put(None)
        warning = "This service sends no webhooks: ask for the job." if request.webhook else None
        return JobCreated(job_id, warning=warning)

    def job(self, job_id: str) -> Job | None:
        """State and, for 24 h after its end, output of a job."""
        stored = self._table.find(job_id)
        return None if stored is None else stored.to_job(now_ms=self._now_ms())

    def page(self, limit: int, cursor: str | None = None, status: str | None = None) -> JobPage:
        """Jobs from the newest on, or those older than the job `cursor`.

        Raises
        ------
        UnknownCursor
            There is no such job.
        """
        before_seq = None
        if cursor is not None:
            last = self._table.find(cursor)
            if last is None:
                raise UnknownCursor
            before_seq = last.seq
        jobs = self._table.newest(limit + 1, before_seq=before_seq, status=status)
        items = tuple(job.to_item() for job in jobs[:limit])
        return JobPage(items, items[-1].id if len(jobs) > limit else None)

    def wait_idle(self, timeout_s: float) -> bool:
        """Block until every accepted job has ended; whether that was so in time."""
        with self._quiet:
            return self._quiet.wait_for(lambda: not self._open, timeout_s)

    def close(self) -> bool:
        """Stop: waiting jobs stay on disk for the next desk; whether all that ran has ended."""
        self._inbox.put(self._begin_closing)
        self._clerk.join(_CLOSE_WAIT_S)
        return not self._clerk.is_alive()

    # --- the clerk's thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._work_until_closed()
        finally:
            self._closing = True
            self._fetcher.close()
            self._table.close()

    def _work_until_closed(self) -> None:
        while not (self._closing and not self._flights):
            for note in self._notes():
                note()
            while not self._closing and self._take():
                pass
            self._store()

    def _store(self) -> None:
        if not self._changes:
            return
        self._table.write(self._changes)
        with self._quiet:
            self._open -= self._ended
            self._quiet.notify_all()
        self._ended = 0
        self._changes.clear()

    def _notes(self) -> list[Callable[[], None]]:
        """Wait for a note, then all that lie there; None only wakes."""
        notes = [self._inbox.get()]
        while not self._inbox.empty():
            notes.append(self._inbox.get())
        return [note for note in notes if note is not None]

    def _take(self) -> bool:
        """Start waiting jobs in the order of arrival, up to the bound; whether there was any."""
        free = self._in_flight - len(self._flights)
        if free <= 0 or self._open <= len(self._flights) + self._ended:
            return False
        jobs = self._table.waiting(after_seq=self._taken_seq, limit=free)
        for job in jobs:
            self._taken_seq = job.seq
            if job.url.startswith("media://"):
                self._embed(job.seq, self._media.path(job.url))
            elif job.url.startswith("file://"):
                self._embed(job.seq, Path(url2pathname(urlsplit(job.url).path)))
            else:
                self._fetch(job)
        return bool(jobs)

    def _fetch(self, job: WaitingJob) -> None:
        target = self._downloads / str(job.seq)
        self._changes.append(Change(job.seq, RUNNING, self._now_ms()))
        step = self._fetcher.fetch(job.url, target)
        self._flights[job.seq] = _Flight(step, target)
        self._when_done(step, functools.partial(self._fetched, job.seq, target))

    def _fetched(self, seq: int, target: Path, step: Future[None]) -> None:
        if step.cancelled() or self._closing:
            self._land(seq)
        elif error := step.exception():
            self._end(seq, error=error)
        else:
            self._embed(seq, target)

    def _embed(self, seq: int, path: Path) -> None:
        step = self._pool.submit(functools.partial(load_clip, path))
        if seq not in self._flights:
            self._changes.append(Change(seq, RUNNING, self._now_ms()))
        flight = self._flights.setdefault(seq, _Flight(step))
        flight.step = step
        self._when_done(step, functools.partial(self._embedded, seq))

    def _embedded(self, seq: int, step: Future[NDArray[np.float32]]) -> None:
        if step.cancelled():
            self._land(seq)
        elif error := step.exception():
            self._end(seq, error=error)
        else:
            self._end(seq, voiceprint=self._voiceprint(step.result()))

    def _end(self, seq: int, *, voiceprint: str = "", error: BaseException | None = None) -> None:
        """The one place where a job's result is made."""
        status, output = SUCCEEDED, {"voiceprint": voiceprint}
        if error is not None:
            status, output = FAILED, {"error": failure_text(error)}
            if not isinstance(error, RowError):
                _log.error("job %d failed by a fault of the service", seq, exc_info=error)
        self._changes.append(Change(seq, status, self._now_ms(), json.dumps(output)))
        self._ended += 1
        self._land(seq)

    def _land(self, seq: int) -> None:
        flight = self._flights.pop(seq, None)
        if flight is not None and flight.file is not None:
            flight.file.unlink(missing_ok=True)

    def _begin_closing(self) -> None:
        self._closing = True
        for flight in self._flights.values():
            flight.step.cancel()

    def _when_done(self, step: Future[Any], note: Callable[[Future[Any]], None]) -> None:
        step.add_done_callback(lambda ended: self._inbox.put(functools.partial(note, ended)))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
