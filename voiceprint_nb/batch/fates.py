"""What became of a submission whose answer was lost: the job list decides, or the row says so."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection

from voiceprint_nb import contract
from voiceprint_nb.batch.store import Entry, Ledger
from voiceprint_nb.client.joblist import START, JobList, Position
from voiceprint_nb.client.skew import moment_of
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import KeyRefused, NoCredit, RequestRefused, RowError, ServiceError

_MOST_PAGES = 500  # of the list, on the way back
_LONGEST_POST_S = 120.0
_SIBLINGS_S = 10.0
_LATE_S = 10.0  # a job may be listed so long after its creation
_ANY_TIME = (-math.inf, math.inf)


class Fates:
    """Asks the job list for jobs that nobody here knows.

    Parameters
    ----------
    api : Api
        The open client.
    ledger : Ledger
        The jobs that are known.
    siblings : callable
        Submissions of this run that are on their way: the list may show their jobs already.
    """

    def __init__(
        self, api: Api, ledger: Ledger, siblings: Callable[[], Collection[asyncio.Task[Entry]]]
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._siblings = siblings
        self._list = JobList(api)
        self._reading = asyncio.Lock()
        self._n_pages = 0
        self._older: Position | None = START
        self._read_at, self._oldest_at = -math.inf, math.inf
        self._strange: dict[str, tuple[float, float]] = {}  # jobs of unknown origin, created between these
        self._unknown: list[tuple[str, float]] = []  # claims of unknown fate, of which rows of this run tell

    async def refuse_if_created(self, key: str, entry: Entry, *, within_s: float) -> None:
        """Raise if the list shows a job of unknown origin that may be this claim's.

        The same if there is no list, or no end of it within reach.

        Parameters
        ----------
        key : str
            The request.
        entry : Entry
            Its claim.
        within_s : float
            A job of this claim was created at most so long after it, and never two minutes later.

        Raises
        ------
        RowError
            ``submit_unknown``.
        ServiceError
            The service cannot be asked.
        """
        last_at = entry.claimed_at + min(within_s, _LONGEST_POST_S)
        try:
            created = await self._may_be_listed(entry.claimed_at, last_at)
        except RequestRefused:
            created = True
        if created:
            self._unknown.append((key, entry.claimed_at))
            raise submit_unknown()

    async def look_at_once(self, key: str, entry: Entry, *, within_s: float) -> None:
        """`refuse_if_created` right after a submission: a service that cannot be asked is no comfort."""
        try:
            await self.refuse_if_created(key, entry, within_s=within_s)
        except (KeyRefused, NoCredit):
            raise
        except ServiceError as error:
            raise submit_unknown() from error

    def tell(self, run_id: str) -> None:
        """The run has ended and its rows tell of them: the user decides, and another run may submit again.

        Not the same run, resumed: it may have been killed before anybody saw its rows.
        """
        for key, claimed_at in self._unknown:
            self._ledger.tell(key, run_id, claimed_at=claimed_at)

    async def _may_be_listed(self, first_at: float, last_at: float) -> bool:
        """Whether the list shows a job of unknown origin from between these moments, or does not go back."""
        if not await self._has_read(first_at, last_at):
            return True
        if self._strangers(first_at, last_at) and (siblings := list(self._siblings())):
            await asyncio.wait(siblings, timeout=_SIBLINGS_S)
        return bool(self._strangers(first_at, last_at))

    def _strangers(self, first_at: float, last_at: float) -> list[str]:
        begin_at, end_at = self._api.server_clock.window(first_at, last_at)
        found = [
            job_id for job_id, (least, most) in self._strange.items() if least <= end_at and most >= begin_at
        ]
        for job_id in found:
            if self._ledger.times_of_job(job_id) is not None:  # its answer has come since
                del self._strange[job_id]
        return [job_id for job_id in found if job_id in self._strange]

    # --- the list ---------------------------------------------------------------------------------------

    async def _has_read(self, first_at: float, last_at: float) -> bool:
        """Read what was created between these moments and is not read yet; false if the list has no end.

        Whatever was read once is kept: many claims cost one reading of the list.
        """
        asked_at = self._ledger.now()
        async with self._reading:
            if self._read_at <= min(asked_at, last_at + _LATE_S):
                read_at = self._ledger.now()
                if self._older != START and not await self._reads_news():
                    return False
                self._read_at = read_at
            while self._older is not None and self._oldest_at >= self._server_time(first_at):
                if self._n_pages == _MOST_PAGES:
                    return False
                self._n_pages += 1
                oldest_at, self._older = await self._take(self._older)
                self._oldest_at = min(self._oldest_at, oldest_at)
        return True

    async def _reads_news(self) -> bool:
        """Read down to what was read before, without a gap."""
        position = START
        for _ in range(_MOST_PAGES):
            oldest_at, following = await self._take(position)
            if following is None or oldest_at < self._server_time(self._read_at - _LATE_S):
                return True
            position = following
        return False

    async def _take(self, position: Position) -> tuple[float, Position | None]:
        """Read one page: when its oldest job was created, and the position of the next page."""
        items, following = await self._list.page(position)
        oldest_at = math.inf
        for item in items:
            created = moment_of(item.created_at)
            if created is not None:
                oldest_at = min(oldest_at, created[1])
            if (times := self._ledger.times_of_job(item.id)) is not None:
                if created is not None:
                    self._api.server_clock.note_job(created, sent_at=times[0], received_at=times[1])
            elif item.status in (contract.FAILED, contract.CANCELED):  # not billed
                self._strange.pop(item.id, None)
            else:
                self._strange[item.id] = created or _ANY_TIME  # so that nothing is bought twice
        return oldest_at, following

    def _server_time(self, moment: float) -> float:
        return self._api.server_clock.window(moment, moment)[0]


def submit_unknown() -> RowError:
    """Of a row whose job may exist."""
    return RowError(
        "submit_unknown",
        "The connection or the process ended during the submission, and the service may have created (and "
        "billed) this job: run the line again to submit it once more.",
    )
