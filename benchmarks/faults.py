"""The line that users write, through a proxy that spoils 5 % of the requests in each of a dozen ways.

::

    python -m benchmarks.faults [--rows 2000] [--kills 50] [--seed 5] [--only polling]

Three runs, each with a ledger of its own, against one served service: by polling, with a receiver of
webhooks, and by polling with so many SIGKILLs, after each of which `resume` goes on. Kills are drawn over
the jobs created so far, each at a random moment of the second after, more of them early in it. Rows that
end with an error are asked for again by the same line, pass after pass, until all have succeeded. The
voiceprints must be those of the local service, the jobs those that the proxy saw created, and a content may
have more than one only if the line has said ``submit_unknown`` of it as often; other errors are rare. Exit
status 1 if one of this is not so.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pandas as pd

from tests.fault_proxy import Created, FaultProxy
from tests.faulty import write_clip
from tests.served import COMMAND, Served, serving
from voiceprint_nb.contract import SUCCEEDED, decode_voiceprint

LIMITS = ("--writes-per-minute", "3000", "--reads-per-minute", "9000")
HOOKS = ("--plain-webhooks", "--allow-host", "127.0.0.1")
FINAL = {"succeeded", "failed", "invalid"}
MOST_PASSES = 12
DEADLINE_S = 1800.0
LINGER_S = 1.0  # a kill follows its mark within so long
KEPT_S = 1.0  # from an answer with a job id until the ledger surely has it
MOST_OTHERS = 0.01  # of the rows of the first pass may fail with another code than submit_unknown

CLIENT = """
import json, os, sys
import httpx, pandas as pd, soundfile, stamina, uvicorn
import voiceprint_nb as vp
import voiceprint_nb.client.receiver, voiceprint_nb.notebook.runs, voiceprint_nb.notebook.verbs

for line in sys.stdin:  # each asks for a run in a process of its own; forked, as imports take longest
    if child := os.fork():
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    told = json.loads(line)
    options = {"api_key": told["key"], "data_dir": told["data_dir"], "progress": False}
    if told["quick"]:
        stamina.set_testing(True, attempts=8)
    if told["receiver"]:
        options["receiver"] = vp.Receiver(**told["receiver"])
    if told["resume"] and len(vp.runs(data_dir=told["data_dir"])):
        out = vp.resume(**options)
    else:
        out = vp.voiceprints(told["clips"], service=told["service"], **options)
    columns = out.astype(object).where(out.notna(), None).to_dict("list")
    with open(told["answer"], "w") as file:
        json.dump({name: columns[name] for name in columns if name != "audio"}, file)
    os._exit(0)
"""


@dataclass
class World:
    """A served service behind a proxy with faults, clips, and what all other runs are compared with."""

    served: Served
    proxy: FaultProxy
    relay: FaultProxy
    clips: list[str]
    folder: Path
    receiver: dict[str, Any]
    quick: bool


@contextlib.contextmanager
def world(folder: Path, *, rows: int, seed: int, quick: bool = False, **faults: Any) -> Iterator[World]:
    """Everything that a run needs; ``quick`` leaves out the pauses between retries."""
    (folder / "clips").mkdir()
    clips = [
        str(write_clip(folder / "clips" / f"{n:05}.wav", seed=seed * 1_000_000 + n)) for n in range(rows)
    ]
    data_dir = folder / "service"
    with FaultProxy(seed=seed, **faults) as proxy, FaultProxy(seed=seed, **faults) as relay:  # noqa: SIM117
        with serving(data_dir, *LIMITS, *HOOKS, "--public-url", proxy.url) as served:
            proxy.upstream = served.base_url
            told = subprocess.run(
                [*COMMAND, "keys", "secret", "--data-dir", str(data_dir)],
                check=True,
                capture_output=True,
                text=True,
            )
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            relay.upstream = f"http://127.0.0.1:{port}"
            receiver = {"public_url": relay.url, "secret": told.stdout.strip(), "port": port}
            yield World(served, proxy, relay, clips, folder, receiver, quick)


class Lines:
    """Processes that run the line, or go on with it, one after the other, all with one ledger."""

    def __init__(self, world: World, name: str, *, receiver: bool = False) -> None:
        self._world, self._answer = world, world.folder / f"{name}.json"
        self._told = {
            "key": world.served.key,
            "data_dir": str(world.folder / name),
            "receiver": world.receiver if receiver else None,
            "clips": world.clips,
            "service": world.proxy.url,
            "answer": str(self._answer),
            "quick": world.quick,
        }
        self._log = world.folder / f"{name}.log"

    def __enter__(self) -> Self:
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CLIENT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate("")

    def run(self, *, resume: bool = False, kill_at: int | None = None, linger_s: float = 0.0) -> pd.DataFrame:
        """One process to its end, or killed so long after so many jobs were created; then without rows."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("opened with pipes")
        print(json.dumps(self._told | {"resume": resume}), file=self._process.stdin, flush=True)
        child = int(self._process.stdout.readline())
        if kill_at is not None:
            self._until(kill_at)
            self._has_ended(linger_s)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        elif not self._has_ended(DEADLINE_S):
            os.kill(child, signal.SIGKILL)
            raise AssertionError(f"no end after {DEADLINE_S:.0f} s: {self._log.read_text()[-2000:]}")
        status = int(self._process.stdout.readline())
        if status == -signal.SIGKILL:
            return pd.DataFrame()
        if status:
            raise AssertionError(f"the line has failed: {self._log.read_text()[-2000:]}")
        return pd.DataFrame(json.loads(self._answer.read_text()))

    def _until(self, created: int) -> None:
        """Wait until the service has created so many jobs, or the process has ended."""
        proxy, until_s = self._world.proxy, time.monotonic() + DEADLINE_S
        while len(proxy.jobs) < created and not self._has_ended(0):
            if time.monotonic() > until_s:
                raise AssertionError(f"no {created} jobs: {self._log.read_text()[-2000:]}")
            with proxy.changed:
                proxy.changed.wait(0.05)

    def _has_ended(self, within_s: float) -> bool:
        return bool(select.select([self._process.stdout], [], [], within_s)[0])


