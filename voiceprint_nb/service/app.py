"""The contract's routes over a desk and a media store: parsing, permissions, error bodies; no work."""

from __future__ import annotations

import hmac
import json
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voiceprint_nb.contract import (
    DEFAULT_PAGE_ITEMS,
    JOB_PATH,
    JOB_STATUSES,
    JOBS_PATH,
    MAX_PAGE_ITEMS,
    MEDIA_INPUT_PATH,
    TEST_PATH,
    VOICEPRINT_PATH,
    ApiError,
    FieldError,
    InvalidRequest,
    MediaRequest,
    MediaTicket,
    VoiceprintRequest,
)
from voiceprint_nb.service.desk import Desk, DeskFull, UnknownCursor
from voiceprint_nb.service.media import MEDIA_LINK_PATH, BadLink, MediaStore, MediaTooLarge

MAX_JSON_BYTES = 2 * 1024 * 1024
BUSY_RETRY_S = 1

_JSON_TYPE = re.compile(r"application/(json|[a-z0-9.!#$&^_-]+\+json)", re.IGNORECASE)
_log = logging.getLogger(__name__)


def create_app(
    desk: Desk, media: MediaStore, *, keys: Collection[str] | None = None, files: bool = False
) -> Starlette:
    """Build the ASGI application.

    Parameters
    ----------
    desk : Desk
        Takes the jobs; stays the caller's to close.
    media : MediaStore
        Takes the uploads.
    keys : collection of str, optional
        Bearer keys that may call; None lets everybody in, with any key or none.
    files : bool
        Whether jobs may name local files by ``file://`` address: only for callers of this very process.
    """
    if isinstance(keys, str):
        raise TypeError("keys is a collection of keys, not one key")
    routes = _Routes(desk, media, None if keys is None else tuple(key.encode() for key in keys), files)
    app = Starlette(
        routes=[
            Route(TEST_PATH, routes.test, methods=["GET"]),
            Route(MEDIA_INPUT_PATH, routes.media_input, methods=["POST"]),
            Route(MEDIA_LINK_PATH, routes.upload, methods=["PUT"]),
            Route(VOICEPRINT_PATH, routes.voiceprint, methods=["POST"]),
            Route(JOB_PATH, routes.job, methods=["GET"]),
            Route(JOBS_PATH, routes.jobs, methods=["GET"]),
        ],
        exception_handlers=_HANDLERS,
    )
    app.router.redirect_slashes = False  # unknown paths answer 404
    return app


class _Routes:
    """One method per operation of the contract."""

    def __init__(self, desk: Desk, media: MediaStore, keys: tuple[bytes, ...] | None, files: bool) -> None:
        self._desk, self._media, self._keys, self._files = desk, media, keys, files

    async def test(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"status": "OK", "message": "Test connection successful"})

    async def media_input(self, request: Request) -> Response:
        self._admit(request)
        key = MediaRequest.from_wire(await _json_body(request)).url
        ticket = MediaTicket(self._media.link("PUT", key, base_url=str(request.base_url)))
        return JSONResponse(ticket.to_wire(), 201)

    async def upload(self, request: Request) -> Response:
        key = self._media.key_of("PUT", request.path_params["token"])
        _refuse_announced(request, self._media.max_bytes)
        await self._media.write(key, request.stream())
        return Response()

    async def voiceprint(self, request: Request) -> Response:
        self._admit(request)
        job = VoiceprintRequest.from_wire(await _json_body(request), files=self._files)
        return JSONResponse(self._desk.submit(job).to_wire())

    async def job(self, request: Request) -> Response:
        self._admit(request)
        job = self._desk.job(request.path_params["job_id"])
        if job is None:
            raise HTTPException(404)
        return JSONResponse(job.to_wire())

    async def jobs(self, request: Request) -> Response:
        self._admit(request)
        limit, cursor, status = _page_query(request.query_params)
        try:
            page = self._desk.page(limit, cursor, status)
        except UnknownCursor:
            raise InvalidRequest(FieldError("cursor", "Unknown cursor")) from None
        return JSONResponse(page.to_wire())

    def _admit(self, request: Request) -> None:
        if self._keys is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        offered = given.strip().encode()
        known = [hmac.compare_digest(offered, key) for key in self._keys]  # all, so that time tells nothing
        if scheme.lower() != "bearer" or not any(known):
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})


# --- reading requests -----------------------------------------------------------------------------------


async def _json_body(request: Request) -> object:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if not _JSON_TYPE.fullmatch(content_type):
        raise HTTPException(415)
    _refuse_announced(request, MAX_JSON_BYTES)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise HTTPException(413)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # malformed, not UTF-8, or nested without end
        raise InvalidRequest(FieldError("body", "Malformed JSON")) from None


def _refuse_announced(request: Request, max_bytes: int) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > max_bytes):
        raise HTTPException(413)


def _page_query(query: Mapping[str, str]) -> tuple[int, str | None, str | None]:
    limit, cursor, status = query.get("limit"), query.get("cursor"), query.get("status")
    errors = []
    if limit is not None and not (re.fullmatch("[0-9]{1,3}", limit) and 1 <= int(limit) <= MAX_PAGE_ITEMS):
        errors.append(FieldError("limit", f"Expected a whole number from 1 to {MAX_PAGE_ITEMS}"))
    if cursor is not None and not _is_uuid(cursor):
        errors.append(FieldError("cursor", "Expected a UUID"))
    if status is not None and status not in JOB_STATUSES:
        errors.append(FieldError("status", f"Expected one of {', '.join(JOB_STATUSES)}"))
    if errors:
        raise InvalidRequest(*errors)
    return DEFAULT_PAGE_ITEMS if limit is None else int(limit), cursor, status


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text, re.IGNORECASE) is not None


# --- error answers --------------------------------------------------------------------------------------

_MESSAGES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    413: "Payload too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Internal server error",
}


def _refusal(status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    error = ApiError(str(uuid.uuid4()), _MESSAGES.get(status, "Request refused"))
    return JSONResponse(error.to_wire(), status, headers)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError(type(error))
    return _refusal(error.status_code, error.headers)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, InvalidRequest):
        raise TypeError(type(error))
    return JSONResponse(error.to_wire(), 400)


async def _on_desk_full(request: Request, error: Exception) -> Response:
    return _refusal(429, {"Retry-After": str(BUSY_RETRY_S)})


async def _on_bad_link(request: Request, error: Exception) -> Response:
    return _refusal(403)


async def _on_media_too_large(request: Request, error: Exception) -> Response:
    return _refusal(413)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _on_fault(request: Request, error: Exception) -> Response:
    answer_id = str(uuid.uuid4())
    _log.error("fault of the service, request %s", answer_id, exc_info=error)
    return JSONResponse(ApiError(answer_id, _MESSAGES[500]).to_wire(), 500)


_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HTTPException: _on_http_exception,
    InvalidRequest: _on_invalid_request,
    DeskFull: _on_desk_full,
    BadLink: _on_bad_link,
    MediaTooLarge: _on_media_too_large,
    ClientDisconnect: _on_disconnect,
    Exception: _on_fault,
}
