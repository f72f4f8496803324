"""What became of a submission whose answer was lost: the job list decides, or the row says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from voiceprint_nb import contract
from voiceprint_nb.batch.store import Entry, Ledger
from voiceprint_nb.client.joblist import START, JobList
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import KeyRefused, NoCredit, RequestRefused, RowError, ServiceError

_MOST_PAGES = 50
_LONGEST_POST_S = 120.0
_SIBLINGS_S = 10.0


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
        latest_at = entry.claimed_at + min(within_s, _LONGEST_POST_S)
        begin_at, end_at = self._api.server_clock.window(entry.claimed_at, latest_at)
        try:
            created = await self._may_be_listed(begin_at, end_at)
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

    async def _may_be_listed(self, begin_at: float, end_at: float) -> bool:
        position = START
        for _ in range(_MOST_PAGES):
            items, following = await self._list.page(position)
            recent = [item for item in items if _unix_s(item.created_at, unreadable=end_at) >= begin_at]
            strange = [
                item.id
                for item in recent
                if item.status not in (contract.FAILED, contract.CANCELED)  # not billed
                and _unix_s(item.created_at, unreadable=begin_at) <= end_at
            ]
            if not self._knows(strange):
                if siblings := list(self._siblings()):
                    await asyncio.wait(siblings, timeout=_SIBLINGS_S)
                if not self._knows(strange):
                    return True
            if following is None or len(recent) < len(items):
                return False
            position = following
        return True

    def _knows(self, job_ids: Collection[str]) -> bool:
        return all(map(self._ledger.knows_job, job_ids))


def submit_unknown() -> RowError:
    """Of a row whose job may exist."""
    return RowError(
        "submit_unknown",
        "The connection or the process ended during the submission, and the service may have created (and "
        "billed) this job: run the line again to submit it once more.",
    )


def _unix_s(timestamp: str, *, unreadable: float) -> float:
    try:
        moment = datetime.fromisoformat(timestamp)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return unreadable  # inside the stretch, so that nothing is bought twice
