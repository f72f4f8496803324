"""Pictures of voiceprints and of runs: take Axes, return Axes. Needs the extra ``analysis``."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import pandas as pd

from voiceprint_nb.analysis import plots
from voiceprint_nb.analysis.plots import det_curve, score_histogram, similarity_matrix, voice_map
from voiceprint_nb.batch.store import FILE_NAME, Ledger, RunRecord
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.runs import Run
from voiceprint_nb.settings import resolve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["det_curve", "score_histogram", "similarity_matrix", "timeline", "voice_map"]


def timeline(
    run: pd.DataFrame | Run | str,
    ax: Axes | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> Axes:
    """How a run went: a bar for each job from its submission to its end, and how many had ended when.

    Rows that were reused, invalid or failed are not drawn: the ledger has no job of theirs.

    Parameters
    ----------
    run : DataFrame, Run or str
        A result of `voiceprints`, a run of `submit`, or a run's id as `runs` lists it.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure.
    data_dir : path, optional
        Folder of the ledger; by default the user's data folder.

    Returns
    -------
    Axes

    Raises
    ------
    UsageError
        The frame does not tell its run, the ledger does not know it, or no row of it had a job.
    MissingExtra
        matplotlib is not installed.
    """
    run_id = run_id_of(run) if isinstance(run, pd.DataFrame) else run.run_id if isinstance(run, Run) else run
    if run_id is None:
        raise UsageError("The frame does not tell its run: pass a run's id, as runs() lists it.")
    record, times = job_times(run_id, data_dir)
    if record is None:
        raise UsageError(f"The ledger knows no run {run_id!r}: runs() lists what it has.")
    if times.empty:
        raise UsageError(f"No row of run {run_id!r} had a job of its own: there are no times to draw.")
    return draw(record, times, ax)


def draw(record: RunRecord, times: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The timeline of a run, with its counts in the title."""
    ax = plots.timeline(times, ax)
    counts = ", ".join(f"{n} {state}" for state, n in record.counts.items())
    ax.set_title(f"{record.n_rows} rows ({counts})\n{ax.get_title()}" if counts else ax.get_title())
    return ax


def run_id_of(frame: pd.DataFrame) -> str | None:
    """The run that a frame is the result of, if it tells."""
    facts = frame.attrs.get("voiceprint_nb")
    return facts.get("run_id") if isinstance(facts, dict) else None


def job_times(
    run_id: str, data_dir: str | os.PathLike[str] | None = None
) -> tuple[RunRecord | None, pd.DataFrame]:
    """A run as the ledger keeps it, None if it does not, and the times of its jobs.

    Returns
    -------
    RunRecord or None
    DataFrame of shape (jobs, 3), float64
        As `voiceprint_nb.analysis.plots.timeline` takes it. Jobs that ended before the run began are left
        out, and those that another run submitted after it had finished.
    """
    folder = resolve(service="local", data_dir=data_dir).data_dir
    record, times = None, []
    if (folder / FILE_NAME).exists():  # looking makes no ledger
        with Ledger(folder) as ledger:
            record = next((one for one in ledger.runs() if one.run_id == run_id), None)
            times = ledger.times_of_run(run_id)
    frame = pd.DataFrame(times, columns=["submitted_s", "accepted_s", "ended_s"], dtype="float64")
    if record is None:
        return None, frame
    is_earlier = frame["ended_s"] < record.started_at
    is_later = frame["submitted_s"] > (record.finished_at or math.inf)
    own = frame[~(is_earlier | is_later)] - record.started_at
    return record, own.clip(lower=0).reset_index(drop=True)
