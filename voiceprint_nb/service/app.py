"""The contract's routes over a desk and a media store: who may, how often, parsing, error bodies; no work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from voiceprint_nb.contract import (
    DEFAULT_PAGE_ITEMS,
    JOB_PATH,
    JOBS_PATH,
    MAX_PAGE_ITEMS,
    MEDIA_INPUT_PATH,
    MEDIA_OUTPUT_PATH,
    OLD_JOBS_PATH,
    TEST_PATH,
    VOICEPRINT_PATH,
    MediaRequest,
    MediaTicket,
    VoiceprintRequest,
)
from voiceprint_nb.service.description import DESCRIPTION_PATH, HEALTH_PATH, METRICS_PATH, describe
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.keys import METRICS_PERMISSION, Caller, Door, OpenDoor
from voiceprint_nb.service.limits import RateLimits
from voiceprint_nb.service.media import MEDIA_LINK_PATH, MediaStore
from voiceprint_nb.service.places import Places
from voiceprint_nb.service.reading import Query, json_body, pieces, refuse_announced
from voiceprint_nb.service.refusals import HANDLERS

MAX_TRANSFER_S = 600.0  # of an upload or a download: 100 MiB at 175 kB a second

_WRITE, _READ = "write", "read"  # which limit counts a request

Handler = Callable[[Request, Caller], Awaitable[Response]]


@dataclass(frozen=True)
class Policy:
    """What a service allows.

    Parameters
    ----------
    door : Door
        Who may call; by default everybody, with any key or none.
    limits : RateLimits, optional
        How often; None means without limit.
    files : bool
        Whether jobs may name local files by ``file://`` address: only for callers of this very process.
    plain_webhooks : bool
        Whether events may go to http addresses.
    public_url : str, optional
        Base address of presigned links, where the one in the request is not what callers can reach.
    metrics : callable, optional
        Body and content type of ``/metrics``; None means there is none.
    """

    door: Door = field(default_factory=OpenDoor)
    limits: RateLimits | None = None
    files: bool = False
    plain_webhooks: bool = False
    public_url: str | None = None
    metrics: Callable[[], tuple[bytes, str]] | None = None


def create_app(desk: Desk, media: MediaStore, policy: Policy | None = None) -> Starlette:
    """Build the ASGI application; desk and media stay the caller's to close."""
    routes = _Routes(desk, media, policy or Policy())
    app = Starlette(routes=routes.table(), exception_handlers=HANDLERS)
    app.router.redirect_slashes = False  # unknown paths answer 404
    return app


