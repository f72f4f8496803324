"""``voiceprint-nb``: the verbs in a terminal, from CSV or Parquet to CSV or Parquet.

Exit status: 0 every row succeeded, 1 some did not, 2 the call was wrong, 3 the service refused or is down,
130 interrupted. Columns of CSV files are kept as text, so that a speaker named 007 stays one.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from voiceprint_nb.errors import MissingExtra, ServiceError, UsageError
from voiceprint_nb.notebook import verbs
from voiceprint_nb.notebook.doctor import doctor
from voiceprint_nb.notebook.frames import DEFAULT_PREFIX
from voiceprint_nb.notebook.planning import plan
from voiceprint_nb.notebook.shown import shown
from voiceprint_nb.service import keys_command, serve_command

if TYPE_CHECKING:
    from voiceprint_nb.analysis.calibration import Calibration
    from voiceprint_nb.analysis.library import Library
    from voiceprint_nb.analysis.trials import Scoring

DEFAULT_LABEL = "speaker"
ALL_ROWS, SOME_ROWS, BAD_CALL, BAD_SERVICE, INTERRUPTED = 0, 1, 2, 3, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        if (out := arguments.get("out")) is not None:
            prepare_output(out)
        return _COMMANDS[command](**arguments)
    except ServiceError as error:
        print(f"voiceprint-nb: {error}", file=sys.stderr)
        return BAD_SERVICE
    except UsageError as error:
        print(f"voiceprint-nb: {error}", file=sys.stderr)
        return BAD_CALL
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_ROWS


def _check(
    *, manifest: Path, column: str | None, out: Path | None, base: list[str], fit: str, quality: bool
) -> int:
    frame = read_table(manifest)
    result = verbs.check(frame, column, fit=fit, base=_bases(base, manifest), overwrite=True, quality=quality)
    write_table(result, out)
    return ALL_ROWS if (result.vp_status == "ok").all() else SOME_ROWS


def _plan(
    *, manifest: Path, column: str | None, out: Path | None, base: list[str], fit: str, **options: Any
) -> int:
    frame = read_table(manifest)
    told = plan(frame, column, fit=fit, base=_bases(base, manifest), overwrite=True, **options)
    print(told, flush=True)
    if out is not None:
        write_table(told.rows, out)
    return SOME_ROWS if told.invalid else ALL_ROWS


def _run(
    *, manifest: Path, column: str | None, out: Path | None, base: list[str], fit: str, **options: Any
) -> int:
    frame = read_table(manifest)
    result = verbs.voiceprints(frame, column, fit=fit, base=_bases(base, manifest), overwrite=True, **options)
    return _finish(result, out)


def _resume(*, run_id: str | None, out: Path | None, max_new: int | None) -> int:
    return _finish(verbs.resume(run_id, max_new=max_new), out)


def _runs(*, out: Path | None) -> int:
    write_table(verbs.runs(), out)
    return ALL_ROWS


def _forget(*, run_id: str | None, everything: bool) -> int:
    print(f"{verbs.forget(run_id, everything=everything)} voiceprints deleted.")
    return ALL_ROWS


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

    with _warnings_as_lines():
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
    with _warnings_as_lines():
        others = None if cohort is None else read_table(cohort)
        calibration = _calibration_for(people, calibrate_on, label, scoring=scoring, cohort=others)
        options |= {"calibration": calibration, "scoring": scoring, "cohort": others, "overwrite": True}
        result = match(read_table(manifest), people, **options)
    write_table(result, out)
    _tell(_match_told(result.attrs["voiceprint_nb_match"][DEFAULT_PREFIX]))
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

    with _warnings_as_lines():
        calibration = _calibration_for(None, calibrate_on, label)
        result = cluster(read_table(manifest), calibration=calibration, overwrite=True, **options)
    write_table(result, out)
    told = result.attrs["voiceprint_nb_cluster"][DEFAULT_PREFIX]
    whence = "as given"
    if told["by"] == "calibration":
        whence = f"{told['false_accept_rate']:.2g} of pairs of two speakers are as alike"
    _tell(f"{told['clusters']} voices; one voice from a mean cosine of {told['threshold']:.3f} on ({whence})")
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
    with _warnings_as_lines():
        calibration = _calibration_for(people, calibrate_on, label or DEFAULT_LABEL)
        written = report(
            read_table(manifest), path, label=label, calibration=calibration, library=people, redact=redact
        )
    print(f"Written: {written}")
    return ALL_ROWS


def _tell(line: str) -> None:
    print(f"voiceprint-nb: {line}.", file=sys.stderr)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Remarks of the package on standard error, a line each."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        yield
    for one in told:
        print(f"voiceprint-nb: {one.message}", file=sys.stderr)


def _doctor(*, service: str | None, online: bool) -> int:
    report = doctor(service=service, online=online)
    print(report, flush=True)
    return ALL_ROWS if report.is_well else SOME_ROWS


_OUT: dict[str, Any] = {"type": Path, "help": "write a CSV, TSV or Parquet file instead of printing"}
_COMMANDS: dict[str, Callable[..., int]] = {
    "check": _check,
    "plan": _plan,
    "run": _run,
    "resume": _resume,
    "runs": _runs,
    "forget": _forget,
    "compare": _compare,
    "calibrate": _calibrate,
    "enroll": _enroll,
    "match": _match,
    "cluster": _cluster,
    "report": _report,
    "doctor": _doctor,
    "serve": serve_command.serve,
    "keys": keys_command.keys,
}


def read_table(path: Path) -> pd.DataFrame:
    """Read CSV (``.csv``, ``.tsv``), all columns as text, or Parquet, by the file's ending."""
    _refuse_ending(path)
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep=_separator(path), dtype=str, keep_default_na=False, na_values=[""])
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'voiceprint_nb[parquet]'.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as a table: {error}") from error


