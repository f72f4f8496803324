from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.parts import (
    BAD,
    PRINT,
    TEAM,
    WAIT_S,
    Bureau,
    Got,
    Receiver,
    certificate,
    endless,
    job,
    raw,
    redirect,
    silence,
    status,
    turned,
    until,
    web_trust,
)
from voiceprint_nb.contract import WEBHOOK_RETRY_REASONS, WebhookEvent
from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.addresses import guarded_client
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.records import Delivery
from voiceprint_nb.service.webhooks import AT_ONCE_A_HOST, AT_ONCE_A_TEAM, deliver

SIGNER = "whsec_test_0123456789"  # of the contract's test vectors
NOW_S = 1767225600.9


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return certificate(tmp_path_factory.mktemp("tls"))


def delivery(url: str, *, attempt: int = 0, reason: str | None = None, **event: Any) -> Delivery:
    told = WebhookEvent(**{"job_id": "7f9d0c2a", "status": "failed"} | event)
    return Delivery(1, attempt, reason, TEAM, url, told)


def attempt(
    due: Delivery | str,
    *,
    plain: bool = True,
    timeout_s: float = WAIT_S,
    trusted: ssl.SSLContext | None = None,
) -> str | None:
    """One attempt, by a client that nothing else uses."""
    if isinstance(due, str):
        due = delivery(due)

    async def session() -> str | None:
        async with httpx.AsyncClient(verify=trusted or web_trust(), trust_env=False) as client:
            return await deliver(client, due, SIGNER, now_unix_s=NOW_S, plain=plain, timeout_s=timeout_s)

    return asyncio.run(session())


def signed(secret: str, got: Got) -> str:
    signed_bytes = b"v0:" + got.headers["x-request-timestamp"].encode() + b":" + got.body
    return hmac.new(secret.encode(), signed_bytes, hashlib.sha256).hexdigest()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# --- one attempt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "body", "signature"),
    [
        (
            {
                "job_id": "5b1f3f0e-52f1-4e0e-9a63-0d4c7f0d7a10",
                "status": "succeeded",
                "output": {"voiceprint": "Zm9v"},
            },
            b'{"jobId":"5b1f3f0e-52f1-4e0e-9a63-0d4c7f0d7a10","status":"succeeded",'
            b'"output":{"voiceprint":"Zm9v"}}',
            "81a532691744dd8f99914608a626ec776502c9a6c1005a535dffdc864434284f",
        ),
        (
            {"job_id": "7f9d0c2a-6a63-4b0d-8a26-0f3f8b7e0c55", "status": "failed"},
            b'{"jobId":"7f9d0c2a-6a63-4b0d-8a26-0f3f8b7e0c55","status":"failed"}',
            "5c95722005e1c6d47414e7b24fc26f226d2ae7ad84513e014773a46fc20e9845",
        ),
    ],
)
def test_an_event_is_what_the_contract_shows(
    receiver: Receiver, event: dict[str, Any], body: bytes, signature: str
) -> None:
    assert attempt(delivery(f"{receiver.url}/hook?a=b", **event)) is None
    got = receiver.next()
    assert (got.method, got.path, got.body) == ("POST", "/hook?a=b", body)
    assert got.headers["content-type"] == "application/json"
    assert got.headers["x-request-timestamp"] == "1767225600"
    assert got.headers["x-signature"] == signature
    assert not [name for name in got.headers if name.startswith("x-retry") or name == "authorization"]


def test_a_retry_tells_its_number_and_why(receiver: Receiver) -> None:
    assert attempt(delivery(receiver.url, attempt=2, reason="ssl_error")) is None
    got = receiver.next()
    assert (got.headers["x-retry-num"], got.headers["x-retry-reason"]) == ("2", "ssl_error")


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_every_2xx_counts(receiver: Receiver, code: int) -> None:
    receiver.script.append(code)
    assert attempt(receiver.url) is None


@pytest.mark.parametrize("code", [300, 301, 304, 400, 401, 404, 410, 429, 500, 503])
def test_every_other_status_is_a_failure(receiver: Receiver, code: int) -> None:
    receiver.script.append(code)
    assert attempt(receiver.url) == "http_error"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_two_redirects_are_followed_with_the_same_post(receiver: Receiver, code: int) -> None:
    with Receiver() as other:
        receiver.script += [redirect("/second", code), redirect(f"{other.url}/third", code)]
        assert attempt(f"{receiver.url}/first") is None
        first, second, third = receiver.next(), receiver.next(), other.next()
    assert [first.path, second.path, third.path] == ["/first", "/second", "/third"]
    assert {got.method for got in (first, second, third)} == {"POST"}
    assert first.body == second.body == third.body != b""
    assert first.headers["x-signature"] == third.headers["x-signature"] == signed(SIGNER, third)


