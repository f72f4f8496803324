from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from faulty import Fault, Faulty, acts_then, answers, fails, with_state

from voiceprint_nb.client import jobs
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import JOBS_PATH, VOICEPRINT_PATH, Job, VoiceprintRequest
from voiceprint_nb.errors import KeyRefused, ProtocolError, RequestRefused, RowError, ServiceUnavailable

Talk = Callable[..., Any]
REQUEST = VoiceprintRequest("media://voiceprint-nb/nothing-is-stored-here")  # its job fails at once
UNKNOWN = "3c8a89a5-dcc6-4edb-a75d-ffd64739674d"


async def created(api: Api, n: int = 1) -> list[str]:
    return [(await jobs.submit(api, REQUEST)).job_id for _ in range(n)]


async def waited(
    api: Api, job_ids: list[str], *, sleep: Any = asyncio.sleep, timeout_s: float = 20.0
) -> list[Any]:
    waiter = jobs.Waiter(api, interval_s=0.01, sleep=sleep)
    try:
        waits = (waiter.wait(job_id, timeout_s=timeout_s) for job_id in job_ids)
        return list(await asyncio.gather(*waits, return_exceptions=True))
    finally:
        await waiter.close()


def run(n: int, **options: Any) -> Callable[[Api], Any]:
    async def session(api: Api) -> list[Any]:
        return await waited(api, await created(api, n), **options)

    return session


@pytest.mark.parametrize("n", [1, 3, 4, 20])
def test_all_jobs_end_and_each_output_is_fetched_once(talk: Talk, wire: Faulty, n: int) -> None:
    ended = talk(run(n))
    assert [job.status for job in ended] == ["failed"] * n
    reads = [path for path in wire.paths("GET") if path.startswith("/v1/jobs/")]
    if n > 3:
        assert len(reads) == len(set(reads)) == n
    else:
        assert JOBS_PATH not in wire.paths()


def test_one_round_lists_a_hundred_states(talk: Talk, wire: Faulty) -> None:
    talk(run(90))
    assert wire.paths("GET").count(JOBS_PATH) < 20


def test_rounds_keep_their_interval(talk: Talk, wire: Faulty) -> None:
    slept: list[tuple[float, int]] = []
    wire.on("GET", "/v1/jobs/", *[with_state("running")] * 3)

    async def sleep(seconds: float) -> None:
        slept.append((seconds, len(wire.paths("GET"))))
        await asyncio.sleep(0.01)

    talk(run(1, sleep=sleep))
    assert slept[:4] == [(0.01, reads) for reads in range(4)]


@pytest.mark.parametrize("n", [1, 5])
def test_unknown_states_count_as_running(talk: Talk, wire: Faulty, n: int) -> None:
    wire.on("GET", "/v", *[with_state("processing")] * 3)
    assert [job.status for job in talk(run(n))] == ["failed"] * n


@pytest.mark.parametrize("status", [400, 404])
def test_service_without_a_list_is_read_job_by_job(talk: Talk, wire: Faulty, status: int) -> None:
    wire.always("GET", JOBS_PATH, answers(status))
    assert [job.status for job in talk(run(5))] == ["failed"] * 5
    assert wire.paths().count(JOBS_PATH) == 1


@pytest.mark.parametrize(
    "fault",
    [
        answers(200, {}),
        answers(200, {"items": [{"id": 5}]}),
        answers(200, {"items": [], "nextCursor": None}),
        answers(200, text="<html>"),
    ],
)
def test_list_that_shows_nothing_is_no_end(talk: Talk, wire: Faulty, fault: Fault) -> None:
    wire.always("GET", JOBS_PATH, fault)
    assert [job.status for job in talk(run(5))] == ["failed"] * 5


def test_list_without_end_is_left(talk: Talk, wire: Faulty) -> None:
    wire.always("GET", JOBS_PATH, answers(200, {"items": [], "nextCursor": UNKNOWN}))
    assert [job.status for job in talk(run(5))] == ["failed"] * 5


