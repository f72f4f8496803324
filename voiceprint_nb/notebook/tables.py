"""A table to work with: what became of each row, to be read and listened to."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from voiceprint_nb.analysis.names import PRINT
from voiceprint_nb.display import Bundled
from voiceprint_nb.errors import UsageError
from voiceprint_nb.notebook import frames
from voiceprint_nb.notebook.columns import Column, columns_of
from voiceprint_nb.notebook.frames import Data
from voiceprint_nb.notebook.shown import shown
from voiceprint_nb.notebook.voiceprint import Voiceprint

TOTAL_BYTES = 2_000_000
"""So much audio is embedded in one table at most, before base64 adds a third."""


def show(
    data: Data,
    column: Hashable | None = None,
    *,
    compare_to: Hashable | Voiceprint | None = None,
    embed_bytes: int = 100_000,
    rows: int = 50,
    base: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    prefix: str | None = None,
    interactive: bool | None = None,
) -> Table:
    """A table of rows to look at and listen to: status, reason, duration, a player for each clip.

    With ``out.query("vp_status != 'succeeded'")`` it is the list of what went wrong. Voiceprints are never
    shown, nor links with a query string, which may be signed: such rows have no player.

    Parameters
    ----------
    data : DataFrame, Series or list
        A result of `voiceprints` or `check`, any part of one, or rows of audio that were not worked on yet.
    column : hashable, optional
        Column that holds the audio; by default ``audio``, or the only one beside the results.
    compare_to : hashable or Voiceprint, optional
        Label of a row in the index: adds each row's similarity to it (cosine), the most similar row first.
        Rows without a comparable voiceprint come last.
    embed_bytes : int
        Largest piece of audio that is put into the notebook. Compressed files that browsers play are embedded
        as they are; of all others the first 30 s as MP3 (16 kHz mono, about 3 kB a second). What is larger is
        linked if it lies beside or below the notebook, for Jupyter reaches no other files. One table embeds
        2 MB in all; 0 embeds nothing.
    rows : int
        So many rows are shown.
    base : path or list of paths, optional
        Folders for relative paths; by default the current one.
    prefix : str, optional
        Start of the result columns' names; by default it is found.
    interactive : bool, optional
        Sorting and filtering by itables (extra ``tables``). By default it is used where it is installed and
        more than 10 rows are shown. Nothing is loaded from the web: its code, 1 MB, becomes part of the
        output, unless ``itables.init_notebook_mode(connected=False)`` has put it into the notebook once for
        all tables.

    Returns
    -------
    Table
        Shows itself as HTML in notebooks and as text elsewhere.

    Raises
    ------
    UsageError
        No such column, no such row to compare to, or that row has no voiceprint that can be compared.

    Examples
    --------
    >>> import voiceprint_nb as vp
    >>> table = vp.show(vp.check(["no-such-file.wav"], progress=False))
    >>> len(table), str(table).splitlines()[0]
    (1, '1 row: 1 invalid')
    """
    frame, place, names = _located(data, column, prefix)
    scores = None
    if compare_to is not None:
        scores = _similarities(frame, names.get("voiceprint"), compare_to)
        order = scores.sort_values(ascending=False, na_position="last", kind="stable").index
        frame, scores = frame.iloc[order], scores.loc[order]
    part = frame.iloc[: max(0, rows)]
    columns, left_out = columns_of(
        part, place, names, None if scores is None else list(scores.iloc[: len(part)])
    )
    return Table(
        columns,
        summary=_summary(frame, names),
        notes=_notes(len(frame) - len(part), left_out, scores),
        bases=frames.bases_of(base),
        embed_bytes=embed_bytes,
        interactive=interactive,
    )


class Table(Bundled):
    """What `show` returns: HTML in notebooks, text in terminals, drawn when it is displayed.

    Parameters
    ----------
    columns : list of Column
        Of equal length.
    summary : str
        Says what all rows came to.
    notes : list of str
        What is not in the table, in sentences.
    bases, embed_bytes, interactive
        As in `show`, the bases as absolute paths.
    """

    def __init__(
        self,
        columns: list[Column],
        *,
        summary: str,
        notes: list[str],
        bases: tuple[Any, ...] = (),
        embed_bytes: int = 0,
        interactive: bool | None = False,
    ) -> None:
        self._columns, self._summary, self._notes = columns, summary, notes
        self._bases, self._embed_bytes = bases, embed_bytes
        self._interactive = interactive

    def __len__(self) -> int:
        return len(self._columns[0].cells)

    def __repr__(self) -> str:
        lines = [self._summary]
        if len(self):
            frame = pd.DataFrame({i: column.texts for i, column in enumerate(self._columns)}, dtype=str)
            heads = [column.head for column in self._columns]
            lines.append(frame.to_string(index=False, header=heads, max_colwidth=45, justify="right"))
        return "\n".join([*lines, *self._notes])

    def _repr_html_(self) -> str:
        return self._html

    @functools.cached_property
    def _html(self) -> str:
        from voiceprint_nb.notebook import table_html
        from voiceprint_nb.notebook.players import Shelf

        shelf = Shelf(self._bases, embed_bytes=self._embed_bytes, total_bytes=TOTAL_BYTES)
        return table_html.draw(
            self._columns, shelf, summary=self._summary, notes=self._notes, interactive=self._interactive
        )


def _located(
    data: Data, column: Hashable | None, prefix: str | None
) -> tuple[pd.DataFrame, int, dict[str, int]]:
    """The frame, the place of the audio, and the places of result columns by what they hold."""
    if isinstance(data, pd.DataFrame) and column is None:
        prefix = _prefix_of(data) if prefix is None else prefix
        results = set(frames.result_names(prefix).values()) | set(frames.check_names(prefix).values())
        rest = [name for name in data.columns if name not in results]
        if len(rest) == 1:
            column = rest[0]
    frame, column = frames.as_frame(data, column)
    prefix = _prefix_of(frame) if prefix is None else prefix
    names: list[Hashable] = list(frame.columns)
    known = frames.result_names(prefix) | frames.check_names(prefix)
    found = {field: names.index(name) for field, name in known.items() if name in names}
    return frame, names.index(column), found


def _prefix_of(frame: pd.DataFrame) -> str:
    """The prefix that this frame's result columns begin with."""
    facts = frame.attrs.get("voiceprint_nb")
    told = facts.get("column") if isinstance(facts, dict) else None
    if isinstance(told, str) and told != "voiceprint" and told.endswith("voiceprint"):
        return told.removesuffix("voiceprint")
    names = {name for name in frame.columns if isinstance(name, str)}
    if f"{frames.DEFAULT_PREFIX}status" in names:
        return frames.DEFAULT_PREFIX
    stems = (name.removesuffix("status") for name in frame.columns if name in names and name[-6:] == "status")
    return next((stem for stem in stems if f"{stem}error_code" in names), frames.DEFAULT_PREFIX)