# --- one run --------------------------------------------------------------------------------------------


@dataclass
class Story:
    """What was seen of one run and its further passes."""

    name: str
    clips: list[str]
    passes: list[pd.DataFrame] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    killed_at: list[float] = field(default_factory=list)
    created: list[Created] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def jobs(self) -> Counter[str]:
        """How many were created for each media key."""
        return Counter(job.url for job in self.created)

    @property
    def untold(self) -> Counter[str]:
        """Of these, those whose answer was lost."""
        return Counter(job.url for job in self.created if job.told_at is None)

    @property
    def bought_again(self) -> set[str]:
        """Media keys with a job after one whose answer the line has had for long enough to keep it."""
        kept, again = set(), set()
        for job in self.created:
            if job.url in kept:
                again.add(job.url)
            until_s = None if job.told_at is None else job.told_at + KEPT_S
            if until_s and not any(job.asked_at <= at < until_s for at in self.killed_at):
                kept.add(job.url)
        return again


def run(world: World, name: str, *, receiver: bool = False, kills: int = 0, seed: int = 0) -> Story:
    """The line until all rows have succeeded, with so many kills on the way."""
    proxies, story = (world.proxy, world.relay), Story(name, world.clips)
    before = [(proxy.requests.copy(), proxy.faults.copy(), proxy.statuses.copy()) for proxy in proxies]
    first = len(world.proxy.jobs)
    random = np.random.default_rng(seed)
    marks = sorted(first + random.integers(0, len(world.clips), kills))
    with Lines(world, name, receiver=receiver) as lines:
        began_s, resume = time.monotonic(), False
        while len(story.passes) < MOST_PASSES:
            mark = int(marks[0]) if marks else None
            out = lines.run(resume=resume, kill_at=mark, linger_s=LINGER_S * random.random() ** 3)
            if resume := out.empty:
                story.killed_at.append(time.monotonic())
                marks.pop(0)
                continue
            story.passes.append(out)
            story.took_s.append(time.monotonic() - began_s)
            if out.vp_status.eq("succeeded").all() and not marks:
                break
    for proxy, (requests, faults, statuses) in zip(proxies, before, strict=True):
        story.requests += proxy.requests - requests
        story.faults += proxy.faults - faults
        story.statuses += proxy.statuses - statuses
    story.created = list(world.proxy.jobs.values())[first:]
    return story


def check(story: Story, keys: list[str], prints: list[str], *, kills: int = 0) -> None:
    """Note what is not as it must be."""
    first, last = story.passes[0], story.passes[-1]
    wrong = story.wrong
    if not set(first.vp_status) <= FINAL:
        wrong.append(
            f"rows of the first pass have no final state: {first.vp_error_code.value_counts().to_dict()}"
        )
    others = first.vp_error_code[first.vp_error_code.notna() & first.vp_error_code.ne("submit_unknown")]
    if len(others) > max(1, MOST_OTHERS * len(keys)):
        wrong.append(f"rows of the first pass fail for what passes: {others.value_counts().to_dict()}")
    if not last.vp_status.eq("succeeded").all():
        wrong.append(f"rows do not succeed: {last.vp_error_code.value_counts().to_dict()}")
    elif not np.allclose(vectors(last["voiceprint"].tolist()), vectors(prints), rtol=0, atol=1e-5):
        wrong.append("voiceprints are not those of the local service")
    unknown, jobs = reported(story, keys), story.jobs
    if missing := [key for key in keys if not jobs[key]]:
        wrong.append(f"{len(missing)} rows have no job")
    if foreign := jobs.keys() - set(keys):
        wrong.append(f"{len(foreign)} jobs are for no row")
    if silent := [key for key in keys if jobs[key] > 1 + unknown[key]]:
        wrong.append(f"{len(silent)} rows were bought again and nobody said so")
    if again := story.bought_again:
        wrong.append(f"{len(again)} rows were bought again though the answer had come")
    if len(story.killed_at) != kills:
        wrong.append(f"{len(story.killed_at)} kills instead of {kills}")


