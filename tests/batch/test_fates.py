from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from faulty import Forward, acts_then, answers
from helpers import World

from voiceprint_nb.batch import fates
from voiceprint_nb.batch.orders import Orders
from voiceprint_nb.batch.outcomes import Request
from voiceprint_nb.batch.progress import Uploads
from voiceprint_nb.contract import VOICEPRINT_PATH
from voiceprint_nb.errors import RowError

URL = "media://nothing-is-stored-here"
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
PAGE = 100


class Listed:
    """A service's job list: ids and when they were created, in Unix seconds; newest first in the answers."""

    def __init__(self) -> None:
        self.jobs: dict[str, float] = {}
        self.statuses: dict[str, str] = {}

    def add(self, *created_at: float) -> list[str]:
        ids = [f"job-{len(self.jobs) + n}" for n in range(len(created_at))]
        self.jobs |= dict(zip(ids, created_at, strict=True))
        return ids

    async def page(self, request: httpx.Request, forward: Forward) -> httpx.Response:
        newest_first = sorted(self.jobs, key=lambda job_id: self.jobs[job_id], reverse=True)
        after = request.url.params.get("cursor")
        begin = newest_first.index(after) + 1 if after else 0
        ids = newest_first[begin : begin + PAGE]
        items = [
            {
                "id": job_id,
                "status": self.statuses.get(job_id, "succeeded"),
                "createdAt": iso(self.jobs[job_id]),
            }
            for job_id in ids
        ]
        return httpx.Response(200, json={"items": items, "nextCursor": ids[-1] if len(ids) == PAGE else None})


def iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")


@pytest.fixture
def listed(world: World) -> Listed:
    jobs = Listed()
    world.wire.always("GET", "/v2/jobs", jobs.page)
    return jobs


def claimed(world: World, **claims: float) -> None:
    """Claims of processes that are gone."""
    for key, claimed_at in claims.items():
        world.clock = lambda claimed_at=claimed_at: claimed_at
        with world.ledger() as ledger:
            ledger.claim(key)
            ledger.abandon(key)
    world.clock = lambda: NOW


def opened(world: World, jobs: Sequence[str], *, claimed_at: float, opened_at: float) -> None:
    """Jobs that the ledger knows."""
    for job_id in jobs:
        times = iter((claimed_at, opened_at))
        world.clock = lambda times=times: next(times)
        with world.ledger() as ledger:
            ledger.claim(f"key of {job_id}")
            ledger.opened(f"key of {job_id}", job_id)
    world.clock = lambda: NOW


def blamed(world: World, *keys: str) -> list[bool]:
    """Which of the keys are told as ``submit_unknown`` by a run that comes to all of them at once."""

    async def told(orders: Orders, key: str) -> bool:
        try:
            return await orders.known(key) is not None
        except RowError as error:
            assert error.code == "submit_unknown"
            return True

    return run(world, lambda orders: asyncio.gather(*(told(orders, key) for key in keys)))


def run(world: World, session: Callable[[Orders], Any]) -> Any:
    async def opened() -> Any:
        with world.ledger() as ledger:
            orders = Orders(world.service(), ledger, "run", Request(), smaller=nullcontext, sent=Uploads())
            async with orders:
                return await session(orders)

    return asyncio.run(opened())


@pytest.mark.parametrize(
    ("created_at", "is_blamed"),
    [
        ("2027-01-15T08:00:00.000Z", True),
        ("2027-01-15T07:58:30.000Z", True),  # within what clocks may differ
        ("2027-01-15T07:57:00.000Z", False),
        ("2027-01-15T07:57:00.000", False),  # without a zone it is UTC
        ("2027-01-15T07:59:00", True),
        ("", True),
        ("yesterday", True),
    ],
)
def test_only_recent_strangers_are_blamed(world: World, created_at: str, is_blamed: bool) -> None:
    item = {"id": "stranger", "status": "succeeded", "createdAt": created_at}
    world.wire.always("GET", "/v2/jobs", answers(200, {"items": [item], "nextCursor": None}))
    claimed(world, key=NOW)
    assert blamed(world, "key") == [is_blamed]


@pytest.mark.parametrize(("status", "is_blamed"), [("failed", False), ("canceled", False), ("running", True)])
def test_jobs_that_are_not_billed_are_not_blamed(world: World, status: str, is_blamed: bool) -> None:
    item = {"id": "stranger", "status": status, "createdAt": ""}
    world.wire.always("GET", "/v2/jobs", answers(200, {"items": [item], "nextCursor": None}))
    world.wire.on("POST", VOICEPRINT_PATH, acts_then(answers(503)))

    async def session(orders: Orders) -> str | None:
        try:
            await orders.submit("key", URL)
        except RowError as error:
            return error.code
        return None

    assert (run(world, session) == "submit_unknown") is is_blamed