def test_an_answer_without_end_is_not_read(receiver: Receiver) -> None:
    receiver.script.append(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536))
    assert attempt(receiver.url) is None
    until(lambda: receiver.n_busy == 0)  # what sends it was hung up on


# --- why an attempt failed ------------------------------------------------------------------------------


def silent(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(silence)
    return attempt(receiver.url, timeout_s=0.1)


def silent_after_a_redirect(receiver: Receiver, tls: Any) -> str | None:
    receiver.script += [redirect("/"), silence]
    return attempt(receiver.url, timeout_s=0.1)


def dripping(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    return attempt(receiver.url, timeout_s=0.3)


def circling(receiver: Receiver, tls: Any) -> str | None:
    receiver.otherwise = redirect("/again")
    return attempt(receiver.url)


def nobody(receiver: Receiver, tls: Any) -> str | None:
    return attempt(f"http://127.0.0.1:{closed_port()}/")


def redirected_to_nobody(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(redirect(f"http://127.0.0.1:{closed_port()}/"))
    return attempt(receiver.url)


def redirected_to_no_website(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(redirect("file:///etc/passwd"))
    return attempt(receiver.url)


def untrusted(receiver: Receiver, tls: Any) -> str | None:
    with Receiver(tls=tls[0]) as other:
        return attempt(other.url)


def no_tls_at_all(receiver: Receiver, tls: Any) -> str | None:
    return attempt(receiver.url.replace("http", "https"))


def refusing(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(500)
    return attempt(receiver.url)


def garbled(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(raw(b"nothing that a web server says\r\n\r\n"))
    return attempt(receiver.url)


def hanging_up(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(raw(b"HTTP/1.1 200"))
    return attempt(receiver.url)


def babbling(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n"))
    return attempt(receiver.url)


def redirected_nowhere(receiver: Receiver, tls: Any) -> str | None:
    receiver.script.append(redirect("http://[half/"))
    return attempt(receiver.url)


@pytest.mark.parametrize(
    ("counterpart", "reason"),
    [
        (silent, "http_timeout"),
        (silent_after_a_redirect, "http_timeout"),
        (dripping, "http_timeout"),
        (circling, "too_many_redirects"),
        (nobody, "connection_failed"),
        (redirected_to_nobody, "connection_failed"),
        (redirected_to_no_website, "connection_failed"),
        (untrusted, "ssl_error"),
        (no_tls_at_all, "ssl_error"),
        (refusing, "http_error"),
        (garbled, "unknown_error"),
        (hanging_up, "unknown_error"),
        (babbling, "unknown_error"),
        (redirected_nowhere, "unknown_error"),
    ],
)
def test_reasons(receiver: Receiver, tls: Any, counterpart: Callable[..., str | None], reason: str) -> None:
    assert reason in WEBHOOK_RETRY_REASONS
    assert counterpart(receiver, tls) == reason


def test_at_most_two_redirects_are_followed(receiver: Receiver) -> None:
    circling(receiver, None)
    assert receiver.got.qsize() == 3


@pytest.mark.parametrize(("plain", "reason"), [(True, None), (False, "connection_failed")])
def test_no_redirect_leaves_tls_unless_that_is_allowed(
    receiver: Receiver, tls: tuple[ssl.SSLContext, ssl.SSLContext], plain: bool, reason: str | None
) -> None:
    server_side, trusting = tls
    with Receiver(redirect(receiver.url), tls=server_side) as secured:
        assert attempt(secured.url, plain=plain, trusted=trusting) == reason
        assert secured.next().method == "POST"
    assert receiver.got.qsize() == (1 if plain else 0)


def test_nothing_goes_out_without_tls_unless_that_is_allowed(receiver: Receiver) -> None:
    assert attempt(receiver.url, plain=False) == "connection_failed"
    assert receiver.got.empty()


# --- events of a desk -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status_only", [False, True])
@pytest.mark.parametrize("ended", ["succeeded", "failed", "canceled"])
def test_the_end_of_a_job_is_told_once(
    bureau: Bureau, receiver: Receiver, ended: str, status_only: bool
) -> None:
    timer_s = [0.0]
    bureau.engine.error = BAD if ended == "failed" else None
    bureau.engine.holds = ended == "canceled"
    desk = bureau.open(timer=lambda: timer_s[0])
    job_id = desk.submit(TEAM, job(f"{receiver.url}/hook", status_only=status_only)).job_id
    if ended == "canceled":
        bureau.engine.held.get(timeout=WAIT_S)
        timer_s[0] = 601.0
        bureau.engine.holds = False
        desk.wake()
    got = receiver.next()
    event = {"jobId": job_id, "status": ended}
    if ended == "succeeded" and not status_only:
        event["output"] = {"voiceprint": PRINT}
    assert json.loads(got.body) == event
    assert got.headers["x-signature"] == signed("secret of default", got)
    assert "x-retry-num" not in got.headers
    assert bureau.meter.outcomes.get(timeout=WAIT_S) == "delivered"
    until(lambda: not bureau.rows("SELECT 1 FROM deliveries"))
    bureau.clock.now_s += 3600
    turned(desk)
    assert receiver.got.empty()


def test_a_job_without_a_webhook_tells_nobody(bureau: Bureau) -> None:
    turned(bureau.open())
    assert not bureau.rows("SELECT 1 FROM deliveries")


def test_each_team_has_its_own_secret(bureau: Bureau, receiver: Receiver) -> None:
    desk = bureau.open()
    for team in ("ada", "bob"):
        desk.submit(team, job(receiver.url))
    signatures = [(got.headers["x-signature"], got) for got in (receiver.next(), receiver.next())]
    assert all(
        sum(signature == signed(f"secret of {team}", got) for signature, got in signatures) == 1
        for team in ("ada", "bob")
    )


def test_retries_come_at_once_after_one_minute_and_after_five(bureau: Bureau, receiver: Receiver) -> None:
    receiver.script += [500, redirect("/"), redirect("/"), redirect("/"), raw(b"?\r\n\r\n"), 404]
    began_s = bureau.clock.now_s
    desk = bureau.open()
    desk.submit(TEAM, job(receiver.url))
    attempts = [receiver.next(), receiver.next()]
    assert [receiver.next().method, receiver.next().method] == ["POST", "POST"]  # the redirects
    for late_s in (60, 360):
        until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = ?", len(attempts)))
        assert bureau.rows("SELECT due_ms FROM deliveries") == [(int((began_s + late_s) * 1000),)]
        bureau.clock.now_s = began_s + late_s - 0.6  # an attempt now would carry this second
        turned(desk)
        assert receiver.got.empty()
        bureau.clock.now_s = began_s + late_s
        desk.wake()
        attempts.append(receiver.next())
    assert [int(got.headers["x-request-timestamp"]) - int(began_s) for got in attempts] == [0, 0, 60, 360]
    assert [got.headers.get("x-retry-num") for got in attempts] == [None, "1", "2", "3"]
    assert [got.headers.get("x-retry-reason") for got in attempts] == [
        None,
        "http_error",
        "too_many_redirects",
        "unknown_error",
    ]
    assert all(got.headers["x-signature"] == signed("secret of default", got) for got in attempts)
    assert len({got.headers["x-signature"] for got in attempts}) == 3  # the first two are of one second
    outcomes = [bureau.meter.outcomes.get(timeout=WAIT_S) for _ in range(4)]
    assert outcomes == ["http_error", "too_many_redirects", "unknown_error", "http_error"]
    until(lambda: bureau.meter.n_given_up == 1)
    assert bureau.meter.outcomes.empty()
    until(lambda: not bureau.rows("SELECT 1 FROM deliveries"))
    bureau.clock.now_s += 24 * 3600
    turned(desk)
    assert receiver.got.empty()


def test_an_event_later_than_the_output_lives_carries_none(bureau: Bureau, receiver: Receiver) -> None:
    receiver.script.append(500)
    receiver.script.append(500)
    desk = bureau.open()
    job_id = desk.submit(TEAM, job(receiver.url)).job_id
    assert [b"output" in receiver.next().body for _ in range(2)] == [True, True]
    until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 2"))
    bureau.clock.now_s += 24 * 3600 + 0.001
    desk.wake()
    assert json.loads(receiver.next().body) == {"jobId": job_id, "status": "succeeded"}
    until(lambda: not bureau.rows("SELECT 1 FROM deliveries"))
    assert bureau.rows("SELECT output, webhook FROM jobs WHERE id = ?", job_id) == [(None, None)]


# --- restarts -------------------------------------------------------------------------------------------


def test_what_is_due_outlives_the_desk(bureau: Bureau, receiver: Receiver) -> None:
    receiver.script += [500, 500]
    desk = bureau.open()
    job_id = desk.submit(TEAM, job(receiver.url)).job_id
    assert [receiver.next().headers.get("x-retry-num") for _ in range(2)] == [None, "1"]
    until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 2"))
    assert desk.close()
    bureau.clock.now_s += 60
    bureau.open()
    got = receiver.next()
    assert json.loads(got.body) == {"jobId": job_id, "status": "succeeded", "output": {"voiceprint": PRINT}}
    assert (got.headers["x-retry-num"], got.headers["x-retry-reason"]) == ("2", "http_error")


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_set_back_delays_no_event_for_long(
    bureau: Bureau, receiver: Receiver, restarts: bool
) -> None:
    receiver.script += [500, 500]
    bureau.clock.now_s += 30 * 24 * 3600
    desk = bureau.open()
    desk.submit(TEAM, job(receiver.url))
    until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 2"))
    if restarts:
        assert desk.close()
    bureau.clock.now_s -= 30 * 24 * 3600
    if restarts:
        desk = bureau.open()
    turned(desk)
    latest_ms = int((bureau.clock.now_s + 300) * 1000)
    assert bureau.rows("SELECT due_ms FROM deliveries") == [(latest_ms,)]
    bureau.clock.now_s += 300
    desk.wake()
    assert [receiver.next().headers.get("x-retry-num") for _ in range(3)] == [None, "1", "2"]


def test_closing_ends_an_attempt_and_the_next_desk_makes_it_again(bureau: Bureau, receiver: Receiver) -> None:
    receiver.script.append(silence)
    desk = bureau.open()
    desk.submit(TEAM, job(receiver.url))
    first = receiver.next()
    assert desk.close()
    bureau.clock.now_s += 20
    bureau.open()
    second = receiver.next()
    assert first.body == second.body
    assert "x-retry-num" not in second.headers
    assert first.headers["x-signature"] != second.headers["x-signature"]


KILLED = """
import sys, threading
from pathlib import Path
from tests.service.parts import Bureau, job
import time
bureau = Bureau(Path(sys.argv[1]))
bureau.open(clock=time.time).submit("default", job(sys.argv[2]))
threading.Event().wait(30)
"""


def test_an_attempt_that_a_crash_interrupts_is_made_again(bureau: Bureau, receiver: Receiver) -> None:
    receiver.script.append(silence)
    command = [sys.executable, "-c", KILLED, str(bureau.folder), receiver.url]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        first = receiver.next()
        process.send_signal(signal.SIGKILL)
    bureau.open(clock=lambda: time.time() + 20)
    second = receiver.next()
    assert first.body == second.body
    assert "x-retry-num" not in second.headers
    assert bureau.meter.outcomes.get(timeout=WAIT_S) == "delivered"


# --- many -----------------------------------------------------------------------------------------------

NAMES = [f"host{n}.example" for n in range(12)]


async def _loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def named_hosts(bureau: Bureau) -> Desk:
    return bureau.open(new_client=partial(guarded_client, allowed_hosts=NAMES, resolve=_loopback))


def test_many_webhooks_are_bounded_and_all_arrive(bureau: Bureau, receiver: Receiver) -> None:
    def answer(handler: Any) -> None:
        silence(handler)
        status(200)(handler)

    receiver.otherwise = answer
    desk = named_hosts(bureau)
    ids = {
        desk.submit(TEAM, job(f"http://{NAMES[n % 12]}:{receiver.server_port}/")).job_id for n in range(240)
    }
    until(lambda: receiver.n_busy == AT_ONCE_A_TEAM)
    turned(desk)
    receiver.released.set()
    assert {json.loads(receiver.next().body)["jobId"] for _ in ids} == ids
    assert receiver.most_busy == AT_ONCE_A_TEAM
    assert [bureau.meter.outcomes.get(timeout=WAIT_S) for _ in ids] == ["delivered"] * 240
    until(lambda: not bureau.rows("SELECT 1 FROM deliveries"))
    assert receiver.got.empty()


def test_a_receiver_that_never_answers_does_not_hold_up_others(bureau: Bureau, receiver: Receiver) -> None:
    with Receiver() as dead:
        dead.otherwise = silence
        desk = named_hosts(bureau)
        for _ in range(2 * AT_ONCE_A_TEAM):
            desk.submit(TEAM, job(f"http://{NAMES[0]}:{dead.server_port}/"))
        good = {
            desk.submit(TEAM, job(f"http://{NAMES[1]}:{receiver.server_port}/")).job_id for _ in range(20)
        }
        assert {json.loads(receiver.next().body)["jobId"] for _ in good} == good
        assert [bureau.meter.outcomes.get(timeout=WAIT_S) for _ in good] == ["delivered"] * 20
        assert bureau.meter.outcomes.empty()
        assert dead.most_busy == AT_ONCE_A_HOST
        assert desk.close()


# --- faults ---------------------------------------------------------------------------------------------


def test_a_secret_that_cannot_be_had_is_a_failed_attempt(
    bureau: Bureau, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    faults = [UsageError("no name of a team"), sqlite3.OperationalError("database is locked")]

    def secret_of(team: str) -> str:
        if team == TEAM and faults:
            raise faults.pop()
        return f"secret of {team}"

    desk = bureau.open(webhook_secret=secret_of)
    job_id = desk.submit(TEAM, job(receiver.url)).job_id
    until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 2"))
    assert desk.is_alive
    desk.submit("other", job(receiver.url))
    assert receiver.next().headers.get("x-retry-num") is None
    bureau.clock.now_s += 60
    desk.wake()
    got = receiver.next()
    assert json.loads(got.body)["jobId"] == job_id
    assert got.headers["x-retry-reason"] == "unknown_error"
    assert "no name of a team" in caplog.text


@pytest.mark.parametrize("damage", ['{"voiceprint": "cut of', "[]", "null", "7"])
def test_a_damaged_output_is_left_out(bureau: Bureau, receiver: Receiver, damage: str) -> None:
    receiver.script += [500, 500]
    desk = bureau.open()
    job_id = desk.submit(TEAM, job(receiver.url)).job_id
    until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 2"))
    bureau.rows("UPDATE jobs SET output = ?", damage)
    bureau.clock.now_s += 60
    desk.wake()
    last = [receiver.next() for _ in range(3)][-1]
    assert json.loads(last.body) == {"jobId": job_id, "status": "succeeded"}
    assert bureau.meter.outcomes.get(timeout=WAIT_S)
    stored = desk.job(TEAM, job_id)
    assert stored is not None
    assert (stored.status, stored.output) == ("succeeded", None)
    assert desk.is_alive


def test_a_damaged_address_is_given_up(bureau: Bureau, receiver: Receiver) -> None:
    receiver.script += [500, 500]
    desk = bureau.open()
    desk.submit(TEAM, job(receiver.url))
    until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 2"))
    bureau.rows("UPDATE jobs SET webhook = NULL")
    for n in (2, 3):
        until(lambda n=n: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = ?", n))
        bureau.clock.now_s += 300
        desk.wake()
    outcomes = [bureau.meter.outcomes.get(timeout=WAIT_S) for _ in range(4)]
    assert outcomes == ["http_error", "http_error", "unknown_error", "unknown_error"]
    until(lambda: bureau.meter.n_given_up == 1)
    assert desk.is_alive


def test_addresses_and_secrets_stay_out_of_logs(
    bureau: Bureau, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # httpcore's details show what a receiver answers, a redirect too
    caplog.set_level(logging.DEBUG, "voiceprint_nb")
    signer = "whsec_h0ly"
    receiver.script += [500, raw(b"?\r\n\r\n"), redirect("/t0ken/again"), redirect("http://[t0ken"), 500, 500]
    desk = bureau.open(webhook_secret=lambda team: signer)
    urls = [
        f"{receiver.url}/t0ken?key=t0ken",
        f"http://t0ken:t0ken@127.0.0.1:{closed_port()}/t0ken",
        "http://t0ken:t0ken@[half/t0ken",
        f"{receiver.url.replace('http', 'https')}/t0ken",
    ]
    for url in urls:
        desk.submit(TEAM, job(url))
    for n in (2, 3):
        until(lambda n=n: len(bureau.rows("SELECT 1 FROM deliveries WHERE attempt = ?", n)) == len(urls))
        bureau.clock.now_s += 300
        desk.wake()
    until(lambda: not bureau.rows("SELECT 1 FROM deliveries"))
    assert desk.close()
    told = caplog.text + "".join(repr(vars(record)) for record in caplog.records)
    assert "given up" in told
    for secret in ("t0ken", signer, PRINT):
        assert secret not in told


def test_reprs_keep_secrets() -> None:
    due = delivery("https://receiver.example/t0ken", status="succeeded", output={"voiceprint": PRINT})
    for shown in (repr(due), repr(due.event), repr(job("https://receiver.example/t0ken"))):
        assert "t0ken" not in shown
        assert PRINT not in shown
