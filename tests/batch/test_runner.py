from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty import (
    Fault,
    Faulty,
    Forward,
    Time,
    acts_then,
    answers,
    fails,
    hangs,
    with_state,
    write_clip,
)
from helpers import Ran, World

from voiceprint_nb.batch.outcomes import Kept
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.client import transport
from voiceprint_nb.contract import VOICEPRINT_PATH
from voiceprint_nb.errors import KeyRefused, NoCredit, RequestRefused, ServiceUnavailable, UsageError
from voiceprint_nb.intake.looking import digest_of
from voiceprint_nb.service.limits import RateLimits
from voiceprint_nb.service.local import LocalService

ROWS = 3  # contents of the stop-anywhere runs


def finished(world: World) -> set[str]:
    with sqlite3.connect(world.data_dir / "ledger.sqlite3") as database:
        found = database.execute("SELECT key FROM jobs WHERE state != 'submitting'").fetchall()
    database.close()
    return {key for (key,) in found}


def rerun(world: World, cells: list[Any]) -> tuple[Ran, Counter[int]]:
    """Run again until every row has succeeded; how often each row told of an unknown submission."""
    unknown: Counter[int] = Counter()
    for _ in range(5):
        ran = world.run(cells)
        assert ran.error is None
        unknown.update(row for row, code in enumerate(ran.codes) if code == "submit_unknown")
        if all(ran.prints):
            return ran, unknown
    raise AssertionError(ran.codes)


def test_every_row_ends_and_the_second_run_buys_nothing(world: World, clips: list[Path]) -> None:
    first = world.run(clips)
    assert {outcome.source for outcome in first.outcomes} == {"new"}
    assert len(set(first.prints)) == len(clips)
    assert (len(world.wire.created), world.wire.created.total()) == (len(clips), len(clips))
    asked = len(world.wire.requests)
    second = world.run(clips)
    assert second.prints == first.prints
    assert {outcome.source for outcome in second.outcomes} == {"reused"}
    assert len(world.wire.requests) == asked
    assert first.left_tasks == second.left_tasks == 0


def test_equal_clips_share_one_job(world: World, clips: list[Path]) -> None:
    ran = world.run([clips[0], str(clips[0]), clips[0].read_bytes(), clips[1]] * 5)
    assert world.wire.created.total() == 2
    assert ran.tally.counts() == {"succeeded": 2, "reused": 18}
    assert len(set(ran.prints)) == 2


@pytest.mark.parametrize(
    "failure",
    [
        ("POST", "/v1/media/input", answers(400), "request_refused"),
        ("POST", "/v1/media/input", answers(500), "service_unavailable"),
        ("PUT", "/media/", answers(400), "upload_failed"),
        ("POST", VOICEPRINT_PATH, answers(400), "request_refused"),
        ("POST", VOICEPRINT_PATH, answers(200, {}), "bad_answer"),
        ("POST", VOICEPRINT_PATH, fails(httpx.ConnectError), "service_unavailable"),
    ],
)
def test_followers_of_a_failed_row_fail_alike_and_workers_go_on(
    world: World, clips: list[Path], failure: tuple[str, str, Fault, str]
) -> None:
    method, path, fault, code = failure
    world.options = {"in_flight": 3}
    world.wire.always(method, path, fault)
    ran = world.run([clips[0], clips[0], clips[0], clips[1], clips[1], clips[2]])
    assert ran.error is None
    assert ran.codes == [code] * 6
    assert not world.wire.created


def test_failed_job_is_told_to_all_and_asked_again_another_day(world: World, clips: list[Path]) -> None:
    ran = world.run(["media://nothing-is-stored-here"] * 3)
    assert ran.codes == ["job_failed"] * 3
    assert len({outcome.job_id for outcome in ran.outcomes} - {None}) == 1
    assert not finished(world)
    world.run(["media://nothing-is-stored-here"])
    assert world.wire.created.total() == 2


