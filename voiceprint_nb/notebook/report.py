"""A report of a run for people who were not there: one file, no voiceprints in it."""

from __future__ import annotations

import io
import os
import platform
import re
from collections.abc import Hashable
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.library import Library
from voiceprint_nb.analysis.names import quoted
from voiceprint_nb.analysis.prints import labels_of, prints_of
from voiceprint_nb.errors import ROW_CODES, MissingExtra, UsageError
from voiceprint_nb.notebook import plots
from voiceprint_nb.notebook.frames import is_dask
from voiceprint_nb.notebook.report_answers import clusters, matches, pairs, people, shares
from voiceprint_nb.notebook.report_facts import (
    Facts,
    error_rate,
    facts_of,
    prefix_of,
    seconds_of,
    told,
    where,
)
from voiceprint_nb.notebook.report_methods import LIMITS, measured, methods
from voiceprint_nb.notebook.report_page import FORMATS, Block, Figure, Heading, Paragraph, Table
from voiceprint_nb.notebook.report_rows import rows
from voiceprint_nb.notebook.shown import shown
from voiceprint_nb.scratch import write_private

_LABEL = "label of the report"
_MOST_BYTES = 4_800_000  # so that mail takes it
_LEAST_ROWS_BYTES = 500_000
_MOST_WORST = 5
_MOST_DRAWN = 400  # prints in a picture of all pairs
_MOST_NARROW = 12  # rows of a heat map that have room in a narrow picture
_PACKAGES = ("voiceprint_nb", "numpy", "pandas", "onnxruntime", "soundfile", "scikit-learn")
_LIKE_FILE = re.compile(
    r"[/\\]|\.(aac|aif{1,2}|amr|flac|m4a|mp[234]|oga|ogg|opus|wav|webm|wma)$", re.IGNORECASE
)


