"""A stand-in for the hosted service: the real routes, desk and limits on a socket, with an engine that waits.

::

    python -m benchmarks.counterpart service FOLDER [--factor 10] [--one-window] [--tls CERTIFICATE KEY]
    python -m benchmarks.counterpart files FOLDER

Everything but the engine is the service that ``voiceprint-nb serve`` runs. A job takes a time drawn from a
lognormal distribution (median 5 s, sigma 0.5), however many run at once, and no CPU; its voiceprint is drawn,
too. Time runs ``--factor`` times faster: job times and the time that an answer is on its way are divided by
it, and the clock of the rate limits is multiplied. Each endpoint has its own window of 100 or 300 requests a
minute, or with ``--one-window`` all share one of 100. ``files`` serves a folder, for rows that are links.

Both print their address as a line of JSON, serve until their standard input ends, and print what was asked of
them and how much CPU that took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceprint_nb.contract import Job
from voiceprint_nb.engine.embedder import voiceprint_text
from voiceprint_nb.engine.model import Model
from voiceprint_nb.service import patience
from voiceprint_nb.service.app import Policy, create_app
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.keys import DEFAULT_TEAM, OpenDoor
from voiceprint_nb.service.limits import Allowance, RateLimits
from voiceprint_nb.service.media import MediaStore

MEDIAN_JOB_S, SIGMA = 5.0, 0.5
ANSWER_S = 0.1  # that an answer is on its way, as over a network
WEBHOOK_SECRET = "whsec_of_the_benchmark"  # noqa: S105  # known to the receiver, of no other use
SEED = 5
_AT_ONCE = 256  # jobs on uploads in work: more than any client here has
_VECTOR_SIZE = 256
_MOST_JOBS = 1_000_000


class WaitingEngine:
    """What the desk asks of an engine, answered after a drawn time without any work.

    Parameters
    ----------
    factor : float
        How much faster time runs.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._random = np.random.default_rng(SEED)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="engine", daemon=True).start()

    @property
    def busy_s(self) -> float:
        """It never works."""
        return 0.0

    def submit(self, load: Callable[[], NDArray[np.float32]]) -> Future[NDArray[np.float32]]:
        """A unit vector, (256,) float32, when the drawn time is over; the clip is not read."""
        future: Future[NDArray[np.float32]] = Future()
        job_s = self._random.lognormal(math.log(MEDIAN_JOB_S), SIGMA) / self._factor
        vector = self._random.normal(size=_VECTOR_SIZE).astype(np.float32)
        self._loop.call_soon_threadsafe(self._loop.call_later, job_s, self._end, future, vector)
        return future

    def _end(self, future: Future[NDArray[np.float32]], vector: NDArray[np.float32]) -> None:
        if future.set_running_or_notify_cancel():
            future.set_result(vector / np.linalg.norm(vector))


class OneWindow(RateLimits):
    """Limits of which all endpoints use up the same one."""

    def take(self, team: str, endpoint: str, *, read: bool) -> Allowance | None:
        """Count one request, whatever it asks."""
        return super().take(team, "all", read=False)


class Counted:
    """An ASGI application whose answers are counted by group of endpoints and status, and are on their way.

    Parameters
    ----------
    app : ASGIApp
        What answers.
    answer_s : float
        How long each answer is held back.
    """

    def __init__(self, app: ASGIApp, answer_s: float) -> None:
        self._app, self._answer_s = app, answer_s
        self.counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        group = _group(scope["path"])

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.counts[f"{group} {message['status']}"] += 1
                await asyncio.sleep(self._answer_s)
            await send(message)

        await self._app(scope, receive, counted)


def _group(path: str) -> str:
    named = {"/v1/media/input": "media", "/v1/voiceprint": "submit", "/v1/test": "test"}
    named |= {"/v1/jobs": "list", "/v2/jobs": "list"}
    return named.get(path) or ("read" if path.startswith("/v1/jobs/") else "storage")


def service(folder: Path, *, factor: float, one_window: bool, tls: list[str]) -> None:
    """Serve the contract."""
    new_limits = OneWindow if one_window else RateLimits
    policy = Policy(
        OpenDoor(WEBHOOK_SECRET),
        new_limits(clock=lambda: time.monotonic() * factor),
        plain_webhooks=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    media = MediaStore(folder / "media")
    desk = Desk(
        folder,
        WaitingEngine(factor),
        media,
        voiceprint=partial(voiceprint_text, fingerprint=Model.packaged().fingerprint),
        webhook_secret=policy.door.webhook_secret,
        plain_webhooks=True,
        in_flight=_AT_ONCE,
    )
    app = Counted(create_app(desk, media, policy), ANSWER_S / factor)
    cpu_s = _serve(app, *tls)
    jobs = [desk.job(DEFAULT_TEAM, item.id) for item in desk.page(DEFAULT_TEAM, _MOST_JOBS).items]
    desk.close()
    times = {job.job_id: _times(job) for job in jobs if job is not None}
    print(json.dumps({"cpu_s": cpu_s, "counts": app.counts, "jobs": times}))


def _times(job: Job) -> tuple[float, float | None]:
    """When a job was created and when it succeeded, in Unix seconds; None if it did not."""
    created_at = datetime.fromisoformat(job.created_at).timestamp()
    if job.voiceprint is None or job.updated_at is None:
        return created_at, None
    return created_at, datetime.fromisoformat(job.updated_at).timestamp()


def files(folder: Path) -> None:
    """Serve a folder, ranges of files included."""
    app = Starlette(routes=[Mount("/", StaticFiles(directory=folder))])
    print(json.dumps({"cpu_s": _serve(app)}))


def _serve(app: ASGIApp, *tls: str) -> float:
    """Serve on a free port until the standard input ends; seconds of CPU from then on when it listens."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    options: dict[str, Any] = {"ws": "none", "lifespan": "off", "log_config": None, "access_log": False}
    if tls:
        options |= {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]}
    ready = asyncio.Event()
    scheme, port = "https" if tls else "http", listener.getsockname()[1]

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready.set()

    async def run() -> float:
        server = Server(uvicorn.Config(app, http=patience.protocol(), **options))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await ready.wait()
        before_s = time.process_time()
        print(json.dumps({"base_url": f"{scheme}://127.0.0.1:{port}"}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        used_s = time.process_time() - before_s
        server.should_exit = True
        await serving
        return used_s

    return asyncio.run(run())


def main() -> None:
    """Serve what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["service", "files"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--factor", type=float, default=10.0)
    parser.add_argument("--one-window", action="store_true")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), default=[])
    arguments = parser.parse_args()
    if arguments.what == "files":
        files(arguments.folder)
    else:
        options = {"factor": arguments.factor, "one_window": arguments.one_window, "tls": arguments.tls}
        service(arguments.folder, **options)


if __name__ == "__main__":
    main()
