"""Real parts around a desk: a clock to set, an engine that waits for orders, a receiver of webhooks."""

from __future__ import annotations

import queue
import shutil
import sqlite3
import ssl
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pytest

from voiceprint_nb.contract import VoiceprintRequest, is_terminal
from voiceprint_nb.errors import RowError
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.meter import NullMeter

WAIT_S = 20.0
TEAM = "default"
PRINT = "cHJpbnQ-of-a-voice"
BAD = RowError("silent", "Nothing can be heard.")


class Clock:
    """Unix time that passes when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_763_469_434.5

    def __call__(self) -> float:
        return self.now_s


class Orders:
    """An engine without a network: it answers at once, or holds its answers back."""

    busy_s = 0.0

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.holds = False
        self.held: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def submit(self, load: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if self.holds:
            self.held.put(future)
        elif self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(np.zeros(1, np.float32))
        return future


class Outcomes(NullMeter):
    """What becomes of each attempt, and how many events are given up."""

    def __init__(self) -> None:
        self.outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.n_given_up = 0

    def webhook_attempted(self, outcome: str) -> None:
        self.outcomes.put(outcome)

    def webhook_given_up(self) -> None:
        self.n_given_up += 1


class Bureau:
    """Desks on one folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "jobs.sqlite3"
        self.engine, self.clock, self.meter = Orders(), Clock(), Outcomes()
        self._desks: list[Desk] = []

    def open(self, **options: Any) -> Desk:
        """Open a desk; events may go to http addresses, and nothing of the environment is used."""
        options = {
            "voiceprint": lambda vector: PRINT,
            "webhook_secret": "secret of {}".format,
            "plain_webhooks": True,
            "clock": self.clock,
            "meter": self.meter,
            "new_client": plain,
        } | options
        media = options.pop("media", None) or MediaStore(self.folder / "media", clock=self.clock)
        self._desks.append(Desk(self.folder, options.pop("engine", self.engine), media, **options))
        return self._desks[-1]

    def close(self) -> None:
        """Close all desks."""
        for desk in self._desks:
            desk.close()

    def rows(self, query: str, *values: object) -> list[Any]:
        """What the file holds."""
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            return connection.execute(query, values).fetchall()


def plain() -> httpx.AsyncClient:
    """A client that no setting of this machine leads elsewhere."""
    return httpx.AsyncClient(verify=web_trust(), trust_env=False)


@cache
def web_trust() -> ssl.SSLContext:
    """What clients trust; made once, since that takes longer than most tests."""
    return httpx.create_ssl_context(trust_env=False)


def job(webhook: str | None = None, *, status_only: bool = False) -> VoiceprintRequest:
    """A job on an upload."""
    return VoiceprintRequest("media://a", None, webhook, status_only)


def turned(desk: Desk) -> None:
    """Let the desk do everything that is due by its clock now."""
    for _ in range(2):  # the first may slip into a turn that began before
        job_id = desk.submit("turns", job()).job_id
        until(lambda job_id=job_id: is_terminal(getattr(desk.job("turns", job_id), "status", "")))


def until(fact: Callable[[], Any]) -> Any:
    """Wait for a fact that comes by itself, in a moment."""
    deadline_s = time.monotonic() + WAIT_S
    while not (value := fact()):
        assert time.monotonic() < deadline_s, "it never came"
        time.sleep(0.002)
    return value


# --- the other end of webhooks --------------------------------------------------------------------------


@dataclass(frozen=True)
class Got:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """Answers as its server's script says."""

    server: Receiver

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.arrival:
            self.server.n_busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.n_busy)
        self.server.got.put(Got(self.command, self.path, headers, body))
        with suppress(ConnectionError, ssl.SSLError):
            self.server.next_answer()(self)
        with self.server.arrival:
            self.server.n_busy -= 1

    do_POST = do_GET = _answer  # noqa: N815 - the names are the base class's

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Answer = Callable[[Handler], None]


class Receiver(ThreadingHTTPServer):
    """A web server on loopback that keeps what arrives; without a script, each request is answered by 200."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *script: Answer | int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = deque(script)
        self.otherwise: Answer | int = 200
        self.got: queue.SimpleQueue[Got] = queue.SimpleQueue()
        self.released = threading.Event()
        self.arrival = threading.Lock()
        self.n_busy = self.most_busy = 0
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.server_port}"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def next_answer(self) -> Answer:
        """Whatever comes next in the script."""
        answer = self.script.popleft() if self.script else self.otherwise
        return status(answer) if isinstance(answer, int) else answer

    def next(self) -> Got:
        """The next request to arrive."""
        return self.got.get(timeout=WAIT_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


def status(code: int, **headers: str) -> Answer:
    """An answer without a body."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def redirect(url: str, code: int = 307) -> Answer:
    """An answer that points elsewhere."""
    return status(code, Location=url)


def raw(data: bytes) -> Answer:
    """These bytes, whatever they are."""
    return lambda handler: handler.wfile.write(data) and None


def endless(head: bytes, data: bytes) -> Answer:
    """A head, and bytes for as long as somebody takes them."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(head)
        while True:
            handler.wfile.write(data)

    return answer


def silence(handler: Handler) -> None:
    """No answer, until the test ends."""
    handler.server.released.wait(WAIT_S)


def self_signed(folder: Path, *alternatives: str) -> tuple[Path, Path]:
    """A certificate for these alternative names, such as ``IP:127.0.0.1``, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl program makes the certificate")
    cert, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=test",
         "-addext", f"subjectAltName={','.join(alternatives)}",
         "-addext", "keyUsage=critical,digitalSignature,keyCertSign"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side of TLS with a certificate of its own, and the side of a client that trusts it."""
    cert, key = self_signed(folder, "IP:127.0.0.1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))
