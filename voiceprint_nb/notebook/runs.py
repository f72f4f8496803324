"""A run over a frame: prepared once, then blocking, in the background, or taken up again."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import dataclasses
import os
import sys
import time
import weakref
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from voiceprint_nb.batch.bridge import Background, loop_thread, ticking
from voiceprint_nb.batch.outcomes import Outcome, Request
from voiceprint_nb.batch.progress import LIVE_STATES, Snapshot, Tally
from voiceprint_nb.batch.runner import Batch
from voiceprint_nb.batch.store import Ledger, RunRecord, is_private
from voiceprint_nb.display import Bundled
from voiceprint_nb.errors import ServiceError, UsageError
from voiceprint_nb.intake.clips import Fit
from voiceprint_nb.notebook import frames, services, views
from voiceprint_nb.notebook.views import Paced
from voiceprint_nb.settings import Settings

if TYPE_CHECKING:
    from voiceprint_nb.client.receiver import Receiver

_LEAVE_S = 5.0  # most that a run still going adds to the end of the process


_WORTH_RESUMING = ("service_unavailable", "bad_answer", "upload_failed", "max_new")


@dataclasses.dataclass(frozen=True)
class Call:
    """What was asked of a run, in plain values that the ledger keeps."""

    column: Hashable
    prefix: str = frames.DEFAULT_PREFIX
    fit: Fit = "error"
    bases: tuple[Path, ...] = ()
    service: str = "local"
    model: str | None = None
    compress: bool = False
    quality: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values for the ledger; the column, which may be anything hashable, is kept with the frame."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["column"]
        return values | {"bases": [str(base) for base in self.bases]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, column: Hashable) -> Call:
        """The call of a recorded run."""
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
    run_id : str, optional
        The run to go on with; by default a new one.
    listed : bool
        Whether the run stays on the ledger's list when it has ended.
    receiver : Receiver, optional
        Takes the service's webhooks.
    sign : callable, optional
        Signs the addresses of objects.
    max_new : int, optional
        So many voiceprints are bought at most.
    n_bought : int
        So many of these are bought already.
    done : iterable, optional
        Positions and outcomes of rows that are finished already.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        call: Call,
        settings: Settings,
        *,
        keep: bool = True,
        run_id: str | None = None,
        listed: bool = True,
        receiver: Receiver | None = None,
        sign: Callable[[str], str] | None = None,
        max_new: int | None = None,
        n_bought: int = 0,
        done: Iterable[tuple[int, Outcome]] = (),
    ) -> None:
        self._frame = frame
        self._new_session = partial(
            Session,
            frame,
            call,
            settings,
            keep=keep,
            listed=listed,
            receiver=receiver,
            sign=sign,
            max_new=max_new,
        )
        self._listed = listed
        self._call = call
        self._settings = settings
        embed = services.embed_of_quality() if call.quality else None
        self._ledger = Ledger(settings.data_dir if keep else None, paid=not settings.is_local)
        try:
            service = services.connect(settings, self._ledger, receiver)
            self.run_id = run_id or self._begin(keep)
        except BaseException:
            self._ledger.close()
            raise
        self._model = service.identity.partition("local:")[2] or call.model
        self._keep = keep
        self.tally = Tally(len(frame), destination=settings.destination)
        self._batch = Batch(
            frames.cells_of(frame, call.column),
            request=Request(
                call.bases,
                call.fit,
                settings.asked_model,
                sign,
                max_new,
                call.compress,
                n_bought,
                embed,
            ),
            service=service,
            ledger=self._ledger,
            run_id=self.run_id,
            tally=self.tally,
            resumable=keep,
            done=done,
        )

    def again(self) -> Session:
        """The same run, to work on the rows that failed or were stopped; finished rows stay as they are.

        Rows that may have been bought already (``submit_unknown``) stay too: only the line itself, run again,
        submits them once more. So do open jobs of a run of which nothing is kept. What was bought counts on.
        """
        worth = ("failed", "canceled", "pending") if self._keep else ("failed", "canceled")
        done = (
            (position, outcome)
            for position, outcome in self._batch.outcomes.items()
            if outcome.status not in worth or outcome.error_code == "submit_unknown"
        )
        return self._new_session(run_id=self.run_id, done=done, n_bought=self._batch.n_bought)

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
            ends = self._batch.outcomes.kinds()
            finished = not any(end.status == "pending" or end.error_code in _WORTH_RESUMING for end in ends)
        finally:
            self._ledger.end_run(self.run_id, self.tally.counts(), finished=finished)
            if finished and not self._listed:
                self._ledger.unlist(self.run_id)
            self._ledger.close()

    def result(self) -> pd.DataFrame:
        """The frame with what is finished so far."""
        frame = frames.without_kept(self._frame, self._call.column)
        names = frames.result_names(self._call.prefix, quality=self._call.quality)
        out = frames.with_outcomes(frame, self._batch.outcomes, names)
        snapshot = self.tally.snapshot()
        out.attrs = {**self._frame.attrs, "voiceprint_nb": self._facts(snapshot)}
        return out

    def _facts(self, snapshot: Snapshot) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "service": self._settings.service,
            "model": self._model,
            "fit": self._call.fit,
            "column": frames.result_names(self._call.prefix)["voiceprint"],
            "counts": dict(snapshot.counts),
            "requests": dict(snapshot.requests),
            "uploads": dataclasses.asdict(snapshot.uploads),
            "elapsed_s": round(snapshot.elapsed_s, 3),
            "ended_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) if snapshot.ended else None,
        }

    def block(self, *, progress: bool) -> pd.DataFrame:
        """Run to the end in the calling cell; an interrupt stops the run and keeps what is finished."""
        meter = views.meter_for(progress, self._settings.destination)
        background = loop_thread().start(self.run())
        return self.wait_for(background, tick=(lambda: meter.show(self.tally.snapshot())) if meter else None)

    def wait_for(
        self,
        background: Background[None],
        *,
        tick: Callable[[], None] | None = None,
        timeout_s: float | None = None,
    ) -> pd.DataFrame:
        """Block until the run has ended, in whichever way; an interrupt stops it and says so."""
        try:
            background.wait(tick=tick, timeout_s=timeout_s)
        except concurrent.futures.CancelledError:
            return self.result()
        except ServiceError as error:
            error.partial = self.result()
            raise
        except KeyboardInterrupt:
            print(self._farewell(), file=sys.stderr, flush=True)
            raise
        return self.result()

    def _farewell(self) -> str:
        counts = self.tally.counts()
        open_rows = sum(counts.get(state, 0) for state in (*LIVE_STATES, "canceled", "pending"))
        kept = f"resume goes on with run {self.run_id}" if self._keep else "with ledger=False nothing is kept"
        return f"Stopped. {len(self._frame) - open_rows} of {len(self._frame)} rows are finished; {kept}."


class Run(Bundled):
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
        self._meters: list[Paced] = []
        if (meter := self._meter(progress, session.tally.destination)) is not None:
            self._add(meter)
        self._start()

    def _start(self) -> None:
        # Drawn by the loop's thread, so without the context of this cell, which will have ended: front ends
        # and nbclient take what comes late as output of the cell that then runs.
        self._background: Background[None] = contextvars.Context().run(
            loop_thread().start, ticking(self._session.run(), self._tick)
        )
        # A script that ends while this goes on: stopped in order, before the local service is. Until it has
        # ended the run's task keeps this object alive, so nothing is stopped by losing the last reference. An
        # error that it has ended with must not keep it alive: frames of its traceback hold the run.
        weakref.finalize(self, _stop, weakref.ref(self._background), os.getpid())

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
        return self._session.wait_for(self._background, timeout_s=timeout_s)

    def cancel(self) -> None:
        """Stop new work; finished rows stay, submitted jobs are collected by `resume`."""
        self._background.cancel()

    def retry(self) -> None:
        """Work again on the rows that failed or were stopped, in the background; finished rows stay.

        Not on rows that may have been bought already (``submit_unknown``).

        Raises
        ------
        UsageError
            The run has not ended yet.
        """
        if self._session.tally.snapshot().ended:  # the panel says so a moment before all is written
            with contextlib.suppress(Exception):  # however it ended
                self._background.wait(timeout_s=_LEAVE_S)
        if not self.done:
            raise UsageError("The run goes on: wait for its end, or cancel() it first.")
        self._session = self._session.again()
        for meter in self._meters:
            meter.begin_again()
        self._start()

    def show(self) -> None:
        """Draw the panel here as well, and keep it up to date; outside notebooks, write one line."""
        if views.kernel_version() is None:
            print(self._session.tally.snapshot(), file=sys.stderr, flush=True)
        elif (meter := self._meter(True, "")) is not None:
            self._add(meter)

    def _meter(self, progress: bool, destination: str) -> Paced | None:
        return views.meter_for(progress, destination, on_cancel=self.cancel, on_retry=self._retry_soon)

    def _retry_soon(self) -> None:
        """`retry` by a click: a thread does it, and what prevents it is told in the panel."""

        async def work() -> None:
            try:
                await asyncio.to_thread(self.retry)
            except UsageError as error:  # such as a ledger that cannot be opened
                self._session.tally.stop(str(error))
                for meter in self._meters:
                    meter.begin_again()
                self._tick()

        loop_thread().start(work())

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
        except asyncio.CancelledError:  # as with a task: who stops waiting for it, stops it
            self.cancel()
            raise
        return self._session.result()

    def __repr__(self) -> str:
        return f"<Run {self.run_id}: {self._session.tally.snapshot()}>"

    def _repr_html_(self) -> str:
        """How it stands at this moment: nothing moves, unlike in `show`."""
        from voiceprint_nb.notebook.widgets import as_html

        snapshot = self._session.tally.snapshot()
        moment = time.strftime("%H:%M:%S")
        later = "" if snapshot.ended else f"<div>As of {moment}: run.show() draws a panel that follows.</div>"
        return as_html(snapshot) + later

    def _add(self, meter: Paced) -> None:
        meter.show(self._session.tally.snapshot())  # opened by the calling cell, not by the loop's thread
        self._meters.append(meter)
        meter.show(self._session.tally.snapshot())  # the run may have ended in between

    def _tick(self) -> None:
        for meter in tuple(self._meters):
            meter.show(self._session.tally.snapshot())


def _stop(reference: weakref.ref[Background[None]], owner_pid: int) -> None:
    background = reference()
    if background is None or background.done or os.getpid() != owner_pid:
        return
    background.cancel()
    with contextlib.suppress(Exception):  # however it ends: the ledger knows
        background.wait(timeout_s=_LEAVE_S)


def recorded(data_dir: Path, run_id: str | None) -> tuple[RunRecord, bytes | None]:
    """The run to go on with, and its packed frame: the named, else the newest unfinished, else the newest.

    Raises
    ------
    UsageError
        No such run, or others could have written the ledger: frames in it are pickles, which run code.
    """
    with Ledger(data_dir) as ledger:
        if ledger.path is not None and not is_private(ledger.path):
            raise UsageError(
                f"Others may have changed the ledger {str(ledger.path)!r}, so it is not read back: if you "
                "trust it, make it yours alone (chmod 600); else pass the frame to voiceprints() again."
            )
        runs = ledger.runs()
        if run_id is not None:
            runs = [run for run in runs if run.run_id == run_id]
        if not runs:
            known = f"no run {run_id!r}" if run_id else "no run yet"
            raise UsageError(f"The ledger knows {known}: runs() lists what it has.")
        record = next((run for run in runs if run.finished_at is None), runs[0])
        return record, ledger.frame_of(record.run_id)
