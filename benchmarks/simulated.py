"""Simulated time: an event loop whose clock jumps, and a stand-in for the hosted service that lives in it."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import selectors
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from voiceprint_nb import contract
from voiceprint_nb.service.limits import RateLimits

MEDIAN_JOB_S, SIGMA = 5.0, 0.5
ANSWER_S = 0.1  # that an answer is on its way, as over a network
START_UNIX_S = 1_767_225_600.0  # 2026-01-01
_KEPT_S = 600.0  # older jobs are forgotten, so that the stand-in's memory does not grow
_PRINT_BYTES = 1047  # what the text of a local print of 256 values holds
_SEED = 5


class _Clock(selectors.DefaultSelector):
    """A selector that lets time jump where it would wait for nothing but time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.n_outside = 0  # calls in threads

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; while a thread is at work, its end is waited for and the clock stands still."""
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.n_outside:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.now_s += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop that sleeps in no time: its clock, in seconds from 0, jumps to the next timer.

    Examples
    --------
    >>> with asyncio.Runner(loop_factory=JumpingLoop) as runner:
    ...     runner.run(asyncio.sleep(3600))
    ...     runner.get_loop().time()
    3600.0
    """

    def __init__(self) -> None:
        self._jumping = _Clock()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Simulated seconds."""
        return self._jumping.now_s

    def run_in_executor(  # type: ignore[override]  # the same, told in fewer words
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call in a thread; until it returns, no time passes."""
        self._jumping.n_outside += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._back)
        return future

    def _back(self, _future: asyncio.Future[Any]) -> None:
        self._jumping.n_outside -= 1


@dataclass(slots=True)
class _Job:
    job_id: str
    created_at: str
    begun_s: float
    ends_s: float
    was_read: bool = False


class Hosted(httpx.AsyncBaseTransport):
    """The hosted service's limits, uploads and jobs, answered from memory within the client's process.

    100 media calls, 100 submissions, 300 reads and 300 list calls a minute; job times are drawn from a
    lognormal distribution (median 5 s, sigma 0.5), however many run at once. Nothing goes wrong. Voiceprints
    are drawn when they are read, and what is older than ten minutes is forgotten.

    Parameters
    ----------
    clock : callable
        Simulated seconds.

    Attributes
    ----------
    cpu_s : float
        CPU seconds that answering took.
    counts : Counter
        Answers by group of endpoints and status.
    n_jobs, n_read_again : int
        Jobs created, and outputs that were read more than once.
    most_kept : int
        Jobs and uploads kept at the same time, at most.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limits = RateLimits(clock=clock)
        self._random = random.Random(_SEED)  # noqa: S311  # of no other use
        self._jobs: deque[_Job] = deque()
        self._stored: set[str] = set()  # uploads that no job has used yet
        self.cpu_s = 0.0
        self.counts: Counter[str] = Counter()
        self.n_jobs = self.n_read_again = self.most_kept = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Read the request, and answer."""
        n_bytes = 0
        async for chunk in request.stream:  # type: ignore[union-attr]
            n_bytes += len(chunk)
        began_s = time.thread_time()
        answer = self._answer(request, n_bytes)
        self.cpu_s += time.thread_time() - began_s
        await asyncio.sleep(ANSWER_S)
        return answer

    def _answer(self, request: httpx.Request, n_bytes: int) -> httpx.Response:
        path, has_key = request.url.path, "authorization" in request.headers
        group, handle = {
            ("PUT", ""): ("storage", self._store),
            ("POST", contract.MEDIA_INPUT_PATH): ("media", self._ticket),
            ("POST", contract.VOICEPRINT_PATH): ("submit", self._create),
            ("GET", contract.JOBS_PATH): ("list", self._page),
            ("GET", contract.TEST_PATH): ("test", self._test),
            ("GET", ""): ("read", self._read),
        }[request.method, path if path in _FIXED_PATHS else ""]
        if group == "storage":
            fits = not has_key and request.headers["content-length"] == str(n_bytes)
            status, body = self._store(request) if fits else (400, {})
            headers = {}
        else:
            allowed = self._limits.take("", group, read=request.method == "GET")
            headers = allowed.headers() if allowed else {}
            status, body = handle(request) if allowed and allowed.allowed else (429, {})
            status = status if has_key else 401
        self.counts[f"{group} {status}"] += 1
        return httpx.Response(status, headers=headers, content=json.dumps(body).encode())

    def _test(self, _request: httpx.Request) -> tuple[int, dict[str, Any]]:
        return 200, {"status": "OK"}

    def _ticket(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        name = json.loads(request.content)["url"].removeprefix("media://")
        return 201, {"url": f"https://storage.invalid/{name}?X-Amz-Signature=5f1e"}

    def _store(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        self._stored.add(f"media:/{request.url.path}")
        return 200, {}

    def _create(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        url = json.loads(request.content)["url"]
        if url not in self._stored:
            return 400, {"message": "no such upload"}
        self._stored.discard(url)
        now_s = self._clock()
        while self._jobs and self._jobs[0].begun_s < now_s - _KEPT_S:
            self._jobs.popleft()
        created_at = datetime.fromtimestamp(START_UNIX_S + now_s, UTC).isoformat()
        job_s = self._random.lognormvariate(math.log(MEDIAN_JOB_S), SIGMA)
        job_id = str(uuid.UUID(int=self._random.getrandbits(96) << 32 | self.n_jobs))
        self._jobs.append(_Job(job_id, created_at, now_s, now_s + job_s))
        self.n_jobs += 1
        self.most_kept = max(self.most_kept, len(self._jobs) + len(self._stored))
        return 200, contract.JobCreated(job_id).to_wire()

    def _read(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        job = self._job(request.url.path.rpartition("/")[2])
        if job is None:
            return 404, {"message": "no such job"}
        status, output = self._status(job), None
        if status == contract.SUCCEEDED:
            self.n_read_again += job.was_read
            job.was_read = True
            text = base64.b64encode(self._random.randbytes(_PRINT_BYTES)).decode()
            output = {"voiceprint": text}
        return 200, contract.Job(job.job_id, status, job.created_at, job.created_at, output).to_wire()

    def _page(self, request: httpx.Request) -> tuple[int, dict[str, Any]]:
        first = self.n_jobs - len(self._jobs)  # number of the oldest job kept
        newest = int(request.url.params.get("cursor", self.n_jobs))
        oldest = max(first, newest - int(request.url.params["limit"]))
        jobs = [self._jobs[number - first] for number in range(newest - 1, oldest - 1, -1)]
        items = tuple(contract.JobListItem(job.job_id, self._status(job), job.created_at) for job in jobs)
        return 200, contract.JobPage(items, str(oldest) if oldest > first else None).to_wire()

    def _job(self, job_id: str) -> _Job | None:
        index = (uuid.UUID(job_id).int & 0xFFFFFFFF) - (self.n_jobs - len(self._jobs))
        return self._jobs[index] if 0 <= index < len(self._jobs) else None

    def _status(self, job: _Job) -> str:
        return contract.SUCCEEDED if job.ends_s <= self._clock() else contract.RUNNING


_FIXED_PATHS = {
    contract.MEDIA_INPUT_PATH,
    contract.VOICEPRINT_PATH,
    contract.JOBS_PATH,
    contract.TEST_PATH,
}
