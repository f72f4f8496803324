"""Voiceprints of a table as an array, with the rows that they come from."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voiceprint_nb.analysis.names import name_of, quoted
from voiceprint_nb.analysis.similarity import vectors
from voiceprint_nb.analysis.trials import unit
from voiceprint_nb.contract import decode_voiceprint
from voiceprint_nb.errors import UsageError


@dataclass(frozen=True, eq=False)
class Prints:
    """Voiceprints of one model.

    Attributes
    ----------
    model : str
        Fingerprint of network and feature recipe.
    embeddings : (n, dimensions) float32
        Unit vectors.
    positions : (n,) intp
        Which rows of the table have them.
    texts : list of str
        As they stand there.
    """

    model: str
    embeddings: NDArray[np.float32] = field(repr=False)
    positions: NDArray[np.intp]
    texts: list[str] = field(repr=False)


def prints_of(data: pd.DataFrame | pd.Series | Iterable[Any]) -> Prints:
    """The voiceprints of a result of `voiceprints`, of its column, or of a list.

    Rows of a frame or column without a print are left out.

    Raises
    ------
    UsageError
        There is no print, no column of prints, or prints that cannot be compared: hosted (opaque) ones, or
        those of several models.
    """
    if isinstance(data, pd.DataFrame):
        data = column_of(data, voiceprint_column(data))
    if isinstance(data, pd.Series):
        positions = np.flatnonzero(data.notna().to_numpy())
        cells = [data.iloc[position] for position in positions]
    else:
        cells = [getattr(cell, "text", cell) for cell in data]
        positions = np.arange(len(cells))
    if not cells:
        raise UsageError("There is no voiceprint to compare: see vp_error for the reason of each row.")
    embeddings = unit(vectors(cells))
    return Prints(decode_voiceprint(cells[0]).fingerprint, embeddings, positions, cells)


def labels_of(frame: pd.DataFrame, column: Hashable, prints: Prints) -> NDArray[np.object_]:
    """Who or what each print is, from a column of the frame: names as `name_of` makes them, or None.

    Raises
    ------
    UsageError
        No such column, several of the name, or labels that are lists or the like, or voiceprints.
    """
    if not pd.api.types.is_hashable(column) or column not in frame.columns:
        there = ", ".join(quoted(name) for name in frame.columns[:20])
        raise UsageError(
            f"The frame has no column {quoted(column)}: name one that says who speaks ({there})."
        )
    cells = column_of(frame, column).iloc[prints.positions].astype(object)
    labels = np.empty(len(cells), object)
    try:
        labels[:] = [name_of(cell) for cell in cells]
    except UsageError as error:
        raise UsageError(f"Column {quoted(column)}: {error}") from None  # the chain would show the label
    return labels


def column_of(frame: pd.DataFrame, column: Hashable) -> pd.Series:
    """A column; raises `UsageError` if several are named so."""
    found = frame[column]
    if isinstance(found, pd.DataFrame):
        raise UsageError(f"The frame has {found.shape[1]} columns {quoted(column)}: rename all but one.")
    return found


def voiceprint_column(frame: pd.DataFrame) -> Hashable:
    """The column of a result that holds the voiceprints.

    Its attributes tell; where they were lost, as in CSV, it is ``voiceprint`` or the one name that ends so.

    Raises
    ------
    UsageError
        There is none, or more than one.
    """
    facts = frame.attrs.get("voiceprint_nb")
    told = facts.get("column") if isinstance(facts, dict) else None
    for name in (told, "voiceprint"):
        if name is not None and name in frame.columns:
            return str(name)
    found = [name for name in frame.columns if str(name).endswith("voiceprint")]
    if len(found) != 1:
        raise UsageError("The frame has no column 'voiceprint': pass the result of voiceprints().")
    return found[0]
