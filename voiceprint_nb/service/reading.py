"""What a request says: its JSON body, its stream of bytes, its query; bounded in size and time."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException
from starlette.requests import Request

from voiceprint_nb.contract import JOB_STATUSES, FieldError, InvalidRequest

MAX_JSON_BYTES = 64 * 1024  # the longest addresses that the contract allows, many times
MAX_JSON_S = 60.0
BODY_QUIET_S = 20.0

_JSON_TYPE = re.compile(r"application/(json|[a-z0-9.!#$&^_-]+\+json)", re.IGNORECASE)


async def json_body(request: Request) -> object:
    """The decoded body; raises `InvalidRequest`, or `HTTPException` 413 or 415."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if not _JSON_TYPE.fullmatch(content_type):
        raise HTTPException(415)
    refuse_announced(request, MAX_JSON_BYTES)
    body = bytearray()
    async for piece in pieces(request, within_s=MAX_JSON_S):
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise HTTPException(413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # malformed, not UTF-8, or nested without end
        raise InvalidRequest(FieldError("body", "Malformed JSON")) from None


async def pieces(request: Request, *, within_s: float) -> AsyncIterator[bytes]:
    """The body as it comes; a sender that falls silent, or takes longer in all, is answered 408."""
    stream, until_s = aiter(request.stream()), time.monotonic() + within_s
    while True:
        try:
            async with asyncio.timeout(min(BODY_QUIET_S, until_s - time.monotonic())):
                piece = await anext(stream, None)
        except TimeoutError:
            raise HTTPException(408, headers={"Connection": "close"}) from None
        if piece is None:
            return
        yield piece


def refuse_announced(request: Request, max_bytes: int) -> None:
    """Raise 413 before a body is read that says itself that it is too large."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > max_bytes):
        raise HTTPException(413)


class Query:
    """Query parameters, with what is wrong about them."""

    def __init__(self, request: Request) -> None:
        self._values, self._errors = request.query_params, list[FieldError]()

    def whole(self, name: str, least: int, most: int | None, default: int) -> int:
        """A whole number within bounds."""
        text = self._values.get(name)
        if text is None:
            return default
        if re.fullmatch("[0-9]{1,1000}", text) and least <= int(text) <= (
            int(text) if most is None else most
        ):
            return int(text)
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        self._errors.append(FieldError(name, f"Expected a whole number {bounds}"))
        return default

    def uuid(self, name: str) -> str | None:
        """A UUID in lower case."""
        text = self._values.get(name)
        if text is None or re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text, re.IGNORECASE):
            return text and text.lower()
        self._errors.append(FieldError(name, "Expected a UUID"))
        return None

    def status(self) -> str | None:
        """A job's status."""
        text = self._values.get("status")
        if text is not None and text not in JOB_STATUSES:
            self._errors.append(FieldError("status", f"Expected one of {', '.join(JOB_STATUSES)}"))
        return text

    def refuse_faults(self) -> None:
        """Raise `InvalidRequest` if anything was wrong."""
        if self._errors:
            raise InvalidRequest(*self._errors)
