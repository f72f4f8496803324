"""A service that is killed again and again loses no job, ends each once, and tells of each.

``VOICEPRINT_NB_KILLS=200`` makes it a long run; with ``-s`` it shows its figures.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.served import COMMAND
from voiceprint_nb.contract import TERMINAL_STATUSES, BadSignature, decode_voiceprint, verify_webhook

KILLS = int(os.environ.get("VOICEPRINT_NB_KILLS", "5"))
SEED = 20261124
DEADLINE_S = 60.0
SUBMITTERS = 2
MAX_UNTOLD = 150  # accepted jobs without an event: the queue stays short
REFUSED_FIRST = 0.1  # share of first attempts at a webhook that are answered with 500

SAMPLES = Path(__file__).resolve().parents[2] / "data" / "samples"
EXPECTED = {
    "ada-1.wav": "succeeded",
    "ada-1-again.wav": "succeeded",  # the same bytes
    "ben-2.flac": "succeeded",
    "silent.flac": "failed",
}
UNLIMITED = ("--writes-per-minute", "0", "--reads-per-minute", "0")
OPTIONS = ("--plain-webhooks", "--allow-host", "127.0.0.1", *UNLIMITED)
MOMENTS = ("starting", "listening", "jobs accepted", "webhook arrived", "webhooks arrived")

Told = tuple[str, str]  # status, output as JSON


class Story:
    """What was seen from outside; guarded by its condition."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.accepted: dict[str, str] = {}  # job id -> clip
        self.maybe = 0  # submissions without an answer
        self.read: defaultdict[str, set[Told]] = defaultdict(set)
        self.events: defaultdict[str, list[Told]] = defaultdict(list)
        self.delivered: set[str] = set()  # events that were answered with 2xx
        self.faults: list[str] = []

    def untold(self) -> int:
        return len(self.accepted.keys() - self.delivered)

    def comes_to(self, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, timeout_s)

    def submitted(self, clip: str, answer: httpx.Response | None) -> None:
        with self.changed:
            if answer is None:
                self.maybe += 1
            elif answer.status_code == 200:
                self.accepted[answer.json()["jobId"]] = clip
            else:
                self.faults.append(f"a submission answered {answer.status_code}")
            self.changed.notify_all()

    def looked(self, job_id: str, answer: httpx.Response) -> None:
        job = answer.json()
        with self.changed:
            if answer.status_code != 200:
                self.faults.append(f"an accepted job answered {answer.status_code}")
            elif job["status"] in TERMINAL_STATUSES:
                self.read[job_id].add((job["status"], json.dumps(job["output"])))

    def told(self, job_id: str, event: Told, *, taken: bool) -> None:
        with self.changed:
            self.events[job_id].append(event)
            self.delivered |= {job_id} if taken else set()
            self.changed.notify_all()


class Service:
    """One life after another on one folder and port."""

    def __init__(self, data_dir: Path, log: Path) -> None:
        self._data_dir, self._log = data_dir, log
        self._port = next(filter(is_free, np.random.default_rng().integers(20_000, 32_000, 100).tolist()))
        self.base_url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def secret(self) -> str:
        command = [*COMMAND, "keys", "secret", "--data-dir", str(self._data_dir)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def start(self) -> None:
        command = [*COMMAND, "serve", "--port", str(self._port), "--data-dir", str(self._data_dir), *OPTIONS]
        with self._log.open("a") as stderr:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)

    def await_listening(self) -> None:
        stdout = self._running().stdout
        assert stdout is not None
        assert select.select([stdout], [], [], DEADLINE_S)[0]
        assert stdout.readline(), self.log[-2000:]

    def kill(self) -> None:
        process = self._running()
        process.kill()
        process.communicate()

    def stop(self) -> int:
        process = self._running()
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
        return process.returncode

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None
        assert self._process.poll() is None, self.log[-2000:]
        return self._process


