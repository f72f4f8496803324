"""DataFrames in, DataFrames out: cells taken from a column, outcomes put back as new columns."""

from __future__ import annotations

import os
import pickle
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from voiceprint_nb.batch.outcomes import Kept, Outcome
from voiceprint_nb.errors import UsageError
from voiceprint_nb.intake.clips import FITS, Fit

DEFAULT_COLUMN = "audio"
DEFAULT_PREFIX = "vp_"

Frame = pd.DataFrame
Data = pd.DataFrame | pd.Series | Iterable[object]

_RESULTS = ("status", "error_code", "error", "warning", "job_id", "duration_s", "source")
_FACTS = ("status", "error_code", "error", "warning", "duration_s", "sample_rate_hz", "channels", "format")


def as_frame(data: Data, column: Hashable | None) -> tuple[pd.DataFrame, Hashable]:
    """The frame and the name of its audio column.

    A Series or a list becomes a frame of one column. Without a name, the column is ``audio``, or the only
    one there is.

    Raises
    ------
    UsageError
        No such column, two columns of that name, or something that is no table.
    """
    if isinstance(data, pd.Series):
        name = column if column is not None else data.name if data.name is not None else DEFAULT_COLUMN
        return data.to_frame(name), name
    if not isinstance(data, pd.DataFrame):
        if isinstance(data, (str, bytes, os.PathLike)) or not isinstance(data, Iterable):
            raise UsageError(
                "Pass a DataFrame, a Series or a list of clips; for a single clip use voiceprint(clip)."
            )
        name = column if column is not None else DEFAULT_COLUMN
        return pd.DataFrame({name: pd.Series(list(data), dtype=object)}), name
    if column is None:
        column = (
            DEFAULT_COLUMN if DEFAULT_COLUMN in data.columns or len(data.columns) != 1 else data.columns[0]
        )
    if column not in data.columns:
        there = ", ".join(repr(name) for name in data.columns[:20])
        raise UsageError(f"The frame has no column {column!r}: name the one that holds the audio ({there}).")
    if isinstance(data[column], pd.DataFrame):
        raise UsageError(f"The frame has several columns named {column!r}: rename all but one.")
    return data, column


def cells_of(frame: pd.DataFrame, column: Hashable) -> list[object]:
    """The cells of a column, in order."""
    return list(frame[column])


def bases_of(base: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None) -> tuple[Path, ...]:
    """Folders for relative paths, made absolute so that they still hold on another day."""
    if base is None:
        return (Path.cwd(),)
    given = [base] if isinstance(base, (str, os.PathLike)) else list(base)
    return tuple(Path(folder).expanduser().absolute() for folder in given)


def fit_of(fit: str) -> Fit:
    """One of the allowed ways to fit long clips; raises `UsageError` for others."""
    for allowed in FITS:
        if fit == allowed:
            return allowed
    raise UsageError(f"Unknown fit={fit!r}: use 'error', 'best' or 'head'.")


def result_names(prefix: str) -> dict[str, str]:
    """Names of the columns that a run adds, by what they hold."""
    voiceprint = "voiceprint" if prefix == DEFAULT_PREFIX else f"{prefix}voiceprint"
    return {"voiceprint": voiceprint} | {field: f"{prefix}{field}" for field in _RESULTS}


def check_names(prefix: str) -> dict[str, str]:
    """Names of the columns that a check adds, by what they hold."""
    return {field: f"{prefix}{field}" for field in (*_FACTS, "n_bytes")}


def refuse_collisions(frame: pd.DataFrame, names: Mapping[str, str], *, overwrite: bool) -> None:
    """Raise `UsageError` if a new column would replace one of the user's."""
    taken = [name for name in names.values() if name in frame.columns]
    if taken and not overwrite:
        raise UsageError(
            f"The frame already has {', '.join(map(repr, taken))}: pass overwrite=True to replace, or "
            "prefix= to choose other names."
        )


def with_outcomes(
    frame: pd.DataFrame, outcomes: Mapping[int, Outcome], names: Mapping[str, str]
) -> pd.DataFrame:
    """A copy of the frame with outcomes as new columns, on the same index, in the same order.

    Rows without an outcome are ``pending``. Text columns are of dtype ``string`` with missing values.
    """
    rows = [outcomes.get(position, _PENDING) for position in range(len(frame))]
    columns = {
        name: _column([_value(row, field) for row in rows], _DTYPES.get(field, "string"))
        for field, name in names.items()
    }
    kept = frame.drop(columns=[name for name in columns if name in frame.columns])
    return kept.assign(**columns)


_PENDING = Outcome("pending")
_DTYPES = {"duration_s": "float64", "sample_rate_hz": "Int64", "channels": "Int64", "n_bytes": "Int64"}


def _column(values: list[Any], dtype: Any) -> Any:
    return pd.array(values, dtype=dtype)


def _value(outcome: Outcome, field: str) -> Any:
    if field in ("sample_rate_hz", "channels"):
        return getattr(outcome.facts, field, None)
    if field == "format":
        return f"{outcome.facts.format} {outcome.facts.subtype}" if outcome.facts else None
    return getattr(outcome, field)


# --- frames in the ledger -------------------------------------------------------------------------------


def pack(frame: pd.DataFrame, column: Hashable) -> bytes:
    """The frame as bytes for the ledger; cells that hold audio in memory are left out.

    A pickle keeps index, dtypes and odd values; it is only ever read back from the user's own 0600 file.
    Where a frame holds values that cannot be pickled, the audio column alone is kept.
    """
    light = [cell if isinstance(cell, (str, Path)) else Kept() for cell in frame[column]]
    packed = frame.copy()
    packed[column] = pd.Series(light, index=frame.index, dtype=object)
    try:
        return pickle.dumps(packed)
    except (pickle.PicklingError, TypeError, AttributeError):
        return pickle.dumps(packed[[column]])


def unpack(data: bytes | None) -> pd.DataFrame:
    """Read a packed frame; raises `UsageError` if there is none, or this pandas cannot."""
    if data is None:
        raise UsageError("The ledger holds no frame for that run: call voiceprints() with the frame again.")
    try:
        frame = pickle.loads(data)  # noqa: S301 - from the user's own 0600 ledger, checked by the caller
    except Exception as error:  # pickles of other versions fail in many ways
        raise UsageError(
            f"The frame of that run was kept by another version ({type(error).__name__}): call voiceprints() "
            "with the frame again, finished rows are reused."
        ) from error
    if not isinstance(frame, pd.DataFrame):
        raise UsageError("The ledger holds no frame for that run: call voiceprints() with the frame again.")
    return frame


def without_kept(frame: pd.DataFrame, column: Hashable) -> pd.DataFrame:
    """The frame with missing values where audio was in memory."""
    cells = [None if isinstance(cell, Kept) else cell for cell in frame[column]]
    cleaned = frame.copy()
    cleaned[column] = pd.Series(cells, index=frame.index, dtype=object)
    return cleaned
