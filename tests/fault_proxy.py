"""A reverse proxy that spoils a fixed share of what passes between a client and a served service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import numpy as np

TOO_MANY, FAILS, DOWN = "429", "500", "503"
FAILS_AFTER = "500 after the request was carried out"
RESET_BEFORE, RESET_AFTER = "reset before the request was read", "reset after the request was read"
SLOW, MALFORMED = "slow body", "malformed JSON"
EXPIRED, NO_PAGE = "expired upload link", "list page missing"
LOST, TWICE = "webhook lost", "webhook twice"

_STORAGE = (FAILS, DOWN, RESET_BEFORE, RESET_AFTER, SLOW)
_API = (TOO_MANY, *_STORAGE, MALFORMED)
FITTING = {
    "test": _API,
    "ticket": _API,
    "submit": _API,
    "job": _API,
    "list": (*_API, NO_PAGE),
    "upload": (*_STORAGE, EXPIRED),
    "webhook": (LOST, TWICE),
}
FAULTS = tuple(dict.fromkeys(fault for fitting in FITTING.values() for fault in fitting))
_PATHS = {
    ("GET", "/v1/test"): "test",
    ("POST", "/v1/media/input"): "ticket",
    ("POST", "/v1/voiceprint"): "submit",
    ("GET", "/v1/jobs"): "list",
    ("GET", "/v2/jobs"): "list",
}


@dataclass(frozen=True)
class Message:
    """A request or an answer."""

    start: str
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    def to_wire(self, *, close: bool = False) -> bytes:
        headers = {name: text for name, text in self.headers.items() if name != "connection"}
        headers |= {"content-length": str(len(self.body))} | ({"connection": "close"} if close else {})
        lines = [self.start, *(f"{name}: {text}" for name, text in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


@dataclass
class Created:
    """A job that the service has created: when that was asked for, and when its id was told, if it was.

    Times are monotonic seconds.
    """

    url: str
    asked_at: float
    told_at: float | None = None


class FaultProxy:
    """Listens from the start on; serves while used as a context manager, in a thread of its own.

    Of each kind of request, so many in a row make a deck: each fault that fits is dealt once to one of them,
    at a place drawn by the seed, and the others pass. With 20 every fault has a share of 5 %.

    Parameters
    ----------
    seed : int
        Of all draws.
    deck : int
        Requests in a deck.
    pause_s : int
        What a 429 asks for, in seconds.
    slow_s : float
        What a slow body takes, in seconds.

    Attributes
    ----------
    upstream : str
        Base address of the service (or receiver) behind; may be set later.
    requests : Counter
        Requests so far, by kind.
    faults : Counter
        Faults so far, by fault and kind.
    statuses : Counter
        Answers of the service itself, by status.
    jobs : dict of str to Created
        By job id, in the order in which the service created them.
    """

    def __init__(self, *, seed: int, deck: int = 20, pause_s: int = 1, slow_s: float = 1.0) -> None:
        self._deck_size, self._pause_s, self._slow_s = deck, pause_s, slow_s
        self._random = {kind: np.random.default_rng([seed, n]) for n, kind in enumerate(FITTING)}
        self._decks: dict[str, list[str | None]] = {kind: [] for kind in FITTING}
        self._fails_after = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.upstream = ""
        self.requests: Counter[str] = Counter()
        self.faults: Counter[tuple[str, str]] = Counter()
        self.statuses: Counter[int] = Counter()
        self.jobs: dict[str, Created] = {}
        self.changed = threading.Condition()

    def __enter__(self) -> Self:
        self._loop, self._stopped = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._listener)
        await self._stopped.wait()
        server.close()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, request after request."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answered(reader, writer):
                pass
        writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Deal with one request; false if the connection has ended with it."""
        start, headers = await _head(reader)
        kind = _kind(start)
        self.requests[kind] += 1
        fault = self._draw(kind) if kind != "webhook" else None
        if fault == RESET_BEFORE:
            _reset(writer)
            return False
        request = Message(start, headers, await reader.readexactly(int(headers.get("content-length", 0))))
        if kind == "webhook" and b'"self-test"' not in request.body:  # that of a receiver that starts
            fault = self._draw(kind)
        answer = self._refusal(fault) or await self._passed_on(request, kind, fault)
        if fault == RESET_AFTER:
            _reset(writer)
            return False
        if fault == MALFORMED:
            answer = _garbled(answer, cut=bool(self._random[kind].integers(2)))
        wire = answer.to_wire()
        if fault == SLOW:
            await self._dribble(writer, wire)
        else:
            writer.write(wire)
            await writer.drain()
        if kind == "submit" and fault in (None, SLOW) and answer.status == 200:
            self.jobs[json.loads(answer.body)["jobId"]].told_at = time.monotonic()
        return True

    # --- faults -----------------------------------------------------------------------------------------

    def _draw(self, kind: str) -> str | None:
        if kind not in FITTING:
            return None
        if not (deck := self._decks[kind]):
            fitting = FITTING[kind]
            deck += [*fitting, *[None] * (self._deck_size - len(fitting))]
            self._random[kind].shuffle(deck)
        fault = deck.pop()
        if fault == FAILS:  # every other one only after the request was carried out
            self._fails_after = not self._fails_after
            fault = FAILS_AFTER if self._fails_after else FAILS
        if fault is not None:
            self.faults[fault, kind] += 1
        return fault

    def _refusal(self, fault: str | None) -> Message | None:
        """An answer that the service never hears of."""
        if fault == TOO_MANY:
            return _json(429, retry_after=str(self._pause_s))
        if fault == NO_PAGE:
            return _json(404)
        if fault == LOST:
            return _json(200)
        return (
            _json({FAILS: 500, DOWN: 503, EXPIRED: 403}[fault]) if fault in (FAILS, DOWN, EXPIRED) else None
        )

    async def _passed_on(self, request: Message, kind: str, fault: str | None) -> Message:
        """The service's answer, or the failure that is told instead."""
        try:
            asked_at = time.monotonic()
            answer = await self._asked(request)
            if fault == TWICE:
                answer = await self._asked(request)
        except (ConnectionError, asyncio.IncompleteReadError):
            return _json(502)
        self.statuses[answer.status] += 1
        if kind == "submit" and answer.status == 200:
            url, job_id = json.loads(request.body)["url"], json.loads(answer.body)["jobId"]
            with self.changed:
                self.jobs[job_id] = Created(url, asked_at)
                self.changed.notify_all()
        return _json(500) if fault == FAILS_AFTER else answer

    async def _asked(self, request: Message) -> Message:
        """One request on a connection of its own, so that none is ever repeated here."""
        at = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(at.hostname, at.port)
        try:
            writer.write(request.to_wire(close=True))
            start, headers = await _head(reader)
            length = headers.get("content-length")
            body = await (reader.read() if length is None else reader.readexactly(int(length)))
            return Message(start, headers, body)
        finally:
            writer.close()

    async def _dribble(self, writer: asyncio.StreamWriter, wire: bytes) -> None:
        step = len(wire) // 4 + 1
        for at in range(0, len(wire), step):
            await asyncio.sleep(self._slow_s / 4)
            writer.write(wire[at : at + step])
            await writer.drain()


def _kind(start: str) -> str:
    method, target, _ = start.split(" ", 2)
    path = urlsplit(target).path
    if method == "PUT":
        return "upload"
    if method == "GET" and path.startswith("/v1/jobs/"):
        return "job"
    return _PATHS.get((method, path)) or ("webhook" if method == "POST" else "other")


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in lines if line)
    return start, {name.lower(): text.strip() for name, text in pairs}


def _json(status: int, **headers: str) -> Message:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps({"message": f"as the script says: {status}"}).encode()
    return Message(f"HTTP/1.1 {status} Fault", {"content-type": "application/json", **named}, body)


def _garbled(answer: Message, *, cut: bool) -> Message:
    """JSON that breaks off in the middle, or something else that says it were JSON."""
    body = answer.body[: len(answer.body) // 2] if cut else b"<html>" + answer.body
    return Message(answer.start, answer.headers, body)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, and not in order: the other side sees a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