@pytest.mark.parametrize("refusal", [(401, KeyRefused), (402, NoCredit), (403, KeyRefused)])
@pytest.mark.parametrize(
    "place",
    [("GET", "/v1/test"), ("POST", "/v1/media/input"), ("POST", VOICEPRINT_PATH), ("GET", "/v1/jobs/")],
)
def test_refused_account_stops_the_run_and_keeps_what_is_finished(
    world: World, clips: list[Path], refusal: tuple[int, type[Exception]], place: tuple[str, str]
) -> None:
    (status, kind), (method, path) = refusal, place
    world.options = {"in_flight": 1}
    begun = world.run(clips[:2])
    world.wire.on(method, path, *([] if path == "/v1/test" else [None]), *[answers(status)] * 50)
    asked = len(world.wire.paths("POST"))
    ran = world.run([*clips[:2], *clips])
    assert isinstance(ran.error, kind)
    assert ran.prints[:2] == begun.prints
    assert ran.tally.snapshot().stopped_by == str(ran.error)
    assert len(world.wire.paths("POST")) - asked < 6  # of 2 a row, had the run gone on
    left = [outcome for outcome in ran.outcomes if outcome.status != "succeeded"]
    assert {(outcome.status, outcome.error_code, bool(outcome.job_id)) for outcome in left} <= {
        ("canceled", "canceled", False),
        ("pending", "job_open", True),
    }
    world.wire._rules.clear()
    assert all(world.run([*clips[:2], *clips]).prints)
    assert world.wire.created.total() == len(clips)


@pytest.mark.parametrize(
    ("fault", "kind"), [(fails(httpx.ConnectError), ServiceUnavailable), (answers(404), RequestRefused)]
)
def test_service_that_is_not_there_stops_the_run_with_a_sentence(
    world: World, clips: list[Path], fault: Fault, kind: type[Exception]
) -> None:
    world.wire.always("GET", "/v1/test", fault)
    ran = world.run(clips)
    assert isinstance(ran.error, kind)
    assert ran.codes == ["canceled"] * len(clips)
    assert len(world.wire.requests) <= 5


def test_bad_rows_need_no_service(world: World, tmp_path: Path) -> None:
    ran = world.run([None, 7, tmp_path / "none.wav", "  "])
    assert ran.codes == ["empty_cell", "unsupported_cell", "file_not_found", "empty_cell"]
    assert not world.wire.requests


def test_file_that_vanishes_before_its_upload_is_one_rows_matter(
    world: World, clips: list[Path], tmp_path: Path
) -> None:
    world.options = {"in_flight": 1}  # so that the first request is the first row's
    passing = tmp_path / "passing.wav"
    passing.write_bytes(clips[0].read_bytes())
    world.wire.before_each = lambda index: passing.unlink(missing_ok=True)
    ran = world.run([passing, clips[1]])
    assert (ran.error, ran.codes) == (None, ["upload_failed", None])


# --- stopping anywhere ----------------------------------------------------------------------------------


def undisturbed(world: World, clips: list[Path]) -> list[str | None]:
    return world.run(clips).prints


@pytest.mark.parametrize("settled", [True, False], ids=["answered", "on the way"])
def test_run_that_is_stopped_at_any_request_goes_on_without_buying_twice(
    new_world: Callable[[], World], clips: list[Path], settled: bool
) -> None:
    cells = clips[:ROWS]
    calm = new_world()
    wanted = undisturbed(calm, cells)
    for k in range(len(calm.wire.requests)):
        world = new_world()

        async def stop(request: httpx.Request, forward: Any, world: World = world) -> httpx.Response:
            if settled:
                world.cancel()
                return await forward(request)
            answer = await forward(request)
            world.cancel()
            return await answers(500)(request, forward) if request.method == "GET" else answer

        def at(index: int, world: World = world, k: int = k, stop: Fault = stop) -> None:
            if index == k:
                sent = world.wire.requests[index]
                world.wire.on(sent.method, sent.url.path, stop)

        world.wire.before_each = at
        stopped = world.run(cells)
        assert isinstance(stopped.error, asyncio.CancelledError) or all(stopped.prints)
        assert stopped.left_tasks == 0
        world.wire.before_each = lambda index: None
        ran, unknown = rerun(world, cells)
        assert not unknown  # whatever had left was answered within the grace
        assert ran.prints == wanted
        assert set(world.wire.created.values()) == {1}


