"""What each row is told about its voice, as new columns of a frame."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.prints import Prints, prints_of, voiceprint_column
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook.frames import without_taken
from voiceprint_nb.notebook.voiceprint import Voiceprint


def asked(
    data: pd.DataFrame | pd.Series | Iterable[Voiceprint | str], names: Mapping[str, str], *, overwrite: bool
) -> tuple[pd.DataFrame, Prints]:
    """The frame without columns of these names, and its voiceprints.

    Raises
    ------
    UsageError
        No table, column or list, columns that are taken, or no prints that can be compared.
    """
    frame = _frame_of(data)
    frame = without_taken(frame, voiceprint_column(frame), names, overwrite=overwrite)
    return frame, prints_of(frame)


def _frame_of(data: pd.DataFrame | pd.Series | Iterable[Voiceprint | str]) -> pd.DataFrame:
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, pd.Series):
        return data.to_frame("voiceprint")
    if isinstance(data, (str, Voiceprint)):
        data = [data]
    if not isinstance(data, Iterable):
        raise UsageError(
            f"Pass a result of voiceprints(), its column or voiceprints, not a {type(data).__name__}."
        )
    return pd.DataFrame({"voiceprint": [getattr(cell, "text", cell) for cell in data]}, dtype=object)


def answered(
    frame: pd.DataFrame,
    prints: Prints,
    answers: Mapping[str, np.ndarray],
    *,
    prefix: str,
    verb: str,
    told: Mapping[str, Any],
) -> pd.DataFrame:
    """The frame with answers, one for each print, as columns of these names after the prefix.

    What they were decided by (plain JSON values) is kept in ``attrs["voiceprint_nb_" + verb][prefix]``.
    """
    columns = {f"{prefix}{field}": _spread(values, prints, len(frame)) for field, values in answers.items()}
    out = frame.assign(**columns)
    out.attrs = {**frame.attrs, **decided(frame, prefix=prefix, verb=verb, told=told)}
    return out


def decided(
    frame: pd.DataFrame, *, prefix: str, verb: str, told: Mapping[str, Any]
) -> dict[Hashable, dict[str, Any]]:
    """The attribute that says what a verb's answers were decided by: under this prefix, and under others."""
    name = f"voiceprint_nb_{verb}"
    return {name: {**frame.attrs.get(name, {}), prefix: dict(told)}}


def _spread(values: np.ndarray, prints: Prints, n_rows: int) -> Any:
    """Values of rows with a print, as a column of all rows; missing in the others."""
    dtype: Any = {"O": "string", "U": "string", "i": "Int64", "b": "boolean", "f": "float64"}[
        values.dtype.kind
    ]
    column = pd.Series([None] * n_rows, dtype="object" if dtype == "string" else dtype)
    column.iloc[prints.positions] = values
    return column.astype(dtype).array
