"""The list of a team's jobs, newest first, from whichever list the service has."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from voiceprint_nb import contract
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import RequestRefused

Position = Mapping[str, str]
START: Position = {}

_MOST_REFUSALS = 2  # in a row, of the first page, by either list: then there is none


class JobList:
    """Pages of the job list: ``/v2/jobs``, else the older ``/v1/jobs``.

    Parameters
    ----------
    api : Api
        The open client.
    patient : bool
        Whether an outage is waited for; else a request fails within seconds.
    """

    def __init__(self, api: Api, *, patient: bool = True) -> None:
        self._api = api
        self._patient = patient
        self._is_old = False
        self._n_refusals = 0

    @property
    def exists(self) -> bool:
        """Whether it is worth asking for."""
        return self._n_refusals < _MOST_REFUSALS

    async def page(
        self, position: Position = START
    ) -> tuple[tuple[contract.JobListItem, ...], Position | None]:
        """One page, and the position of the next; None at the end.

        The older list counts from the newest job, so jobs that are new since the last page push some to the
        next page, where they are seen again; none is skipped.

        Raises
        ------
        RequestRefused
            There is no list, or not from this position on.
        """
        is_old = "skip" in position if position else self._is_old  # others may have changed over since
        path, size = (contract.OLD_JOBS_PATH, "take") if is_old else (contract.JOBS_PATH, "limit")
        params = {size: str(contract.MAX_PAGE_ITEMS), **position}
        try:
            page = contract.JobPage.from_wire(await self._answer(path, params))
        except RequestRefused:
            if position:
                raise
            self._is_old = not is_old
            if self._is_old:
                return await self.page()
            self._n_refusals += 1
            raise
        self._n_refusals = 0
        if not is_old:
            return page.items, {"cursor": page.next_cursor} if page.next_cursor else None
        skip = int(position.get("skip", "0")) + len(page.items)
        return page.items, {"skip": str(skip)} if len(page.items) == contract.MAX_PAGE_ITEMS else None

    async def _answer(self, path: str, params: Mapping[str, str]) -> object:
        """One answer; a refusal may be a slip, and is asked about once more."""
        pacer = self._api.list_pacer
        ask = partial(self._api.get, path, pacer=pacer, params=params, patient=self._patient)
        try:
            return await ask()
        except RequestRefused:
            return await ask()