@pytest.mark.parametrize(
    "fault",
    [
        answers(503, text="<html>busy</html>"),
        answers(429, Retry_After="0"),
        answers(200, text="<html>"),
        fails(httpx.ConnectError),
        fails(httpx.ReadError),
        acts_then(answers(503)),
        acts_then(fails(httpx.ReadError)),
        acts_then(answers(200, {})),
    ],
    ids=["503", "429", "html", "unreached", "cut", "acts503", "actscut", "actsempty"],
)
def test_fault_at_any_request_loses_nothing_and_buys_nothing_unseen(
    new_world: Callable[[], World], clips: list[Path], fault: Fault
) -> None:
    cells = clips[:2]
    calm = new_world()
    wanted = undisturbed(calm, cells)
    for k in range(len(calm.wire.requests)):
        world = new_world()
        lost: list[str] = []

        async def noted(
            request: httpx.Request, forward: Any, world: World = world, lost: list[str] = lost
        ) -> httpx.Response:
            before = world.wire.created.total()
            try:
                return await fault(request, forward)
            finally:
                if world.wire.created.total() > before:
                    lost.append(request.url.path)

        def at(index: int, world: World = world, k: int = k, noted: Fault = noted) -> None:
            if index == k:
                sent = world.wire.requests[index]
                world.wire.on(sent.method, sent.url.path, noted)

        world.wire.before_each = at
        first = world.run(cells)
        world.wire.before_each = lambda index: None
        told = Counter(row for row, code in enumerate(first.codes) if code == "submit_unknown")
        ran, later = rerun(world, cells)
        assert ran.prints == wanted
        assert (told + later).total() >= len(lost)
        assert world.wire.created.total() == len(cells) + len(lost)
        if not lost:  # jobs of earlier worlds are in the list: strangers that may be blamed, never the wire
            assert set(world.wire.created.values()) == {1}


@pytest.mark.parametrize("fault", [answers(503), fails(httpx.ReadError), answers(200, {})])
def test_submission_that_the_list_does_not_show_is_free_to_be_sent_again(
    world: World, clips: list[Path], fault: Fault
) -> None:
    world.wire.on("POST", VOICEPRINT_PATH, fault)
    world.options = {"in_flight": 1}
    first = world.run(clips[:2])
    assert first.codes[0] in (None, "service_unavailable", "bad_answer")
    _, unknown = rerun(world, clips[:2])
    assert not unknown
    assert set(world.wire.created.values()) == {1}


def test_failed_submission_is_repeated_once_the_list_shows_that_there_is_no_job(
    world: World, clips: list[Path]
) -> None:
    world.wire.on("POST", VOICEPRINT_PATH, answers(503), answers(500))
    ran = world.run(clips[:3])
    assert all(ran.prints)
    assert set(world.wire.created.values()) == {1}


@pytest.mark.parametrize("fault", [answers(404), answers(500), fails(httpx.ConnectError), answers(200, {})])
def test_unknown_submission_without_a_list_is_told_once(
    world: World, clips: list[Path], fault: Fault
) -> None:
    world.wire.on("POST", VOICEPRINT_PATH, acts_then(fails(httpx.ReadError)))
    world.wire.always("GET", "/v2/jobs", fault)
    first = world.run(clips[:1])
    assert first.codes == ["submit_unknown"]
    world.wire._rules.clear()
    world.wire.always("GET", "/v2/jobs", answers(404))
    _, unknown = rerun(world, clips[:1])
    assert unknown.total() <= 1
    assert world.wire.created.total() == 2