class _Routes:
    """One method per operation of the contract."""

    def __init__(self, desk: Desk, media: MediaStore, policy: Policy) -> None:
        self._desk, self._media, self._policy = desk, media, policy
        self._places = Places()
        self._description: dict[str, Any] | None = None

    def table(self) -> list[Route]:
        """Every path with what it takes, the most usual ones first."""
        guarded = self._guarded
        routes = [
            guarded("GET", JOB_PATH, self.job, "jobs:read", counted=_READ),
            guarded("POST", VOICEPRINT_PATH, self.voiceprint, "jobs:write", counted=_WRITE),
            guarded("GET", JOBS_PATH, self.jobs, "jobs:read", counted=_READ),
            guarded("POST", MEDIA_INPUT_PATH, self.media_input, "media:write", counted=_WRITE),
            guarded("POST", MEDIA_OUTPUT_PATH, self.media_output, "media:read", counted=_WRITE),
            guarded("GET", OLD_JOBS_PATH, self.old_jobs, "jobs:read", counted=_READ),
            guarded("GET", TEST_PATH, self.test, None, counted=_WRITE),
            Route(MEDIA_LINK_PATH, self.media_link, methods=["GET", "PUT"]),
            Route(HEALTH_PATH, self.health, methods=["GET"]),
            Route(DESCRIPTION_PATH, self.description, methods=["GET"]),
        ]
        if self._policy.metrics is not None:
            routes.append(guarded("GET", METRICS_PATH, self.metrics, METRICS_PERMISSION, counted=None))
        return routes

    # --- the contract -----------------------------------------------------------------------------------

    async def test(self, request: Request, caller: Caller) -> Response:
        return JSONResponse({"status": "OK", "message": "Test connection successful"})

    async def media_input(self, request: Request, caller: Caller) -> Response:
        key = MediaRequest.from_wire(await json_body(request)).url
        return self._ticket("PUT", caller.team, key, request)

    async def media_output(self, request: Request, caller: Caller) -> Response:
        key = MediaRequest.from_wire(await json_body(request)).url
        if not self._media.path(caller.team, key).exists():
            raise HTTPException(404)
        return self._ticket("GET", caller.team, key, request)

    async def voiceprint(self, request: Request, caller: Caller) -> Response:
        job = VoiceprintRequest.from_wire(
            await json_body(request), files=self._policy.files, plain_webhooks=self._policy.plain_webhooks
        )
        return JSONResponse(self._desk.submit(caller.team, job).to_wire())

    async def job(self, request: Request, caller: Caller) -> Response:
        job = self._desk.job(caller.team, request.path_params["job_id"])
        if job is None:
            raise HTTPException(404)
        return JSONResponse(job.to_wire())

    async def jobs(self, request: Request, caller: Caller) -> Response:
        query = Query(request)
        limit = query.whole("limit", 1, MAX_PAGE_ITEMS, DEFAULT_PAGE_ITEMS)
        cursor, status = query.uuid("cursor"), query.status()
        query.refuse_faults()
        return JSONResponse(self._desk.page(caller.team, limit, cursor=cursor, status=status).to_wire())

    async def old_jobs(self, request: Request, caller: Caller) -> Response:
        query = Query(request)
        take = query.whole("take", 1, MAX_PAGE_ITEMS, DEFAULT_PAGE_ITEMS)
        skip, status = query.whole("skip", 0, None, 0), query.status()
        query.refuse_faults()
        counting = partial(self._desk.slice, caller.team, take, skip=skip, status=status)
        return JSONResponse((await run_in_threadpool(counting)).to_wire())  # it counts all jobs of the team

    # --- presigned links: they carry their own permission -------------------------------------------------

    async def media_link(self, request: Request) -> Response:
        method = "PUT" if request.method == "PUT" else "GET"
        team, key = self._media.opened(method, request.path_params["token"])
        place = self._places.taken(team)
        if method == "PUT":
            refuse_announced(request, self._media.max_bytes)
            with place:
                await self._media.write(team, key, pieces(request, within_s=MAX_TRANSFER_S))
            return Response()
        path = self._media.path(team, key)
        if not path.exists():
            raise HTTPException(404)
        headers = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
        return _Download(place, path, media_type="application/octet-stream", headers=headers)

    def _ticket(self, method: str, team: str, key: str, request: Request) -> Response:
        base_url = self._policy.public_url or str(request.base_url)
        return JSONResponse(
            MediaTicket(self._media.link(method, team, key, base_url=base_url)).to_wire(), 201
        )

    # --- for operators ----------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        alive = self._desk.is_alive
        return JSONResponse({"status": "ok" if alive else "down"}, 200 if alive else 503)

    async def description(self, request: Request) -> Response:
        if self._description is None:
            limits = self._policy.limits
            self._description = describe(
                base_url=self._policy.public_url,
                plain_webhooks=self._policy.plain_webhooks,
                limits=(limits.writes, limits.reads) if limits else (None, None),
                keyed=not isinstance(self._policy.door, OpenDoor),
                metrics=self._policy.metrics is not None,
            )
        return JSONResponse(self._description)

    async def metrics(self, request: Request, caller: Caller) -> Response:
        if self._policy.metrics is None:
            raise HTTPException(404)
        body, content_type = self._policy.metrics()
        return Response(body, headers={"Content-Type": content_type})

    # --- who may, and how often -------------------------------------------------------------------------

    def _guarded(
        self, method: str, path: str, handler: Handler, permission: str | None, *, counted: str | None
    ) -> Route:
        async def endpoint(request: Request) -> Response:
            caller = self._policy.door.caller(request.headers.get("authorization", ""))
            if caller is None:
                raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
            request.state.team = caller.team
            request.state.told = told = self._count(caller, path, counted) if counted else {}
            if permission is not None and permission not in caller.permissions:
                raise HTTPException(403, f"the key lacks the permission {permission}")
            with self._places.taken(caller.team):
                answer = await handler(request, caller)
            answer.headers.update(told)
            return answer

        return Route(path, endpoint, methods=[method])

    def _count(self, caller: Caller, path: str, counted: str) -> dict[str, str]:
        """The headers that tell of the limit; a request beyond it ends here."""
        limits = self._policy.limits
        allowance = None if limits is None else limits.take(caller.team, path, read=counted == _READ)
        if allowance is None:
            return {}
        if not allowance.allowed:
            raise HTTPException(429, headers=allowance.headers())
        return allowance.headers()


class _Download(FileResponse):
    """A file that holds a place while it is sent, and is sent in time or not at all."""

    def __init__(self, place: AbstractContextManager[None], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place, suppress(TimeoutError):  # the connection is closed on an answer that is cut short
            async with asyncio.timeout(MAX_TRANSFER_S):
                await super().__call__(scope, receive, send)