def prepare_output(path: Path) -> None:
    """Make the folder of an output, before any work is done for it.

    Raises
    ------
    UsageError
        The file could not be written in the end.
    """
    _refuse_ending(path)
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder: name a file in it.")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra("Parquet needs pyarrow: pip install 'voiceprint_nb[parquet]'.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _temporary_beside(path).unlink()
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be written: {error.strerror}.") from error


def write_table(frame: pd.DataFrame, path: Path | None) -> None:
    """Write CSV or Parquet readable by the user only; without a path, print the table without secrets.

    The file appears at once and whole: what was there before stays until then.
    """
    if path is None:
        told = frame.drop(columns=[name for name in frame if str(name).endswith("voiceprint")])
        told = told.astype(object).where(told.notna(), "").map(_told).rename(columns=_told)
        print(told.to_string(index=False) if len(told) else "No rows.", flush=True)
        return
    prepare_output(path)
    temporary = _temporary_beside(path)
    try:
        _write(frame, temporary)
        temporary.replace(path)
    except (OSError, ValueError, TypeError) as error:  # pyarrow: TypeError for cells of mixed types
        said = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{str(path)!r} cannot be written: {said}. Finished rows are kept.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _told(cell: object) -> object:
    """A cell as it is printed: links without their queries, which may sign them."""
    return shown(cell) if isinstance(cell, str) else cell


def _temporary_beside(path: Path) -> Path:
    """A new file with mode 0600 in the same folder: voiceprints are biometric data."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".voiceprint-nb-", suffix=path.suffix)
    os.close(descriptor)
    return Path(name)


def _write(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep=_separator(path), index=not isinstance(frame.index, pd.RangeIndex))


def _separator(path: Path) -> str:
    return "\t" if path.suffix == ".tsv" else ","


def _refuse_ending(path: Path) -> None:
    if path.suffix not in (".csv", ".tsv", ".parquet"):
        raise UsageError(f"{path.name!r} has no known ending: use .csv, .tsv or .parquet.")


def _unique(names: Sequence[str]) -> list[str]:
    """Names with ``.1``, ``.2`` after repeated ones, as pandas reads them: Parquet takes no duplicates."""
    taken: dict[str, None] = {}
    for name in names:
        candidates = itertools.chain([name], (f"{name}.{number}" for number in itertools.count(1)))
        taken[next(candidate for candidate in candidates if candidate not in taken)] = None
    return list(taken)


def _finish(result: pd.DataFrame, out: Path | None) -> int:
    write_table(result, out)
    counts = result.attrs["voiceprint_nb"]["counts"]
    status = ALL_ROWS if set(counts) <= {"succeeded", "reused"} else SOME_ROWS
    if status == SOME_ROWS and out is not None:
        print(f"Some rows have no voiceprint: see their vp_error in {str(out)!r}.", file=sys.stderr)
    return status


def _bases(base: list[str], manifest: Path) -> list[str | Path]:
    """Folders for relative paths: the named ones, else the current one, then the manifest's own."""
    return list(base) or [Path.cwd(), manifest.parent]