def report(
    data: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    library: Library | None = None,
    label: Hashable | None = None,
    title: str = "Voiceprints: report of a run",
    redact: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a report of a result: what was run and where, what failed and why, figures, pictures, methods.

    One self-contained file: HTML that opens offline and prints well, or Markdown for Quarto, small enough to
    send (5 MB, whatever the number of rows). Voiceprints are never in it, but names are, so only you can read
    the file (0600, as the ledger) until you share it.

    Parameters
    ----------
    data : DataFrame
        A result of `voiceprints`, or of `match` or `cluster` after it.
    path : path-like
        ``.html`` or ``.md``.
    calibration : Calibration, optional
        Its figures and pictures are put in.
    library : Library, optional
        The people that the rows were matched with, by name and number of prints.
    label : hashable, optional
        Column that names speakers, for the pictures.
    title : str
        Of the report.
    redact : bool
        Whether file names and sentences that may repeat them are left out; names of speakers stay.
    data_dir : path, optional
        Folder of the ledger, which knows how long jobs took; by default the user's data folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        No result, another ending, a file that cannot be written, or ``redact`` with a ``label`` that holds
        names of files.
    MissingExtra
        matplotlib or scikit-learn is not installed.
    """
    target = Path(path).expanduser()
    form = FORMATS.get(target.suffix.lower())
    if form is None:
        raise UsageError(f"{target.name!r} has no known ending: use .html or .md.")
    if not isinstance(data, pd.DataFrame):
        kind = "Dask DataFrame: compute() it first" if is_dask(data) else type(data).__name__
        raise UsageError(f"A report is of the frame that voiceprints() gave, not of a {kind}.")
    facts, prefix = facts_of(data), prefix_of(data)
    before: list[Block] = [
        Heading(title, 1),
        Paragraph(_first_words(data, facts)),
        *_counts(data, prefix, redact=redact),
        *_timeline(facts, data_dir),
        *_durations(data, prefix),
        *_quality(data, prefix),
        *_calibration(calibration),
        *matches(data),
        *people(library),
        *clusters(data),
        *_pictures(data, label, redact=redact),
    ]
    after = [Heading("Methods"), Paragraph(methods(data, facts, prefix, calibration)), *_appendix(facts)]
    most_bytes = max(_LEAST_ROWS_BYTES, _MOST_BYTES - len(form.write(title, before + after).encode()))
    told_rows = rows(data, prefix, redact=redact, most_bytes=most_bytes, written=form.row)
    text = form.write(title, [*before, *told_rows, *after])
    try:
        write_private(target, text.encode())
    except OSError as error:
        raise UsageError(f"The report cannot be written to {str(target)!r} ({error.strerror}).") from error
    return target


# --- parts ----------------------------------------------------------------------------------------------


def _first_words(data: pd.DataFrame, facts: Facts) -> str:
    ended = f", ended at {facts['ended_at']}" if facts.get("ended_at") else ""
    return f"{len(data)} rows, worked on {where(facts)}{ended}. No voiceprint is in this report."


def _counts(data: pd.DataFrame, prefix: str, *, redact: bool) -> list[Block]:
    states = told(data, f"{prefix}status").value_counts()
    blocks: list[Block] = [Heading("Outcome"), shares("Rows by state", "state", states)]
    codes, sentences = told(data, f"{prefix}error_code"), told(data, f"{prefix}error")
    if codes.notna().any():
        names = ["code", "rows", "meaning", "one of the sentences"]
        lines = []
        firsts = sentences.groupby(codes.to_numpy()).first()
        for code, count in codes.value_counts().items():
            meaning = ROW_CODES.get(str(code), ("", ""))[1]
            lines.append([shown(code), str(count), meaning, shown(firsts[str(code)])])
        n_columns = 3 if redact else 4
        blocks.append(Table("Reasons", names[:n_columns], [line[:n_columns] for line in lines]))
    if n_warned := int(told(data, f"{prefix}warning").notna().sum()):
        blocks.append(Paragraph(f"{n_warned} rows have a warning about their quality: see the rows below."))
    return blocks


def _timeline(facts: Facts, data_dir: str | os.PathLike[str] | None) -> list[Block]:
    if not (run_id := facts.get("run_id")):
        return []
    record, times = plots.job_times(run_id, data_dir)
    if record is None or times.empty:
        return []
    ax = plots.draw(record, times, _axes((8, 4.5)))
    said = ax.get_title().replace("\n", "; ")
    return [
        Heading("Course of the run"),
        Figure(_png(ax), "Jobs from their submission to their end", f"A bar for each job: {said}."),
    ]


def _durations(data: pd.DataFrame, prefix: str) -> list[Block]:
    seconds = seconds_of(data, prefix).dropna()
    if seconds.empty:
        return []
    figures = seconds.quantile([0, 0.25, 0.5, 0.75, 1])
    names = ["shortest", "quarter", "median", "three quarters", "longest", "in all"]
    ax = _axes((7, 3))
    ax.hist(seconds, bins=40, color="#0072B2", edgecolor="white", linewidth=0.5)
    ax.set(xlabel="seconds of audio used", ylabel="rows")
    alt = f"Histogram of {len(seconds)} durations from {seconds.min():.2f} to {seconds.max():.2f} seconds."
    return [
        Heading("Durations"),
        Table("Seconds of audio", names, [[*(f"{value:.2f}" for value in figures), f"{seconds.sum():.0f}"]]),
        Figure(_png(ax), "Durations of the clips", alt),
    ]


def _quality(data: pd.DataFrame, prefix: str) -> list[Block]:
    lines = []
    for measure, what, limit, bad in LIMITS:
        if f"{prefix}{measure}" not in data.columns:
            continue
        found = measured(data, prefix, measure).set_axis(range(1, len(data) + 1))
        found = found.dropna().sort_values(ascending=bad == "below")
        beyond = found[found < limit] if bad == "below" else found[found > limit]
        worst = ", ".join(f"{row} ({value:.3g})" for row, value in beyond.head(_MOST_WORST).items())
        middle = f"{found.median():.3g}" if len(found) else ""
        lines.append([what, middle, f"{bad} {limit:g}", str(len(beyond)), worst])
    if not lines:
        return []
    names = ["measure", "median", "warned of", "rows", "worst rows, by number"]
    return [Heading("Quality of the clips"), Table("Measures", names, lines)]


def _calibration(calibration: Calibration | None) -> list[Block]:
    if calibration is None:
        return []
    lines = [line.partition(": ") for line in str(calibration).splitlines()]
    rate = error_rate(calibration)
    return [
        Heading("Calibration"),
        Table("What scores mean", ["figure", "value"], [[name, text] for name, _, text in lines]),
        Figure(
            _png(plots.score_histogram(calibration, _axes((7, 4)))),
            "Scores of true and of false claims; the threshold for 1% false accepts with its interval",
            f"Histograms of {calibration.n_genuine} true and {calibration.n_impostor} false claims; {rate}.",
        ),
        Figure(
            _png(plots.det_curve(calibration, _axes((5, 5)))),
            "Detection error trade-off",
            f"False rejects against false accepts over all thresholds; {rate}.",
        ),
    ]


def _pictures(data: pd.DataFrame, label: Hashable | None, *, redact: bool) -> list[Block]:
    try:
        prints = prints_of(data)
    except UsageError as error:  # none, or hosted ones, which are opaque
        return [Heading("Pictures"), Paragraph(f"None: {error}")]
    from voiceprint_nb.notebook.comparing import compare

    drawn = data.iloc[prints.positions[:_MOST_DRAWN]]
    some = f"{len(drawn)} of {len(prints.positions)} voiceprints"
    names = pd.Series(prints.positions[:_MOST_DRAWN] + 1).astype(str)  # as the rows are numbered below
    if label is not None:
        names = pd.Series(labels_of(data, label, prints)[:_MOST_DRAWN]).map(shown)
        if redact and any(map(_LIKE_FILE.search, names)):
            raise UsageError(
                f"The pictures would show names of files: with redact=True, {quoted(label)} is no label."
            )
        drawn = drawn.assign(**{_LABEL: names.to_numpy()})
    cosines = compare(drawn).set_axis(names, axis=0).set_axis(names, axis=1)
    width = 8 if len(cosines) <= _MOST_NARROW else 12  # names in rows need room
    matrix = plots.similarity_matrix(cosines, _axes((width, 0.88 * width)), ordered=True)
    plane = plots.voice_map(drawn, None if label is None else _LABEL, _axes((8, 6)))
    return [
        Heading("Pictures"),
        Figure(
            _png(matrix),
            f"Cosine similarity of {some}, alike ones side by side",
            f"Heat map of the similarity of {some}: groups of alike ones are squares on the diagonal.",
        ),
        Figure(_png(plane), f"{some} on a plane", f"Scatter plot of {some}; near each other means alike."),
    ]


def _appendix(facts: Facts) -> list[Block]:
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return [
        Heading("Appendix"),
        Table("Settings of the run", ["setting", "value"], pairs(facts)),
        Table("Versions", ["package", "version"], pairs(versions)),
    ]


# --- cells and pictures ---------------------------------------------------------------------------------


def _axes(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Drawing
    except ImportError as error:
        raise MissingExtra("Reports need matplotlib: pip install 'voiceprint_nb[analysis]'.") from error
    drawing = Drawing(figsize=size, layout="constrained")  # not pyplot's: nothing is shown or left open
    FigureCanvasAgg(drawing)
    return drawing.subplots()


def _png(ax: Any) -> bytes:
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
