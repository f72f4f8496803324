"""What a row costs as frames grow: CPU and memory of the client at 1,000 to 100,000 rows, in simulated time.

::

    python -m benchmarks.scale [--rows 1000 10000 100000] [--trace-rows 2000]

A `Batch`, put together as `notebook.services.connect` and `notebook.runs` do for the hosted service (limits
100/100/300 a minute known from the start, 256 rows in flight, the ledger on disk with a synchronisation for
each entry), works on local files: upload, submission, sweeps of the job list, reads. Each size runs in a
process of its own, after a warm-up of 300 rows that is not counted. A snapshot of the tally is taken five
times a second, as for a panel. 100,000 rows at 100 a minute are 1,000 minutes: the event loop's clock jumps
from timer to timer (`benchmarks.simulated`), and stands still while a thread looks at a file. The service is
a stand-in within the same process; the CPU that its answers take is measured and left out.

The rows are WAV files that differ from each other, of 2 s at 2 kHz, 8 kB each (100,000 take 0.8 GB of the
temporary folder): looking at longer ones takes longer, and is the same for any number of rows.

What the columns say:

- ``lost``: rows without a voiceprint; ``twice``: jobs beyond one a row; ``again``: outputs read more than
  once
- ``req/row``: requests to the API for each row, without the storage's PUT; ``429``: their share
- ``time``, ``/bound``: simulated minutes, and against ``n * 60 s / 100 + 5 s`` (an even pace of the tightest
  limit, and a last job of median length)
- ``CPU``: milliseconds of the process for each row, its threads included, without the stand-in's own;
  ``gc``: those of the garbage collector, which looks at what lives; ``stand-in``: the stand-in's own
- ``ratio``: CPU against the smallest size; ``work``: the same in units of the stand-in's own, which does the
  same for each row at any size: what other programs on the computer do to both, cancels
- ``frame``: kilobytes of the new columns for each row, by ``memory_usage(deep=True)``
- ``run``, ``peak``: growth of the resident memory for each row from the call to the end of the run, and at
  most, beyond the new columns: the outcomes hold the texts that will be in them; ``result``: the same when
  the columns have been made of these, and the outcomes are still there; ``left``: without the outcomes

Constant costs are in the figures of a small size; the last line of the table shows the growth from the
smallest size to the largest alone. Resident memory is read from ``/proc``. Then a run under tracemalloc shows
which lines hold what grows with the rows: what lives more when all rows have begun than when half of them
have, and what is there from the start, all by row. The stand-in's own is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.simulated import MEDIAN_JOB_S, START_UNIX_S, Hosted, JumpingLoop
from benchmarks.whole_path import ROOT
from voiceprint_nb import settings
from voiceprint_nb.batch.bridge import ticking
from voiceprint_nb.batch.outcomes import Request
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.batch.runner import Batch
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.batch.turns import LedgerTurns
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import RATE_WINDOW_S, WRITES_PER_WINDOW
from voiceprint_nb.notebook import frames, services
from voiceprint_nb.pacing import Pacer

WARM_UP_ROWS = 300
CLIP_S, CLIP_RATE_HZ = 2, 2000
_FILES_A_FOLDER = 1000
_PACKAGE = ROOT / "voiceprint_nb"
_TRACED_FRAMES = 8
_SHOWN_LINES = 12


# --- one run --------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """What one process tells: sizes are bytes of the new columns, and growth of the whole process."""

    n_rows: int
    lost: dict[str, int]
    simulated_s: float
    cpu_s: float
    stand_in_cpu_s: float
    gc_cpu_s: float
    wall_s: float
    counts: dict[str, int]
    n_jobs: int
    n_read_again: int
    most_kept: int
    frame_bytes: int = 0
    run_bytes: int = 0
    run_peak_bytes: int = 0
    result_bytes: int = 0
    left_bytes: int = 0

    @property
    def n_lost(self) -> int:
        """Rows without a voiceprint."""
        return sum(self.lost.values())

    @property
    def n_requests(self) -> int:
        """Requests to the API."""
        return sum(n for name, n in self.counts.items() if not name.startswith("storage"))

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the client for each row."""
        return (self.cpu_s - self.stand_in_cpu_s) / self.n_rows * 1000

    @property
    def work(self) -> float:
        """CPU of the client in units of the stand-in's, which does the same for each row of any size."""
        return (self.cpu_s - self.stand_in_cpu_s) / self.stand_in_cpu_s

    def beyond(self, n_bytes: int) -> float:
        """Kilobytes for each row beyond the new columns."""
        return (n_bytes - self.frame_bytes) / self.n_rows / 1000

    def show(self, smallest: Ran) -> None:
        """Print a line of the table, and one of what is behind it."""
        n, limited = self.n_rows, sum(k for name, k in self.counts.items() if name.endswith(" 429"))
        bound_s = n * RATE_WINDOW_S / WRITES_PER_WINDOW + MEDIAN_JOB_S
        print(
            f"{n:7d} {self.n_lost:5d} {self.n_jobs - n:5d} {self.n_read_again:5d}"
            f" {self.n_requests / n:7.3f} {limited / self.n_requests:6.2%}"
            f" {self.simulated_s / 60:7.1f} {self.simulated_s / bound_s:6.3f}"
            f" {self.cpu_ms:5.2f} {self.gc_cpu_s / n * 1000:5.2f} {self.stand_in_cpu_s / n * 1000:8.2f}"
            f" {self.cpu_ms / smallest.cpu_ms:5.2f} {self.work / smallest.work:5.2f}"
            f" {self.frame_bytes / n / 1000:6.2f} {self.beyond(self.run_bytes):6.2f}"
            f" {self.beyond(self.run_peak_bytes):6.2f} {self.beyond(self.result_bytes):6.2f}"
            f" {self.beyond(self.left_bytes):6.2f}"
        )
        counts = ", ".join(f"{name}: {k}" for name, k in sorted(self.counts.items()))
        problems = f"; rows lost by {self.lost}" if self.lost else ""
        print(f"        {counts}; stand-in kept {self.most_kept}; {self.wall_s:.0f} s{problems}", flush=True)


