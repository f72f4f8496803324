"""``voiceprint-nb``: the verbs in a terminal, from CSV or Parquet to CSV or Parquet.

Exit status: 0 every row succeeded, 1 some did not, 2 the call was wrong, 3 the service refused or is down,
130 interrupted. Columns of CSV files are kept as text, so that a speaker named 007 stays one.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voiceprint_nb.errors import ServiceError, UsageError
from voiceprint_nb.notebook import comparing_command, verbs
from voiceprint_nb.notebook.doctor import doctor
from voiceprint_nb.notebook.planning import plan
from voiceprint_nb.notebook.terminal import (
    ALL_ROWS,
    BAD_CALL,
    BAD_SERVICE,
    INTERRUPTED,
    OUT,
    SOME_ROWS,
    add_command,
    prepare_output,
    read_table,
    write_table,
)
from voiceprint_nb.service import keys_command, serve_command


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


def _doctor(*, service: str | None, online: bool) -> int:
    report = doctor(service=service, online=online)
    print(report, flush=True)
    return ALL_ROWS if report.is_well else SOME_ROWS


_COMMANDS: dict[str, Callable[..., int]] = {
    "check": _check,
    "plan": _plan,
    "run": _run,
    "resume": _resume,
    "runs": _runs,
    "forget": _forget,
    "doctor": _doctor,
    **comparing_command.COMMANDS,
    "serve": serve_command.serve,
    "keys": keys_command.keys,
}


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voiceprint-nb",
        description="Voiceprints for a table of audio, in CSV or Parquet.",
        epilog="Exit status: 0 every row succeeded, 1 some did not, 2 the call was wrong, 3 the service "
        "refused or is down, 130 interrupted.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = add_command(commands, "check", "check every clip against the limits, offline")
    planned = add_command(commands, "plan", "what run would buy, upload and cost; nothing is sent")
    run = add_command(commands, "run", "a voiceprint for every row")
    resume = add_command(commands, "resume", "go on with a run; nothing is bought twice")
    runs = add_command(commands, "runs", "list the runs that the ledger keeps")
    forget = add_command(commands, "forget", "delete a run and its voiceprints")
    looked = add_command(commands, "doctor", "say what is odd here; exit status 1 if something will fail")
    looked.add_argument("--service", help="as for run")
    looked.add_argument("--online", action="store_true", help="ask the service, too; costs nothing")
    comparing_command.add_parsers(commands)
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
        command.add_argument("--out", **OUT)
    return parser
