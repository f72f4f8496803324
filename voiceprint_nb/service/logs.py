"""What a served process writes about itself: JSON lines on stderr, without secrets, and a line per answer."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from voiceprint_nb.errors import MissingExtra
from voiceprint_nb.service.meter import Meter, NullMeter

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UNMATCHED = "unmatched"

_SECRETS = (
    (re.compile(r"(https?://)(?:[^\s/?#]*@)?(\[[0-9a-f:.]*\]|[\w.-]*)(:\d+)?\S*", re.I), r"\1\2\3/"),
    (re.compile(r"\bbearer\s+[^\s\"',;]+", re.I), "Bearer <key>"),
    (re.compile(r"vpnb_[\w-]+"), "<key>"),
    (re.compile(r"whsec_[\w+/=-]+"), "<webhook secret>"),
    (re.compile(r"(?<!/v1)/media/[^\s{]\S*"), "/media/<token>"),
    (re.compile(r"[\w+/=-]{201,}", re.A), "<base64>"),
)
_FIELDS = {"levelname": "level", "name": "logger", "message": "event", "exc_info": "exception"}
_access = logging.getLogger("voiceprint_nb.access")


def without_secrets(text: str) -> str:
    """A text without keys, secrets, presigned links and voiceprints; web addresses keep only their host.

    >>> without_secrets("Bearer vpnb_abc fetched https://user@example.com:81/a.wav?sig=5 twice")
    'Bearer <key> fetched https://example.com:81/ twice'
    """
    for pattern, stand_in in _SECRETS:
        text = pattern.sub(stand_in, text)
    return text


def configure(level: str = "INFO") -> None:
    """Let all loggers of this process write JSON lines on stderr; others than ours only warnings.

    Raises
    ------
    MissingExtra
        python-json-logger is not installed.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    levels = dict.fromkeys(("httpx", "httpcore", "distributed", "tornado"), "WARNING")
    for name, lowest in (levels | dict.fromkeys(("voiceprint_nb", "uvicorn"), level.upper())).items():
        logger = logging.getLogger(name)
        logger.setLevel(lowest)
        logger.handlers.clear()
        logger.propagate = True
    unwanted = logging.getLogger("uvicorn.access")  # it would show the tokens of presigned links
    unwanted.handlers.clear()
    unwanted.propagate = False


class _JsonLines(logging.Formatter):
    """One JSON object per record; every text in it passes `without_secrets`."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from pythonjsonlogger.core import RESERVED_ATTRS
            from pythonjsonlogger.json import JsonFormatter
        except ImportError as error:
            raise MissingExtra("Logs need python-json-logger: pip install 'voiceprint_nb[serve]'.") from error
        self._json = JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields=_FIELDS,
            reserved_attrs=[*RESERVED_ATTRS, "color_message"],  # uvicorn's, for terminals
            timestamp=True,
        )

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_cleaned(json.loads(self._json.format(record))))


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [_cleaned(part) for part in value]
    if isinstance(value, dict):
        return {without_secrets(key): _cleaned(part) for key, part in value.items()}
    return value


class AccessLog:
    """ASGI middleware: one line, and one report to the meter, for each answered request.

    Lines tell a route by its template: paths hold job ids and the tokens of presigned links.

    Parameters
    ----------
    app : ASGI application
        A Starlette application, or middleware around one.
    meter : Meter, optional
        Counts the answers.
    clock : callable
        Seconds from any moment.
    """

    def __init__(
        self, app: ASGIApp, meter: Meter | None = None, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app, self._meter, self._clock = app, meter or NullMeter(), clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on as it comes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status, whole = self._clock(), 0, False

        async def watched(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            status = status or 500  # the server's own answer
            if not whole:
                raise  # otherwise the application has answered, and logged what it was
        finally:
            if status:
                self._report(scope, status, self._clock() - began_s)

    def _report(self, scope: Scope, status: int, duration_s: float) -> None:
        operation = _operation(scope)
        self._meter.request_answered(operation, status, duration_s)
        facts = {
            "method": scope["method"],
            "operation": operation,
            "status": status,
            "duration_ms": round(duration_s * 1000, 1),
            "team": scope.get("state", {}).get("team"),
        }
        _access.info("request", extra=facts)


def _operation(scope: Scope) -> str:
    """Template of the route that the router chose; it leaves its endpoint in the scope."""
    endpoint = scope.get("endpoint")
    routes = scope["app"].routes if endpoint is not None else ()
    return next((route.path for route in routes if route.endpoint == endpoint), UNMATCHED)
