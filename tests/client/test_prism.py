"""The client against a server that Prism makes from the shared contract, and that refuses what breaks it.

Prism comes from the npm registry: ``npm ci --prefix tests``.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty import Time

from tests.shared_contract import contract_path
from voiceprint_nb.client import jobs, transport, uploads
from voiceprint_nb.client.joblist import START, JobList
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import JOB_STATUSES, Job, JobPage, VoiceprintRequest
from voiceprint_nb.errors import KeyRefused, NoCredit, RateLimited, RequestRefused, ServiceUnavailable
from voiceprint_nb.pacing import Pacer

PRISM = Path(__file__).resolve().parents[1] / "node_modules" / ".bin" / "prism"
STORAGE_HOST = "storage.example.com"  # of the contract's example of an upload address
JOB_ID = "5b1f3f0e-52f1-4e0e-9a63-0d4c7f0d7a10"
DEADLINE_S = 30.0
DYNAMIC_ANSWERS = 10
SUBMISSION = VoiceprintRequest("media://a")


Session = Callable[[Api], Awaitable[Any]]


class Prism:
    """A running mock server and its log."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("w") as output:
            command = [str(PRISM), "mock", "--errors", "--port", "0", str(contract_path())]
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.url = self.await_line(r"listening on (http://\S+)")

    def await_line(self, pattern: str) -> str:
        deadline_s = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline_s, self.log.read_text()
            time.sleep(0.02)
        return found[1]


@contextmanager
def mocking(log: Path) -> Iterator[Prism]:
    if not PRISM.exists():
        pytest.skip("Prism is not installed: npm ci --prefix tests")
    if not contract_path().exists():
        pytest.skip("the contract file is not at hand")
    prism = Prism(log)
    try:
        yield prism
    finally:
        prism.process.terminate()
        prism.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prism]:
    """A server that must not see one request that breaks the contract."""
    with mocking(tmp_path_factory.mktemp("prism") / "log") as prism:
        yield prism
    assert "Violation:" not in prism.log.read_text()


