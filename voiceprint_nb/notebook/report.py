"""A report of a run for people who were not there: one file, no voiceprints in it."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from voiceprint_nb.analysis.calibration import Calibration
from voiceprint_nb.analysis.library import Library
from voiceprint_nb.analysis.prints import labels_of, prints_of, voiceprint_column
from voiceprint_nb.errors import ROW_CODES, MissingExtra, UsageError
from voiceprint_nb.intake import quality
from voiceprint_nb.notebook import plots
from voiceprint_nb.notebook.frames import DEFAULT_PREFIX
from voiceprint_nb.notebook.report_page import Block, Figure, Heading, Paragraph, Table, as_html, as_markdown
from voiceprint_nb.notebook.shown import shown
from voiceprint_nb.scratch import write_private

Facts = Mapping[str, Any]

_LABEL = "label of the report"
_PAGE_ROWS = 500
_SAFE = (
    "status",
    "error_code",
    "duration_s",
    "source",
    *quality.MEASURES,
)  # what repeats nothing of a row's own words
_OF_MATCH = ("decision", "score", "margin", "probability")
_OF_CLUSTER = ("cluster", "silhouette", "representative")
_QUALITY = (  # measure, what it is called, from where on it is warned of, and whether low or high is bad
    ("speech_s", "speech (s)", quality.LEAST_SPEECH_S, "below"),
    ("level_dbfs", "level of speech (dBFS)", quality.LEAST_LEVEL_DBFS, "below"),
    ("clipped", "clipped samples (share)", quality.MOST_CLIPPED, "above"),
    ("snr_db", "speech over noise (dB)", quality.LEAST_SNR_DB, "below"),
    ("voice_spread", "spread of the voice (cosine distance)", quality.MOST_VOICE_SPREAD, "above"),
)
_MOST_WORST = 5
_MOST_DRAWN = 400  # prints in a picture of all pairs
_MOST_CHARACTERS = 80
_MOST_NARROW = 12  # rows of a heat map that have room in a narrow picture
_PACKAGES = ("voiceprint_nb", "numpy", "pandas", "onnxruntime", "soundfile", "scikit-learn")


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

    One self-contained file: HTML that opens offline and prints well, or Markdown for Quarto. Voiceprints are
    never in it, but names are, so only you can read the file (0600, as the ledger) until you share it.

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
        Whether file names and sentences that may repeat them are left out.
    data_dir : path, optional
        Folder of the ledger, which knows how long jobs took; by default the user's data folder.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        No result, another ending, or a file that cannot be written.
    MissingExtra
        matplotlib or scikit-learn is not installed.
    """
    target = Path(path).expanduser()
    render: dict[str, Callable[[str, Sequence[Block]], str]] = {".html": as_html, ".md": as_markdown}
    if target.suffix.lower() not in render:
        raise UsageError(f"{target.name!r} has no known ending: use .html or .md.")
    facts = data.attrs.get("voiceprint_nb") or {}
    prefix = _prefix(data, facts)
    seconds = pd.to_numeric(data[f"{prefix}duration_s"], errors="coerce")  # text, where a CSV file was read
    data = data.assign(**{f"{prefix}duration_s": seconds.astype("float64")})
    parts: list[list[Block]] = [
        [Heading(title, 1), Paragraph(_first_words(data, facts))],
        _counts(data, prefix, redact=redact),
        _timeline(facts, data_dir),
        _durations(data, prefix),
        _quality(data, prefix),
        _calibration(calibration),
        _matches(data, library),
        _pictures(data, label),
        _rows(data, prefix, redact=redact),
        _methods(data, facts, prefix, calibration),
        _appendix(facts),
    ]
    text = render[target.suffix.lower()](title, [block for part in parts for block in part])
    try:
        write_private(target, text.encode())
    except OSError as error:
        raise UsageError(f"The report cannot be written to {str(target)!r} ({error.strerror}).") from error
    return target


def _prefix(data: pd.DataFrame, facts: Facts) -> str:
    """How the names of the run's columns begin."""
    told = str(facts.get("column", "voiceprint")).removesuffix("voiceprint")
    found = [prefix for prefix in (told or DEFAULT_PREFIX, told) if f"{prefix}status" in data.columns]
    if not found:
        raise UsageError("The frame is no result of voiceprints(): it has no column of states.")
    return found[0]


def _prefixes(data: pd.DataFrame, *fields: str) -> list[str]:
    """How names of columns begin that are there for all these fields: `match` has a prefix of its own."""
    names = {name for name in data.columns if isinstance(name, str)}
    first, *rest = fields
    begins = [name.removesuffix(first) for name in data.columns if name in names and name.endswith(first)]
    return [begin for begin in begins if all(f"{begin}{field}" in names for field in rest)]


