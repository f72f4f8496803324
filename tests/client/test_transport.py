from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from faulty import SIGNED, Fault, Faulty, Time, acts_then, answers, fails, hangs

from voiceprint_nb.client.transport import Api
from voiceprint_nb.client.wire import CONNECTIONS, UPLOADS
from voiceprint_nb.contract import JOBS_PATH, MEDIA_INPUT_PATH, TEST_PATH
from voiceprint_nb.errors import (
    KeyRefused,
    NoCredit,
    ProtocolError,
    RateLimited,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
    UsageError,
)
from voiceprint_nb.service.local import LocalService

Talk = Callable[..., Any]
KEY = "key-0f3a"


async def check(api: Api) -> None:
    await api.check_key()


async def listed(api: Api) -> object:
    return await api.get(JOBS_PATH, pacer=api.list_pacer)


async def posted(api: Api) -> object:
    body = {"url": "media://a"}
    return await api.post(MEDIA_INPUT_PATH, body, pacer=api.media_pacer, repeatable=False)


async def ticketed(api: Api) -> object:
    body = {"url": "media://a"}
    return await api.post(MEDIA_INPUT_PATH, body, pacer=api.media_pacer, repeatable=True)


def put(url: str) -> Callable[[Api], Awaitable[None]]:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"abc"

    async def session(api: Api) -> None:
        await api.put(url, chunks, 3, media_key="media://a")

    return session


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, RequestRefused, "request_refused"),
        (401, KeyRefused, "key_refused"),
        (402, NoCredit, "no_credit"),
        (403, KeyRefused, "key_refused"),
        (404, RequestRefused, "request_refused"),
        (302, RequestRefused, "request_refused"),
    ],
)
def test_final_statuses_are_not_asked_twice(
    talk: Talk, wire: Faulty, status: int, kind: type[ServiceError], code: str
) -> None:
    wire.always("GET", JOBS_PATH, answers(status, {"message": "Because."}))
    with pytest.raises(kind, match="Because") as refused:
        talk(listed)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        answers(500),
        answers(503, text="<html>busy</html>"),
        fails(httpx.ConnectError),
        fails(httpx.ReadError),
        fails(httpx.RemoteProtocolError),
        hangs,
    ],
)
def test_reads_survive_nine_failures_and_give_up_after_ten(talk: Talk, wire: Faulty, fault: Fault) -> None:
    wire.on("GET", JOBS_PATH, *[fault] * 9)
    assert "items" in talk(listed, timeout_s=0.05)
    assert wire.paths().count(JOBS_PATH) == 10
    wire.always("GET", JOBS_PATH, fault)
    with pytest.raises(ServiceUnavailable):
        talk(listed, timeout_s=0.01)
    assert wire.paths().count(JOBS_PATH) == 20  # five, a look whether the service works, and five more


@pytest.mark.parametrize(
    ("fault", "sent"),
    [
        (answers(503), True),
        (fails(httpx.ReadError), True),
        (fails(httpx.WriteError), True),
        (acts_then(fails(httpx.ReadTimeout)), True),
        (hangs, True),
    ],
)
def test_post_that_may_have_arrived_is_not_repeated(
    talk: Talk, wire: Faulty, fault: Fault, sent: bool
) -> None:
    wire.on("POST", MEDIA_INPUT_PATH, fault)
    with pytest.raises(ServiceUnavailable) as failure:
        talk(posted, timeout_s=0.05)
    assert failure.value.sent is sent
    assert len(wire.requests) == 1


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError])
def test_post_that_never_left_is_repeated(
    talk: Talk, wire: Faulty, error: type[httpx.TransportError]
) -> None:
    wire.on("POST", MEDIA_INPUT_PATH, fails(error), fails(error))
    assert "url" in talk(posted)
    wire.always("POST", MEDIA_INPUT_PATH, fails(error))
    with pytest.raises(ServiceUnavailable, match="cannot be reached") as failure:
        talk(posted)
    assert not failure.value.sent


def test_repeatable_post_is_repeated(talk: Talk, wire: Faulty) -> None:
    wire.on("POST", MEDIA_INPUT_PATH, answers(500), acts_then(fails(httpx.ReadError)))
    assert "url" in talk(ticketed)


def test_bad_certificate_is_final(talk: Talk, wire: Faulty) -> None:
    wire.always("GET", TEST_PATH, fails(httpx.ConnectError, ssl.SSLCertVerificationError("self-signed")))
    with pytest.raises(ServiceUnavailable, match="certificate") as failure:
        talk(check)
    assert (failure.value.retryable, failure.value.sent, len(wire.requests)) == (False, False, 1)


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({"Retry_After": "7"}, 7.0),
        ({"X_RateLimit_Reset": "3"}, 3.0),
        ({"Retry_After": "2", "X_RateLimit_Reset": "60"}, 2.0),
        ({}, 5.0),
        ({"Retry_After": "0"}, 0.1),
        ({"Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 5.0),
        ({"Retry_After": "86400"}, 120.0),
    ],
)
def test_429_waits_as_told(
    talk: Talk, wire: Faulty, time: Time, headers: dict[str, str], pause_s: float
) -> None:
    wire.on("POST", MEDIA_INPUT_PATH, answers(429, **headers))
    began_s = time.now_s
    assert "url" in talk(posted)
    assert time.now_s - began_s == pytest.approx(pause_s)