def test_jobs_of_siblings_and_failed_jobs_are_not_blamed(world: World, clips: list[Path]) -> None:
    world.run(["media://nothing-is-stored-here"])
    world.wire.on("POST", VOICEPRINT_PATH, None, None, answers(503))
    ran = world.run(clips)
    assert all(ran.prints)
    assert set(world.wire.created.values()) == {1}


def test_limits_of_the_service_are_learned_and_kept(tmp_path: Path) -> None:
    """On the service's own clock, which stands still but for the client's pauses."""
    n_rows, per_minute = 120, 30
    clips = [write_clip(tmp_path / f"{seed}.wav", seed=seed) for seed in range(n_rows)]
    time = Time(real_s=0.003)
    limits = RateLimits(writes=per_minute, reads=3 * per_minute, clock=time.clock)
    with LocalService(limits=limits) as local:
        world = World(
            Faulty(local.transport()), tmp_path / "data", {"in_flight": n_rows, "poll_s": 2.0}, time=time
        )
        began_s, submitted_at = time.now_s, []

        def note(index: int) -> None:
            if world.wire.requests[index].url.path == VOICEPRINT_PATH:
                submitted_at.append(time.now_s)

        world.wire.before_each = note
        ran = world.run(clips)
    assert ran.error is None
    assert all(ran.prints)
    requests = ran.tally.snapshot().requests
    assert requests["refused"] <= 0.01 * sum(requests.values())
    bound_s = (n_rows / per_minute) * 60
    assert bound_s * 0.7 < submitted_at[-1] - began_s < bound_s * 1.2
    in_ten_s = [sum(at <= other < at + 10 for other in submitted_at) for at in submitted_at]
    assert max(in_ten_s) <= 8  # of 5 at an even pace: spread, not in bursts of 30


# --- jobs that do not end well --------------------------------------------------------------------------


def test_service_that_goes_away_leaves_jobs_open_and_the_next_run_collects(
    world: World, clips: list[Path]
) -> None:
    world.wire.always("GET", "/v1/jobs/", fails(httpx.ReadError))
    world.wire.always("GET", "/v2/jobs", fails(httpx.ReadError))
    world.options = {"in_flight": len(clips), "deadline_s": lambda duration_s, n_open: 0.2}
    first = world.run(clips)
    assert first.error is None or isinstance(first.error, ServiceUnavailable)
    assert {(row.status, row.error_code) for row in first.outcomes} == {("pending", "job_open")}
    assert all(row.job_id for row in first.outcomes)
    world.wire._rules.clear()
    second = world.run(clips)
    assert [row.job_id for row in second.outcomes] == [row.job_id for row in first.outcomes]
    assert set(world.wire.created.values()) == {1}


def test_job_that_does_not_end_is_pending_with_its_id(world: World, clips: list[Path]) -> None:
    world.options = {"deadline_s": lambda duration_s, n_open: 0.05}
    world.wire.always("GET", "/v", answers(200, {"jobId": "x", "status": "processing", "items": []}))
    ran = world.run(clips[:2])
    assert [(row.status, row.error_code) for row in ran.outcomes] == [("pending", "job_timeout")] * 2
    assert all(row.job_id for row in ran.outcomes)
    world.wire._rules.clear()
    world.options = {}
    assert all(world.run(clips[:2]).prints)
    assert set(world.wire.created.values()) == {1}


def test_a_remark_that_is_no_text_stops_no_run(world: World, clips: list[Path]) -> None:
    async def odd(request: httpx.Request, forward: Forward) -> httpx.Response:
        created = json.loads(await (await forward(request)).aread())
        return httpx.Response(200, text=json.dumps(created | {"warning": "odd \ud83d"}))

    world.wire.always("POST", VOICEPRINT_PATH, odd)
    ran = world.run(clips[:2])
    assert ran.error is None
    assert all("odd ?" in (row.warning or "") for row in ran.outcomes)