def _similarities(frame: pd.DataFrame, place: int | None, compare_to: object) -> pd.Series[float]:
    """Cosine of each row's voiceprint to the chosen one, by position; missing where they do not compare."""
    from voiceprint_nb.analysis.similarity import vectors

    texts = [None] * len(frame) if place is None else list(frame.iloc[:, place])
    if isinstance(compare_to, Voiceprint):
        chosen: object = compare_to.text
    else:
        found = [i for i, label in enumerate(frame.index) if _same(label, compare_to)]
        if len(found) != 1:
            many = f"{len(found)} rows have" if found else "no row has"
            raise UsageError(
                f"compare_to= names one row by its label in the index, and {many} the label "
                f"{shown(compare_to, most=60)!r}: see out.index, or use out.reset_index()."
            )
        chosen = texts[found[0]]
        if not isinstance(chosen, str):
            raise UsageError("The row of compare_to= has no voiceprint: choose one that succeeded.")
    vectors([chosen])  # refuses what compares with nothing
    cosines = []
    for text in texts:
        try:
            first, second = vectors([chosen, text])
            cosines.append(float(first @ second))
        except UsageError:
            cosines.append(float("nan"))
    return pd.Series(cosines, dtype="float64")


def _same(label: object, wanted: object) -> bool:
    try:
        return bool(label == wanted)
    except (TypeError, ValueError):  # arrays, and types that refuse to be compared
        return False


def _summary(frame: pd.DataFrame, names: dict[str, int]) -> str:
    said = f"{len(frame)} row{'' if len(frame) == 1 else 's'}"
    if "status" not in names:
        return said
    counts = Counter(shown(status) or "unknown" for status in frame.iloc[:, names["status"]])
    return f"{said}: {', '.join(f'{n} {status}' for status, n in counts.most_common(8))}" if counts else said


def _notes(n_more: int, left_out: list[str], scores: pd.Series[float] | None) -> list[str]:
    notes = []
    if n_more > 0:
        notes.append(f"And {n_more:,} more: pass rows=, or choose some with query().")
    if left_out:
        notes.append(f"Too long for this table: {', '.join(name for name in left_out if name != PRINT)}.")
    if scores is not None and scores.isna().any():
        n = int(scores.isna().sum())
        notes.append(f"{n} without a similarity: no voiceprint, a hosted one, or one of another model.")
    return notes
