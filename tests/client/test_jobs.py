from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty import Fault, Faulty, acts_then, answers, fails, hangs, passes, with_state, write_clip

from voiceprint_nb.client import jobs
from voiceprint_nb.client.joblist import START, JobList
from voiceprint_nb.client.receiver import Receiver
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import (
    JOBS_PATH,
    OLD_JOBS_PATH,
    TEST_PATH,
    VOICEPRINT_PATH,
    Job,
    VoiceprintRequest,
    sign_webhook,
)
from voiceprint_nb.errors import KeyRefused, ProtocolError, RequestRefused, RowError, ServiceUnavailable
from voiceprint_nb.service.local import LocalService

Talk = Callable[..., Any]
SIGNER = "whsec_test_0123456789"
WAIT_S = 20.0
REQUEST = VoiceprintRequest("media://voiceprint-nb/nothing-is-stored-here")  # its job fails at once
UNKNOWN = "3c8a89a5-dcc6-4edb-a75d-ffd64739674d"


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    """One that signs its events as the receiver expects."""
    with LocalService(threads=1, webhook_secret=SIGNER) as local:
        yield local


async def created(api: Api, n: int = 1, request: VoiceprintRequest = REQUEST) -> list[str]:
    return [(await jobs.submit(api, request)).job_id for _ in range(n)]


async def waited(
    api: Api, job_ids: list[str], *, sleep: Any = asyncio.sleep, timeout_s: float = 20.0
) -> list[Any]:
    api.sleep = sleep
    waiter = jobs.Waiter(api, interval_s=0.01)
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


def test_rounds_come_soon_at_first(talk: Talk, wire: Faulty) -> None:
    slept: list[tuple[float, int]] = []
    wire.on("GET", "/v1/jobs/", *[with_state("running")] * 3)

    async def sleep(seconds: float) -> None:
        slept.append((seconds, len(wire.paths("GET"))))
        await asyncio.sleep(0.01)

    talk(run(1, sleep=sleep))
    assert [reads for _, reads in slept[:4]] == [0, 1, 2, 3]
    assert [pause_s for pause_s, _ in slept[:4]] == pytest.approx([0.01 / 8 * 1.5**n for n in range(4)])


def test_pauses_grow_up_to_the_interval(talk: Talk, wire: Faulty) -> None:
    slept: list[float] = []
    wire.on("GET", "/v1/jobs/", *[with_state("running")] * 9)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    talk(run(1, sleep=sleep))
    assert max(slept) == slept[9] == 0.01


@pytest.mark.parametrize("n", [1, 5])
def test_unknown_states_count_as_running(talk: Talk, wire: Faulty, n: int) -> None:
    wire.on("GET", "/v", *[with_state("processing")] * 3)
    assert [job.status for job in talk(run(n))] == ["failed"] * n


@pytest.mark.parametrize("status", [400, 404])
def test_service_without_a_list_is_read_job_by_job(talk: Talk, wire: Faulty, status: int) -> None:
    wire.always("GET", JOBS_PATH, answers(status))
    wire.always("GET", OLD_JOBS_PATH, answers(status))
    wire.always("GET", f"{OLD_JOBS_PATH}/", passes)
    wire.on("GET", f"{OLD_JOBS_PATH}/", *[with_state("running")] * 50)
    assert [job.status for job in talk(run(5))] == ["failed"] * 5
    assert wire.paths().count(JOBS_PATH) == wire.paths().count(OLD_JOBS_PATH) == 4


@pytest.mark.parametrize("status", [400, 404])
def test_service_with_the_older_list_only(talk: Talk, wire: Faulty, status: int) -> None:
    wire.always("GET", JOBS_PATH, answers(status))
    assert [job.status for job in talk(run(5))] == ["failed"] * 5
    assert wire.paths().count(JOBS_PATH) == 2
    assert wire.paths().count(OLD_JOBS_PATH) >= 1
    assert sum(path.startswith(f"{OLD_JOBS_PATH}/") for path in reads(wire)) == 5  # each output once