def _command(commands: Any, name: str, does: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=does, description=f"{name}: {does}.")
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voiceprint-nb",
        description="Voiceprints for a table of audio, in CSV or Parquet.",
        epilog="Exit status: 0 every row succeeded, 1 some did not, 2 the call was wrong, 3 the service "
        "refused or is down, 130 interrupted.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = _command(commands, "check", "check every clip against the limits, offline")
    planned = _command(commands, "plan", "what run would buy, upload and cost; nothing is sent")
    run = _command(commands, "run", "a voiceprint for every row")
    resume = _command(commands, "resume", "go on with a run; nothing is bought twice")
    runs = _command(commands, "runs", "list the runs that the ledger keeps")
    forget = _command(commands, "forget", "delete a run and its voiceprints")
    looked = _command(commands, "doctor", "say what is odd here; exit status 1 if something will fail")
    looked.add_argument("--service", help="as for run")
    looked.add_argument("--online", action="store_true", help="ask the service, too; costs nothing")
    _add_comparing(commands)
    serve_command.add_parser(commands)
    keys_command.add_parser(commands)
    for command in (check, planned, run):
        command.add_argument("manifest", type=Path, help="CSV, TSV or Parquet file")
        command.add_argument("--column", help="column that holds the audio (default: audio)")
        command.add_argument(
            "--base",
            action="append",
            default=[],
            help="folder for relative paths (default: the current one, then the manifest's own)",
        )
        command.add_argument(
            "--fit", default="error", choices=("error", "best", "head"), help="for clips over 30 s"
        )
    for command in (planned, run):
        command.add_argument(
            "--service", help="local, pyannoteai or an address (the key: PYANNOTEAI_API_KEY)"
        )
        command.add_argument(
            "--model", help="hosted: precision-2, say; local: robust, compatible, fast or FILE.onnx"
        )
        command.add_argument(
            "--compress", action="store_true", help="upload clips as 16 kHz mono FLAC where that is smaller"
        )
    for command in (check, run):
        command.add_argument(
            "--quality", action="store_true", help="measure speech, level, clipping, noise and second voices"
        )
    price = planned.add_mutually_exclusive_group()
    price.add_argument("--price-per-print", type=float, metavar="PRICE", help="in any currency")
    price.add_argument(
        "--price-per-hour", type=float, metavar="PRICE", help="of audio, 20 s a print at least"
    )
    resume.add_argument("run_id", nargs="?", help="default: the newest unfinished run")
    forget.add_argument("run_id", nargs="?")
    forget.add_argument("--everything", action="store_true", help="all runs and all voiceprints")
    for command in (run, resume):
        command.add_argument("--max-new", type=int, metavar="N", help="buy at most N voiceprints")
    planned.add_argument("--out", type=Path, help="write the rows with their vp_plan to a file, too")
    for command in (check, run, resume, runs):
        command.add_argument("--out", **_OUT)
    return parser


def _add_comparing(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Verbs for tables that have voiceprints."""
    compare = _command(commands, "compare", "cosine of every voiceprint with every other")
    calibrate = _command(commands, "calibrate", "error rates and thresholds from rows whose speaker is known")
    enroll = _command(commands, "enroll", "add the people of a table to a library")
    match = _command(commands, "match", "who of a library speaks in each row; exit status 1 if not all are")
    cluster = _command(commands, "cluster", "how many voices there are, and which row is of which")
    reported = _command(
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
        command.add_argument("--out", **_OUT)
