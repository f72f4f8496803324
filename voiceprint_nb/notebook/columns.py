"""The columns of a table of rows: which of a frame's are shown, and what of their cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from voiceprint_nb.analysis.names import is_print
from voiceprint_nb.notebook.shown import is_short, shown

Kind = Literal["label", "audio", "status", "reason", "text", "number"]

_MOST_COLUMNS = 12
_FACTS = {"sample_rate_hz": "Hz", "channels": "channels", "format": "format", "n_bytes": "bytes"}
_OWN = ("status", "error_code", "error", "warning", "duration_s", "job_id", "source", "voiceprint")


@dataclass(frozen=True)
class Column:
    """One column of the table: its head, what its cells are, and the cells, as many as rows are shown."""

    head: str
    kind: Kind
    cells: list[Any]

    @property
    def texts(self) -> list[str]:
        """The cells without markup."""
        if self.kind == "reason":
            return [f"{code}: {said}" if code else said for code, said in self.cells]
        if self.kind == "audio":
            return [shown(cell, most=60) for cell in self.cells]
        return [str(cell) for cell in self.cells]


def columns_of(
    part: pd.DataFrame, place: int, names: dict[str, int], scores: list[float] | None
) -> tuple[list[Column], list[str]]:
    """The columns to show, and the names of those of the user's that are too long for it."""

    def cells(field: str) -> list[Any]:
        return list(part.iloc[:, names[field]]) if field in names else []

    labels = [shown(name, most=40) for name in part.index.names if name is not None]
    columns = [
        Column(", ".join(labels) or "row", "label", [shown(label, most=40) for label in part.index]),
        Column(shown(part.columns[place], most=40), "audio", list(part.iloc[:, place])),
    ]
    if scores is not None:
        columns.append(Column("similarity", "number", ["" if math.isnan(s) else f"{s:.3f}" for s in scores]))
    if "status" in names:
        columns.append(Column("status", "status", [shown(cell) or "unknown" for cell in cells("status")]))
    reasons = [
        (shown(code), shown(said)) for code, said in zip(cells("error_code"), cells("error"), strict=False)
    ]
    if any(code or said for code, said in reasons):
        columns.append(Column("reason", "reason", reasons))
    if any(warnings := [shown(cell) for cell in cells("warning")]):
        columns.append(Column("warning", "text", warnings))
    if any(seconds := [_seconds(cell) for cell in cells("duration_s")]):
        columns.append(Column("seconds", "number", seconds))
    own = {names[field] for field in _OWN if field in names} | {place}
    heads = {names[field]: head for field, head in _FACTS.items() if field in names}
    left_out: list[str] = []
    for at, name in enumerate(part.columns):
        if at in own:
            continue
        values = list(part.iloc[:, at])
        if any(is_print(value) for value in values):
            continue
        texts = [shown(value) for value in values]
        if len(columns) == _MOST_COLUMNS or not all(map(is_short, texts)):
            left_out.append(shown(name, most=40))
        elif any(texts):
            numeric = pd.api.types.is_numeric_dtype(part.dtypes.iloc[at])
            columns.append(
                Column(heads.get(at) or shown(name, most=40), "number" if numeric else "text", texts)
            )
    return columns, left_out


def _seconds(cell: Any) -> str:
    """A duration to a tenth; a CSV file read as text has its digits as they are."""
    try:
        seconds = float(cell)
    except (TypeError, ValueError):
        return ""
    return f"{seconds:.1f}" if math.isfinite(seconds) else ""
