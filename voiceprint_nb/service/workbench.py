"""The work on jobs: fetch, decode, embed, end; all of it on the clerk's thread.

Jobs that wait are rows of the table and nothing else; only a few dozen are in memory or have a file.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from voiceprint_nb.contract import CANCELED, CREATED, FAILED, RUNNING, SUCCEEDED
from voiceprint_nb.errors import RowError
from voiceprint_nb.service.clips import failure_text
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.meter import Meter
from voiceprint_nb.service.outside import Outside
from voiceprint_nb.service.records import ALONE, LINK, UPLOAD, Change, WaitingJob

ALONE_AFTER_S = 5.0  # a service that dies of one job does others for so long each time
AGAIN_S = 5.0  # an engine that is away is asked again
LINKS = 64  # jobs on links in work; fewer than a client's connections
LINKS_A_TEAM = 32

_log = logging.getLogger(__name__)


class EngineAway(Exception):
    """Nobody computes now: the job waits until somebody does. Raised by a step's future."""


class Engine(Protocol):
    """What the desk asks of the engine: decode in a worker thread, then embed."""

    @property
    def busy_s(self) -> float:
        """Seconds of work so far, of all threads."""
        ...

    def submit(self, load: Callable[[], NDArray[np.float32]]) -> Future[NDArray[np.float32]]:
        """Queue one clip; what `load` raises becomes the future's exception."""
        ...


@dataclass
class _Flight:
    """A job that is being worked on: its present step, its end at the latest, its downloaded file if any."""

    job: WaitingJob
    step: Future[Any]
    until_s: float
    file: Path | None = None
    in_engine: bool = False