def is_free(port: int) -> bool:
    """Whether nobody listens there; ports below 32768 are not taken by outgoing connections meanwhile."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def receiving(story: Story, secret: str) -> Iterator[str]:
    """A receiver of webhooks; yields its address."""
    draw = np.random.default_rng(SEED)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:
                return  # its sender was killed
            taken = "x-retry-num" in self.headers or draw.random() >= REFUSED_FIRST
            note_event(story, secret, self.headers, body, taken=taken)
            with suppress(ConnectionError):
                self.send_response_only(204 if taken else 500)
                self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/told"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def note_event(story: Story, secret: str, headers: Message, body: bytes, *, taken: bool) -> None:
    timestamp, signature = str(headers["X-Request-Timestamp"]), str(headers["X-Signature"])
    try:
        verify_webhook(secret, timestamp, signature, body, now_unix_s=time.time())
    except BadSignature as error:
        story.faults.append(str(error))
        return
    event = json.loads(body)
    story.told(event["jobId"], (event["status"], json.dumps(event.get("output"))), taken=taken)


@contextmanager
def submitting(story: Story, base_url: str, webhook: str) -> Iterator[None]:
    """Jobs come in, and are looked at, until the block ends."""
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=submit_until, args=(stop, story, base_url, webhook, np.random.default_rng(number))
        )
        for number in range(SUBMITTERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def submit_until(
    stop: threading.Event, story: Story, base_url: str, webhook: str, draw: np.random.Generator
) -> None:
    with httpx.Client(base_url=base_url, timeout=DEADLINE_S) as api:
        while not stop.is_set():
            if not story.comes_to(lambda: story.untold() < MAX_UNTOLD, 0.05):
                continue
            clip = str(draw.choice(list(EXPECTED)))
            job = {"url": f"media://{clip}", "webhook": webhook}
            try:
                story.submitted(clip, api.post("/v1/voiceprint", json=job))
                job_id = draw.choice(list(story.accepted))
                story.looked(job_id, api.get(f"/v1/jobs/{job_id}"))
            except httpx.ConnectError:
                stop.wait(0.01)  # nobody listens
            except httpx.TransportError as error:
                if error.request.method == "POST":
                    story.submitted(clip, None)


def upload(api: httpx.Client, name: str) -> None:
    link = api.post("/v1/media/input", json={"url": f"media://{name}"}).raise_for_status().json()["url"]
    api.put(link, content=(SAMPLES / name).read_bytes()).raise_for_status()


def listed(api: httpx.Client) -> list[dict[str, str]]:
    """The whole list, page by page, once all jobs in it have ended."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        items: list[dict[str, str]] = []
        cursor: str | None = ""
        while cursor is not None:
            query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = api.get("/v2/jobs", params=query).raise_for_status().json()
            items, cursor = items + page["items"], page["nextCursor"]
        if all(item["status"] in TERMINAL_STATUSES for item in items):
            return items
    raise AssertionError("not all jobs end")


def live_and_die(service: Service, story: Story, moment: str, draw: np.random.Generator) -> None:
    """Start the service, and kill it a little after a moment of its life."""
    n_accepted, n_events, more = len(story.accepted), len(story.events), int(draw.integers(1, 60))
    service.start()
    linger_s = draw.uniform(0, 1.5)
    if moment != "starting":
        service.await_listening()
        linger_s = draw.exponential(0.03)
        reached = {
            "listening": lambda: True,
            "jobs accepted": lambda: len(story.accepted) >= n_accepted + more,
            "webhook arrived": lambda: len(story.events) > n_events,
            "webhooks arrived": lambda: len(story.events) >= n_events + more,
        }
        assert story.comes_to(reached[moment]), f"in vain: {moment}"
    threading.Event().wait(linger_s)
    service.kill()


def test_killed_services_lose_nothing_and_end_each_job_once(tmp_path: Path) -> None:
    draw, story, service = np.random.default_rng(SEED), Story(), Service(tmp_path / "data", tmp_path / "log")
    began_s = time.monotonic()
    with (
        closing(service),
        receiving(story, service.secret()) as webhook,
        httpx.Client(base_url=service.base_url, timeout=DEADLINE_S) as api,
    ):
        service.start()
        service.await_listening()
        for clip in EXPECTED:
            upload(api, clip)
        service.kill()
        with submitting(story, service.base_url, webhook):
            for number in range(KILLS):
                live_and_die(service, story, str(draw.choice(MOMENTS)) if number else MOMENTS[-1], draw)
        service.start()
        service.await_listening()
        assert story.comes_to(lambda: not story.untold()), f"{story.untold()} jobs without an event"
        items = listed(api)
        for job_id in story.accepted:
            story.looked(job_id, api.get(f"/v1/jobs/{job_id}"))
        assert service.stop() == 0
    n_events = sum(map(len, story.events.values()))
    print(f"\n{KILLS} kills, {len(story.accepted)} accepted, {story.maybe} maybe, {len(items)} jobs,")
    print(f"{n_events} events of {len(story.events)} jobs, {time.monotonic() - began_s:.0f} s")
    assert '"ERROR"' not in service.log
    check(story, items)


def check(story: Story, items: list[dict[str, str]]) -> None:
    statuses = {item["id"]: item["status"] for item in items}
    assert not story.faults
    assert len(statuses) == len(items)
    assert len(story.accepted) <= len(items) <= len(story.accepted) + story.maybe
    assert story.accepted.keys() | story.events.keys() <= statuses.keys()
    assert all(len(set(told)) == 1 for told in story.events.values())
    prints = defaultdict(set)
    for job_id, clip in story.accepted.items():
        (read,), told = story.read[job_id], story.events[job_id][0]  # it never said anything else
        assert statuses[job_id] == read[0] == told[0] == EXPECTED[clip]
        if read[0] == "succeeded":
            assert read == told
            prints[clip].add(decode_voiceprint(json.loads(read[1])["voiceprint"]))
    assert prints["ada-1.wav"] == prints["ada-1-again.wav"] != prints["ben-2.flac"]
    assert len(prints["ada-1.wav"]) == len(prints["ben-2.flac"]) == 1
