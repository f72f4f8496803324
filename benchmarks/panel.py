"""What the progress panel costs a run in a notebook, and how large the saved notebook is.

::

    python -m benchmarks.panel [--rows 10000] [--rounds 5]

The rows are the good samples over and over: after the first ones nothing is computed, so the panel stands
beside as little other work as there can be. One kernel runs them again and again, in pairs: with the panel
and with ``progress=False``, which comes first changes from pair to pair, each with a fresh ledger; a first
run, not counted, loads the network and the libraries. Wall time is the cell's, as the front end sees it;
processor time is the kernel's; "drawing" is the processor time of all that the panel does, which other
programs on the machine disturb less than a difference of wall times. The size is of a notebook with one
run, saved as the front end has it, with widgets and outputs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
MOST_OVERHEAD = 0.03
MOST_BYTES = 200_000
BEGIN = """\
import time
import pandas as pd
import voiceprint_nb as vp

samples = pd.read_csv("data/samples/manifest.csv", keep_default_na=False)
samples = samples.audio[samples.note == ""].to_list()
df = pd.DataFrame({"audio": [samples[n % len(samples)] for n in range(ROWS)]})
vp.voiceprints(df.head(1), "audio", service="local", ledger=False)

from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.notebook import views
from voiceprint_nb.notebook.widgets import PanelMeter

views.is_watched = lambda: True  # as in a front end that somebody sits at

drawing_s = 0.0

def timed(work):
    def run(*arguments):
        global drawing_s
        began_s = time.thread_time()
        try:
            return work(*arguments)
        finally:
            drawing_s += time.thread_time() - began_s
    return run

Tally.snapshot, PanelMeter.show = timed(Tally.snapshot), timed(PanelMeter.show)
"""
RUN = """\
import tempfile
drawing_s, began_s = 0.0, time.process_time()
out = vp.voiceprints(df, "audio", service="local", progress=PROGRESS, data_dir=tempfile.mkdtemp(dir=PLACE))
print(time.process_time() - began_s, drawing_s)
assert out.vp_status.eq("succeeded").all()
"""


@dataclass(frozen=True)
class Measured:
    """One run: seconds, and of them the processor's, in all and for drawing."""

    wall_s: float
    cpu_s: float
    drawing_s: float


def execute(sources: list[str]) -> nbformat.NotebookNode:
    """A notebook of these cells, executed in a kernel of its own."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    return notebook


def measured(cell: nbformat.NotebookNode) -> Measured:
    """What a cell with a run has told."""
    times = cell.metadata.execution
    began, ended = (datetime.fromisoformat(times[f"iopub.status.{name}"]) for name in ("busy", "idle"))
    (said,) = [output.text for output in cell.outputs if output.get("name") == "stdout"]
    return Measured((ended - began).total_seconds(), *map(float, said.split()))


def main() -> None:
    """Measure, and print what the panel adds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    begin = BEGIN.replace("ROWS", str(arguments.rows))
    order = [(n + k) % 2 == 0 for n in range(arguments.rounds) for k in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        run = RUN.replace("PLACE", repr(folder))
        cells = execute([begin, *(run.replace("PROGRESS", str(progress)) for progress in order)]).cells[1:]
        one = execute([begin, run.replace("PROGRESS", "True"), "out.head()"])
    with_, without = (
        [measured(cell) for cell, progress in zip(cells, order, strict=True) if progress is panel]
        for panel in (True, False)
    )
    print(f"{arguments.rows} rows, median of {arguments.rounds} rounds (min to max)")
    for name, unit in (("wall_s", "wall time"), ("cpu_s", "processor time")):
        times = [[getattr(run, name) for run in runs] for runs in (without, with_)]
        more = statistics.median(a / b - 1 for b, a in zip(*times, strict=True))
        limit = f" (at most {MOST_OVERHEAD:.0%})" if name == "wall_s" else ""
        print(f"  {unit:15s} without {_told(times[0])}, with {_told(times[1])}: {more:+.1%}{limit}")
    drawing = statistics.median(run.drawing_s / run.wall_s for run in with_)
    print(f"  drawing         {drawing:.2%} of wall time")
    n_bytes = len(nbformat.writes(one).encode())
    print(f"  saved notebook  {n_bytes / 1000:.1f} kB (at most {MOST_BYTES / 1000:.0f} kB)")


def _told(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"


if __name__ == "__main__":
    main()
