"""The rows of a report: as many as keep it small, without what may not be told or tells nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, takewhile
from typing import Any

import pandas as pd

from voiceprint_nb.analysis.prints import voiceprint_column
from voiceprint_nb.intake.quality import MEASURES
from voiceprint_nb.notebook.report_facts import OF_CLUSTER, OF_MATCH, prefixes, told
from voiceprint_nb.notebook.report_page import Block, Heading, Paragraph, Table
from voiceprint_nb.notebook.shown import shown

PAGE_ROWS = 500

_MOST_CHARACTERS = 80
# what repeats nothing of a row's own words
_SAFE = ("status", "error_code", "duration_s", "source", *MEASURES)
_SAFE_ANSWERS = {OF_MATCH: ("decision", "score", "margin", "probability"), OF_CLUSTER: OF_CLUSTER}


def rows(
    data: pd.DataFrame,
    prefix: str,
    *,
    redact: bool,
    most_bytes: int,
    written: Callable[[Sequence[str]], str],
) -> list[Block]:
    """The table of rows, and in words what is the same in all of them or left out.

    Parameters
    ----------
    data : DataFrame
        A result.
    prefix : str
        Of the run's columns.
    redact : bool
        Whether columns that may name files are left out.
    most_bytes : int
        What all rows may take as they are written; beyond, rows that failed or have a warning go first.
    written : callable
        A row's cells as they will be written.
    """
    names, columns, same = _columns(data, prefix, redact=redact)
    numbers = [str(number) for number in range(1, len(data) + 1)]
    lines = list(zip(numbers, *columns, strict=True))
    kept = _fitting(lines, _is_odd(data, prefix), most_bytes, written)
    note = "Columns without content, and the queries of links, are left out."
    if redact:
        note = "Columns that may hold names of files, and sentences that may repeat them, are left out."
    if same:
        note += f" The same in every row: {'; '.join(same)}."
    caption = "Rows"
    if len(kept) < len(lines):
        caption = f"{len(kept)} of {len(lines)} rows"
        note += (
            f" Here are {caption}, those that failed or have a warning before others: more would make this "
            "file too large. The rest is in your table."
        )
    shown_lines = [lines[place] for place in kept]
    return [Heading("Rows"), Paragraph(note), Table(caption, ["row", *names], shown_lines, PAGE_ROWS)]


def cell(value: Any, *, rounded: bool = False) -> str:
    """What a cell says, in one line, without secrets."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if rounded else str(float(value))
    return shown(value, most=_MOST_CHARACTERS)


def _columns(
    data: pd.DataFrame, prefix: str, *, redact: bool
) -> tuple[list[str], list[list[str]], list[str]]:
    """Names and cells of the columns that differ between rows, and what the others say in all of them."""
    hidden = {voiceprint_column(data), f"{prefix}job_id"}
    safe = {f"{prefix}{name}" for name in _SAFE}
    for fields, answers in _SAFE_ANSWERS.items():
        safe |= {f"{begin}{name}" for begin in prefixes(data, fields) for name in answers}
    names, columns, same = [], [], []
    for place, name in enumerate(data.columns):
        if name in hidden or (redact and name not in safe):
            continue
        cells = [cell(value, rounded=name in safe) for value in data.iloc[:, place]]
        if len(set(cells)) > 1 or (len(cells) == 1 and cells[0]):
            names.append(shown(name))
            columns.append(cells)
        elif any(cells):
            same.append(f"{shown(name)} {cells[0]}")
    return names, columns, same


def _is_odd(data: pd.DataFrame, prefix: str) -> list[bool]:
    """Whether each row failed or has a warning."""
    is_good = told(data, f"{prefix}status").eq("succeeded").fillna(False).astype(bool)
    return (~is_good | told(data, f"{prefix}warning").notna()).tolist()


def _fitting(
    lines: Sequence[Sequence[str]],
    is_odd: Sequence[bool],
    most_bytes: int,
    written: Callable[[Sequence[str]], str],
) -> list[int]:
    """Places of lines that take no more bytes than that, odd ones first; in their own order."""
    by_need = sorted(range(len(lines)), key=lambda place: not is_odd[place])
    taken = accumulate(len(written(lines[place]).encode()) for place in by_need)
    return sorted(by_need[: sum(1 for _ in takewhile(lambda n_bytes: n_bytes <= most_bytes, taken))])
