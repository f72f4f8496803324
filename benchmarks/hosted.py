"""Many rows at the hosted service's limits, beside the vendor's SDK: losses, requests, delays, time, CPU.

::

    python -m benchmarks.hosted [--rows 1000] [--factor 10] [--only TITLE ...]

The counterpart (`benchmarks.counterpart`) is the real service on a socket in a process of its own: 100 media
calls, 100 submissions, 300 reads and 300 list calls a minute, jobs of 5 s in the median, any number at once.
Time runs ``--factor`` times faster, there and in the pauses of both clients; all times in the table but that
of CPU are those of the service's clock. What the computer itself takes is not scaled, and so weighs
``--factor`` times as much as against the hosted service; how busy each process was is shown. Clips differ
from each other.

"ours" is a `Batch` as ``voiceprints`` runs it against the hosted service, its ledger on disk. The SDK runs in
threads, each row in one ``try`` as its users write it: upload, voiceprint, retrieve with its own pause of
10 s. A request that is answered with 429 raises, and the row is lost.

The hosted service is reached over TLS, and there the SDK opens a connection, and reads all certificates, for
each request: at ten times the speed this would keep the computer busy. So the long runs are over plain HTTP,
to the SDK's good; what a row costs in CPU is measured over TLS with a tenth of the rows, at a fifth of the
factor.

**The bound** of n rows is ``n * 60 s / 100 + 5 s``: at an even pace, the tightest limit (100 a minute for
uploads, the same for submissions) has had a turn for each row after ``n * 60 s / 100``, and the last job
takes the median time. Where all endpoints share one window of 100 a minute, each row needs three turns
(upload link, submission, one read): ``n * 3 * 60 s / 100 + 5 s``. It is the bound of an even pace, not of the
windows: who spends each window at its beginning may be up to a minute earlier.

What the columns say:

- ``lost``: rows without a voiceprint; ``unread``: jobs that were done, and are paid for, whose print no row
  got; ``twice``: jobs beyond one a row
- ``req/row``: requests to the API, those with 429 included, for each print that was received; the PUT to the
  storage does not count, as it has no limit
- ``429``: their share of all requests
- ``time``, ``/bound``: from the first row's start to the last row's end, in minutes, and against the bound;
  below it, between the first job's creation and the last one's, against an even pace
- ``delay``: from a job's end at the service to the print in the row's hands: median, 95th percentile, longest
- ``CPU/row``: milliseconds of the client's process for each print that was received, imports left out
- ``busy``: share of one core that client, service and file server used
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import certifi
import numpy as np

from benchmarks.counterpart import MEDIAN_JOB_S
from benchmarks.hosted_clients import Order, Ran
from benchmarks.whole_path import ROOT
from tests.service import parts
from voiceprint_nb import audio
from voiceprint_nb.contract import RATE_WINDOW_S, WRITES_PER_WINDOW

CLIP_S = 4
MOST_LIMITED, MOST_TIME, MOST_CPU = 0.01, 1.08, 0.3
LONG_ROWS = 500  # the last job's end, or a round of asking, is little beside so many
DEADLINE_S = 1800.0


@dataclass(frozen=True)
class Scenario:
    """Who gets the voiceprints of which rows, and how.

    Attributes
    ----------
    name : str
        What is done.
    threads : int
        Of the SDK; 0 for the project's own client.
    links, webhooks, one_window, tls : bool
        Rows are links, the service tells of jobs' ends, all endpoints share a window, requests are encrypted.
    fewer, slower : int
        By what the number of rows and the speed of time are divided.
    most_requests : float
        A row, if the run is long.
    """

    name: str
    threads: int = 0
    links: bool = False
    webhooks: bool = False
    one_window: bool = False
    tls: bool = False
    fewer: int = 1
    slower: int = 1
    most_requests: float = np.inf

    @property
    def title(self) -> str:
        """Its first column."""
        return f"{self.name}: {f'SDK, {self.threads} threads' if self.threads else 'ours'}"

    def bound_s(self, n_rows: int) -> float:
        """As the module says."""
        turns = 3 if self.one_window else 1
        return n_rows * turns * RATE_WINDOW_S / WRITES_PER_WINDOW + MEDIAN_JOB_S


SCENARIOS = [
    Scenario("files", most_requests=3.1),
    Scenario("files", threads=16),
    Scenario("files", threads=64),
    Scenario("links", links=True, most_requests=2.1),
    Scenario("links, webhooks", links=True, webhooks=True, most_requests=1.05),
    Scenario("files, webhooks", webhooks=True, most_requests=2.05),
    Scenario("one window", one_window=True, fewer=5),
    Scenario("one window", threads=16, one_window=True, fewer=5),
    Scenario("files, TLS", tls=True, fewer=10, slower=5),
    Scenario("files, TLS", threads=16, tls=True, fewer=10, slower=5),
    Scenario("files, TLS", threads=64, tls=True, fewer=10, slower=5),
]


@dataclass
class Figures:
    """What one run came to; times are those of the service's clock."""

    scenario: Scenario
    n_rows: int
    factor: float
    ran: Ran
    told: dict[str, Any]  # by the counterpart
    files_cpu_s: float

    def __post_init__(self) -> None:
        counts = {name: n for name, n in self.told["counts"].items() if not name.startswith("storage")}
        self.n_requests = sum(counts.values())
        self.limited = sum(n for name, n in counts.items() if name.endswith(" 429")) / self.n_requests
        received, jobs = self.ran.received, self.told["jobs"]
        done = {job_id: ended_at for job_id, (_, ended_at) in jobs.items() if ended_at is not None}
        self.n_lost = self.n_rows - len(received)
        self.n_unread = len(done.keys() - received.keys())
        self.n_twice = max(0, len(jobs) - self.n_rows)
        self.delays_s = [(at - done[job_id]) * self.factor for job_id, at in received.items()]
        created_at = [at for at, _ in jobs.values()]
        paced_s = self.scenario.bound_s(len(jobs) - 1) - MEDIAN_JOB_S
        self.of_pace = (max(created_at) - min(created_at)) * self.factor / max(1.0, paced_s)
        self.elapsed_s = self.ran.elapsed_s * self.factor
        self.of_bound = self.elapsed_s / self.scenario.bound_s(self.n_rows)
        self.requests_a_row = self.n_requests / max(1, len(received))
        self.cpu_ms_a_row = self.ran.cpu_s / max(1, len(received)) * 1000

    def show(self) -> None:
        """Print a line of the table, and one of what is behind it."""
        delays_s = np.percentile(self.delays_s, [50, 95, 100]) if self.delays_s else [np.nan] * 3
        used_s = [self.ran.cpu_s, self.told["cpu_s"], self.files_cpu_s]
        busy = " ".join(f"{each_s / self.ran.elapsed_s:4.0%}" for each_s in used_s)
        rows = [self.n_rows, self.n_lost, self.n_unread, self.n_twice]
        print(
            f"{self.scenario.title:28s}",
            *(f"{n:6d}" for n in rows),
            f"{self.requests_a_row:7.2f} {self.limited:6.1%}",
            f"{self.elapsed_s / 60:5.1f} {self.of_bound:6.3f} ",
            *(f"{delay_s:5.1f}" for delay_s in delays_s),
            f"{self.cpu_ms_a_row:7.1f}  {busy}",
        )
        counts = ", ".join(f"{name}: {n}" for name, n in sorted(self.told["counts"].items()))
        problems = f"; lost by {self.ran.problems}" if self.ran.problems else ""
        print(f"    jobs created in {self.of_pace:.3f} of an even pace; {counts}{problems}", flush=True)

    def losses(self) -> list[tuple[str, float, float]]:
        """What must never be, as name, figure and the most that is allowed; nothing is asked of the SDK."""
        if self.scenario.threads:
            return []
        return [("rows lost", self.n_lost, 0), ("unread", self.n_unread, 0), ("twice", self.n_twice, 0)]

    def missed(self) -> Iterator[str]:
        """What is not as it must be."""
        wanted = self.losses()
        if not self.scenario.threads:
            wanted.append(("share of 429", self.limited, MOST_LIMITED))
        if not self.scenario.threads and self.n_rows >= LONG_ROWS:
            wanted.append(("time / bound", self.of_bound, MOST_TIME))
            wanted.append(("requests a row", self.requests_a_row, self.scenario.most_requests))
        for name, figure, most in wanted:
            if figure > most:
                yield f"{self.scenario.title}: {name} {figure:.3g}, at most {most:.3g}"


