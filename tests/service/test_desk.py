from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse
from starlette.routing import Route

from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.engine.embedder import vector_of, voiceprint_text
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.pool import EnginePool
from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.desk import Desk, DeskFull
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.records import Change, timestamp

WAIT_S = 30.0
TEAM = "default"
Samples = NDArray[np.float32]


class PlainEngine:
    """Decodes for real, in threads, and answers with a number instead of an embedding."""

    busy_s = 0.0

    def __init__(self, threads: int = 2) -> None:
        self._threads = ThreadPoolExecutor(threads)
        self._lock = threading.Lock()
        self._outstanding = 0
        self.most_outstanding = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self.canceled = threading.Event()

    def submit(self, load: Callable[[], Samples]) -> Future[Any]:
        with self._lock:
            self._outstanding += 1
            self.most_outstanding = max(self.most_outstanding, self._outstanding)
        future = self._threads.submit(self._run, load)
        future.add_done_callback(self._done)
        return future

    def _run(self, load: Callable[[], Samples]) -> Samples:
        samples = load()
        assert self.go_on.wait(WAIT_S)
        return samples[:1]

    def _done(self, future: Future[Any]) -> None:
        if future.cancelled():
            self.canceled.set()
        with self._lock:
            self._outstanding -= 1

    def close(self) -> None:
        self._threads.shutdown()


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_763_469_434.75

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def engine() -> Iterator[PlainEngine]:
    plain = PlainEngine()
    yield plain
    plain.close()


@pytest.fixture
def opened(tmp_path: Path, engine: PlainEngine) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def open_desk(**options: Any) -> Desk:
        pool = options.pop("pool", engine)
        media = MediaStore(tmp_path / "media")
        desks.append(
            Desk(
                tmp_path / "desk",
                pool,
                media,
                voiceprint=lambda vector: f"v{len(vector)}",
                webhook_secret=lambda team: f"secret of {team}",
                **options,
            )
        )
        return desks[-1]

    (tmp_path / "desk").mkdir(mode=0o700)
    yield open_desk
    engine.go_on.set()
    for desk in desks:
        desk.close()


def put(folder: Path, key: str, clip: Path) -> VoiceprintRequest:
    MediaStore(folder / "media").path(TEAM, key).write_bytes(clip.read_bytes())
    return VoiceprintRequest(key)