HEAD = (
    f"{'rows':>7s} {'lost':>5s} {'twice':>5s} {'again':>5s} {'req/row':>7s} {'429':>6s} {'time':>7s}"
    f" {'/bound':>6s} {'CPU':>5s} {'gc':>5s} {'stand-in':>8s} {'ratio':>5s} {'work':>5s}"
    f" {'frame':>6s} {'run':>6s} {'peak':>6s} {'result':>6s} {'left':>6s}"
)


class Collecting:
    """CPU seconds of Python's garbage collector, which looks at what lives; a context manager."""

    def __init__(self) -> None:
        self.cpu_s = self._began_s = 0.0

    def __enter__(self) -> Collecting:
        gc.callbacks.append(self._told)
        return self

    def __exit__(self, *exc: object) -> None:
        gc.callbacks.remove(self._told)

    def _told(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._began_s = time.thread_time()
        else:
            self.cpu_s += time.thread_time() - self._began_s


def run(
    frame: pd.DataFrame, folder: Path, *, look: Callable[[Tally], None] = lambda tally: None
) -> tuple[Batch, Ran]:
    """A batch over the frame's files, to its end; ``look`` is called five times a simulated second."""
    wanted = settings.resolve(service="pyannoteai", api_key="key-0f3a", data_dir=folder, environ={})
    with (
        asyncio.Runner(loop_factory=JumpingLoop) as runner,
        Ledger(folder, paid=True, clock=lambda: START_UNIX_S + runner.get_loop().time()) as ledger,
    ):
        clock = runner.get_loop().time
        hosted = Hosted(clock)

        def open_api() -> Api:
            return Api(
                base_url=wanted.service,
                api_key=wanted.api_key,
                transport=hosted,
                new_pacer=partial(Pacer, clock=clock),
                turns=lambda group: LedgerTurns(ledger, f"{service.identity} {group}"),
                clock=clock,
            )

        service = replace(services.connect(wanted, ledger), open_api=open_api)
        packed = frames.pack(frame, "audio")
        run_id = ledger.begin_run(n_rows=len(frame), destination="", call={}, frame=packed)
        del packed
        tally = Tally(len(frame), clock=clock)
        cells = frames.cells_of(frame, "audio")
        batch = Batch(cells, request=Request(), service=service, ledger=ledger, run_id=run_id, tally=tally)
        del cells

        def tick() -> None:
            tally.snapshot()
            look(tally)

        began_s, cpu_s = time.monotonic(), time.process_time()
        with Collecting() as collecting:
            runner.run(ticking(batch.run(), tick))
        wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - cpu_s
        ledger.end_run(run_id, tally.counts(), finished=True)
        lost = Counter(
            outcome.error_code or outcome.status
            for outcome in batch.outcomes.values()
            if outcome.voiceprint is None
        )
        ran = Ran(
            len(frame),
            dict(lost),
            clock(),
            cpu_s,
            hosted.cpu_s,
            collecting.cpu_s,
            wall_s,
            dict(hosted.counts),
            hosted.n_jobs,
            hosted.n_read_again,
            hosted.most_kept,
        )
        return batch, ran


def measured(files: Path, n_rows: int) -> Ran:
    """One size: what its rows cost."""
    _warm_up(files)
    frame = pd.DataFrame({"audio": _names(files, n_rows)})
    gc.collect()
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    with tempfile.TemporaryDirectory() as folder:
        batch, ran = run(frame, Path(folder))
    gc.collect()
    ran.run_bytes = _resident_bytes("VmRSS") - before
    ran.run_peak_bytes = _resident_bytes("VmHWM") - before
    result = frames.with_outcomes(frame, batch.outcomes, frames.result_names("vp_"))
    gc.collect()
    ran.result_bytes = _resident_bytes("VmRSS") - before
    del batch
    gc.collect()
    ran.left_bytes = _resident_bytes("VmRSS") - before
    ran.frame_bytes = int(result.drop(columns="audio").memory_usage(index=False, deep=True).sum())
    n_distinct = result["voiceprint"].nunique()
    ran.lost |= {"same print": n_rows - n_distinct} if n_distinct < n_rows - ran.n_lost else {}
    return ran


def _warm_up(files: Path) -> None:
    frame = pd.DataFrame({"audio": _names(files, WARM_UP_ROWS)})
    with tempfile.TemporaryDirectory() as folder:
        batch, _ = run(frame, Path(folder))
    frames.with_outcomes(frame, batch.outcomes, frames.result_names("vp_")).memory_usage(deep=True)
    del batch
    gc.collect()


def _resident_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


# --- who holds what -------------------------------------------------------------------------------------


def traced(files: Path, n_rows: int) -> list[tuple[float, float, str]]:
    """Bytes and blocks a row, by the lines that allocated them, largest first."""
    _warm_up(files)
    frame = pd.DataFrame({"audio": _names(files, n_rows)})
    taken: list[tuple[int, dict[str, tuple[int, int]]]] = []

    def look(tally: Tally) -> None:
        counts = tally.counts()
        begun = n_rows - counts.get("queued", 0)
        if len(taken) < 3 and begun >= (0, n_rows // 2, n_rows)[len(taken)]:
            gc.collect()
            taken.append((counts.get("succeeded", 0), _by_place(tracemalloc.take_snapshot())))

    tracemalloc.start(_TRACED_FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        run(frame, Path(folder), look=look)
    tracemalloc.stop()
    (_, first), (n_half, half), (n_all, last) = taken
    lines = [
        (n_bytes / n_rows, n / n_rows, f"{line}, from the start") for line, (n_bytes, n) in first.items()
    ]
    for line, (n_bytes, n) in last.items():
        n_bytes_half, n_blocks_half = half.get(line, (0, 0))
        n_grown = n_all - n_half
        lines.append(((n_bytes - n_bytes_half) / n_grown, (n - n_blocks_half) / n_grown, line))
    return sorted(lines, reverse=True)[:_SHOWN_LINES]


def _by_place(snapshot: tracemalloc.Snapshot) -> dict[str, tuple[int, int]]:
    """Bytes and blocks by the project's innermost line, and the innermost of all, if that is another."""
    held: dict[str, tuple[int, int]] = {}
    for statistic in snapshot.statistics("traceback"):
        calls = [(Path(call.filename), call.lineno) for call in statistic.traceback]
        own = [call for call in calls if call[0].parent == ROOT / "benchmarks" or _PACKAGE in call[0].parents]
        if own and own[-1][0].parent == ROOT / "benchmarks":
            continue  # the stand-in's, and what is measured here
        place, (inner, number) = "", calls[-1]
        if own and own[-1] != calls[-1]:
            place = f"{own[-1][0].relative_to(ROOT)}:{own[-1][1]}, in "
        place += f"{inner.relative_to(ROOT) if inner.is_relative_to(ROOT) else inner.name}:{number}"
        n_bytes, n_blocks = held.get(place, (0, 0))
        held[place] = n_bytes + statistic.size, n_blocks + statistic.count
    return held


# --- all runs -------------------------------------------------------------------------------------------


def _names(folder: Path, n_rows: int) -> list[str]:
    return [f"{folder}/{number // _FILES_A_FOLDER:03d}/{number:06d}.wav" for number in range(n_rows)]


def make_files(folder: Path, n_rows: int) -> None:
    """Write WAV files of noise that differ in their first samples."""
    n_bytes = CLIP_S * CLIP_RATE_HZ * 2
    noise = np.random.default_rng(7).integers(-8000, 8000, n_bytes // 2, np.int16).tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, CLIP_RATE_HZ, CLIP_RATE_HZ * 2, 2, 16)
    head = (
        struct.pack("<4sI4s", b"RIFF", n_bytes + 36, b"WAVE") + form + struct.pack("<4sI", b"data", n_bytes)
    )
    for number, name in enumerate(_names(folder, n_rows)):
        path = Path(name)
        if number % _FILES_A_FOLDER == 0:
            path.parent.mkdir()
        path.write_bytes(head + struct.pack("<I", number) + noise[4:])


def _in_process(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.scale", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True).stdout


def main() -> int:
    """Measure and print; exit status 1 if rows were lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--trace-rows", type=int, default=2000, help="0: no run under tracemalloc")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--trace", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(asdict(measured(Path(arguments.measure[0]), int(arguments.measure[1])))))
        return 0
    if arguments.trace:
        print(json.dumps(traced(Path(arguments.trace[0]), int(arguments.trace[1]))))
        return 0
    sizes = sorted(arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.monotonic()
        make_files(Path(folder), max(*sizes, arguments.trace_rows, WARM_UP_ROWS))
        print(f"{time.monotonic() - began_s:.0f} s for the files; CPU in ms a row, memory in kB a row")
        print(HEAD, flush=True)
        every: list[Ran] = []
        for n_rows in sizes:
            every.append(Ran(**json.loads(_in_process("--measure", folder, str(n_rows)))))
            every[-1].show(every[0])
        show_growth(every[0], every[-1])
        if arguments.trace_rows:
            lines = json.loads(_in_process("--trace", folder, str(arguments.trace_rows)))
            print(f"what grows with the rows, of {arguments.trace_rows}: bytes a row, blocks a row, line")
            for n_bytes, n_blocks, line in lines:
                print(f"{n_bytes:7.0f} {n_blocks:6.2f}  {line}")
    return int(any(ran.n_lost for ran in every))


def show_growth(smallest: Ran, largest: Ran) -> None:
    """Print what the rows between two sizes cost."""
    n_rows = largest.n_rows - smallest.n_rows
    if not n_rows:
        return

    def growth(name: str) -> float:
        sizes = (getattr(ran, name) - ran.frame_bytes for ran in (largest, smallest))
        return float(next(sizes) - next(sizes)) / n_rows / 1000

    print(f"from {smallest.n_rows} to {largest.n_rows} rows: CPU x {largest.cpu_ms / smallest.cpu_ms:.2f};")
    print(
        f"    beyond the new columns {growth('run_bytes'):.2f} kB a row at the end of the run, "
        f"{growth('run_peak_bytes'):.2f} at its peak, {growth('result_bytes'):.2f} with the result built, "
        f"{growth('left_bytes'):.2f} left"
    )


if __name__ == "__main__":
    sys.exit(main())