def test_job_that_the_service_has_lost_is_asked_for_twice_before_a_new_one(
    world: World, clips: list[Path]
) -> None:
    world.wire.on("GET", "/v1/jobs/", *[answers(404)] * 3)
    first = world.run(clips[:1])
    assert first.codes == ["job_open"]
    second = world.run(clips[:1])
    assert all(second.prints)
    assert "anew" not in (second.outcomes[0].warning or "")
    assert world.wire.created.total() == 1
    with world.ledger() as ledger:
        ledger.forget_everything()
    world.wire.on("GET", "/v1/jobs/", *[answers(404)] * 6)
    world.run(clips[:1])
    anew = world.run(clips[:1])
    assert all(anew.prints)
    assert "made anew" in (anew.outcomes[0].warning or "")
    assert world.wire.created.total() == 3


@pytest.mark.parametrize("n_slips", [1, 2])
@pytest.mark.parametrize("n_rows", [1, 6])
def test_a_job_that_is_unknown_for_a_moment_is_not_bought_again(
    world: World, clips: list[Path], n_slips: int, n_rows: int
) -> None:
    world.options = {"deadline_s": lambda duration_s, n_open: 0.05}
    world.wire.always("GET", "/v1/jobs/", with_state("running"))
    world.wire.always("GET", "/v2/jobs", with_state("running"))
    assert set(world.run(clips[:n_rows]).codes) == {"job_timeout"}
    world.wire._rules.clear()
    world.options = {}
    world.wire.on("GET", "/v1/jobs/", *[answers(404)] * n_slips)
    ran = world.run(clips[:n_rows])
    assert all(ran.prints)
    assert world.wire.created.total() == n_rows


def test_an_answer_of_408_to_a_submission_may_have_created_the_job(world: World, clips: list[Path]) -> None:
    world.wire.on("POST", VOICEPRINT_PATH, acts_then(answers(408)))
    first = world.run(clips[:1])
    assert first.codes == ["submit_unknown"]
    assert all(world.run(clips[:1]).prints)


def test_output_that_is_missing_is_asked_for_again_until_it_has_expired(
    world: World, clips: list[Path]
) -> None:
    now_s = [1_800_000_000.0]
    world.clock = lambda: now_s[0]
    world.wire.always("GET", "/v1/jobs/", answers(200, {"jobId": "x", "status": "succeeded"}))
    assert world.run(clips[:1]).codes == ["job_open"]
    assert world.run(clips[:1]).codes == ["job_open"]
    now_s[0] += 25 * 3600
    assert world.run(clips[:1]).codes == ["output_expired"]
    world.wire._rules.clear()
    assert all(world.run(clips[:1]).prints)
    assert world.wire.created.total() == 2


def test_stopped_run_tells_open_jobs_from_rows_not_begun(world: World, clips: list[Path]) -> None:
    world.options = {"in_flight": 2}
    polls = 0

    async def stop(request: httpx.Request, forward: Any) -> httpx.Response:
        nonlocal polls
        polls += 1
        if polls == 5:
            world.cancel()
        return await answers(200, {"jobId": "x", "status": "running"})(request, forward)

    world.wire.always("GET", "/v1/jobs/", stop)
    ran = world.run(clips)
    told = [(row.status, row.error_code, bool(row.job_id)) for row in ran.outcomes]
    assert told == [("pending", "job_open", True)] * 2 + [("canceled", "canceled", False)] * 6


