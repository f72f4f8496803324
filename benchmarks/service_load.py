"""Thousands of jobs from many clients at once against a served service: speed, answer times, memory, losses.

::

    python -m benchmarks.service_load [--jobs 5000] [--clients 50] [--max-waiting 500]

Clients submit jobs on uploaded samples as fast as they are answered, while readers look at jobs and lists;
then all jobs are waited for, and every one is read. This is done twice, each with a service and a folder of
its own: with room for all jobs, and with room for ``--max-waiting``, where clients are sent away with 429 and
come again. Last, the engine alone, in a process of its own, decodes and embeds the same files in the same
order. Clients and service share the machine: how much of it each took, and others, is shown. Needs ``/proc``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from benchmarks.whole_path import ROOT, decode_engine
from tests.served import Served, serving
from voiceprint_nb.contract import decode_voiceprint

READERS = 4
READ_PAUSE_S = 0.05
WATCH_PAUSE_S = 0.25
EARLY_JOBS = 1000  # memory is compared with what it was when so many were done
TIMEOUT_S = 60.0
DEADLINE_S = 1800.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
UNLIMITED = ("--writes-per-minute", "0", "--reads-per-minute", "0")


@dataclass
class Run:
    """One service under load: what is asked of it, and what was seen."""

    served: Served
    clips: list[Path]  # of each job
    accepted: dict[str, Path] = field(default_factory=dict)  # job id -> clip
    refused: int = 0
    phases: dict[str, float] = field(default_factory=dict)  # and when they began
    timings_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    memory_mib: dict[str, float] = field(default_factory=dict)
    accepted_s: float = 0.0
    done_s: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pids = {"service": [self.served.process.pid], "clients": [os.getpid()]}

    async def timed(self, name: str, request: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """The answer; how long it took is noted if it is no refusal."""
        name, began_s = f"{name}, {list(self.phases)[-1]}", time.perf_counter()
        answer = await request
        if answer.status_code != 429:
            self.timings_s[name].append(time.perf_counter() - began_s)
            answer.raise_for_status()
        return answer


# --- the load -------------------------------------------------------------------------------------------


async def load(run: Run, n_clients: int) -> None:
    """Everything that is done to one service."""
    async with connected(run.served.base_url, n_clients + 1) as (watcher, *clients):
        await warm_up(run, watcher)
        with readers(run):
            before, began_s = cpu_s(run), time.perf_counter()
            done = asyncio.create_task(until_ended(run, watcher, len(run.clips) + 1))
            run.phases["clients submit"] = time.time()
            shares = [run.clips[number::n_clients] for number in range(n_clients)]
            await asyncio.gather(*map(submit, [run] * n_clients, clients, shares))
            run.accepted_s = time.perf_counter() - began_s
            run.phases["engine works"] = time.time()
            await done
            run.done_s = time.perf_counter() - began_s
            run.cpu_s = {who: after_s - before[who] for who, after_s in cpu_s(run).items()}
            run.phases["all done"] = time.time()
        await check(run, clients)
        run.memory_mib |= {"end": memory_mib(run.served), "peak": memory_mib(run.served, "VmHWM")}


@asynccontextmanager
async def connected(base_url: str, count: int) -> AsyncIterator[list[httpx.AsyncClient]]:
    """So many clients, each with connections of its own."""
    tls = ssl.create_default_context()  # made once: it takes longer than many requests
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=base_url, verify=tls, timeout=TIMEOUT_S, trust_env=False)
            )
            for _ in range(count)
        ]


async def warm_up(run: Run, client: httpx.AsyncClient) -> None:
    """Upload the clips, and have the network loaded by a first job, which is not counted."""
    run.memory_mib["start"] = memory_mib(run.served)
    for clip in dict.fromkeys(run.clips):
        answer = await client.post("/v1/media/input", json={"url": media_key(clip)})
        link = answer.raise_for_status().json()["url"]
        (await client.put(link, content=clip.read_bytes())).raise_for_status()
    await client.post("/v1/voiceprint", json={"url": media_key(run.clips[0])})
    await until_ended(run, client, 1)
    run.memory_mib["loaded"] = memory_mib(run.served)


async def submit(run: Run, client: httpx.AsyncClient, clips: Iterable[Path]) -> None:
    """One client's jobs, one after the other; when it is sent away it comes again when told to."""
    for clip in clips:
        body = {"url": media_key(clip)}
        while (answer := await run.timed("POST", client.post("/v1/voiceprint", json=body))).is_error:
            run.refused += 1
            await asyncio.sleep(float(answer.headers["Retry-After"]))
        run.accepted[answer.json()["jobId"]] = clip