# --- parts ----------------------------------------------------------------------------------------------


def _first_words(data: pd.DataFrame, facts: Facts) -> str:
    ended = f", ended at {facts['ended_at']}" if facts.get("ended_at") else ""
    return f"{len(data)} rows, worked on {_where(facts)}{ended}. No voiceprint is in this report."


def _where(facts: Facts) -> str:
    service = facts.get("service", "an unknown service")
    return "by the local service, on one machine" if service == "local" else f"by {shown(service)}"


def _counts(data: pd.DataFrame, prefix: str, *, redact: bool) -> list[Block]:
    states = data[f"{prefix}status"].value_counts()
    blocks: list[Block] = [Heading("Outcome"), _shares("Rows by state", "state", states)]
    failed = data[data[f"{prefix}error_code"].notna()]
    if len(failed):
        names = ["code", "rows", "meaning", "one of the sentences"]
        rows = []
        for code, count in failed[f"{prefix}error_code"].value_counts().items():
            sentence = failed.loc[failed[f"{prefix}error_code"] == code, f"{prefix}error"].iloc[0]
            rows.append([str(code), str(count), ROW_CODES.get(str(code), ("", ""))[1], shown(sentence)])
        n_columns = 3 if redact else 4
        blocks.append(Table("Reasons", names[:n_columns], [row[:n_columns] for row in rows]))
    if n_warned := int(data[f"{prefix}warning"].notna().sum()):
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
    seconds = data[f"{prefix}duration_s"].dropna()
    if seconds.empty:
        return []
    told = seconds.quantile([0, 0.25, 0.5, 0.75, 1])
    names = ["shortest", "quarter", "median", "three quarters", "longest", "in all"]
    ax = _axes((7, 3))
    ax.hist(seconds, bins=40, color="#0072B2", edgecolor="white", linewidth=0.5)
    ax.set(xlabel="seconds of audio used", ylabel="rows")
    alt = f"Histogram of {len(seconds)} durations from {seconds.min():.2f} to {seconds.max():.2f} seconds."
    return [
        Heading("Durations"),
        Table("Seconds of audio", names, [[*(f"{value:.2f}" for value in told), f"{seconds.sum():.0f}"]]),
        Figure(_png(ax), "Durations of the clips", alt),
    ]


def _quality(data: pd.DataFrame, prefix: str) -> list[Block]:
    rows = []
    for measure, what, limit, bad in _QUALITY:
        if f"{prefix}{measure}" not in data.columns:
            continue
        found = pd.to_numeric(data[f"{prefix}{measure}"], errors="coerce").set_axis(range(1, len(data) + 1))
        found = found.dropna().sort_values(ascending=bad == "below")
        beyond = found[found < limit] if bad == "below" else found[found > limit]
        worst = ", ".join(f"{row} ({value:.3g})" for row, value in beyond.head(_MOST_WORST).items())
        middle = f"{found.median():.3g}" if len(found) else ""
        rows.append([what, middle, f"{bad} {limit:g}", str(len(beyond)), worst])
    if not rows:
        return []
    names = ["measure", "median", "warned of", "rows", "worst rows, by number"]
    return [Heading("Quality of the clips"), Table("Measures", names, rows)]


def _calibration(calibration: Calibration | None) -> list[Block]:
    if calibration is None:
        return []
    lines = [line.partition(": ") for line in str(calibration).splitlines()]
    rate = f"the equal error rate is {calibration.eer:.1%}"
    return [
        Heading("Calibration"),
        Table("What scores mean", ["figure", "value"], [[name, text] for name, _, text in lines]),
        Figure(
            _png(plots.score_histogram(calibration, _axes((7, 4)))),
            "Scores of true and of false claims; the threshold for 1 % false accepts with its interval",
            f"Histograms of {calibration.n_genuine} true and {calibration.n_impostor} false claims; {rate}.",
        ),
        Figure(
            _png(plots.det_curve(calibration, _axes((5, 5)))),
            "Detection error trade-off",
            f"False rejects against false accepts over all thresholds; {rate}.",
        ),
    ]