class Workbench:
    """The jobs in work, a bounded number at once; those on links, which may be slow, have their own places.

    Parameters
    ----------
    table : JobTable
        Where waiting jobs come from and results go.
    engine : Engine
        Decodes and embeds.
    media : MediaStore
        Where ``media://`` keys lie.
    outside : Outside
        Downloads linked clips.
    downloads : Path
        Folder for them; emptied first.
    load : callable
        Samples of a file for the engine.
    voiceprint : callable
        Text of an embedding.
    clock : callable
        Unix time in seconds.
    timer : callable
        Seconds for deadlines: a clock that is set, or a machine that slept, ends no job.
    note : callable
        Leaves a note for the clerk, from any thread.
    in_flight : int
        Jobs on uploads in work at once.
    deadline_s : float
        A job that takes longer is canceled.
    meter : Meter
        Counts ended jobs.
    """

    def __init__(
        self,
        table: JobTable,
        engine: Engine,
        media: MediaStore,
        outside: Outside,
        *,
        downloads: Path,
        load: Callable[[Path], NDArray[np.float32]],
        voiceprint: Callable[[NDArray[np.float32]], str],
        clock: Callable[[], float],
        timer: Callable[[], float] = time.monotonic,
        note: Callable[[Callable[[], None]], None],
        in_flight: int,
        deadline_s: float,
        meter: Meter,
    ) -> None:
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(mode=0o700)
        self._table, self._engine, self._media, self._outside = table, engine, media, outside
        self._downloads, self._load, self._voiceprint = downloads, load, voiceprint
        self._clock, self._timer = clock, timer
        self._note, self._in_flight, self._deadline_s, self._meter = note, in_flight, deadline_s, meter
        self._flights: dict[int, _Flight] = {}
        self._changes: list[Change] = []  # not yet stored
        self._ended: list[tuple[WaitingJob, Change]] = []  # jobs that they end
        self._n_taken = 0
        self._taken: Counter[str] = Counter()  # team -> the number of its last job
        self._alone_from_s = timer() + ALONE_AFTER_S
        self._is_full = False
        self._closing = False
        self._stalled: list[_Flight] = []  # their engine is away
        self._again_s = math.inf
        self._metered_s = engine.busy_s

    @property
    def is_full(self) -> bool:
        """Whether uploads must wait for a place; whatever frees one looks for who waits."""
        return self._is_full

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in work."""
        return not self._flights

    def take(self) -> bool:
        """Start waiting jobs, as many as have a place; whether there was any."""
        jobs = self._next()
        if not jobs:
            return False
        now_ms = self._now_ms()
        self._write([Change(job.seq, RUNNING, now_ms, starts=int(not job.is_linked)) for job in jobs])
        for job in jobs:
            self._try(job, functools.partial(self._start, job))
        return True

    def _next(self) -> list[WaitingJob]:
        """Jobs that may start now; one that may have killed the process has the engine for itself."""
        flights = self._flights.values()
        if any(flight.job.line == ALONE for flight in flights):
            return []
        if self._timer() >= self._alone_from_s and (alone := self._chosen(ALONE, 1, 1)):
            return [] if any(flight.in_engine for flight in flights) else alone
        uploads = self._chosen(UPLOAD, self._in_flight, self._in_flight)
        self._is_full = len(uploads) + sum(each.job.line == UPLOAD for each in flights) >= self._in_flight
        return uploads + self._chosen(LINK, LINKS, LINKS_A_TEAM)

    def _chosen(self, line: str, places: int, places_a_team: int) -> list[WaitingJob]:
        """Next is the team with the fewest jobs in work, of equal ones the one whose turn is longest ago."""
        busy = Counter(flight.job.team for flight in self._flights.values() if flight.job.line == line)
        free = places - busy.total()
        if free <= 0:
            return []
        ranked = []
        for job in self._table.waiting(line, per_team=min(free, places_a_team)):
            busy[job.team] += 1
            if busy[job.team] <= places_a_team:
                ranked.append((busy[job.team], self._taken[job.team], job.seq, job))
        chosen = [job for *_, job in sorted(ranked)[:free]]
        for job in chosen:
            self._n_taken += 1
            self._taken[job.team] = self._n_taken
        return chosen

    def store(self) -> list[tuple[WaitingJob, Change]]:
        """Put what changed on disk; the jobs that have ended, and how."""
        self._write()
        ended, self._ended = self._ended, []
        return ended

    def _write(self, more: Sequence[Change] = ()) -> None:
        """Put what changed on disk, and more: in one transaction."""
        if self._changes or more:
            self._table.write([*self._changes, *more])
            self._changes.clear()

    def stop_overdue(self) -> float | None:
        """Cancel jobs that take too long; seconds until more than notes must be looked at."""
        now_s = self._timer()
        if now_s >= self._again_s:
            self._go_on()
        for flight in [each for each in self._flights.values() if each.until_s <= now_s]:
            flight.step.cancel()
            self._end(flight.job, CANCELED, f"Stopped: the work took longer than {self._deadline_s:g} s")
        moments_s = [each.until_s for each in self._flights.values()]
        moments_s += [self._alone_from_s, self._again_s]
        return min((moment_s - now_s for moment_s in moments_s if now_s < moment_s < math.inf), default=None)

    def end_waiting(self, jobs: Sequence[WaitingJob], status: str, reason: str) -> None:
        """End jobs on which nobody works."""
        for job in jobs:
            self._end(job, status, reason)

    def give_back(self) -> None:
        """Let go of what can be: steps that have not begun are canceled, and their jobs wait again."""
        self._closing = True
        for flight in self._flights.values():
            flight.step.cancel()
        stalled, self._stalled = self._stalled, []
        for flight in stalled:
            self._give_back(flight)

    # --- the steps of a job -----------------------------------------------------------------------------

    def _start(self, job: WaitingJob) -> None:
        if job.url.startswith("media://"):
            self._embed(job, self._media.path(job.team, job.url))
        elif job.url.startswith("file://"):
            self._embed(job, Path(url2pathname(urlsplit(job.url).path)))
        else:
            self._fetch(job)

    def _try(self, job: WaitingJob, step: Callable[[], None]) -> None:
        """What goes wrong with one job ends that job and nothing else."""
        try:
            step()
        except Exception as error:
            self._fail(job, error)

    def _fetch(self, job: WaitingJob) -> None:
        target = self._downloads / str(job.seq)
        self._begin(job, self._outside.fetch(job.url, target), self._fetched, file=target)

    def _fetched(self, flight: _Flight) -> None:
        if flight.file is None:
            raise RuntimeError("a fetched clip has a file")
        with suppress(sqlite3.Error):  # better not counted than not done
            self._table.write([Change(flight.job.seq, RUNNING, self._now_ms(), starts=1)])
        self._embed(flight.job, flight.file)

    def _embed(self, job: WaitingJob, path: Path) -> None:
        self._begin(job, self._engine.submit(functools.partial(self._load, path)), self._embedded)

    def _embedded(self, flight: _Flight) -> None:
        self._end(flight.job, SUCCEEDED, self._voiceprint(flight.step.result()))

    def _begin(
        self, job: WaitingJob, step: Future[Any], then: Callable[[_Flight], None], file: Path | None = None
    ) -> None:
        flight = self._flights.setdefault(job.seq, _Flight(job, step, self._timer() + self._deadline_s, file))
        flight.step, flight.in_engine = step, file is None
        step.add_done_callback(lambda _: self._note(functools.partial(self._stepped, flight, step, then)))

    def _stepped(self, flight: _Flight, step: Future[Any], then: Callable[[_Flight], None]) -> None:
        seq = flight.job.seq
        if self._flights.get(seq) is not flight:
            return  # it was stopped meanwhile
        is_away = not step.cancelled() and isinstance(step.exception(), EngineAway)
        if self._closing and (step.cancelled() or is_away):
            self._give_back(flight)
        elif is_away:
            self._stall(flight)
        elif error := CancelledError() if step.cancelled() else step.exception():
            self._fail(flight.job, error)
        else:
            self._try(flight.job, functools.partial(then, flight))

    def _give_back(self, flight: _Flight) -> None:
        starts = -int(flight.in_engine)
        self._changes.append(Change(flight.job.seq, CREATED, self._now_ms(), starts=starts))
        self._land(flight.job.seq)

    def _stall(self, flight: _Flight) -> None:
        """Keep the job, and what was fetched for it, as long as nobody computes."""
        flight.until_s = math.inf
        self._stalled.append(flight)
        self._again_s = min(self._again_s, self._timer() + AGAIN_S)

    def _go_on(self) -> None:
        stalled, self._stalled, self._again_s = self._stalled, [], math.inf
        for flight in stalled:
            flight.until_s = self._timer() + self._deadline_s
            file = flight.file
            step = functools.partial(self._embed, path=file) if file else self._start
            self._try(flight.job, functools.partial(step, flight.job))

    def _fail(self, job: WaitingJob, error: BaseException) -> None:
        if not isinstance(error, RowError):
            _log.error("job failed by a fault of the service", exc_info=error, extra={"job": job.id})
        self._end(job, FAILED, failure_text(error))

    def _end(self, job: WaitingJob, status: str, text: str) -> None:
        """The one place where a job's result is made; `text` is the voiceprint or the error."""
        output = {"voiceprint" if status == SUCCEEDED else "error": text}
        change = Change(job.seq, status, self._now_ms(), json.dumps(output))
        self._changes.append(change)
        self._ended.append((job, change))
        _log.info("job ended", extra={"seq": job.seq, "status": status})
        busy_s = self._engine.busy_s
        self._meter.job_ended(status, engine_s=busy_s - self._metered_s)
        self._metered_s = busy_s
        self._land(job.seq)

    def _land(self, seq: int) -> None:
        flight = self._flights.pop(seq, None)
        self._is_full = False
        if flight is not None and flight.file is not None:
            try:
                flight.file.unlink(missing_ok=True)
            except OSError as error:  # the next start empties the folder
                _log.warning("a fetched clip stays on disk: %s", error.strerror)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
