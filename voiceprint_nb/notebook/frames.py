"""DataFrames in, DataFrames out: cells taken from a column, outcomes put back as new columns."""

from __future__ import annotations

import os
import pickle
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.batch.outcomes import Kept, Outcome, Outcomes
from voiceprint_nb.errors import UsageError
from voiceprint_nb.intake.clips import FITS, Fit
from voiceprint_nb.intake.quality import MEASURES

DEFAULT_COLUMN = "audio"
DEFAULT_PREFIX = "vp_"

Data = pd.DataFrame | pd.Series | Iterable[object]

_BLOCK = 4096  # rows; the memory that building takes for a moment is not given back
_MOST_FRAME_BYTES = 64 * 2**20  # SQLite takes more, but a ledger is no store of data sets
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
        if is_dask(data):
            raise UsageError("check, voiceprints and match take a Dask DataFrame: pass ddf.compute() here.")
        if _is_no_list(data):
            raise UsageError(
                "Pass a DataFrame, a Series or a list of clips; for a single clip use voiceprint(clip)."
            )
        name = column if column is not None else DEFAULT_COLUMN
        return pd.DataFrame({name: pd.Series(list(data), dtype=object)}), name
    if column is None:
        column = (
            DEFAULT_COLUMN if DEFAULT_COLUMN in data.columns or len(data.columns) != 1 else data.columns[0]
        )
    if not _has_column(data, column):
        there = ", ".join(repr(name) for name in data.columns[:20])
        raise UsageError(f"The frame has no column {column!r}: name the one that holds the audio ({there}).")
    if isinstance(data[column], pd.DataFrame):
        raise UsageError(f"The frame has several columns named {column!r}: rename all but one.")
    return data, column


def is_dask(data: object) -> bool:
    """Whether this is a DataFrame or Series of Dask, which is not imported for that."""
    return type(data).__module__.startswith("dask.") and hasattr(data, "map_partitions")


def _is_no_list(data: object) -> bool:
    """One clip, or something else that iterates over what are no clips: lines, keys, samples."""
    if isinstance(data, tuple) and len(data) == 2 and isinstance(data[1], (int, float, np.number)):
        return True
    if isinstance(data, np.ndarray) and data.dtype.kind in "biufc":
        return True
    single = (str, bytes, bytearray, memoryview, os.PathLike, Mapping)
    return isinstance(data, single) or hasattr(data, "read") or not isinstance(data, Iterable)


def _has_column(frame: pd.DataFrame, column: Hashable) -> bool:
    try:
        return column in frame.columns
    except TypeError:  # an unhashable name, such as a list
        return False


def cells_of(frame: pd.DataFrame, column: Hashable) -> Sequence[object]:
    """The cells of a column, in order; texts are made when they are asked for, not held."""
    cells = frame[column]
    packed = isinstance(cells.dtype, (pd.StringDtype, pd.ArrowDtype))
    return _Packed(cells.array.copy()) if packed else list(cells)