HEAD = f"{'':28s}   rows   lost unread  twice req/row    429  time /bound   delay  95 %  most CPU/row  busy"


@contextmanager
def served(*arguments: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A server's address, and what it tells when the block has ended."""
    told: dict[str, Any] = {}
    command = [sys.executable, "-m", "benchmarks.counterpart", *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield json.loads(line)["base_url"], told
            told.update(json.loads(process.communicate()[0]))
        except BaseException:
            process.kill()
            raise


def measured(scenario: Scenario, clips: list[Path], factor: float) -> Figures:
    """One run, on a service and a folder of its own."""
    clips, factor = clips[: max(1, len(clips) // scenario.fewer)], factor / scenario.slower
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, files, cells = Path(name), {"cpu_s": 0.0}, [str(clip) for clip in clips]
        if scenario.links:
            files_url, files = stack.enter_context(served("files", str(clips[0].parent)))
            cells = [f"{files_url}/{clip.name}" for clip in clips]
        options, environment = ["--factor", str(factor)], dict(os.environ)
        if scenario.one_window:
            options.append("--one-window")
        if scenario.tls:
            pair = parts.self_signed(folder, "IP:127.0.0.1")
            options += ["--tls", *map(str, pair)]
            bundle = folder / "bundle.pem"
            bundle.write_text(Path(certifi.where()).read_text() + pair[0].read_text())
            environment |= {"SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle)}
        base_url, told = stack.enter_context(served("service", f"{folder}/service", *options))
        order = Order(base_url, cells, factor, f"{folder}/ledger", scenario.threads, scenario.webhooks)
        ran = ran_by_client(order, environment)
        stack.close()  # now both have told
    return Figures(scenario, len(clips), factor, ran, told, files["cpu_s"])


def ran_by_client(order: Order, environment: dict[str, str]) -> Ran:
    """What a client did, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.hosted_clients"],
        input=json.dumps(asdict(order)),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=DEADLINE_S,
        check=True,
    )
    return Ran(**json.loads(answer.stdout))


def make_clips(folder: Path, n_rows: int) -> list[Path]:
    """Short WAV files of real speech, each with a faint noise of its own, so that all contents differ."""
    random = np.random.default_rng(3)
    samples = sorted((ROOT / "data" / "samples").glob("*-1.wav"))
    speech = [audio.read_mono(path)[: CLIP_S * audio.WORK_RATE_HZ] for path in samples]
    clips = [folder / f"{number:06d}.wav" for number in range(n_rows)]
    for number, clip in enumerate(clips):
        values = (speech[number % len(speech)] * 32_000).astype(np.int16)
        with wave.open(str(clip), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(audio.WORK_RATE_HZ)
            file.writeframes((values + random.integers(-3, 4, len(values), np.int16)).tobytes())
    return clips


def compare(figures: list[Figures]) -> Iterator[str]:
    """Print our CPU beside the SDK's over TLS; what is not as it must be."""
    of_tls = [each for each in figures if each.scenario.tls]
    for ours in [each for each in of_tls if not each.scenario.threads]:
        for theirs in [each for each in of_tls if each.scenario.threads]:
            ratio = ours.cpu_ms_a_row / theirs.cpu_ms_a_row
            print(f"CPU a row, ours / {theirs.scenario.title}: {ratio:.2f}")
            if ratio > MOST_CPU:
                yield f"CPU a row, against {theirs.scenario.title}: {ratio:.2f}, at most {MOST_CPU}"


def main() -> int:
    """Measure and print; exit status 1 if a row was lost, or bought twice."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--factor", type=float, default=10.0, help="how much faster time runs")
    parser.add_argument("--only", nargs="+", metavar="TITLE", help="runs whose titles begin so")
    arguments = parser.parse_args()
    begins = tuple(arguments.only or [""])
    print(f"time x {arguments.factor:g}; seconds and minutes are those of the service's clock")
    print(HEAD)
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(Path(folder), arguments.rows)
        for scenario in SCENARIOS:
            if scenario.title.startswith(begins):
                figures.append(measured(scenario, clips, arguments.factor))
                figures[-1].show()
    missed = [*compare(figures), *(line for each in figures for line in each.missed())]
    print(*(["not as it must be:", *missed] if missed else ["all is as it must be"]), sep="\n  ")
    return int(any(figure > most for each in figures for _, figure, most in each.losses()))


if __name__ == "__main__":
    sys.exit(main())