def test_cursor_that_has_vanished_does_not_mean_that_there_is_no_list(talk: Talk, wire: Faulty) -> None:
    async def session(api: Api) -> bool:
        waiter = jobs.Waiter(api, interval_s=0.01)
        wire.on("GET", JOBS_PATH, answers(200, {"items": [], "nextCursor": UNKNOWN}), answers(400), None)
        ids = await created(api, 5)
        await asyncio.gather(*(waiter.wait(job_id, timeout_s=20) for job_id in ids))
        await waiter.close()
        return waiter._has_list

    assert talk(session)


def test_job_that_nobody_knows(talk: Talk) -> None:
    assert talk(lambda api: waited(api, [UNKNOWN])) == [None]


def test_job_that_does_not_end_in_time(talk: Talk, wire: Faulty) -> None:
    wire.always("GET", "/v1/jobs/", with_state("running"))
    (late,) = talk(run(1, timeout_s=0.05))
    assert isinstance(late, RowError)
    assert late.code == "job_timeout"


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("fault", [answers(500), fails(httpx.ReadError), answers(200, text="<html>")])
def test_two_rounds_without_an_answer_are_forgiven(talk: Talk, wire: Faulty, n: int, fault: Fault) -> None:
    wire.on("GET", "/v1/jobs/", *[fault] * 2)
    assert [job.status for job in talk(run(n))] == ["failed"] * n


@pytest.mark.parametrize("n", [1, 5])
def test_service_that_goes_away_is_told_to_every_row(talk: Talk, wire: Faulty, n: int) -> None:
    wire.always("GET", "/v", fails(httpx.ConnectError))
    assert [type(told) for told in talk(run(n))] == [ServiceUnavailable] * n


def test_one_unreadable_job_does_not_harm_the_others(talk: Talk, wire: Faulty) -> None:
    async def session(api: Api) -> list[Any]:
        ids = await created(api, 5)
        wire.always("GET", f"/v1/jobs/{ids[2]}", answers(200, {"status": "succeeded"}))
        return await waited(api, ids)

    kinds = [type(told) for told in talk(session)]
    assert kinds == [Job, Job, ProtocolError, Job, Job]


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_refused_key_is_told_to_every_row_at_once(talk: Talk, wire: Faulty, n: int, status: int) -> None:
    wire.always("GET", "/v", answers(status))
    told = talk(run(n))
    assert [error.status for error in told] == [status] * n
    assert len(wire.paths("GET")) == 1


def test_nothing_is_left_on_the_loop(talk: Talk, wire: Faulty) -> None:
    wire.always("GET", "/v1/jobs/", with_state("running"))

    async def session(api: Api) -> int:
        waiter = jobs.Waiter(api, interval_s=0.01)
        waits = [asyncio.create_task(waiter.wait(job_id, timeout_s=20)) for job_id in await created(api, 2)]
        await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await waiter.close()
        await waiter.close()
        return len(asyncio.all_tasks())

    assert talk(session) == 1


def test_a_second_batch_of_waits_starts_the_rounds_again(talk: Talk) -> None:
    async def session(api: Api) -> list[Any]:
        waiter = jobs.Waiter(api, interval_s=0.001)
        ended = []
        for job_id in await created(api, 2):
            ended.append(await waiter.wait(job_id, timeout_s=20))
        await waiter.close()
        return ended

    assert [job.status for job in talk(session)] == ["failed"] * 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (answers(400), RequestRefused),
        (answers(401), KeyRefused),
        (answers(503), ServiceUnavailable),
        (acts_then(fails(httpx.ReadError)), ServiceUnavailable),
        (answers(200, {"status": "created"}), ProtocolError),
        (answers(200, text="<html>"), ProtocolError),
    ],
)
def test_submission_is_sent_once(talk: Talk, wire: Faulty, fault: Fault, kind: type[Exception]) -> None:
    wire.on("POST", VOICEPRINT_PATH, fault)
    with pytest.raises(kind):
        talk(created)
    assert wire.paths("POST") == [VOICEPRINT_PATH]
