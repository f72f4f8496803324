"""``voiceprint-nb serve``: the service on a socket, for other processes, machines and languages."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.middleware.trustedhost import TrustedHostMiddleware

from voiceprint_nb.engine.model import Model
from voiceprint_nb.errors import MissingExtra, UsageError
from voiceprint_nb.service import logs, patience
from voiceprint_nb.service.addresses import guarded_client
from voiceprint_nb.service.app import Policy
from voiceprint_nb.service.assembly import Works, assemble
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.keys import DEFAULT_TEAM, KEYS_FILE_NAME, Caller, KeyRing, OpenDoor
from voiceprint_nb.service.limits import RateLimits
from voiceprint_nb.service.metrics import PrometheusMeter
from voiceprint_nb.service.options import Options, service_folder
from voiceprint_nb.service.webhooks import deliver

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

MAX_CONNECTIONS = 1000
KEEP_ALIVE_S = 75  # longer than the 60 s that proxies keep an idle connection: they close first
MAX_HEADER_BYTES = 64 * 1024
LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]

_log = logging.getLogger(__name__)


def serve(*, data_dir: Path | None = None, redeliver: str | None = None, **options: Any) -> int:
    """Serve until SIGTERM or SIGINT, or send one webhook again; returns the exit status.

    Raises
    ------
    UsageError
        The address is taken or needs keys, or an option does not fit.
    """
    chosen, folder = Options(**options), service_folder(data_dir)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {str(folder)!r} cannot be made: {error.strerror}.") from error
    with closing(KeyRing(folder / KEYS_FILE_NAME)) as ring:
        if redeliver is not None:
            return _redeliver(folder, ring, redeliver, chosen)
        chosen.refuse_misfits(has_keys=not ring.is_empty)
        return _serve(folder, ring, chosen)


def _serve(folder: Path, ring: KeyRing, options: Options) -> int:
    model = Model.named(options.model)
    with _listener(options) as listener:
        logs.configure()
        works: Works | None = None
        meter = PrometheusMeter(lambda: {} if works is None else works.desk.counts())
        app, works = assemble(
            folder,
            _policy(ring, options, meter),
            model=model,
            threads=options.workers,
            compute=options.compute,
            max_waiting=options.max_waiting,
            new_client=partial(guarded_client, allowed_hosts=options.allow_host),
            meter=meter,
        )
        try:
            checked = _checked_hosts(app, options) if ring.is_empty else app
            _run(_server(logs.AccessLog(checked, meter), options, _told(listener, folder, options)), listener)
        finally:
            began_s = time.monotonic()
            all_ended = works.close(options.shutdown_s * 2 / 3)
            took_s = round(time.monotonic() - began_s, 1)
            _log.info("stopped", extra={"all_ended": all_ended, "seconds": took_s})
    return 0


def _told(listener: socket.socket, folder: Path, options: Options) -> str:
    scheme = "https" if options.tls_cert else "http"
    host, port = listener.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"Serving on {scheme}://{name}:{port} (Ctrl+C stops); data in {folder}"


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until a signal; uvicorn raises it again when it has shut down."""

    def stop(*_: object) -> None:
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        _log.info("interrupted")


class _FirstKeyShuts(OpenDoor):
    """Lets everybody in until the first key is made, which may be while the service runs."""

    def __init__(self, ring: KeyRing) -> None:
        super().__init__(ring.webhook_secret(DEFAULT_TEAM))  # the ring's: the same after a restart
        self._ring = ring

    def caller(self, authorization: str) -> Caller | None:
        return super().caller(authorization) if self._ring.is_empty else self._ring.caller(authorization)

    def webhook_secret(self, team: str) -> str:
        return self._ring.webhook_secret(team)


def _policy(ring: KeyRing, options: Options, meter: PrometheusMeter) -> Policy:
    limits = RateLimits(writes=options.writes_per_minute or None, reads=options.reads_per_minute or None)
    return Policy(
        _FirstKeyShuts(ring) if ring.is_empty else ring,
        limits,
        plain_webhooks=options.plain_webhooks,
        public_url=options.public_url,
        metrics=meter.text,
    )


def _checked_hosts(app: ASGIApp, options: Options) -> ASGIApp:
    """Without keys, a web page in a browser on this machine must not get in under a name of its own."""
    named = [urlsplit(options.public_url).hostname or ""] if options.public_url else []
    return TrustedHostMiddleware(app, allowed_hosts=[*LOOPBACK_NAMES, *named], www_redirect=False)


def _server(app: ASGIApp, options: Options, told: str) -> uvicorn.Server:
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("Serving needs uvicorn: pip install 'voiceprint_nb[serve]'.") from error

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(told, flush=True)  # only now is a signal heard, and a request answered

    return Server(
        uvicorn.Config(
            app,
            http=patience.protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(options.behind_proxy),
            forwarded_allow_ips=list(options.behind_proxy),
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(options.shutdown_s / 3)),  # the rest is for jobs
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            ssl_certfile=options.tls_cert,
            ssl_keyfile=options.tls_key,
        )
    )


def _listener(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family, backlog=MAX_CONNECTIONS)
        # asyncio does this only for sockets that name their protocol; without it each answer waits 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise UsageError(f"{options.host}:{options.port} cannot be served: {error.strerror}.") from error


# --- a webhook once more --------------------------------------------------------------------------------


def _redeliver(folder: Path, ring: KeyRing, job_id: str, options: Options) -> int:
    """Make one attempt at a job's webhook, whether a service runs or not."""
    now_s, path = time.time(), folder / "jobs.sqlite3"
    delivery = None
    if path.exists():
        with closing(JobTable(path, alone=False)) as table:
            delivery = table.redelivery(job_id, now_ms=int(now_s * 1000))
    if delivery is None:
        raise UsageError(
            f"There is no webhook to send for job {job_id!r}: it has none, has not ended, is unknown, or "
            "ended more than 24 h ago."
        )
    secret = ring.webhook_secret(delivery.team)

    async def attempt() -> str | None:
        async with guarded_client(allowed_hosts=options.allow_host) as client:
            return await deliver(client, delivery, secret, now_unix_s=now_s, plain=options.plain_webhooks)

    reason = asyncio.run(attempt())
    print("Delivered." if reason is None else f"Not delivered: {reason}.", flush=True)
    return 0 if reason is None else 1