def until(desk: Desk, job_id: str, status: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while (job := desk.job(TEAM, job_id)) is None or job.status != status:
        assert time.monotonic() < deadline, job
        time.sleep(0.001)


# --- states ---------------------------------------------------------------------------------------------


def test_a_job_is_created_running_succeeded(
    opened: Any, engine: PlainEngine, tmp_path: Path, clip: Any
) -> None:
    engine.go_on.clear()
    clock = Clock()
    desk = opened(clock=clock)
    created = desk.submit(TEAM, put(tmp_path, "media://a", clip()))
    assert created.status == "created"
    until(desk, created.job_id, "running")
    job = desk.job(TEAM, created.job_id)
    assert (job.created_at, job.updated_at, job.output) == ("2025-11-18T12:37:14.750Z",) * 2 + (None,)
    clock.now_s += 5.655
    engine.go_on.set()
    assert desk.wait_idle(WAIT_S)
    job = desk.job(TEAM, created.job_id)
    assert (job.status, job.output) == ("succeeded", {"voiceprint": "v1"})
    assert (job.created_at, job.updated_at) == ("2025-11-18T12:37:14.750Z", "2025-11-18T12:37:20.405Z")


def test_output_lives_for_a_day(opened: Any, tmp_path: Path, clip: Any) -> None:
    clock = Clock()
    desk = opened(clock=clock)
    ids = [
        desk.submit(TEAM, request).job_id
        for request in (put(tmp_path, "media://a", clip()), VoiceprintRequest("media://missing"))
    ]
    assert desk.wait_idle(WAIT_S)
    clock.now_s += 24 * 3600
    assert [set(desk.job(TEAM, job_id).output) for job_id in ids] == [{"voiceprint"}, {"error"}]
    clock.now_s += 0.01
    assert [desk.job(TEAM, job_id).output for job_id in ids] == [None, None]
    assert [desk.job(TEAM, job_id).status for job_id in ids] == ["succeeded", "failed"]


def test_unknown_jobs(opened: Any) -> None:
    desk = opened()
    assert desk.job(TEAM, "no") is None


def test_a_fault_of_the_engine_is_no_secret_but_tells_nothing(
    opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        busy_s = 0.0

        def submit(self, load: Callable[[], Samples]) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(ValueError("/home/me/model.onnx"))
            return future

    desk = opened(pool=Broken())
    job_id = desk.submit(TEAM, VoiceprintRequest("media://a")).job_id
    assert desk.wait_idle(WAIT_S)
    assert desk.job(TEAM, job_id).error == "Internal error of the service"
    assert "model.onnx" in caplog.text


# --- many jobs ------------------------------------------------------------------------------------------


def test_few_jobs_are_in_memory_and_order_is_kept(
    opened: Any, engine: PlainEngine, tmp_path: Path, clip: Any
) -> None:
    desk = opened(in_flight=4)
    request = put(tmp_path, "media://a", clip(duration_s=0.1))
    with ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(lambda _: desk.submit(TEAM, request).job_id, range(120)))
    assert desk.wait_idle(WAIT_S)
    assert {desk.job(TEAM, job_id).status for job_id in ids} == {"succeeded"}
    assert engine.most_outstanding <= 4
    assert len(desk.page(TEAM, 100).items) == 100
    assert len(desk.page(TEAM, 100, cursor=desk.page(TEAM, 100).next_cursor).items) == 20


def test_more_jobs_than_the_bound_are_refused_until_some_end(
    opened: Any, engine: PlainEngine, tmp_path: Path, clip: Any
) -> None:
    engine.go_on.clear()
    desk = opened(max_waiting=5)
    request = put(tmp_path, "media://a", clip())
    for _ in range(5):
        desk.submit(TEAM, request)
    with pytest.raises(DeskFull):
        desk.submit(TEAM, request)
    engine.go_on.set()
    assert desk.wait_idle(WAIT_S)
    assert desk.submit(TEAM, request).status == "created"
    assert len(desk.page(TEAM, 100).items) == 6


# --- restarts -------------------------------------------------------------------------------------------


def test_jobs_left_created_or_running_are_taken_up_again(tmp_path: Path, clip: Any) -> None:
    media = MediaStore(tmp_path / "media")
    media.path(TEAM, "media://a").write_bytes(clip().read_bytes())
    table = JobTable(tmp_path / "jobs.sqlite3")
    an_hour_ago = int((time.time() - 3600) * 1000)
    request = VoiceprintRequest("media://a")
    ids = [table.add(TEAM, request, now_ms=an_hour_ago) for _ in range(3)]
    table.write([Change(1, "running", an_hour_ago)])
    table.write([Change(3, "succeeded", int(time.time() * 1000), '{"voiceprint": "old"}')])
    table.close()
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "1").write_bytes(b"half a file")

    pool = EnginePool(threads=1)
    text = partial(voiceprint_text, fingerprint=Model.packaged().fingerprint)
    desk = Desk(tmp_path, pool, media, voiceprint=text, webhook_secret=str)
    try:
        assert desk.wait_idle(WAIT_S)
        running, created, done = (desk.job(TEAM, job_id) for job_id in ids)
        assert running is not None and created is not None and done is not None
        assert vector_of(running.voiceprint or "")[0] == Model.packaged().fingerprint
        assert running.voiceprint == created.voiceprint
        assert running.created_at == timestamp(an_hour_ago)
        assert done.voiceprint == "old"
        assert not list((tmp_path / "downloads").iterdir())
    finally:
        desk.close()
        pool.close()