def test_one_refusal_of_the_list_is_a_slip(talk: Talk, wire: Faulty) -> None:
    wire.on("GET", JOBS_PATH, answers(404))
    assert [job.status for job in talk(run(5))] == ["failed"] * 5
    assert wire.paths().count(JOBS_PATH) >= 2
    assert wire.paths().count(OLD_JOBS_PATH) == 0


def test_the_older_list_has_pages(talk: Talk, wire: Faulty) -> None:
    async def session(api: Api) -> list[str]:
        await created(api, 3)
        wire.always("GET", JOBS_PATH, answers(404))
        found: list[str] = []
        joblist, position = JobList(api), START
        while position is not None:
            items, position = await joblist.page(position)
            found += [item.id for item in items]
        return found

    n_before = len(talk(session))
    assert n_before >= 3
    assert len(talk(session)) == n_before + 3


def test_oldest_outputs_are_read_first(talk: Talk, wire: Faulty) -> None:
    async def session(api: Api) -> list[str]:
        ids = await created(api, 6)
        ages = [30.0, 10.0, 60.0, 20.0, 50.0, 40.0]
        await waited(api, ids)
        wire.requests.clear()
        waiter = jobs.Waiter(api, interval_s=0.01)
        pairs = zip(ids, ages, strict=True)
        await asyncio.gather(*(waiter.wait(job_id, timeout_s=20, opened_at=age) for job_id, age in pairs))
        await waiter.close()
        return [job_id for _, job_id in sorted(zip(ages, ids, strict=True))]

    oldest_first = talk(session)
    assert [
        path.rsplit("/", 1)[1] for path in reads(wire) if path.startswith(f"{OLD_JOBS_PATH}/")
    ] == oldest_first


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
        wire.on("GET", JOBS_PATH, answers(200, {"items": [], "nextCursor": UNKNOWN}), *[answers(400)] * 2)
        ids = await created(api, 5)
        await asyncio.gather(*(waiter.wait(job_id, timeout_s=20) for job_id in ids))
        await waiter.close()
        return waiter._list.exists

    assert talk(session)
    assert wire.paths().count(OLD_JOBS_PATH) == 0


def test_job_that_nobody_knows(talk: Talk) -> None:
    assert talk(lambda api: waited(api, [UNKNOWN])) == [None]


def test_job_that_does_not_end_in_time(talk: Talk, wire: Faulty) -> None:
    wire.always("GET", "/v1/jobs/", with_state("running"))
    (late,) = talk(run(1, timeout_s=0.05))
    assert isinstance(late, RowError)
    assert late.code == "job_timeout"


@pytest.mark.parametrize("fault", [answers(500), fails(httpx.ReadError), answers(200, text="<html>")])
def test_rounds_without_an_answer_are_forgiven_for_a_while(talk: Talk, wire: Faulty, fault: Fault) -> None:
    wire.on("GET", "/v1/jobs/", *[fault] * 100)
    assert [job.status for job in talk(run(1))] == ["failed"]
    assert wire.paths().count(next(path for path in reads(wire) if path != TEST_PATH)) == 101
    wire.always("GET", "/v1/jobs/", fault)
    assert [type(told) for told in talk(run(1, timeout_s=0.05))] in ([ServiceUnavailable], [ProtocolError])


@pytest.mark.parametrize("n", [1, 5])
def test_a_list_that_fails_is_no_hindrance(talk: Talk, wire: Faulty, n: int) -> None:
    wire.always("GET", JOBS_PATH, answers(500))
    assert [job.status for job in talk(run(n))] == ["failed"] * n


@pytest.mark.parametrize("n", [1, 5])
def test_service_that_goes_away_is_told_to_every_row(talk: Talk, wire: Faulty, n: int) -> None:
    wire.always("GET", "/v", fails(httpx.ConnectError))
    assert [type(told) for told in talk(run(n))] == [ServiceUnavailable] * n