def _matches(data: pd.DataFrame, library: Library | None) -> list[Block]:
    blocks: list[Block] = []
    prefixes = _prefixes(data, "decision", "label", "nearest", "score")
    for prefix in prefixes:
        which = f" ({prefix}label)" if len(prefixes) > 1 else ""
        decisions = data[f"{prefix}decision"].value_counts()
        blocks += [Heading(f"Who speaks{which}"), _shares("Decisions", "decision", decisions)]
        if len(names := data[f"{prefix}label"].value_counts()):
            blocks.append(_shares("Names", "name", names))
    if prefixes and (told := data.attrs.get("voiceprint_nb_match")):
        blocks.append(Table("Decided by", ["what", "value"], _pairs(told)))
    if library is not None:
        rows = [[_cell(cell) for cell in row] for row in library.people.to_numpy()]
        columns = list(library.people.columns)
        blocks += [Heading("Enrolled people"), Table("People", columns, rows, _PAGE_ROWS)]
    for prefix in _prefixes(data, *_OF_CLUSTER):
        sizes = data[f"{prefix}cluster"].value_counts()
        blocks += [Heading("Voices found"), _shares("Rows by voice", "voice", sizes)]
    return blocks


def _pictures(data: pd.DataFrame, label: Hashable | None) -> list[Block]:
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


def _rows(data: pd.DataFrame, prefix: str, *, redact: bool) -> list[Block]:
    hidden = {voiceprint_column(data), f"{prefix}job_id"}
    safe = {f"{prefix}{name}" for name in _SAFE}
    for fields in (_OF_MATCH, _OF_CLUSTER):
        safe |= {f"{begin}{name}" for begin in _prefixes(data, *fields) for name in fields}
    columns, names = [], []
    for place, name in enumerate(data.columns):
        if name in hidden or (redact and name not in safe):
            continue
        cells = [_cell(value, rounded=name in safe) for value in data.iloc[:, place]]
        if any(cells):
            columns.append(cells)
            names.append(str(name))
    rows = [[str(number), *row] for number, row in enumerate(zip(*columns, strict=True), start=1)]
    note = "Columns without content, and the queries of links, are left out."
    if redact:
        note = "Columns that may hold names of files, and sentences that may repeat them, are left out."
    return [Heading("Rows"), Paragraph(note), Table("Rows", ["row", *names], rows, _PAGE_ROWS)]


def _methods(data: pd.DataFrame, facts: Facts, prefix: str, calibration: Calibration | None) -> list[Block]:
    used = data[f"{prefix}status"].eq("succeeded").fillna(False).astype(bool)
    seconds = data.loc[used, f"{prefix}duration_s"]
    sentences = [f"No voiceprint could be made of {len(data)} clips."]
    if len(seconds):
        model = facts.get("model") or "that its voiceprints name"
        sentences = [
            f"Voiceprints (speaker embeddings) of {len(seconds)} of {len(data)} clips were made "
            f"{_where(facts)}, with voiceprint_nb {metadata.version('voiceprint_nb')} and the model {model}, "
            f"from {seconds.min():.1f} to {seconds.max():.1f} s of audio each."
        ]
    if calibration is not None:
        n_clips = calibration.enrolled
        against = "clip against clip" if n_clips == 1 else f"clips against people of {n_clips} clips"
        sentences.append(
            f"Scores are {_scores(calibration)}, calibrated by logistic regression on "
            f"{calibration.n_clips} clips of {calibration.n_speakers} speakers ({against}; "
            f"{calibration.n_genuine} true, {calibration.n_impostor} false claims); the equal error rate was "
            f"{calibration.eer:.1%} (95 % interval by a bootstrap over speakers)."
        )
    sentences.append(
        "The figures hold for speakers, recordings and languages like these; clips of one recording session "
        "flatter every system; a score is no proof of identity."
    )
    return [Heading("Methods"), Paragraph(" ".join(sentences))]


def _scores(calibration: Calibration) -> str:
    if calibration.normalisation is None:
        return "cosine similarities"
    return f"cosine similarities after normalisation ({calibration.normalisation})"


def _appendix(facts: Facts) -> list[Block]:
    versions = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return [
        Heading("Appendix"),
        Table("Settings of the run", ["setting", "value"], _pairs(facts)),
        Table("Versions", ["package", "version"], _pairs(versions)),
    ]


# --- cells and pictures ---------------------------------------------------------------------------------


def _shares(caption: str, what: str, counts: pd.Series[int]) -> Table:
    n_all = max(int(counts.sum()), 1)
    rows = [[shown(name), str(count), f"{count / n_all:.1%}"] for name, count in counts.items()]
    return Table(caption, [what, "rows", "share"], rows, _PAGE_ROWS)


def _pairs(facts: Mapping[str, object]) -> list[list[str]]:
    return [[name, _value(value)] for name, value in facts.items()]


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    if isinstance(value, (tuple, list)):
        return " to ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _cell(value: Any, *, rounded: bool = False) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if rounded else str(float(value))
    return shown(value, most=_MOST_CHARACTERS)


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
