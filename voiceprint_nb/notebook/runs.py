"""A run over a frame: prepared once, then blocking, in the background, or taken up again."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import sys
import time
from collections.abc import Generator, Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from voiceprint_nb.batch.bridge import Background, loop_thread, ticking
from voiceprint_nb.batch.outcomes import Request
from voiceprint_nb.batch.progress import Meter, Snapshot, Tally
from voiceprint_nb.batch.runner import Batch
from voiceprint_nb.batch.store import Ledger, RunRecord
from voiceprint_nb.errors import ServiceError, UsageError
from voiceprint_nb.intake.clips import Fit
from voiceprint_nb.notebook import frames, services, views
from voiceprint_nb.settings import Settings


@dataclasses.dataclass(frozen=True)
class Call:
    """What was asked of a run, in plain values that the ledger keeps."""

    column: Hashable
    prefix: str = frames.DEFAULT_PREFIX
    fit: Fit = "error"
    bases: tuple[Path, ...] = ()
    service: str = "local"
    model: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for the ledger."""
        values = dataclasses.asdict(self)
        return values | {"bases": [str(base) for base in self.bases]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Call:
        """The call of a recorded run."""
        column = tuple(values["column"]) if isinstance(values["column"], list) else values["column"]
        return cls(**{**values, "bases": tuple(map(Path, values["bases"])), "column": column})


class Session:
    """One run over one frame, not yet started.

    Parameters
    ----------
    frame : DataFrame
        The user's rows, never changed.
    call : Call
        What is asked.
    settings : Settings
        Where.
    keep : bool
        Whether the ledger outlives the process.
    record : RunRecord, optional
        The run to go on with; by default a new one.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        call: Call,
        settings: Settings,
        *,
        keep: bool = True,
        record: RunRecord | None = None,
    ) -> None:
        self._frame = frame
        self._call = call
        self._settings = settings
        self._ledger = Ledger(settings.data_dir if keep else None)
        try:
            service = services.connect(settings, self._ledger)
            self.run_id = record.run_id if record else self._begin(keep)
        except BaseException:
            self._ledger.close()
            raise
        self.keep = keep
        self.tally = Tally(len(frame), destination=settings.destination)
        self._batch = Batch(
            frames.cells_of(frame, call.column),
            request=Request(call.bases, call.fit, call.model),
            service=service,
            ledger=self._ledger,
            run_id=self.run_id,
            tally=self.tally,
        )

    def _begin(self, keep: bool) -> str:
        return self._ledger.begin_run(
            n_rows=len(self._frame),
            destination=self._settings.service,
            call=self._call.to_json(),
            frame=frames.pack(self._frame, self._call.column) if keep else None,
        )

    async def run(self) -> None:
        """Work on all rows; the ledger hears how it ended, whatever ends it."""
        finished = False
        try:
            await self._batch.run()
            finished = not any(row.status == "pending" for row in self._batch.outcomes.values())
        finally:
            self._ledger.end_run(self.run_id, self.tally.counts(), finished=finished)
            self._ledger.close()

    def result(self) -> pd.DataFrame:
        """The frame with what is finished so far."""
        frame = frames.without_kept(self._frame, self._call.column)
        out = frames.with_outcomes(frame, dict(self._batch.outcomes), frames.result_names(self._call.prefix))
        snapshot = self.tally.snapshot()
        out.attrs = {**self._frame.attrs, "voiceprint_nb": self._facts(snapshot)}
        return out

    def _facts(self, snapshot: Snapshot) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "service": self._settings.service,
            "model": self._call.model,
            "fit": self._call.fit,
            "column": frames.result_names(self._call.prefix)["voiceprint"],
            "counts": dict(snapshot.counts),
            "elapsed_s": round(snapshot.elapsed_s, 3),
            "ended_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def block(self, *, progress: bool) -> pd.DataFrame:
        """Run to the end in the calling cell; an interrupt stops the run and keeps what is finished."""
        meter = views.meter_for(progress, self._settings.destination)
        background = loop_thread().start(self.run())
        try:
            background.wait(tick=(lambda: meter.show(self.tally.snapshot())) if meter else None)
        except KeyboardInterrupt:
            done = self.tally.snapshot().done
            if self.keep:
                print(f"Stopped. {done} rows have ended; resume() goes on.", file=sys.stderr, flush=True)
            raise
        except ServiceError as error:
            error.partial = self.result()
            raise
        return self.result()


class Run:
    """A run in the background.

    Await it, or ask for `result`; `partial` gives what is finished so far.

    Examples
    --------
    >>> run = submit(clips)                                          # doctest: +SKIP
    >>> run.partial().vp_status.value_counts()                       # doctest: +SKIP
    >>> out = run.result()                                           # doctest: +SKIP
    """

    def __init__(self, session: Session, *, progress: bool) -> None:
        self._session = session
        self._meter = self._new_meter(progress)
        work = session.run()
        self._background: Background[None] = loop_thread().start(
            ticking(work, self._tick) if self._meter else work
        )

    @property
    def run_id(self) -> str:
        """The run's name in the ledger."""
        return self._session.run_id

    @property
    def done(self) -> bool:
        """Whether the run has ended, in whichever way."""
        return self._background.done

    def partial(self) -> pd.DataFrame:
        """The frame with what is finished so far; other rows are ``pending``."""
        return self._session.result()

    def result(self, timeout_s: float | None = None) -> pd.DataFrame:
        """Wait for the end and return the frame.

        Raises
        ------
        TimeoutError
            After ``timeout_s`` seconds; the run goes on.
        ServiceError
            What was wrong for all rows; its ``partial`` holds the finished ones.
        """
        try:
            self._background.wait(timeout_s=timeout_s)
        except concurrent.futures.CancelledError:
            return self._session.result()
        except ServiceError as error:
            error.partial = self._session.result()
            raise
        return self._session.result()

    def cancel(self) -> None:
        """Stop new work; finished rows stay, submitted jobs are collected by `resume`."""
        self._background.cancel()

    def show(self) -> None:
        """Draw the panel here; it shows the run from now on."""
        self._meter = self._new_meter(progress=True)
        self._tick()

    def __await__(self) -> Generator[Any, None, pd.DataFrame]:
        return self._awaited().__await__()

    async def _awaited(self) -> pd.DataFrame:
        try:
            await self._background
        except concurrent.futures.CancelledError:
            pass
        except ServiceError as error:
            error.partial = self._session.result()
            raise
        return self._session.result()

    def __repr__(self) -> str:
        return f"<Run {self.run_id}: {self._session.tally.snapshot()}>"

    def _new_meter(self, progress: bool) -> Meter | None:
        return views.meter_for(progress, self._session.tally.destination, on_cancel=self.cancel)

    def _tick(self) -> None:
        if self._meter is not None:
            self._meter.show(self._session.tally.snapshot())


def recorded(data_dir: Path, run_id: str | None) -> RunRecord:
    """The run to go on with: the named one, else the newest unfinished one, else the newest.

    Raises
    ------
    UsageError
        No such run, or nothing kept.
    """
    with Ledger(data_dir) as ledger:
        runs = ledger.runs()
    if run_id is not None:
        runs = [run for run in runs if run.run_id == run_id]
    if not runs:
        known = f"no run {run_id!r}" if run_id else "no run yet"
        raise UsageError(f"The ledger knows {known}: runs() lists what it has.")
    return next((run for run in runs if run.finished_at is None), runs[0])