def reported(story: Story, keys: list[str]) -> Counter[str]:
    """How often the line has said of each content that it may have been bought."""
    return Counter(
        key
        for out in story.passes
        for key, code in zip(keys, out.vp_error_code, strict=True)
        if code == "submit_unknown"
    )


def vectors(prints: list[str]) -> np.ndarray:
    """The embeddings of local voiceprints, shape (prints, 256), float32."""
    return np.stack([np.frombuffer(decode_voiceprint(text).vector, "<f4") for text in prints])


def media_keys(world: World) -> list[str]:
    """The keys under which the clips are uploaded, in their order."""
    digests = [hashlib.sha256(Path(clip).read_bytes()).hexdigest() for clip in world.clips]
    return [f"media://voiceprint-nb/{digest}" for digest in digests]


def check_service(world: World) -> list[str]:
    """The service's own list must show the jobs that the proxy saw, all of them ended well."""
    statuses: dict[str, str] = {}
    headers, cursor = {"Authorization": f"Bearer {world.served.key}"}, ""
    with httpx.Client(base_url=world.served.base_url, headers=headers, timeout=60) as api:
        while cursor is not None:
            query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = api.get("/v2/jobs", params=query).raise_for_status().json()
            statuses |= {item["id"]: item["status"] for item in page["items"]}
            cursor = page["nextCursor"]
    wrong = []
    if statuses.keys() != world.proxy.jobs.keys():
        wrong.append(f"the service lists {len(statuses)} jobs, the proxy has seen {len(world.proxy.jobs)}")
    if set(statuses.values()) - {SUCCEEDED}:
        wrong.append(f"the service's jobs are {Counter(statuses.values())}")
    return wrong


# --- figures --------------------------------------------------------------------------------------------


def show(story: Story, keys: list[str]) -> None:
    """Print one run."""
    first, unknown = story.passes[0], reported(story, keys)
    kills = len(story.killed_at)
    print(f"{story.name}: {len(keys)} rows, {kills} kills, {story.took_s[0]:.0f} s for the first pass")
    print(f"  requests {story.requests.total()}: ", dict(story.requests.most_common()))
    print(f"  faults {story.faults.total()}:")
    for fault in dict.fromkeys(fault for fault, _ in story.faults):
        kinds = {kind: n for (named, kind), n in story.faults.items() if named == fault}
        print(f"    {sum(kinds.values()):5d} {fault:40s} {kinds}")
    print(f"  the service itself answered 429 to {story.statuses[429]} requests")
    for number, (out, took_s) in enumerate(zip(story.passes, story.took_s, strict=True), 1):
        codes = out.vp_error_code.dropna().value_counts().to_dict()
        print(f"  pass {number}, {took_s:.0f} s: {out.vp_status.value_counts().to_dict()} {codes}")
    doubtful = [key for key, code in zip(keys, first.vp_error_code, strict=True) if code == "submit_unknown"]
    untold = story.untold
    created = sum(untold[key] > 0 for key in doubtful)
    print(f"  submit_unknown in the first pass: {len(doubtful)} rows, of which {created} with a lost answer")
    print(f"  submit_unknown in all passes: {unknown.total()}; lost answers: {untold.total()}")
    print(f"  jobs by content: {dict(sorted(Counter(story.jobs.values()).items()))}")
    print(f"  wrong: {len(story.wrong)}", *story.wrong, sep="\n    ", flush=True)


def local_prints(clips: list[str]) -> list[str]:
    """What an undisturbed run gives."""
    import voiceprint_nb as vp

    out = vp.voiceprints(clips, service="local", ledger=False, progress=False)
    return out["voiceprint"].tolist()


def main() -> int:
    """Run and print; exit status 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", choices=("polling", "webhooks", "kills"))
    arguments = parser.parse_args()
    rows, kills, seed = arguments.rows, arguments.kills, arguments.seed
    plan = {"polling": {}, "webhooks": {"receiver": True}, "kills": {"kills": kills, "seed": seed}}
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), rows=rows, seed=seed) as made:
        keys, prints = media_keys(made), local_prints(made.clips)
        for name, options in plan.items():
            if arguments.only in (None, name):
                story = run(made, name, **options)
                check(story, keys, prints, kills=options.get("kills", 0))
                story.wrong += check_service(made)
                show(story, keys)
                n_wrong += len(story.wrong)
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
