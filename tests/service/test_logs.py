from __future__ import annotations

import asyncio
import datetime
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from voiceprint_nb.errors import MissingExtra
from voiceprint_nb.service.logs import AccessLog, configure, without_secrets

# --- secrets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("key vpnb_Ab3-_x.", "key <key>."),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer <key>"),
        ("{'authorization': 'bearer k1'}", "{'authorization': 'Bearer <key>'}"),
        ("signed with whsec_a-b_C=, again", "signed with <webhook secret>, again"),
        ("GET /media/eyJ.9f-_ failed", "GET /media/<token> failed"),
        ("GET /media/eyJ%2E9f", "GET /media/<token>"),
        ("POST /v1/media/input", "POST /v1/media/input"),
        ("PUT /media/{token}", "PUT /media/{token}"),
        ("https://example.com", "https://example.com/"),
        ("from HTTPS://a-b.example.com:8443/x/y?sig=1#f on", "from HTTPS://a-b.example.com:8443/ on"),
        ("http://user:pass@10.0.0.1/x http://[::1]:80/y", "http://10.0.0.1/ http://[::1]:80/"),
        ("http://a.example?sig=1 http://a.example#s", "http://a.example/ http://a.example/"),
        ("('https://a.example/\"quoted\"<sig>')", "('https://a.example/"),
        ("z" * 201, "<base64>"),
        ("print: " + "aB3+/" * 60 + "==.", "print: <base64>."),
        ("z" * 200, "z" * 200),
        ("one\ntwo", "one\ntwo"),
    ],
)
def test_secrets_are_taken_out(text: str, safe: str) -> None:
    assert without_secrets(text) == safe
    assert without_secrets(safe) == safe


# --- lines ----------------------------------------------------------------------------------------------

PROGRAM = """
import logging
from voiceprint_nb.service.logs import configure

configure("debug")
configure("info")
log = logging.getLogger("voiceprint_nb.service.desk")
log.debug("unheard")
more = {"links": ["https://a.example/s3cret"], "x/media/s3cret": 1}
log.info("swept %d", 3, extra={"media": 5, "more": more})
try:
    raise ValueError("no answer from https://a.example/?s3cret")
except ValueError:
    log.exception("fault\\nwith vpnb_s3cret and %s", "\\nz\\u00e9" + "s3cret" * 50)
log.warning("who can say", extra={"key": object()})
logging.getLogger("uvicorn.error").info("on http://127.0.0.1:8000", extra={"color_message": "on s3cret"})
logging.getLogger("uvicorn.access").info("/media/s3cret")
logging.getLogger("httpx").info("GET https://a.example/s3cret")
logging.getLogger("other").info("unheard")
logging.getLogger("asyncio").error("Task failed: Bearer s3cret")
"""


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_records_are_json_lines(lines: list[dict[str, Any]]) -> None:
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("INFO", "voiceprint_nb.service.desk"),
        ("ERROR", "voiceprint_nb.service.desk"),
        ("WARNING", "voiceprint_nb.service.desk"),
        ("INFO", "uvicorn.error"),
        ("ERROR", "asyncio"),
    ]
    moments = [datetime.datetime.fromisoformat(line["timestamp"]) for line in lines]
    assert {moment.utcoffset() for moment in moments} == {datetime.timedelta(0)}
    assert moments == sorted(moments)
    assert lines[0] == {
        "timestamp": lines[0]["timestamp"],
        "level": "INFO",
        "logger": "voiceprint_nb.service.desk",
        "event": "swept 3",
        "media": 5,
        "more": {"links": ["https://a.example/"], "x/media/<token>": 1},
    }
    assert lines[3].keys() == {"timestamp", "level", "logger", "event"}
    assert lines[3]["event"] == "on http://127.0.0.1:8000/"


def test_an_exception_is_one_field(lines: list[dict[str, Any]]) -> None:
    assert lines[1]["event"] == "fault\nwith <key> and \nz\u00e9<base64>"
    assert lines[1]["exception"].startswith("Traceback (most recent call last):\n")
    assert lines[1]["exception"].endswith("\nValueError: no answer from https://a.example/")


def test_no_line_holds_a_secret(lines: list[dict[str, Any]]) -> None:
    assert "s3cret" not in json.dumps(lines)