def test_audio_that_was_in_memory_is_collected_by_its_key(world: World, clips: list[Path]) -> None:
    world.options = {"deadline_s": lambda duration_s, n_open: 0.2}
    world.wire.always("GET", "/v1/jobs/", fails(httpx.ReadError))
    first = world.run([clips[0].read_bytes(), clips[1].read_bytes()])
    world.wire._rules.clear()
    world.options = {}
    ran = world.run([Kept(), Kept(), Kept()], run_id=first.run_id)
    assert [bool(text) for text in ran.prints] == [True, True, False]
    assert ran.codes[2] == "unsupported_cell"


# --- several runs at once -------------------------------------------------------------------------------


def test_two_runs_on_one_loop_submit_once(world: World, clips: list[Path]) -> None:
    async def both() -> list[Ran]:
        return list(await asyncio.gather(world.arun(clips), world.arun(clips)))

    first, second = asyncio.run(both())
    assert first.prints == second.prints
    assert all(first.prints)
    assert set(world.wire.created.values()) == {1}


def test_two_threads_on_one_ledger_submit_once(world: World, clips: list[Path]) -> None:
    ran: list[Ran] = []
    threads = [threading.Thread(target=lambda: ran.append(world.run(clips))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ran[0].prints == ran[1].prints
    assert all(ran[0].prints)
    assert set(world.wire.created.values()) == {1}


def test_claim_of_a_run_that_lives_on_but_never_sends_is_waited_for_with_an_end(
    world: World, clips: list[Path]
) -> None:
    world.run(clips[:1])
    with world.ledger() as ledger:
        (key,) = finished(world)
        ledger.forget_everything()
        assert ledger.claim(key)
        world.options = {"deadline_s": lambda duration_s, n_open: 0.05}
        ran = world.run(clips[:1])
    assert ran.codes == ["job_timeout"]
    assert world.wire.created.total() == 1


def test_run_without_a_ledger_leaves_no_file(world: World, clips: list[Path]) -> None:
    ran = world.run([clips[0], clips[0], clips[1]], keep=False)
    assert all(ran.prints)
    assert world.wire.created.total() == 2
    assert not world.data_dir.exists()


def test_upload_that_hangs_ends(world: World, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_SLOWEST_BYTES_S", 1e9)
    world.timeout_s = 0.02
    world.wire.always("PUT", "/media/", hangs)
    assert world.run(clips[:2]).codes == ["upload_failed"] * 2


def test_ledger_that_breaks_during_the_run_stops_it_with_a_sentence(world: World, clips: list[Path]) -> None:
    with Ledger(world.data_dir):
        pass

    def damage(index: int) -> None:
        if index == 3:
            with sqlite3.connect(world.data_dir / "ledger.sqlite3") as database:
                database.execute("DROP TABLE jobs")
            database.close()

    world.wire.before_each = damage
    ran = world.run(clips)
    assert isinstance(ran.error, UsageError)
    assert "ledger" in str(ran.error)
    assert set(ran.codes) == {"canceled"}


def test_an_outage_holds_the_run_up_and_costs_no_row(world: World, clips: list[Path]) -> None:
    world.options = {"in_flight": 4}
    world.wire.on("POST", "/v1/media/input", *[answers(503)] * 5)
    world.wire.on("GET", "/v1/test", None, *[answers(503)] * 3)
    ran = world.run(clips)
    assert ran.error is None
    assert all(ran.prints)
    assert world.wire.paths("GET").count("/v1/test") == 5  # the key's check, and four probes


@pytest.mark.parametrize(
    "endpoint",
    [
        ("POST", "/v1/media/input"),
        ("POST", VOICEPRINT_PATH),
        ("PUT", "/media/"),
        ("GET", "/v1/jobs/"),
        ("GET", "/v2/jobs"),
    ],
    ids=lambda endpoint: endpoint[1],
)
@pytest.mark.parametrize("kind", ["one text", "trace ids", "several kinds"])
def test_an_outage_of_one_endpoint_costs_no_row(
    world: World, clips: list[Path], endpoint: tuple[str, str], kind: str
) -> None:
    """All others work, the key's check among them."""
    faults = {
        "one text": [answers(503)],
        "trace ids": [answers(500, {"message": f"trace {n}"}) for n in range(40)],
        "several kinds": [answers(502), answers(503), fails(httpx.ConnectError), answers(504)],
    }[kind]
    world.options = {"in_flight": 8}
    world.wire.always(*endpoint, until(world, 60.0, faults))
    ran = world.run(clips)
    assert ran.error is None
    assert all(ran.prints)
    assert set(world.wire.created.values()) == {1}


def until(world: World, duration_s: float, faults: list[Fault]) -> Fault:
    """One fault after the other, and none any more when so many seconds have passed."""
    end_s, faulty = world.time.now_s + duration_s, itertools.cycle(faults)

    async def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        if world.time.now_s > end_s:
            return await forward(request)
        return await next(faulty)(request, forward)

    return fault


def test_an_outage_of_submissions_without_end_stops_the_run(world: World, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{seed}.wav", seed=seed) for seed in range(16)]
    world.options = {"in_flight": len(clips)}
    world.wire.always("POST", VOICEPRINT_PATH, answers(503))
    ran = world.run(clips)
    assert "10 minutes (The service failed (503))" in str(ran.error)
    assert set(ran.codes) <= {"canceled", "service_unavailable"}
    assert not world.wire.created


def test_two_rows_that_the_service_cannot_take_do_not_stop_a_run(world: World, clips: list[Path]) -> None:
    bad = {f"media://voiceprint-nb/{digest_of(clip)}" for clip in clips[:2]}

    async def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        if json.loads(await request.aread())["url"] in bad:
            return httpx.Response(500)
        return await forward(request)

    world.wire.always("POST", VOICEPRINT_PATH, fault)
    ran = world.run(clips)
    assert ran.error is None
    assert ran.codes[:2] == ["service_unavailable"] * 2
    assert all(ran.prints[2:])


def test_an_outage_does_not_use_up_the_time_of_jobs(world: World, clips: list[Path]) -> None:
    world.options = {"in_flight": 8, "deadline_s": lambda duration_s, n_open: 0.2}
    world.time.real_s = 0.05  # of each of six pauses
    down = until(world, 60.0, [answers(503)])
    world.wire.always("GET", "/v1/jobs/", down).always("GET", "/v2/jobs", down)
    ran = world.run(clips)
    assert all(ran.prints)


@pytest.mark.parametrize("recovers", [True, False])
def test_an_outage_of_the_storage(world: World, clips: list[Path], recovers: bool) -> None:
    probes = 0

    async def storage_down(request: httpx.Request, forward: Forward) -> httpx.Response:
        nonlocal probes
        if request.url.path != "/":
            return await forward(request)
        assert "authorization" not in request.headers
        probes += 1
        return httpx.Response(503 if probes < 4 or not recovers else 403)

    world.wire.on("PUT", "/", *[answers(503)] * (5 if recovers else 1000))
    world.wire.always("GET", "/", storage_down)
    ran = world.run(clips)
    if recovers:
        assert all(ran.prints)
        assert (ran.error, probes) == (None, 4)
    else:
        assert "10 minutes (The service failed (503)" in str(ran.error)
        assert set(ran.codes) <= {"canceled", "upload_failed"}


def test_an_outage_without_end_stops_the_run_with_finished_rows_kept(world: World, clips: list[Path]) -> None:
    world.options = {"in_flight": 1}  # one row after the other
    world.run(clips[:2])
    world.wire.always("POST", "/v1/media/input", answers(503))
    world.wire.on("GET", "/v1/test", None, *[answers(503)] * 1000)
    ran = world.run(clips)
    assert isinstance(ran.error, ServiceUnavailable)
    assert "10 minutes (The service failed (503)" in str(ran.error)
    assert all(ran.prints[:2])
    assert set(ran.codes[2:]) <= {"canceled", "service_unavailable"}
    assert ran.left_tasks == 0
