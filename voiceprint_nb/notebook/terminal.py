"""What commands share: tables in files, exit statuses, remarks on standard error."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
import warnings
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from voiceprint_nb.errors import MissingExtra, UsageError
from voiceprint_nb.notebook.shown import shown

ALL_ROWS, SOME_ROWS, BAD_CALL, BAD_SERVICE, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses."""

OUT: dict[str, Any] = {"type": Path, "help": "write a CSV, TSV or Parquet file instead of printing"}
"""The option that takes a file to write."""


def add_command(commands: Any, name: str, does: str) -> ArgumentParser:
    """A command's own parser."""
    parser: ArgumentParser = commands.add_parser(name, help=does, description=f"{name}: {does}.")
    return parser


def tell(line: str) -> None:
    """Say something on standard error."""
    print(f"voiceprint-nb: {line}.", file=sys.stderr)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Remarks of the package on standard error, a line each."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        yield
    for one in told:
        print(f"voiceprint-nb: {one.message}", file=sys.stderr)


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
