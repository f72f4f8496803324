"""What each row is told about its voice, as new columns of a frame."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.prints import Prints, prints_of, voiceprint_column
from voiceprint_nb.notebook.frames import without_taken


def asked(
    data: pd.DataFrame | pd.Series, names: Mapping[str, str], *, overwrite: bool
) -> tuple[pd.DataFrame, Prints]:
    """The frame without columns of these names, and its voiceprints.

    Raises
    ------
    UsageError
        Columns that are taken, or no prints that can be compared.
    """
    frame = data.to_frame("voiceprint") if isinstance(data, pd.Series) else data
    frame = without_taken(frame, voiceprint_column(frame), names, overwrite=overwrite)
    return frame, prints_of(frame)


def answered(
    frame: pd.DataFrame,
    prints: Prints,
    names: Mapping[str, str],
    answers: Mapping[str, np.ndarray],
    attributes: Mapping[Hashable, Any],
) -> pd.DataFrame:
    """The frame with answers, one for each print, as columns of these names."""
    columns = {names[field]: _spread(values, prints, len(frame)) for field, values in answers.items()}
    out = frame.assign(**columns)
    out.attrs = {**frame.attrs, **attributes}
    return out


def _spread(values: np.ndarray, prints: Prints, n_rows: int) -> Any:
    """Values of rows with a print, as a column of all rows; missing in the others."""
    dtype: Any = {"O": "string", "U": "string", "i": "Int64", "b": "boolean", "f": "float64"}[
        values.dtype.kind
    ]
    column = pd.Series([None] * n_rows, dtype="object" if dtype == "string" else dtype)
    column.iloc[prints.positions] = values
    return column.astype(dtype).array