KILLED = """
import os, signal, sys
from concurrent.futures import Future
from pathlib import Path
from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.media import MediaStore

class Stuck:
    busy_s = 0.0
    def submit(self, load):
        return Future()

folder = Path(sys.argv[1])
desk = Desk(folder / "desk", Stuck(), MediaStore(folder / "media"), voiceprint=str, webhook_secret=str)
for _ in range(50):
    print(desk.submit("default", VoiceprintRequest("media://a")).job_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_accepted_jobs_survive_a_kill(opened: Any, tmp_path: Path, clip: Any) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    ids = killed.stdout.split()
    assert len(ids) == 50
    put(tmp_path, "media://a", clip())
    desk = opened()
    assert desk.wait_idle(WAIT_S)
    assert {desk.job(TEAM, job_id).status for job_id in ids} == {"succeeded"}


def test_closing_leaves_waiting_jobs_for_the_next_desk(
    opened: Any, engine: PlainEngine, tmp_path: Path, clip: Any
) -> None:
    engine.go_on.clear()
    request = put(tmp_path, "media://a", clip())
    desk = opened(in_flight=3)
    ids = [desk.submit(TEAM, request).job_id for _ in range(10)]
    until(desk, ids[0], "running")
    with ThreadPoolExecutor(1) as thread:
        closed = thread.submit(desk.close)
        assert engine.canceled.wait(WAIT_S)  # the third, which no worker had taken up
        engine.go_on.set()
        assert closed.result()
    assert desk.close()
    statuses = [item.status for item in still_stored(tmp_path)]
    assert (statuses.count("succeeded"), statuses.count("running"), statuses.count("created")) == (2, 0, 8)
    with pytest.raises(RuntimeError):
        desk.submit(TEAM, request)
    again = opened()
    assert again.wait_idle(WAIT_S)
    assert {again.job(TEAM, job_id).status for job_id in ids} == {"succeeded"}


def still_stored(tmp_path: Path) -> list[Any]:
    table = JobTable(tmp_path / "desk" / "jobs.sqlite3")
    jobs = table.newest(TEAM, 100)
    table.close()
    return jobs


def test_one_desk_a_folder(opened: Any) -> None:
    desk = opened()
    with pytest.raises(UsageError, match="Another service"):
        opened()
    desk.close()
    assert opened().page(TEAM, 10).items == ()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    JobTable(tmp_path / "jobs").close()
    with sqlite3.connect(tmp_path / "jobs") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(UsageError, match="format 99"):
        JobTable(tmp_path / "jobs")


def test_files_are_private(opened: Any, tmp_path: Path) -> None:
    desk = opened()
    desk.submit(TEAM, VoiceprintRequest("media://a"))
    assert desk.wait_idle(WAIT_S)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "desk").iterdir()}
    assert modes.pop("downloads") == 0o700
    assert "jobs.sqlite3" in modes
    assert set(modes.values()) == {0o600}


# --- links ----------------------------------------------------------------------------------------------


def site(clip: Path) -> Starlette:
    def routes(request: Any) -> Any:
        name = request.path_params["name"]
        if name == "page":
            return HTMLResponse("<html>log in</html>")
        if name == "moved":
            return RedirectResponse("/clip")
        if name == "circle":
            return RedirectResponse("/circle")
        return FileResponse(clip)

    return Starlette(routes=[Route("/{name}", routes)])


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("clip", None),
        ("moved", None),
        ("page", "web page"),
        ("circle", "redirects"),
        ("no/such", "404"),
    ],
)
def test_linked_clips_are_fetched(
    opened: Any, tmp_path: Path, clip: Any, path: str, error: str | None
) -> None:
    transport = httpx.ASGITransport(site(clip()))
    desk = opened(new_client=lambda: httpx.AsyncClient(transport=transport))
    created = desk.submit(TEAM, VoiceprintRequest(f"https://clips.example/{path}?signature=s3cret"))
    assert desk.wait_idle(WAIT_S)
    job = desk.job(TEAM, created.job_id)
    if error is None:
        assert job.output == {"voiceprint": "v1"}
    else:
        assert re.fullmatch(f"Could not load audio: .*{error}.*", job.error)
        assert "s3cret" not in job.error
    assert not list((tmp_path / "desk" / "downloads").iterdir())
    desk.close()
    assert b"s3cret" not in dump(tmp_path / "desk" / "jobs.sqlite3")


def dump(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    lines = "\n".join(connection.iterdump())
    connection.close()
    return lines.encode()


def test_closing_ends_downloads(opened: Any, tmp_path: Path) -> None:
    started = threading.Event()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            import asyncio

            yield b"RIFF"
            started.set()
            await asyncio.Event().wait()

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Endless())

    before = set(threading.enumerate())  # other tests of this process may have their own service
    desk = opened(new_client=lambda: httpx.AsyncClient(transport=Transport()))
    job_id = desk.submit(TEAM, VoiceprintRequest("https://clips.example/endless")).job_id
    assert started.wait(WAIT_S)
    until(desk, job_id, "running")
    assert desk.close()
    assert not any(thread.name == "voiceprint-outside" for thread in set(threading.enumerate()) - before)
    assert [job.status for job in still_stored(tmp_path)] == ["created"]
