"""The service's error answers: the documented bodies, whatever went wrong."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from voiceprint_nb.contract import ApiError, InvalidRequest
from voiceprint_nb.service.desk import DeskFull
from voiceprint_nb.service.media import BadLink, MediaTooLarge, StorageFull
from voiceprint_nb.service.places import TooManyAtOnce

BUSY_RETRY_S = 1

_log = logging.getLogger(__name__)

_MESSAGES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Payload too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Internal server error",
    503: "Storage is full",
}


def _refusal(
    request: Request, status: int, headers: Mapping[str, str] | None = None, *, more: str = ""
) -> JSONResponse:
    error = ApiError(str(uuid.uuid4()), _MESSAGES.get(status, "Request refused") + more)
    return JSONResponse(error.to_wire(), status, _told(request) | dict(headers or {}))


def _told(request: Request) -> dict[str, str]:
    """The headers about the limit, if the request was counted."""
    return getattr(request.state, "told", None) or {}


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError(type(error))
    more = ""
    if error.status_code == 404 and "endpoint" not in request.scope:
        more = ": this service has no such operation, see /openapi.json"
    elif error.status_code == 403:
        more = f": {error.detail}"
    return _refusal(request, error.status_code, error.headers, more=more)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, InvalidRequest):
        raise TypeError(type(error))
    return JSONResponse(error.to_wire(), 400, _told(request))


async def _on_desk_full(request: Request, error: Exception) -> Response:
    return _refusal(request, 429, {"Retry-After": str(BUSY_RETRY_S)}, more=": too many jobs wait")


async def _on_too_many_at_once(request: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(BUSY_RETRY_S), "Connection": "close"}
    return _refusal(request, 429, headers, more=" at once")


async def _on_storage_full(request: Request, error: Exception) -> Response:
    _log.error("an upload is refused: the disk is nearly full")
    return _refusal(request, 503, {"Retry-After": str(BUSY_RETRY_S)})


async def _on_bad_link(request: Request, error: Exception) -> Response:
    return _refusal(request, 403)


async def _on_media_too_large(request: Request, error: Exception) -> Response:
    return _refusal(request, 413)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _on_fault(request: Request, error: Exception) -> Response:
    answer_id = str(uuid.uuid4())
    _log.error("fault of the service, request %s", answer_id, exc_info=error)
    return JSONResponse(ApiError(answer_id, _MESSAGES[500]).to_wire(), 500, _told(request))


HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HTTPException: _on_http_exception,
    InvalidRequest: _on_invalid_request,
    DeskFull: _on_desk_full,
    BadLink: _on_bad_link,
    MediaTooLarge: _on_media_too_large,
    StorageFull: _on_storage_full,
    TooManyAtOnce: _on_too_many_at_once,
    ClientDisconnect: _on_disconnect,
    Exception: _on_fault,
}