class Storage(BaseHTTPRequestHandler):
    """Takes uploads, as an object store does."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.stored.append((self.path, self.headers["authorization"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def storage() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Storage) as server:
        server.stored = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Wire(httpx.AsyncBaseTransport):
    """The network, but the contract's example host is the storage here.

    Prism is asked to answer as `prefer` says at paths that begin with `at`.
    """

    def __init__(
        self, prefer: str = "", *, at: str = "/", storage: ThreadingHTTPServer | None = None
    ) -> None:
        self._inner, self._storage = httpx.AsyncHTTPTransport(), storage
        self._prefer, self._at = prefer, at
        self.violations: list[str] = []
        self.requests: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._storage is not None and request.url.host == STORAGE_HOST:
            port = self._storage.server_address[1]
            request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=port)
        if self._prefer and request.url.path.startswith(self._at):
            request.headers["Prefer"] = self._prefer
        answer = await self._inner.handle_async_request(request)
        self.requests.append((request.method, request.url.path))
        self.violations += filter(None, [answer.headers.get("sl-violations")])
        return answer

    async def aclose(self) -> None:
        await self._inner.aclose()


def talk(prism: Prism, session: Session, wire: Wire, *, key: str | None = "k") -> Any:
    """One session of a client in an event loop of its own; the pace costs no time."""
    clock = Time()

    async def opened() -> Any:
        times: Any = {"clock": clock.clock, "sleep": clock.sleep}
        pacer = partial(Pacer, **times)
        async with Api(base_url=prism.url, api_key=key, transport=wire, new_pacer=pacer, **times) as api:
            return await session(api)

    return asyncio.run(opened())


def test_a_breach_of_the_contract_would_be_seen(tmp_path: Path) -> None:
    wire = Wire()
    with mocking(tmp_path / "log") as prism:
        with pytest.raises(RequestRefused, match="400"):
            talk(prism, lambda api: jobs.submit(api, VoiceprintRequest("ftp://example.com/a.wav")), wire)
        with pytest.raises(KeyRefused):
            talk(prism, Api.check_key, wire, key=None)
        assert len(wire.violations) == 2
        prism.await_line("(Violation:)")


def test_from_upload_to_voiceprint(prism: Prism, storage: ThreadingHTTPServer, clip: Path) -> None:
    wire = Wire("example=voiceprintSucceeded", at="/v1/jobs/", storage=storage)
    digest = hashlib.sha256(clip.read_bytes()).hexdigest()

    async def session(api: Api) -> Job | None:
        await api.check_key()
        key = uploads.media_key(digest)
        await uploads.put(api, clip, n_bytes=clip.stat().st_size, media_key=key)
        created = await jobs.submit(api, VoiceprintRequest(key))
        assert created.status == "created"
        waiter = jobs.Waiter(api, interval_s=0.0)
        try:
            return await waiter.wait(created.job_id, timeout_s=DEADLINE_S)
        finally:
            await waiter.close()

    job = talk(prism, session, wire)
    assert job.status == "succeeded"
    assert job.voiceprint == "Zm9vYmFyLW9wYXF1ZS12b2ljZXByaW50"
    assert storage.stored == [("/bucket/key?X-Amz-Signature=abc", None, clip.read_bytes())]
    assert not wire.violations
    asked = [("GET", "/v1/test"), ("POST", "/v1/media/input"), ("PUT", "/bucket/key")]
    asked += [("POST", "/v1/voiceprint"), ("GET", "/v1/jobs/3c8a89a5-dcc6-4edb-a75d-ffd64739674d")]
    assert wire.requests == asked


@pytest.mark.parametrize("model", [None, "precision-2", "precision-3"])
@pytest.mark.parametrize("webhook", [None, "https://example.com/hook?token=a%20b"])
@pytest.mark.parametrize(
    "url", ["media://a", "https://example.com/a.wav?X-Amz-Signature=1", "media://" + "k" * 247]
)
def test_every_submission_is_allowed(prism: Prism, url: str, model: str | None, webhook: str | None) -> None:
    wire = Wire()
    request = VoiceprintRequest(url, model, webhook, webhook is not None)
    assert talk(prism, lambda api: jobs.submit(api, request), wire).job_id
    assert not wire.violations


@pytest.mark.parametrize(
    ("example", "status", "field"),
    [
        ("created", "created", None),
        ("running", "running", None),
        ("voiceprintSucceeded", "succeeded", "voiceprint"),
        ("identifySucceeded", "succeeded", None),
        ("failed", "failed", "error"),
        ("expired", "succeeded", None),
    ],
)
def test_every_example_of_a_job_is_read(prism: Prism, example: str, status: str, field: str | None) -> None:
    wire = Wire(f"example={example}")
    job = talk(prism, lambda api: jobs.read(api, JOB_ID), wire)
    assert job.status == status
    assert [name for name in ("voiceprint", "error") if getattr(job, name)] == [field] * bool(field)
    assert not wire.violations


def test_any_answer_that_the_contract_allows_is_read(prism: Prism) -> None:
    wire = Wire("dynamic=true")

    async def session(api: Api) -> tuple[list[Job | None], list[JobPage]]:
        numbers = range(DYNAMIC_ANSWERS)
        return (
            [await jobs.read(api, JOB_ID) for _ in numbers],
            [await JobList(api).page({"cursor": JOB_ID} if number % 2 else START) for number in numbers],
        )

    read, pages = talk(prism, session, wire)
    items = list(itertools.chain.from_iterable(items for items, _ in pages))
    assert {entry.status for entry in [*read, *items]} <= set(JOB_STATUSES)
    assert len(items) > 0
    assert not wire.violations


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, RequestRefused, "Invalid request (url: Invalid URL)"),
        (401, KeyRefused, "Unauthorized"),
        (402, NoCredit, "Subscription is required"),
        (403, KeyRefused, "Forbidden"),
        (413, RequestRefused, "Payload too large"),
        (415, RequestRefused, "Unsupported media type"),
        (429, RateLimited, "too many requests"),
        (500, ServiceUnavailable, "Internal server error"),
    ],
)
def test_every_declared_refusal_is_understood(
    prism: Prism, status: int, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "PATIENCE_S", 10.0)
    wire = Wire(f"code={status}")
    sessions: list[Session] = [lambda api: jobs.submit(api, SUBMISSION)]
    if status not in (413, 415):  # declared for requests with a body
        sessions += [lambda api: jobs.read(api, JOB_ID), lambda api: JobList(api).page(), Api.check_key]
    for session in sessions:
        with pytest.raises(kind) as refused:
            talk(prism, session, wire)
        assert message in str(refused.value)
    assert not wire.violations


def test_unknown_job_is_none(prism: Prism) -> None:
    wire = Wire("code=404")
    assert talk(prism, lambda api: jobs.read(api, JOB_ID), wire) is None
    assert not wire.violations