async def read_on(client: httpx.AsyncClient, timings: list[tuple[str, float, float]]) -> None:
    """Look at the list, then at some job, again and again."""
    random = np.random.default_rng(7)
    name, path = "GET list of 100", "/v2/jobs?limit=100"
    while True:
        began_s, from_s = time.time(), time.perf_counter()
        told = (await client.get(path)).raise_for_status().json()
        timings.append((name, began_s, time.perf_counter() - from_s))
        if "items" in told:
            name, path = "GET job", f"/v1/jobs/{told['items'][random.integers(len(told['items']))]['id']}"
        else:
            name, path = "GET list of 100", "/v2/jobs?limit=100"
        await asyncio.sleep(READ_PAUSE_S)


async def read_until_told(base_url: str) -> None:
    """Read until the standard input ends; then print every answer's name, moment and seconds."""
    timings: list[tuple[str, float, float]] = []
    async with connected(base_url, READERS) as clients:
        readers = [asyncio.create_task(read_on(client, timings)) for client in clients]
        print("reading", flush=True)
        told = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        ended, _ = await asyncio.wait([told, *readers], return_when=asyncio.FIRST_COMPLETED)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*ended)  # raises what ended a reader
    print(json.dumps(timings))


@contextmanager
def readers(run: Run) -> Iterator[None]:
    """Readers in a process of their own: their times are the service's, not those of busy clients."""
    command = [sys.executable, "-m", "benchmarks.service_load", "--read", run.served.base_url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        run.pids["clients"].append(process.pid)
        if process.stdout is None or process.stdout.readline() != "reading\n":
            raise SystemExit("the readers do not read")
        yield
        timings = json.loads(process.communicate()[0])
    for name, began_s, took_s in timings:
        phases = [phase for phase, from_s in run.phases.items() if from_s <= began_s]
        if phases:
            run.timings_s[f"{name}, {phases[-1]}"].append(took_s)


async def until_ended(run: Run, client: httpx.AsyncClient, n_jobs: int) -> None:
    """Wait until so many jobs have ended, and note the memory on the way."""
    until_s, n_ended = time.monotonic() + DEADLINE_S, 0
    while n_ended < n_jobs:
        if time.monotonic() > until_s:
            raise SystemExit("the jobs do not end")
        await asyncio.sleep(WATCH_PAUSE_S)
        n_ended = await ended(client)
        if n_ended >= EARLY_JOBS:
            run.memory_mib.setdefault("early", memory_mib(run.served))


async def ended(client: httpx.AsyncClient) -> int:
    """How many jobs have succeeded or failed."""
    queries = [{"take": "1", "status": status} for status in ("succeeded", "failed")]
    return sum([(await client.get("/v1/jobs", params=query)).json()["total"] for query in queries])


# --- what must be so ------------------------------------------------------------------------------------


async def check(run: Run, clients: list[httpx.AsyncClient]) -> None:
    """Every accepted job is listed once, has succeeded, and equal clips have equal voiceprints."""
    counts: Counter[str] = Counter()
    query: dict[str, str] | None = {"limit": "100"}
    while query:
        page = (await clients[0].get("/v2/jobs", params=query)).raise_for_status().json()
        counts.update(item["id"] for item in page["items"])
        query = page["nextCursor"] and {"limit": "100", "cursor": page["nextCursor"]}
    run.faults += [f"{job_id} is listed {n} times" for job_id, n in counts.items() if n > 1]
    run.faults += [f"{job_id} is not listed" for job_id in run.accepted if job_id not in counts]
    if len(counts) != len(run.clips) + 1:
        run.faults.append(f"{len(counts)} jobs are listed, {len(run.clips) + 1} were accepted")
    prints: defaultdict[Path, set[bytes]] = defaultdict(set)
    job_ids = list(run.accepted)

    async def read(client: httpx.AsyncClient, share: list[str]) -> None:
        for job_id in share:
            job = (await run.timed("GET job", client.get(f"/v1/jobs/{job_id}"))).json()
            if job["status"] != "succeeded":
                run.faults.append(f"{job_id} has {job['status']}: {job['output']}")
                continue
            prints[run.accepted[job_id]].add(decode_voiceprint(job["output"]["voiceprint"]).vector)

    n_clients = len(clients)
    await asyncio.gather(*(read(client, job_ids[k::n_clients]) for k, client in enumerate(clients)))
    run.faults += [
        f"{clip.name} has {len(some)} voiceprints" for clip, some in prints.items() if len(some) > 1
    ]


# --- figures --------------------------------------------------------------------------------------------


def media_key(clip: Path) -> str:
    """The key under which a clip is uploaded."""
    return f"media://{clip.name}"


def memory_mib(served: Served, which: str = "VmRSS") -> float:
    """Memory of the service's process."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(re.findall(rf"{which}:\s+(\d+) kB", status)[0]) / 1024


def cpu_s(run: Run) -> dict[str, float]:
    """Seconds of CPU so far of the service, of its clients, and of all processes of the machine."""
    used_s = {"machine": machine_cpu_s()}
    for who, pids in run.pids.items():
        texts = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in pids]
        used_s[who] = sum(int(ticks) for text in texts for ticks in text.split()[11:13]) / TICKS_PER_S
    return used_s


def machine_cpu_s() -> float:
    """Seconds of CPU so far of all processes of the machine."""
    return sum(map(int, Path("/proc/stat").read_text().split()[1:4])) / TICKS_PER_S


def engine_alone(n_jobs: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU, of the engine alone for the same files, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.service_load", "--engine", "--jobs", str(n_jobs)]
    before_s = machine_cpu_s()
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split()
    alone_s, alone_cpu_s = float(told[0]), float(told[1])
    others = (machine_cpu_s() - before_s - alone_cpu_s) / alone_s
    print(f"engine alone: {n_jobs / alone_s:.1f} clips/s")
    print(f"  CPUs: engine {alone_cpu_s / alone_s:.2f}, others {others:.2f}")
    return alone_s, alone_cpu_s


def job_clips(n_jobs: int) -> list[Path]:
    """The good samples, again and again."""
    manifest = pd.read_csv(ROOT / "data" / "samples" / "manifest.csv", keep_default_na=False)
    good = [ROOT / path for path in manifest.audio[manifest.note == ""]]
    return [good[number % len(good)] for number in range(n_jobs)]


def show(title: str, run: Run) -> None:
    """Print one run."""
    n_jobs, memory = len(run.clips), run.memory_mib
    print(f"{title}: {n_jobs} jobs, {run.refused} times sent away")
    print(f"  accepted {n_jobs / run.accepted_s:.0f} jobs/s, done {n_jobs / run.done_s:.1f} jobs/s")
    for name, timings_s in run.timings_s.items():
        p50, p95, p99 = np.percentile(timings_s, [50, 95, 99]) * 1000
        line = f"p50 {p50:5.1f}  p95 {p95:6.1f}  p99 {p99:6.1f} ms"
        print(f"  {name:32s} {line}  ({len(timings_s)} answers)")
    print("  memory", ", ".join(f"{name} {mib:.0f}" for name, mib in memory.items()), "MiB", end="; ")
    if "early" in memory:
        print(f"peak / after {EARLY_JOBS} jobs: {memory['peak'] / memory['early']:.2f}", end="")
    cpus = {who: used_s / run.done_s for who, used_s in run.cpu_s.items()}
    others = cpus["machine"] - cpus["service"] - cpus["clients"]
    print(f"\n  CPUs: service {cpus['service']:.2f}, clients {cpus['clients']:.2f}, others {others:.2f}")
    print(f"  faults: {len(run.faults)}", *run.faults[:5], sep="\n    ", flush=True)


def serve_and_load(arguments: argparse.Namespace, max_waiting: int) -> Run:
    """One run on a service and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--max-waiting", str(max_waiting), *UNLIMITED)
        with serving(Path(folder) / "data", *options, key="none") as served:
            run = Run(served, job_clips(arguments.jobs))
            asyncio.run(load(run, arguments.clients))
    return run


def main() -> int:
    """Measure and print; exit status 1 if a job was lost or done twice."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--max-waiting", type=int, default=500, help="of the second service")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        asyncio.run(read_until_told(arguments.read))
        return 0
    if arguments.engine:
        print(decode_engine(job_clips(arguments.jobs)), time.process_time())
        return 0
    roomy = serve_and_load(arguments, 2 * arguments.jobs)
    show("room for all", roomy)
    narrow = serve_and_load(arguments, arguments.max_waiting)
    show(f"room for {arguments.max_waiting}", narrow)
    alone_s, alone_cpu_s = engine_alone(arguments.jobs)
    print("service / engine alone")
    for name, run in (("room for all", roomy), (f"room for {arguments.max_waiting}", narrow)):
        cpu = run.cpu_s["service"] / alone_cpu_s
        print(f"  {name}: throughput {alone_s / run.done_s:.2f}, CPU per job {cpu:.2f}")
    return 1 if roomy.faults or narrow.faults else 0


if __name__ == "__main__":
    sys.exit(main())