def test_one_unreadable_job_does_not_harm_the_others(talk: Talk, wire: Faulty) -> None:
    async def session(api: Api) -> list[Any]:
        ids = await created(api, 5)
        wire.always("GET", f"/v1/jobs/{ids[2]}", answers(200, {"status": "succeeded"}))
        return await waited(api, ids, timeout_s=0.3)

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


# --- events ---------------------------------------------------------------------------------------------


def receiving(secret: str) -> Receiver:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return Receiver(public_url=f"http://127.0.0.1:{port}", secret=secret, port=port)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """One for all runs of this module."""
    with receiving(SIGNER) as started:
        yield started


@pytest.fixture
def speech(tmp_path: Path, receiver: Receiver) -> VoiceprintRequest:
    """A job that succeeds."""
    clip = write_clip(tmp_path / "speech.wav")
    return VoiceprintRequest(clip.as_uri(), webhook=receiver.webhook_url)


@pytest.fixture
def noise(receiver: Receiver) -> VoiceprintRequest:
    """A job that fails."""
    return replace(REQUEST, webhook=receiver.webhook_url)


class Slow:
    """A sleep between rounds that ends when the test says so."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.begun, self.over = asyncio.Event(), asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.begun.set()
        await self.over.wait()
        self.over.clear()


def sends(receiver: Receiver, job_id: str, status: str, *, late_s: int = 0, **more: Any) -> int:
    """The service's event, sent once more."""
    body = json.dumps({"jobId": job_id, "status": status} | more).encode()
    timestamp = str(int(time.time()) - late_s)
    headers = {"X-Request-Timestamp": timestamp, "X-Signature": sign_webhook(SIGNER, timestamp, body)}
    return httpx.post(receiver.webhook_url, content=body, headers=headers, trust_env=False).status_code


