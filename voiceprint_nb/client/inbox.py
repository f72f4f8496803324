"""Events of the service, taken in: verified, kept for a while, handed to who listens."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from voiceprint_nb import contract
from voiceprint_nb.errors import ProtocolError

Callback = Callable[[contract.Job], None]

_MAX_BODY_BYTES = 64 * 1024
_MAX_KEPT = 1000  # events; of 20 kB at most, but for what else a service may put into them
_MAX_SEEN = 10_000  # signatures that may come again; a replay beyond them does no harm either

_BAD_SIGNATURE = (
    "Events arrive with a signature that does not match: check secret= (the webhook secret of the team whose "
    "key is used; the dashboard shows it)."
)
_BAD_TIME = (
    f"Events arrive that seem more than {contract.WEBHOOK_TOLERANCE_S:.0f} s old or early: set this "
    "machine's clock."
)


class Inbox:
    """Takes events from any event loop, and hands them to listeners in other threads.

    Parameters
    ----------
    secret : str
        The team's webhook secret.
    clock : callable
        Unix time in seconds.

    Attributes
    ----------
    problem : str or None
        What keeps events from being accepted, in a sentence; None as soon as one is.
    """

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        self._secret, self._clock = secret, clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, contract.Job]] = {}  # job id -> arrival, event; oldest first
        self._seen: dict[bytes, None] = {}
        self._listeners: dict[str, list[Callback]] = {}
        self._has_accepted = False
        self.problem: str | None = None

    def listen(self, job_id: str, callback: Callback) -> Callable[[], None]:
        """See `Receiver.listen`."""
        with self._lock:
            self._forget()
            self._listeners.setdefault(job_id, []).append(callback)
            kept = self._kept.get(job_id)
        if kept is not None:
            callback(kept[1])

        def unlisten() -> None:
            with self._lock, contextlib.suppress(KeyError, ValueError):
                self._listeners[job_id].remove(callback)
                if not self._listeners[job_id]:
                    del self._listeners[job_id]

        return unlisten

    async def hook(self, request: Request) -> Response:
        """Answer one event; a sender repeats what gets no 2xx, so a duplicate gets one, without effect."""
        body = await _body(request)
        timestamp = request.headers.get("x-request-timestamp", "")
        if not self._is_verified(timestamp, request.headers.get("x-signature", ""), body):
            return Response(status_code=401)
        try:
            event = contract.Job.from_wire(json.loads(body))
        except (ValueError, RecursionError, ProtocolError):
            return Response(status_code=400)
        self._accept(event, hashlib.sha256(timestamp.encode() + b":" + body).digest())
        return Response(status_code=204)

    def _is_verified(self, timestamp: str, signature: str, body: bytes) -> bool:
        now_s = self._clock()
        try:
            contract.verify_webhook(self._secret, timestamp, signature, body, now_unix_s=now_s)
        except contract.BadSignature:
            if not self._has_accepted:
                only_late = _is_signed(self._secret, timestamp, signature, body)
                self.problem = _BAD_TIME if only_late else _BAD_SIGNATURE
            return False
        return True

    def _accept(self, event: contract.Job, signed: bytes) -> None:
        with self._lock:
            if signed in self._seen:
                return
            self._seen[signed] = None
            if contract.is_terminal(event.status):
                self._has_accepted, self.problem = True, None
                self._kept.pop(event.job_id, None)
                self._kept[event.job_id] = (self._clock(), event)
            self._forget()
            callbacks = list(self._listeners.get(event.job_id, ()))
        for callback in callbacks:
            callback(event)

    def _forget(self) -> None:
        """Drop what is too old or too much."""
        oldest_s = self._clock() - contract.OUTPUT_LIFE_S
        while self._kept:
            job_id = next(iter(self._kept))
            if len(self._kept) <= _MAX_KEPT and self._kept[job_id][0] > oldest_s:
                break
            del self._kept[job_id]
        while len(self._seen) > _MAX_SEEN:
            del self._seen[next(iter(self._seen))]

    def sign(self, body: bytes) -> dict[str, str]:
        """Headers that the service would send with a body."""
        timestamp = str(int(self._clock()))
        signature = contract.sign_webhook(self._secret, timestamp, body)
        return {"X-Request-Timestamp": timestamp, "X-Signature": signature}


def _is_signed(secret: str, timestamp: str, signature: str, body: bytes) -> bool:
    """Whether only the time is at fault."""
    try:
        contract.verify_webhook(secret, timestamp, signature, body, now_unix_s=0.0, tolerance_s=float("inf"))
    except contract.BadSignature:
        return False
    return True


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(contract.WEBHOOK_TIMEOUT_S):  # the sender gives up then
            async for piece in request.stream():
                body += piece
                if len(body) > _MAX_BODY_BYTES:
                    raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
    except ClientDisconnect:
        raise HTTPException(400) from None  # nobody reads it
    return body
