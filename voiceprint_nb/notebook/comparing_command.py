"""Commands for tables that have voiceprints: compare, calibrate, enroll, match, cluster, report."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voiceprint_nb.notebook.frames import DEFAULT_PREFIX
from voiceprint_nb.notebook.terminal import (
    ALL_ROWS,
    OUT,
    SOME_ROWS,
    add_command,
    read_table,
    tell,
    warnings_as_lines,
    write_table,
)

if TYPE_CHECKING:
    from voiceprint_nb.analysis.calibration import Calibration
    from voiceprint_nb.analysis.library import Library
    from voiceprint_nb.analysis.trials import Scoring

DEFAULT_LABEL = "speaker"


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Verbs for tables that have voiceprints."""
    compare = add_command(commands, "compare", "cosine of every voiceprint with every other")
    calibrate = add_command(
        commands, "calibrate", "error rates and thresholds from rows whose speaker is known"
    )
    enroll = add_command(commands, "enroll", "add the people of a table to a library")
    match = add_command(
        commands, "match", "who of a library speaks in each row; exit status 1 if not all are"
    )
    cluster = add_command(commands, "cluster", "how many voices there are, and which row is of which")
    reported = add_command(
        commands, "report", "one file for others: what was run, what failed and why, pictures"
    )
    for command in (compare, calibrate, enroll, match, cluster, reported):
        command.add_argument("manifest", type=Path, help="result of run")
    compare.add_argument("--label", help="column that names the rows")
    compare.add_argument("--top", type=int, metavar="K", help="a table of the K most alike of each row")
    reported.add_argument("path", type=Path, help="file to write, .html or .md")
    reported.add_argument("--redact", action="store_true", help="leave names of files out")
    reported.add_argument("--label", help="column that says who speaks, for the pictures")
    reported.add_argument(
        "--calibrate-on",
        type=Path,
        metavar="TABLE",
        help="result of run with rows whose speaker is known, for its figures",
    )
    reported.add_argument(
        "--library", type=Path, metavar="FILE", help="the enrolled people, as match had them"
    )
    for command in (calibrate, enroll, match, cluster):
        command.add_argument("--label", default=DEFAULT_LABEL, help="column that says who speaks")
    calibrate.add_argument("--enrolled", type=int, default=1, metavar="N", help="clips that make a person")
    calibrate.add_argument("--within", metavar="COLUMN", help="only rows with the same value meet")
    for command in (calibrate, match):
        told = "result of run with voices that are neither enrolled nor expected, to normalise scores by"
        command.add_argument("--cohort", type=Path, metavar="TABLE", help=told)
        command.add_argument(
            "--scoring",
            choices=("centroid", "best"),
            default="centroid",
            help="a clip against several: by their mean direction, or the nearest (default: %(default)s)",
        )
    for command in (enroll, match):
        command.add_argument("library", type=Path, help="file of enrolled people, .json or .parquet")
    enroll.add_argument("--consent", help="a note to keep with the voiceprints")
    for command in (match, cluster):
        given = command.add_mutually_exclusive_group(required=True)
        given.add_argument(
            "--calibrate-on",
            type=Path,
            metavar="TABLE",
            help="result of run with rows whose speaker is known",
        )
        given.add_argument("--threshold", type=float, help="a score of your own")
    match.add_argument(
        "--false-name-rate",
        type=float,
        default=0.01,
        help="share of strangers that may get a name (default: %(default)s)",
    )
    match.add_argument(
        "--unknown-below", type=float, metavar="SCORE", help="unknown instead of unsure below that"
    )
    for command in (compare, match, cluster):
        command.add_argument("--out", **OUT)


def _compare(*, manifest: Path, label: str | None, top: int | None, out: Path | None) -> int:
    from voiceprint_nb.notebook.comparing import compare

    if top is not None:
        write_table(compare(read_table(manifest), label, top=top), out)
        return ALL_ROWS
    matrix = compare(read_table(manifest), label)
    names = _unique([label or "row", *map(str, matrix.columns)])
    table = matrix.set_axis(names[1:], axis="columns")
    table.insert(0, names[0], matrix.index)
    write_table(table.reset_index(drop=True), out)
    return ALL_ROWS


def _enroll(*, manifest: Path, label: str, library: Path, consent: str | None) -> int:
    from voiceprint_nb.analysis.library import Library

    people = Library.load(library) if library.exists() else Library()
    new = Library.from_frame(read_table(manifest), label, consent=consent)
    people.extend(new)
    people.save(library)
    print(f"{people} in {str(library)!r}.")
    return ALL_ROWS