@pytest.mark.parametrize(("pause_s", "n_refusals"), [(1, 602), (20, 32), (100, 30)])
def test_429_for_ever_ends_the_run(
    talk: Talk, wire: Faulty, time: Time, pause_s: int, n_refusals: int
) -> None:
    wire.always("POST", MEDIA_INPUT_PATH, answers(429, Retry_After=str(pause_s)))
    began_s = time.now_s
    with pytest.raises(RateLimited) as limited:
        talk(posted)
    assert limited.value.code == "service_unavailable"
    assert limited.value.concerns_all_rows
    assert time.now_s - began_s == pytest.approx(pause_s * (n_refusals - 1), abs=5)
    assert len(wire.requests) == n_refusals


def test_limit_of_the_key_check_is_not_that_of_reads(talk: Talk, wire: Faulty, time: Time) -> None:
    wire.on("GET", TEST_PATH, answers(200, {}, X_RateLimit_Limit="1"))

    async def session(api: Api) -> None:
        await api.check_key()
        for _ in range(3):
            await api.get(JOBS_PATH, pacer=api.read_pacer)

    talk(session)
    assert not time.slept


@pytest.mark.parametrize(
    "fault", [answers(200, text="<html>"), answers(200, text="[" * 200_000), answers(200, text="")]
)
def test_answer_that_is_not_json(talk: Talk, wire: Faulty, fault: Fault) -> None:
    wire.on("GET", JOBS_PATH, fault)
    assert "items" in talk(listed)  # what may be asked twice is
    wire.always("GET", JOBS_PATH, fault)
    with pytest.raises(ProtocolError):
        talk(listed)
    wire.on("POST", MEDIA_INPUT_PATH, fault)
    with pytest.raises(ProtocolError):
        talk(posted)
    assert wire.paths().count(MEDIA_INPUT_PATH) == 1


def test_answer_that_cannot_be_unpacked(talk: Talk, wire: Faulty) -> None:
    async def garbled(request: httpx.Request, forward: Any) -> httpx.Response:
        class Pieces(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield b"not gzip"

        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Pieces())

    wire.always("GET", JOBS_PATH, garbled)
    with pytest.raises(ProtocolError, match="unpacked"):
        talk(listed)


def test_key_goes_to_the_api_only_and_is_never_told(
    talk: Talk, wire: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire.on("PUT", "/media/x", answers(200)).on("GET", TEST_PATH, fails(httpx.ReadError), answers(401))
    talk(put(f"https://storage.test/media/x?{SIGNED}"), api_key=KEY)
    with pytest.raises(KeyRefused) as refused:
        talk(check, api_key=KEY)
    stored, *asked = wire.requests
    assert "authorization" not in stored.headers
    assert stored.headers["content-length"] == "3"
    assert {sent.headers["authorization"] for sent in asked} == {f"Bearer {KEY}"}
    assert KEY not in told(refused.value) + caplog.text + repr(Api(base_url="http://a", api_key=KEY))
    assert SIGNED not in caplog.text
    assert "/media/x" not in caplog.text


@pytest.mark.parametrize(
    "fault", [answers(403, {"message": SIGNED}), fails(httpx.ReadError), answers(500), hangs]
)
def test_signed_address_is_never_told(
    talk: Talk, wire: Faulty, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wire.always("PUT", "/", fault)
    with pytest.raises(ServiceError) as failure:
        talk(put(f"https://storage.test/clip?{SIGNED}"), timeout_s=0.01)
    assert SIGNED not in told(failure.value) + caplog.text


@pytest.mark.parametrize("url", ["http://[half", "https://host:port/", "ftp://host/clip"])
def test_upload_address_that_is_none(talk: Talk, service: LocalService, time: Time, url: str) -> None:
    async def session() -> None:
        options = {"clock": time.clock, "sleep": time.sleep}
        async with Api(base_url=service.base_url, api_key=None, **options) as api:  # httpx's own transport
            await put(url)(api)

    with pytest.raises(ServiceError) as failure:
        asyncio.run(session())
    assert url not in told(failure.value)


def test_service_address_that_is_none() -> None:
    async def session() -> None:
        async with Api(base_url="http://host:port", api_key=None):
            pass

    with pytest.raises(UsageError, match="service="):
        asyncio.run(session())


def test_waiting_for_a_connection_does_not_count_as_silence(talk: Talk, wire: Faulty) -> None:
    busy = 0
    most = 0

    async def slow(request: httpx.Request, forward: Any) -> httpx.Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0.1)
        busy -= 1
        return httpx.Response(200, json={})

    wire.always("GET", TEST_PATH, slow)

    async def session(api: Api) -> None:
        await asyncio.gather(*(api.check_key() for _ in range(6 * CONNECTIONS)))

    talk(session, timeout_s=0.5)
    assert most == CONNECTIONS


def test_answers_do_not_wait_for_uploads(talk: Talk, wire: Faulty) -> None:
    wire.always("PUT", "/media/", hangs)

    async def session(api: Api) -> object:
        uploads = [asyncio.create_task(put(f"{LocalService.base_url}/media/{n}")(api)) for n in range(40)]
        await asyncio.sleep(0)
        answer = await listed(api)
        assert wire.paths("PUT") == [f"/media/{n}" for n in range(UPLOADS)]
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)
        return answer

    assert "items" in talk(session)


def test_before_is_called_each_time_a_request_leaves_and_may_keep_it(talk: Talk, wire: Faulty) -> None:
    calls = []
    wire.on("POST", MEDIA_INPUT_PATH, answers(429, Retry_After="1"), fails(httpx.ConnectError))

    async def session(api: Api, before: Callable[[], None]) -> object:
        body = {"url": "media://a"}
        return await api.post(MEDIA_INPUT_PATH, body, pacer=api.media_pacer, repeatable=False, before=before)

    talk(lambda api: session(api, lambda: calls.append(len(wire.requests))))
    assert calls == [0, 1, 2]

    def refuse() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        talk(lambda api: session(api, refuse))
    assert len(wire.requests) == 3
