"""``voiceprint-nb serve``: the service on a socket, for other processes, machines and languages."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.middleware.trustedhost import TrustedHostMiddleware

from voiceprint_nb.contract import READS_PER_WINDOW, WRITES_PER_WINDOW
from voiceprint_nb.errors import MissingExtra, UsageError
from voiceprint_nb.service import logs, patience
from voiceprint_nb.service.addresses import guarded_client
from voiceprint_nb.service.app import Policy
from voiceprint_nb.service.assembly import Works, assemble
from voiceprint_nb.service.desk import MAX_WAITING
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.keys import DEFAULT_TEAM, KEYS_FILE_NAME, Door, KeyRing, OpenDoor
from voiceprint_nb.service.limits import RateLimits
from voiceprint_nb.service.metrics import PrometheusMeter
from voiceprint_nb.service.webhooks import deliver
from voiceprint_nb.settings import default_data_dir

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

MAX_CONNECTIONS = 1000
MAX_PORT = 65_535
KEEP_ALIVE_S = 75  # longer than the 60 s that proxies keep an idle connection: they close first
MAX_HEADER_BYTES = 64 * 1024
LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What the command line says; see ``voiceprint-nb serve --help``."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int | None = None
    recipe: str = "robust"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    behind_proxy: Sequence[str] = ()
    public_url: str | None = None
    allow_host: Sequence[str] = ()
    plain_webhooks: bool = False
    writes_per_minute: int = WRITES_PER_WINDOW
    reads_per_minute: int = READS_PER_WINDOW
    max_waiting: int = MAX_WAITING
    shutdown_s: float = 30.0


def serve(*, data_dir: Path | None = None, redeliver: str | None = None, **options: Any) -> int:
    """Serve until SIGTERM or SIGINT, or send one webhook again; returns the exit status.

    Raises
    ------
    UsageError
        The address is taken or needs keys, or an option does not fit.
    """
    chosen = Options(**options)
    folder = data_dir or default_data_dir(os.environ) / "service"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(KeyRing(folder / KEYS_FILE_NAME)) as ring:
        if redeliver is not None:
            return _redeliver(folder, ring, redeliver, chosen)
        return _serve(folder, ring, chosen)


def _serve(folder: Path, ring: KeyRing, options: Options) -> int:
    _refuse_misfits(options, has_keys=not ring.is_empty)
    logs.configure()
    with _listener(options) as listener:
        works: Works | None = None
        meter = PrometheusMeter(lambda: {} if works is None else works.desk.counts())
        app, works = assemble(
            folder,
            _policy(ring, options, meter),
            recipe=options.recipe,
            threads=options.workers,
            max_waiting=options.max_waiting,
            new_client=partial(guarded_client, allowed_hosts=options.allow_host),
            meter=meter,
        )
        checked = _checked_hosts(app, options) if ring.is_empty else app
        server = _server(logs.AccessLog(checked, meter), options)
        scheme = "https" if options.tls_cert else "http"
        host, port = listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        print(f"Serving on {scheme}://{name}:{port} (Ctrl+C stops); data in {folder}", flush=True)
        return _run(server, listener, works, options.shutdown_s)


def _run(server: uvicorn.Server, listener: socket.socket, works: Works, shutdown_s: float) -> int:
    """Serve until a signal; then finish what runs, within the limit, or leave it to the next start."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again when it has shut down
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        _log.info("interrupted")
    began_s = time.monotonic()
    all_ended = works.close(shutdown_s * 2 / 3)
    _log.info("stopped", extra={"all_ended": all_ended, "seconds": round(time.monotonic() - began_s, 1)})
    return 0


# --- what the options mean ------------------------------------------------------------------------------


def _refuse_misfits(options: Options, *, has_keys: bool) -> None:
    if not (has_keys or _is_loopback(options.host)):
        raise UsageError(
            f"Without keys only this machine is served, and {options.host} is open to others: make a key "
            "with 'voiceprint-nb keys add', or serve on 127.0.0.1."
        )
    if options.behind_proxy and not has_keys:
        raise UsageError("A proxy lets others in: make a key with 'voiceprint-nb keys add' first.")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("TLS needs both --tls-cert and --tls-key.")
    for path in filter(None, (options.tls_cert, options.tls_key)):
        if not path.is_file():
            raise UsageError(f"{str(path)!r} is not a file: name the PEM file.")
    if options.public_url is not None and not re.fullmatch(r"https?://[!-~]+", options.public_url):
        raise UsageError(f"{options.public_url!r} is no http or https address.")
    if not 0 <= options.port <= MAX_PORT:
        raise UsageError(f"--port needs a number from 0 to {MAX_PORT}.")
    for name in options.allow_host:
        if not re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", name):
            raise UsageError(
                f"--allow-host takes a host's name or address, without scheme and port: {name!r}."
            )
    at_least = {
        "--workers": (options.workers, 1),
        "--max-waiting": (options.max_waiting, 1),
        "--writes-per-minute": (options.writes_per_minute, 0),
        "--reads-per-minute": (options.reads_per_minute, 0),
        "--shutdown-s": (options.shutdown_s, 0),
    }
    for name, (value, least) in at_least.items():
        if value is not None and not value >= least:
            raise UsageError(f"{name} needs a number of at least {least}.")


def _policy(ring: KeyRing, options: Options, meter: PrometheusMeter) -> Policy:
    # Without keys the secret is the ring's too, so that it is the same after a restart.
    door: Door = OpenDoor(ring.webhook_secret(DEFAULT_TEAM)) if ring.is_empty else ring
    limits = RateLimits(writes=options.writes_per_minute or None, reads=options.reads_per_minute or None)
    return Policy(
        door,
        limits,
        plain_webhooks=options.plain_webhooks,
        public_url=options.public_url,
        metrics=meter.text,
    )


def _checked_hosts(app: ASGIApp, options: Options) -> ASGIApp:
    """Without keys, a web page in a browser on this machine must not get in under a name of its own."""
    named = [urlsplit(options.public_url).hostname or ""] if options.public_url else []
    return TrustedHostMiddleware(app, allowed_hosts=[*LOOPBACK_NAMES, *named], www_redirect=False)


def _server(app: ASGIApp, options: Options) -> uvicorn.Server:
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra("Serving needs uvicorn: pip install 'voiceprint_nb[serve]'.") from error

    config = uvicorn.Config(
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
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(f"The TLS files cannot be used: {error.strerror or error}.") from error
    return uvicorn.Server(config)


def _listener(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family, backlog=MAX_CONNECTIONS)
        # asyncio does this only for sockets that name their protocol; without it each answer waits 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise UsageError(f"{options.host}:{options.port} cannot be served: {error.strerror}.") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- a webhook once more --------------------------------------------------------------------------------


def _redeliver(folder: Path, ring: KeyRing, job_id: str, options: Options) -> int:
    """Make one attempt at a job's webhook, whether a service runs or not."""
    now_s = time.time()
    with closing(JobTable(folder / "jobs.sqlite3", alone=False)) as table:
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