class _Packed(Sequence[object]):
    """Cells of an array that makes each anew."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, index: Any) -> Any:
        return self._array[index]

    def __len__(self) -> int:
        return len(self._array)


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


def result_names(prefix: str, *, quality: bool = False) -> dict[str, str]:
    """Names of the columns that a run adds, by what they hold."""
    voiceprint = "voiceprint" if prefix == DEFAULT_PREFIX else f"{prefix}voiceprint"
    fields = (*_RESULTS, *(MEASURES if quality else ()))
    return {"voiceprint": voiceprint} | {field: f"{prefix}{field}" for field in fields}


def check_names(prefix: str, *, quality: bool = False) -> dict[str, str]:
    """Names of the columns that a check adds, by what they hold."""
    fields = (*_FACTS, "n_bytes", *(MEASURES if quality else ()))
    return {field: f"{prefix}{field}" for field in fields}


def without_taken(
    frame: pd.DataFrame, column: Hashable, names: Mapping[str, str], *, overwrite: bool
) -> pd.DataFrame:
    """The frame without columns that new ones replace; the very frame if there are none.

    Raises
    ------
    UsageError
        A new column would replace one of the user's without ``overwrite``, or the audio itself.
    """
    taken = [name for name in names.values() if name in frame.columns]
    if taken and not overwrite:
        raise UsageError(
            f"The frame already has {', '.join(map(repr, taken))}: pass overwrite=True to replace, or "
            "prefix= to choose other names."
        )
    if column in taken:
        raise UsageError(f"The result would replace the audio column {column!r}: choose another prefix=.")
    return frame.drop(columns=taken) if taken else frame


def with_outcomes(frame: pd.DataFrame, outcomes: Outcomes, names: Mapping[str, str]) -> pd.DataFrame:
    """A copy of the frame with outcomes as new columns, on the same index, in the same order.

    Rows without an outcome are ``pending``. New columns are of dtype ``string`` with missing values;
    ``duration_s`` and measures of quality are ``float64``; rate, channels and bytes are ``Int64``.
    """
    rows, packed = outcomes.snapshot()
    columns = {
        name: packed[field] if field in packed else _column(rows, field) for field, name in names.items()
    }
    return frame.assign(**columns)


_DTYPES: dict[str, Any] = {
    "sample_rate_hz": "Int64",
    "channels": "Int64",
    "n_bytes": "Int64",
}


def _column(rows: Sequence[Outcome], field: str) -> Any:
    dtype = _DTYPES.get(field, "string")
    blocks = [
        pd.Series([_value(row, field) for row in rows[start : start + _BLOCK]], dtype=dtype)
        for start in range(0, max(len(rows), 1), _BLOCK)
    ]
    return pd.concat(blocks, ignore_index=True).array


def _value(outcome: Outcome, field: str) -> Any:
    if field in ("sample_rate_hz", "channels"):
        return getattr(outcome.facts, field, None)
    if field == "format":
        return f"{outcome.facts.format} {outcome.facts.subtype}" if outcome.facts else None
    return getattr(outcome, field)


# --- frames in the ledger -------------------------------------------------------------------------------


def pack(frame: pd.DataFrame, column: Hashable) -> bytes:
    """The frame and the place of its audio column as bytes for the ledger.

    Cells that hold audio in memory are left out. A pickle keeps index, dtypes and odd values; it is only ever
    read back from the user's own 0600 file. Of a frame that cannot be pickled, or is too large for a ledger,
    the audio column alone is kept.
    """
    place = _place(frame, column)
    cells = [Kept() if _is_in_memory(cell) else cell for cell in frame[column]]
    has_audio = any(isinstance(cell, Kept) for cell in cells)
    packed = _with_cells(frame, place, cells) if has_audio else frame
    data = b""
    if packed.memory_usage(deep=True).sum() <= 2 * _MOST_FRAME_BYTES:  # else its pickle is too large as well
        try:
            data = pickle.dumps((packed, place))
        except Exception:  # cells of any type may fail in any way
            data = b""
    if 0 < len(data) <= _MOST_FRAME_BYTES:
        return data
    audio = packed.iloc[:, [place]].copy(deep=False)
    audio.attrs = {}
    return pickle.dumps((audio, 0))


def unpack(data: bytes | None) -> tuple[pd.DataFrame, Hashable]:
    """Read a packed frame and the name of its audio column.

    Only for bytes from a file that nobody else can write: see `voiceprint_nb.batch.store.is_private`.

    Raises
    ------
    UsageError
        There is none, or this pandas cannot read it.
    """
    if data is None:
        raise UsageError("The ledger holds no frame for that run: call voiceprints() with the frame again.")
    try:
        frame, place = pickle.loads(data)  # noqa: S301 - from the user's own 0600 ledger, checked by the caller
        return frame, frame.columns[place]
    except Exception as error:  # pickles of other versions fail in many ways
        raise UsageError(
            f"The frame of that run was kept by another version ({type(error).__name__}): call voiceprints() "
            "with the frame again, finished rows are reused."
        ) from error


def without_kept(frame: pd.DataFrame, column: Hashable) -> pd.DataFrame:
    """The frame with missing values where audio was in memory; the very frame if there are none."""
    cells = list(frame[column])
    if not any(isinstance(cell, Kept) for cell in cells):
        return frame
    left = [None if isinstance(cell, Kept) else cell for cell in cells]
    return _with_cells(frame, _place(frame, column), left)


def _with_cells(frame: pd.DataFrame, place: int, cells: list[object]) -> pd.DataFrame:
    changed = frame.copy(deep=False)
    column: Any = pd.Series(cells, index=frame.index, dtype=object)  # other containers lose the dtype
    changed.isetitem(place, column)
    return changed


def _place(frame: pd.DataFrame, column: Hashable) -> int:
    return int(np.ravel(np.arange(len(frame.columns))[frame.columns.get_loc(column)])[0])


def _is_in_memory(cell: object) -> bool:
    """Whether the cell is audio, or unknown: no text, path, number or missing value."""
    if isinstance(cell, (str, os.PathLike)):
        return False
    return isinstance(cell, bytes) or not pd.api.types.is_scalar(cell)