def _calibrate(*, manifest: Path, label: str, cohort: Path | None, **options: Any) -> int:
    from voiceprint_nb.notebook.comparing import calibrate

    with warnings_as_lines():
        others = None if cohort is None else read_table(cohort)
        print(calibrate(read_table(manifest), label, cohort=others, **options))
    return ALL_ROWS


def _match(
    *,
    manifest: Path,
    library: Path,
    calibrate_on: Path | None,
    cohort: Path | None,
    label: str,
    scoring: Scoring,
    out: Path | None,
    **options: Any,
) -> int:
    from voiceprint_nb.analysis.library import Library
    from voiceprint_nb.notebook.identifying import match

    people = Library.load(library)
    with warnings_as_lines():
        others = None if cohort is None else read_table(cohort)
        calibration = _calibration_for(people, calibrate_on, label, scoring=scoring, cohort=others)
        options |= {"calibration": calibration, "scoring": scoring, "cohort": others, "overwrite": True}
        result = match(read_table(manifest), people, **options)
    write_table(result, out)
    tell(_match_told(result.attrs["voiceprint_nb_match"][DEFAULT_PREFIX]))
    return ALL_ROWS if result.vp_decision.eq("match").fillna(False).all() else SOME_ROWS


def _calibration_for(
    people: Library | None, table: Path | None, label: str, **options: Any
) -> Calibration | None:
    """Made of a table, if there is one: for people of as many clips as most of the library are of."""
    from voiceprint_nb.notebook.comparing import calibrate

    if table is None:
        return None
    enrolled = 1 if people is None else round(people.people["n_prints"].median())
    return calibrate(read_table(table), label, enrolled=enrolled, **options)


def _match_told(told: Mapping[str, Any]) -> str:
    """By what was decided, as a CSV file does not tell."""
    reject, among = f"unknown below {told['unknown_below']:.3f}", f"{told['people']} enrolled"
    if told["threshold"] is None:
        return f"no names, {reject}; {among}"
    whence = "as given"
    if told["by"] == "calibration":
        interval = told["threshold_interval"]
        whence = f"at most {told['false_name_rate']:.2g} of strangers named"
        if interval is not None:
            whence += f", interval {interval[0]:.3f} to {interval[1]:.3f}"
    return f"a name from a score of {told['threshold']:.3f} on ({whence}), {reject}; {among}"


def _cluster(
    *, manifest: Path, calibrate_on: Path | None, label: str, out: Path | None, **options: Any
) -> int:
    from voiceprint_nb.notebook.comparing import cluster

    with warnings_as_lines():
        calibration = _calibration_for(None, calibrate_on, label)
        result = cluster(read_table(manifest), calibration=calibration, overwrite=True, **options)
    write_table(result, out)
    told = result.attrs["voiceprint_nb_cluster"][DEFAULT_PREFIX]
    whence = "as given"
    if told["by"] == "calibration":
        whence = f"{told['false_accept_rate']:.2g} of pairs of two speakers are as alike"
    tell(f"{told['clusters']} voices; one voice from a mean cosine of {told['threshold']:.3f} on ({whence})")
    return ALL_ROWS


def _report(
    *,
    manifest: Path,
    path: Path,
    label: str | None,
    calibrate_on: Path | None,
    library: Path | None,
    redact: bool,
) -> int:
    from voiceprint_nb.analysis.library import Library
    from voiceprint_nb.notebook.report import report

    people = None if library is None else Library.load(library)
    with warnings_as_lines():
        calibration = _calibration_for(people, calibrate_on, label or DEFAULT_LABEL)
        written = report(
            read_table(manifest), path, label=label, calibration=calibration, library=people, redact=redact
        )
    print(f"Written: {written}")
    return ALL_ROWS


def _unique(names: Sequence[str]) -> list[str]:
    """Names with ``.1``, ``.2`` after repeated ones, as pandas reads them: Parquet takes no duplicates."""
    taken: dict[str, None] = {}
    for name in names:
        candidates = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        taken[next(candidate for candidate in candidates if candidate not in taken)] = None
    return list(taken)


COMMANDS: dict[str, Callable[..., int]] = {
    "compare": _compare,
    "calibrate": _calibrate,
    "enroll": _enroll,
    "match": _match,
    "cluster": _cluster,
    "report": _report,
}
"""What each does."""
