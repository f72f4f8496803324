"""The path of a row, and the fan-out over all rows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from voiceprint_nb import contract
from voiceprint_nb.batch.inspecting import Inspector
from voiceprint_nb.batch.orders import NOT_BILLED, Orders, fetches, key_of_print
from voiceprint_nb.batch.outcomes import Kept, Outcome, Outcomes, Request, Service
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.errors import KeyRefused, NoCredit, RowError, ServiceError, UsageError, VoiceprintError
from voiceprint_nb.intake.clips import Clip
from voiceprint_nb.intake.sources import MediaSource, PathSource, Source

Release = Callable[[], Awaitable[None]]

_COPIES = 64  # rows between their cell and their job that may hold a copy of a clip each, or load one


class Batch:
    """Voiceprints for many cells.

    Parameters
    ----------
    cells : sequence
        One cell a row; a `Kept` stands for audio that is no longer in memory.
    request : Request
        What is asked for each.
    service : Service
        Where.
    ledger : Ledger
        What is known already, and where results are kept first.
    run_id : str
        The run's name in the ledger.
    tally : Tally
        Hears of every step.
    resumable : bool
        Whether the ledger outlives the process, so that `resume` can go on.
    done : iterable, optional
        Positions and outcomes of rows that are finished already.
    """

    def __init__(
        self,
        cells: Sequence[object],
        *,
        request: Request,
        service: Service,
        ledger: Ledger,
        run_id: str,
        tally: Tally,
        resumable: bool = True,
        done: Iterable[tuple[int, Outcome]] = (),
    ) -> None:
        self._go_on = "resume() goes on" if resumable else "run the line again"
        self._canceled = (
            f"Canceled; submitted jobs go on at the service. resume({run_id!r}) collects them and goes on."
            if resumable
            else "Canceled. Nothing is kept (ledger=False): run the line again."
        )
        self._cells = cells
        self._service = service
        self._ledger = ledger
        self._run_id = run_id
        self._tally = tally
        self._request = request
        self._copies = asyncio.Semaphore(_COPIES)
        self._inspector = Inspector(
            request, passes_on=partial(fetches, service), sign=request.sign, decoded=service.decoded
        )
        smaller, sent = self._inspector.smaller, tally.uploads
        self._orders = orders = Orders(service, ledger, run_id, request, smaller=smaller, sent=sent)
        tally.waiting_for_limit, tally.notice = orders.waiting_for_limit, orders.notice
        tally.requests, tally.limits = orders.requests, orders.limits
        self._leaders: dict[str, asyncio.Future[Outcome]] = {}
        self.outcomes = Outcomes(len(cells), measured=request.embed is not None)
        for position, outcome in done:
            self._end(position, outcome)

    @property
    def n_bought(self) -> int:
        """Voiceprints that the run has bought, or may have."""
        return self._orders.n_bought

    async def run(self) -> None:
        """Work on all rows; `outcomes` fills as they end, and holds every row in the end.

        Raises
        ------
        ServiceError
            What is wrong for all rows: the key, the credit, the service itself.
        """
        stopped_by: BaseException | None = None
        already_open = self._ledger.open_jobs(self._run_id)  # paid for, and their outputs expire
        others = (position for position in range(len(self._cells)) if position not in already_open)
        positions = (n for n in chain(already_open, others) if n not in self.outcomes)
        try:
            with self._ledger.in_turns():
                async with self._inspector, self._orders, asyncio.TaskGroup() as group:
                    for _ in range(min(self._service.in_flight, len(self._cells))):
                        group.create_task(self._work(positions))
        except BaseExceptionGroup as errors:
            stopped_by = _first(errors)
            self._tally.stop(str(stopped_by))
        except asyncio.CancelledError:
            self._tally.stop(self._canceled)
            raise
        finally:
            self._end_the_rest()
            self._tally.end()
        # out here it has no group as its context: for those IPython shows no error in the cell
        if isinstance(stopped_by, VoiceprintError):
            raise stopped_by.with_traceback(None)  # its sentence says all; frames of rows hold signed links
        if stopped_by is not None:
            raise stopped_by

    async def run_row(self, position: int) -> Outcome:
        """The path of a row; each step takes a value and returns the next."""
        cell = self._cells[position]
        if isinstance(cell, Kept):
            return await self._kept_row(position)
        async with contextlib.AsyncExitStack() as held:
            source = self._inspector.parse(cell)
            if not (self._service.sees_files and isinstance(source, PathSource)):
                await held.enter_async_context(self._copies)
            self._tally.step(position, "checking")
            clip: Clip | None = None
            if isinstance(source, MediaSource):
                content = source.key
            else:
                clip = await held.enter_async_context(self._inspector.clip(source))
                content = clip.digest
            key = self._note(position, content)
            order = partial(self._order, position, key, source, clip, held.aclose)
            outcome = await self._once(key, order, release=held.aclose)
        return outcome.with_clip(clip) if clip else outcome

    async def _order(
        self, position: int, key: str, source: Source, clip: Clip | None, release: Release
    ) -> Outcome:
        """Steps 4 to 8; the clip's file is released as soon as nothing can need it again."""
        while (outcome := await self._orders.known(key)) is None:
            self._inspector.expects_new = True
            await self._orders.check_key()
            with self._orders.buying(key):
                self._tally.step(position, "uploading")
                url = await self._orders.reach(source, clip)
                if (entry := await self._orders.submit(key, url)) is None:
                    self._orders.not_bought()
                    continue
            self._tally.step(position, "running")
            second_hand = self._orders.is_second_hand(url)
            if not (second_hand or contract.is_file_url(url)):
                await release()
            outcome = await self._orders.collect(key, entry, duration_s=clip.duration_s if clip else 0.0)
            if outcome.error_code in NOT_BILLED:
                self._orders.not_bought()
                if second_hand:  # it may be the upload that is at fault
                    self._orders.forget_upload(url)
                    continue
            return outcome
        self._inspector.expects_new = False  # nor are its neighbours, most likely
        return outcome

    async def _kept_row(self, position: int) -> Outcome:
        key = self._ledger.key_of_row(self._run_id, position)
        return await self._once(key, partial(self._known_or_gone, key), release=_nothing) if key else _GONE

    async def _known_or_gone(self, key: str) -> Outcome:
        return await self._orders.known(key) or _GONE

    async def _work(self, positions: Iterator[int]) -> None:
        for position in positions:
            try:
                outcome = await self.run_row(position)
            except RowError as error:
                outcome = Outcome.of_error(error)
            except ServiceError as error:
                if error.concerns_all_rows or isinstance(error, (KeyRefused, NoCredit)):
                    raise
                outcome = Outcome("failed", error_code=error.code, error=f"{error} Run the line again.")
            except OSError as error:
                raise UsageError(
                    f"A temporary file could not be written ({error.strerror}): make room in the temporary "
                    f"folder, or set TMPDIR to another; {self._go_on}."
                ) from error
            self._end(position, outcome)

    async def _once(self, key: str, work: Callable[[], Awaitable[Outcome]], *, release: Release) -> Outcome:
        """Equal requests of one run share one job: the first does the work, the others take its outcome."""
        if (leader := self._leaders.get(key)) is not None:
            self._inspector.expects_new = False
            await release()
            outcome = await asyncio.shield(leader)
            return replace(outcome, source="reused") if outcome.status == "succeeded" else outcome
        leader = self._leaders[key] = asyncio.get_running_loop().create_future()
        try:
            outcome = await work()
        except RowError as error:
            outcome = Outcome.of_error(error)
        except ServiceError as error:
            leader.set_exception(error)
            leader.exception()  # marks it as seen: there may be no followers
            raise
        except BaseException:
            leader.cancel()
            raise
        leader.set_result(outcome)
        if outcome.status == "succeeded":  # the ledger has it
            del self._leaders[key]
        return outcome

    def _note(self, position: int, content: str) -> str:
        key = key_of_print(content, request=self._request, service=self._service)
        self._ledger.note_row(self._run_id, position, key)
        return key

    def _end(self, position: int, outcome: Outcome) -> None:
        self.outcomes.end(position, outcome)
        self._tally.ended(position, outcome.state, outcome.error_code, outcome.error)

    def _end_the_rest(self) -> None:
        """Rows that a stop left unfinished: those whose job is open are pending, the others canceled."""
        if len(self.outcomes) == len(self._cells):
            return
        try:
            open_jobs = self._ledger.open_jobs(self._run_id)
        except UsageError:  # the ledger is what stopped the run
            open_jobs = {}
        for position in range(len(self._cells)):
            if position in self.outcomes:
                continue
            if (job_id := open_jobs.get(position)) is not None:
                said = "The run was stopped while the job was open: resume() collects it."
                self._end(position, Outcome("pending", error_code="job_open", error=said, job_id=job_id))
            else:
                said = f"The run was stopped before this row was finished: {self._go_on}."
                self._end(position, Outcome("canceled", error_code="canceled", error=said))


_GONE = Outcome(
    "invalid",
    error_code="unsupported_cell",
    error="The cell held audio in memory, which is gone: call voiceprints() with the frame again.",
)


async def _nothing() -> None:
    """There is nothing to release."""


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