def test_the_package_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(logging.getLogger().handlers)
    monkeypatch.setitem(sys.modules, "pythonjsonlogger.core", None)
    with pytest.raises(MissingExtra, match=r"voiceprint_nb\[serve\]"):
        configure()
    assert logging.getLogger().handlers == before


# --- answers --------------------------------------------------------------------------------------------


class Reports:
    """A meter that keeps what it is told."""

    def __init__(self) -> None:
        self.answered: list[tuple[str, int, float]] = []

    def job_ended(self, status: str, *, engine_s: float) -> None:
        raise AssertionError

    def webhook_attempted(self, outcome: str) -> None:
        raise AssertionError

    def request_answered(self, operation: str, status: int, duration_s: float) -> None:
        self.answered.append((operation, status, duration_s))


async def job(request: Request) -> Response:
    request.state.team = "ada"
    return Response(status_code=201)


async def media(request: Request) -> Response:
    return Response()


async def fault(request: Request) -> Response:
    raise RuntimeError("out of order")


async def stream(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"piece"
        if "broken" in request.query_params:
            raise RuntimeError("cut")

    return StreamingResponse(pieces())


ROUTES = [
    Route("/v1/jobs/{job_id}", job),
    Route("/media/{token}", media, methods=["PUT"]),
    Route("/fault", fault),
    Route("/stream", stream),
]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def app(reports: Reports) -> AccessLog:
    ticks = count(step=0.25)
    return AccessLog(Starlette(routes=ROUTES), reports, clock=lambda: next(ticks))


@pytest.fixture
def ask(app: AccessLog) -> Callable[[str, str], httpx.Response]:
    def ask(method: str, path: str) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path)

        return asyncio.run(run())

    return ask


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET /v1/jobs/5", ("/v1/jobs/{job_id}", 201, "ada")),
        ("PUT /media/s3cret", ("/media/{token}", 200, None)),
        ("DELETE /media/s3cret", ("/media/{token}", 405, None)),
        ("GET /nothing/s3cret?s3cret", ("unmatched", 404, None)),
        ("GET /fault", ("/fault", 500, None)),
        ("GET /stream", ("/stream", 200, None)),
        ("GET /stream?broken", ("/stream", 200, None)),
    ],
)
def test_each_answer_is_one_line_and_one_report(
    ask: Any, reports: Reports, caplog: Any, request_line: str, expected: tuple[str, int, str | None]
) -> None:
    caplog.set_level(logging.INFO, "voiceprint_nb")
    method, path = request_line.split()
    assert ask(method, path).status_code == expected[1]
    assert reports.answered == [(*expected[:2], 0.25)]
    (record,) = [record for record in caplog.records if record.name == "voiceprint_nb.access"]
    assert (record.operation, record.status, record.team) == expected
    assert (record.method, record.duration_ms) == (method, 250.0)
    assert "s3cret" not in str(vars(record))


def scope_of(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}


def test_an_answer_goes_out_as_it_comes(reports: Reports) -> None:
    """Nothing is held back: each piece is on its way before the next is made."""
    sent: list[bytes] = []

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"1", b"2"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            assert sent[-1] == piece
        assert reports.answered == []
        await send({"type": "http.response.body", "body": b""})

    async def keep(message: Message) -> None:
        sent.append(message.get("body", b"start"))

    async def run() -> None:
        await AccessLog(waiting, reports)(scope_of("/"), asyncio.Queue().get, keep)

    asyncio.run(run())
    assert sent == [b"start", b"1", b"2", b""]
    assert [(operation, status) for operation, status, _ in reports.answered] == [("unmatched", 200)]


def test_a_caller_who_leaves_before_the_answer_is_no_answer(reports: Reports) -> None:
    async def forever(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        task = asyncio.create_task(AccessLog(forever, reports)(scope_of("/"), asyncio.Queue().get, None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())
    assert reports.answered == []


def test_what_is_not_a_request_passes_through(app: AccessLog, reports: Reports) -> None:
    sent: list[str] = []

    async def run() -> None:
        messages: asyncio.Queue[Message] = asyncio.Queue()
        messages.put_nowait({"type": "lifespan.startup"})
        messages.put_nowait({"type": "lifespan.shutdown"})

        async def keep(message: Message) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan"}, messages.get, keep)

    asyncio.run(run())
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert reports.answered == []