async def told(receiver: Receiver, job_id: str) -> Job:
    """The job's event, once it has arrived."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    arrived: list[Job] = []

    def hear(job: Job) -> None:
        arrived.append(job)
        loop.call_soon_threadsafe(heard.set)

    stop = receiver.listen(job_id, hear)
    async with asyncio.timeout(WAIT_S):
        await heard.wait()
    stop()
    return arrived[0]


async def by_events(api: Api, receiver: Receiver, job_ids: list[str], **options: Any) -> list[Any]:
    """As `waited`, with rounds that never come."""
    api.sleep = Slow()
    waiter = jobs.Waiter(api, interval_s=0.0, events=receiver)
    try:
        waits = (waiter.wait(job_id, timeout_s=WAIT_S, **options) for job_id in job_ids)
        return list(await asyncio.gather(*waits, return_exceptions=True))
    finally:
        await waiter.close()


def reads(wire: Faulty) -> list[str]:
    return wire.paths("GET")


@pytest.mark.parametrize("n", [1, 5])
def test_a_voiceprint_in_the_event_costs_no_request(
    talk: Talk, wire: Faulty, receiver: Receiver, speech: VoiceprintRequest, n: int
) -> None:
    async def session(api: Api) -> tuple[list[Any], list[str], str]:
        ids = await created(api, n, speech)
        found = await by_events(api, receiver, ids)
        asked = reads(wire)
        return found, asked, (await waited(api, ids[:1]))[0].voiceprint

    found, asked, voiceprint = talk(session)
    assert [(job.status, job.voiceprint) for job in found] == [("succeeded", voiceprint)] * n
    assert voiceprint
    assert asked == []


def test_a_failure_costs_one_read(
    talk: Talk, wire: Faulty, receiver: Receiver, noise: VoiceprintRequest
) -> None:
    async def session(api: Api) -> list[Any]:
        return await by_events(api, receiver, await created(api, 5, noise))

    assert [(job.status, bool(job.error)) for job in talk(session)] == [("failed", True)] * 5
    assert len(reads(wire)) == len(set(reads(wire))) == 5


def test_a_success_without_its_output_costs_one_read(
    talk: Talk, wire: Faulty, receiver: Receiver, speech: VoiceprintRequest
) -> None:
    async def session(api: Api) -> list[Any]:
        request = replace(speech, webhook_status_only=True)
        return await by_events(api, receiver, await created(api, 5, request))

    assert all(job.voiceprint for job in talk(session))
    assert len(reads(wire)) == len(set(reads(wire))) == 5


def test_an_event_before_the_wait_ends_it(
    talk: Talk, wire: Faulty, receiver: Receiver, speech: VoiceprintRequest
) -> None:
    async def session(api: Api) -> list[Any]:
        (job_id,) = await created(api, 1, speech)
        await told(receiver, job_id)
        return await by_events(api, receiver, [job_id], look_first=True)

    assert talk(session)[0].voiceprint
    assert not reads(wire)


@pytest.mark.parametrize("n", [1, 5])
def test_a_lost_event_is_found_by_a_slow_round(talk: Talk, wire: Faulty, receiver: Receiver, n: int) -> None:
    async def session(api: Api) -> tuple[list[Any], list[float], int]:
        ids = await created(api, n)  # without a webhook
        await waited(api, ids)
        before = len(reads(wire))
        sleep = Slow()
        api.sleep = sleep
        waiter = jobs.Waiter(api, interval_s=0.01, events=receiver)
        waits = [asyncio.create_task(waiter.wait(job_id, timeout_s=WAIT_S)) for job_id in ids]
        await sleep.begun.wait()
        assert len(reads(wire)) == before
        sleep.over.set()
        found = await asyncio.gather(*waits)
        await waiter.close()
        return found, sleep.slept, len(reads(wire)) - before

    found, slept, asked = talk(session)
    assert [job.status for job in found] == ["failed"] * n
    assert slept[0] == 60.0
    assert asked == (1 if n == 1 else n + 1)


@pytest.fixture
def stranger() -> Iterator[Receiver]:
    """A receiver with the secret of another team."""
    with receiving("whsec_other") as started:
        yield started


def test_rounds_are_no_longer_slow_once_the_secret_is_seen_to_be_wrong(
    talk: Talk, stranger: Receiver
) -> None:
    async def session(api: Api) -> list[float]:
        ids = await created(api, 2, replace(REQUEST, webhook=stranger.webhook_url))
        await waited(api, ids)
        api.sleep = sleep = Slow()
        waiter = jobs.Waiter(api, interval_s=0.01, events=stranger)
        async with asyncio.timeout(WAIT_S):
            while stranger.problem is None:  # noqa: ASYNC110 - an event sets it, in another thread
                await asyncio.sleep(0.001)
        for job_id, problem in zip(ids, (None, stranger.problem), strict=True):
            stranger._inbox.problem = problem
            wait = asyncio.create_task(waiter.wait(job_id, timeout_s=WAIT_S))
            await sleep.begun.wait()
            sleep.begun.clear()
            sleep.over.set()
            assert (await wait).status == "failed"
        await waiter.close()
        return sleep.slept

    assert talk(session) == [60.0, 0.01 / 8]
    assert "check secret=" in (stranger.problem or "")


def test_a_job_of_an_earlier_run_is_looked_at_first(talk: Talk, wire: Faulty, receiver: Receiver) -> None:
    async def session(api: Api) -> list[Any]:
        ids = await created(api, 5)  # without a webhook
        await waited(api, ids)
        wire.requests.clear()
        return await by_events(api, receiver, ids, look_first=True)

    assert [job.status for job in talk(session)] == ["failed"] * 5
    assert len(reads(wire)) == len(set(reads(wire))) == 5


def test_a_job_that_is_gone_is_not_waited_for_by_its_event(talk: Talk, receiver: Receiver) -> None:
    async def session(api: Api) -> list[Any]:
        waiter = jobs.Waiter(api, interval_s=0.01, events=receiver, sweep_s=10 * WAIT_S)
        gone = await asyncio.gather(
            *(waiter.wait(f"gone-{number}", timeout_s=WAIT_S, look_first=True) for number in range(5))
        )
        await waiter.close()
        return gone

    assert talk(session) == [None] * 5


def test_looking_first_changes_nothing_without_events(talk: Talk, wire: Faulty) -> None:
    async def session(api: Api) -> tuple[list[Any], list[str]]:
        sleep = Slow()
        api.sleep = sleep
        waiter = jobs.Waiter(api, interval_s=0.01)
        (job_id,) = await created(api)
        wait = asyncio.create_task(waiter.wait(job_id, timeout_s=WAIT_S, look_first=True))
        await sleep.begun.wait()
        before = reads(wire)
        sleep.over.set()
        wait.cancel()
        await waiter.close()
        return sleep.slept, before

    assert talk(session) == ([0.01 / 8], [])


def test_an_event_again_and_again_does_no_harm(
    talk: Talk, wire: Faulty, receiver: Receiver, noise: VoiceprintRequest
) -> None:
    async def session(api: Api) -> list[Any]:
        first, second = await created(api, 2, noise)
        await told(receiver, first)
        for late_s in range(3):
            status = await asyncio.to_thread(sends, receiver, first, "failed", late_s=late_s)
            assert status == 204
        wire.requests.clear()
        api.sleep = Slow()
        waiter = jobs.Waiter(api, interval_s=0.01, events=receiver)
        wait = asyncio.create_task(waiter.wait(first, timeout_s=WAIT_S))
        await asyncio.sleep(0)
        for late_s in range(3, 6):
            await asyncio.to_thread(sends, receiver, first, "failed", late_s=late_s)
        found = [await wait, await waiter.wait(second, timeout_s=WAIT_S)]
        await waiter.close()
        return found

    assert [job.status for job in talk(session)] == ["failed"] * 2
    assert len(reads(wire)) == 2


def test_one_read_at_a_time_whatever_events_say(talk: Talk, wire: Faulty, receiver: Receiver) -> None:
    release = asyncio.Event()

    async def held(request: httpx.Request, forward: Any) -> httpx.Response:
        await release.wait()
        return await forward(request)

    async def session(api: Api) -> Any:
        (job_id,) = await created(api)
        await waited(api, [job_id])
        wire.requests.clear()
        wire.on("GET", "/v1/jobs/", held)
        wait = asyncio.create_task(by_events(api, receiver, [job_id]))
        for late_s in range(3):
            await asyncio.to_thread(sends, receiver, job_id, "canceled", late_s=late_s)
        release.set()
        return await wait

    assert talk(session)[0].status == "failed"
    assert len(reads(wire)) == 1


def test_a_state_that_is_no_end_ends_nothing(talk: Talk, wire: Faulty, receiver: Receiver) -> None:
    job_id = "11111111-dcc6-4edb-a75d-ffd64739674d"

    async def session(api: Api) -> list[Any]:
        wait = asyncio.create_task(by_events(api, receiver, [job_id]))
        await asyncio.sleep(0)
        for status in ("running", "thinking"):
            await asyncio.to_thread(sends, receiver, job_id, status, output={"voiceprint": "no"})
        await asyncio.to_thread(sends, receiver, job_id, "succeeded", output={"voiceprint": "yes"})
        return await wait

    assert talk(session)[0].voiceprint == "yes"
    assert not reads(wire)


def test_a_failed_read_after_an_event_is_made_again_in_a_round(
    talk: Talk, wire: Faulty, receiver: Receiver, noise: VoiceprintRequest
) -> None:
    async def session(api: Api) -> Any:
        (job_id,) = await created(api, 1, noise)
        await told(receiver, job_id)
        sleep, refused = Slow(), asyncio.Event()

        async def refuse(request: httpx.Request, forward: Any) -> httpx.Response:
            refused.set()
            return httpx.Response(400)

        wire.on("GET", "/v1/jobs/", refuse)
        api.sleep = sleep
        waiter = jobs.Waiter(api, interval_s=0.01, events=receiver)
        wait = asyncio.create_task(waiter.wait(job_id, timeout_s=WAIT_S))
        await refused.wait()
        sleep.over.set()
        found = await wait
        await waiter.close()
        return found

    assert talk(session).status == "failed"
    assert len(reads(wire)) == 2


def test_a_refused_key_is_told_to_every_row_that_waits_for_events(
    talk: Talk, wire: Faulty, receiver: Receiver, noise: VoiceprintRequest
) -> None:
    wire.always("GET", "/v", answers(401))

    async def session(api: Api) -> list[Any]:
        return await by_events(api, receiver, [*await created(api, 1, noise), *await created(api, 4)])

    assert [type(error) for error in talk(session)] == [KeyRefused] * 5
    assert len(reads(wire)) == 1


def test_runs_in_several_threads_share_a_receiver(
    talk: Talk, receiver: Receiver, speech: VoiceprintRequest, noise: VoiceprintRequest
) -> None:
    (shared,) = talk(lambda api: created(api, 1, speech))

    async def session(api: Api, request: VoiceprintRequest) -> list[Any]:
        ids = await created(api, 5, request)
        return await by_events(api, receiver, [shared, *ids, *ids])

    with ThreadPoolExecutor(3) as pool:
        runs = list(
            pool.map(lambda request: talk(partial(session, request=request)), [speech, noise, speech])
        )
    for run, status in zip(runs, ("succeeded", "failed", "succeeded"), strict=True):
        assert [job.status for job in run] == ["succeeded", *[status] * 10]
        assert run[1:6] == run[6:]
    ids = [job.job_id for run in runs for job in run[1:6]]
    assert len(set(ids)) == 15


def test_a_run_that_is_gone_does_not_harm_the_receiver(talk: Talk, receiver: Receiver) -> None:
    gone = "00000000-dcc6-4edb-a75d-ffd64739674d"

    async def session(api: Api) -> None:
        waiter = jobs.Waiter(api, interval_s=0.01, events=receiver)
        wait = asyncio.create_task(waiter.wait(gone, timeout_s=WAIT_S))
        await asyncio.sleep(0)
        wait.cancel()

    talk(session)
    heard = threading.Event()
    receiver.listen(gone, lambda job: heard.set())
    assert sends(receiver, gone, "failed") == 204
    assert heard.is_set()


def test_nothing_is_left_of_waits_for_events(  # noqa: PLR0917 - fixtures
    talk: Talk,
    wire: Faulty,
    receiver: Receiver,
    speech: VoiceprintRequest,
    noise: VoiceprintRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = dict(receiver._inbox._listeners)
    reading = asyncio.Event()

    async def begun(request: httpx.Request, forward: Any) -> httpx.Response:
        reading.set()
        return await hangs(request, forward)

    async def session(api: Api) -> tuple[int, int]:
        api.sleep = Slow()
        waiter = jobs.Waiter(api, interval_s=0.01, events=receiver)
        ids = [*await created(api, 1, speech), *await created(api, 1, noise), *await created(api, 2)]
        wire.always("GET", "/v1/jobs/", begun)
        waits = [asyncio.create_task(waiter.wait(job_id, timeout_s=WAIT_S)) for job_id in ids]
        await asyncio.gather(waits[0], reading.wait())
        monkeypatch.setattr(jobs, "_LAST_LOOK_S", 0.001)
        with pytest.raises(RowError):
            await waiter.wait(UNKNOWN, timeout_s=0.001)
        n_left = len(receiver._inbox._listeners) - len(before)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        await waiter.close()
        await waiter.close()
        return n_left, len(asyncio.all_tasks())

    assert talk(session) == (3, 1)
    assert receiver._inbox._listeners == before


def test_an_event_at_the_very_end_starts_nothing(
    talk: Talk, wire: Faulty, receiver: Receiver, noise: VoiceprintRequest
) -> None:
    async def session(api: Api) -> int:
        (job_id,) = await created(api, 1, noise)
        await told(receiver, job_id)
        api.sleep = Slow()
        waiter = jobs.Waiter(api, interval_s=0.01, events=receiver)
        wait = asyncio.create_task(waiter.wait(job_id, timeout_s=WAIT_S))
        await asyncio.sleep(0)  # now the event is on its way to the wait
        wait.cancel()
        await waiter.close()
        return len(asyncio.all_tasks())

    assert talk(session) == 1
    assert not reads(wire)