@pytest.mark.parametrize(("lag_s", "is_blamed"), [(0.4, True), (30.0, False), (-30.0, False)])
def test_jobs_of_known_origin_tell_the_services_clock(
    world: World, listed: Listed, lag_s: float, is_blamed: bool
) -> None:
    ahead_s = 55.0
    known = listed.add(*(NOW - 300 + n + ahead_s for n in range(5)))
    for n, job_id in enumerate(known):
        opened(world, [job_id], claimed_at=NOW - 300 + n - 0.1, opened_at=NOW - 300 + n + 0.1)
    claimed(world, key=NOW - 1.0)
    listed.add(NOW - 1.0 + ahead_s + lag_s)
    assert blamed(world, "key") == [is_blamed]


def test_many_claims_cost_one_reading_of_the_list(world: World, listed: Listed) -> None:
    known = listed.add(*(NOW - 1000 + n for n in range(900)))
    opened(world, known, claimed_at=NOW - 2000, opened_at=NOW)
    claims = {f"key-{n}": NOW - 900 + 10 * n for n in range(70)}
    claimed(world, **claims)
    assert not any(blamed(world, *claims))
    assert world.wire.paths().count("/v2/jobs") == 10


def test_each_claim_is_blamed_by_jobs_of_its_own_time(world: World, listed: Listed) -> None:
    known = listed.add(*(NOW - 1000 + n for n in range(900)))
    for n, job_id in enumerate(known):
        opened(world, [job_id], claimed_at=NOW - 1000 + n - 0.1, opened_at=NOW - 1000 + n + 0.1)
    listed.add(NOW - 1200.0, NOW - 499.5)
    claimed(world, before=NOW - 900, just=NOW - 500, after=NOW - 300)
    assert blamed(world, "before", "just", "after") == [False, True, False]


def test_what_is_new_in_the_list_is_read_again(world: World, listed: Listed) -> None:
    listed.add(NOW - 400.0)
    claimed(world, first=NOW - 2.0, second=NOW - 1.0)

    async def session(orders: Orders) -> list[str]:
        assert await orders.known("first") is None
        listed.add(NOW - 0.5, *(NOW + n for n in range(PAGE)))  # others were busy since
        with pytest.raises(RowError) as told:
            await orders.known("second")
        return [told.value.code]

    assert run(world, session) == ["submit_unknown"]


def test_nothing_is_left_out_between_two_readings(world: World, listed: Listed) -> None:
    """Of two lost answers the later one is asked about first."""
    listed.add(NOW - 4000.0)
    claimed(world, first=NOW - 3000.0, early=NOW - 60.0, late=NOW - 1.0)
    now_s = NOW - 100.0
    world.clock = lambda: now_s

    async def session(orders: Orders) -> list[bool]:
        nonlocal now_s
        assert await orders.known("first") is None
        now_s = NOW
        listed.add(NOW - 59.9)
        known = listed.add(*(NOW - 59 + n / 5 for n in range(2 * PAGE)))
        opened(world, known, claimed_at=NOW - 60, opened_at=NOW)
        blamed = []
        for key in ("late", "early"):
            try:
                blamed.append(await orders.known(key) is not None)
            except RowError:
                blamed.append(True)
        return blamed

    assert run(world, session) == [False, True]


def test_page_that_is_missing_once_is_asked_for_again(world: World, listed: Listed) -> None:
    known = listed.add(*(NOW - 1000 + n for n in range(900)))
    opened(world, known, claimed_at=NOW - 2000, opened_at=NOW)
    claimed(world, key=NOW - 900)
    world.wire.on("GET", "/v2/jobs", None, None, answers(404))
    assert blamed(world, "key") == [False]


def test_list_that_goes_back_further_than_anybody_looks_is_no_comfort(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fates, "_MOST_PAGES", 20)
    page = {"items": [], "nextCursor": "3c8a89a5-dcc6-4edb-a75d-ffd64739674d"}
    world.wire.always("GET", "/v2/jobs", answers(200, page))
    claimed(world, key=NOW, other=NOW)
    assert blamed(world, "key", "other") == [True, True]
    assert world.wire.paths().count("/v2/jobs") <= 40
