"""Which clips, and which part of each: the whole state of a picker, without a widget."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd

from voiceprint_nb.batch.bridge import loop_thread
from voiceprint_nb.batch.inspecting import check_all
from voiceprint_nb.batch.outcomes import Outcome, Request
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.errors import RowError, UsageError
from voiceprint_nb.intake import sources
from voiceprint_nb.notebook import frames
from voiceprint_nb.notebook.finding import find_audio
from voiceprint_nb.notebook.frames import Data
from voiceprint_nb.notebook.listening import Workroom
from voiceprint_nb.notebook.picked import WORDS, Item, readable


class Picks:
    """The clips of a picker, and the frame that they give.

    Parameters
    ----------
    data : DataFrame, Series, list, path or None
        Rows of audio, or a folder.
    column, base, prefix, overwrite, sign
        As for `voiceprint_nb.Picker`.
    """

    def __init__(
        self,
        data: Data | str | os.PathLike[str] | None = None,
        column: Hashable | None = None,
        *,
        base: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        prefix: str = "",
        overwrite: bool = False,
        sign: Callable[[str], str] | None = None,
    ) -> None:
        folder = None
        if isinstance(data, (str, os.PathLike)):
            folder = data if _is_folder(data) else None
            data = [] if folder is not None else [data]
        frame, self.column = frames.as_frame([] if data is None else data, column)
        self._names = {"start": f"{prefix}start_s", "end": f"{prefix}end_s"}
        self._frame = frames.without_taken(frame, self.column, self._names, overwrite=overwrite)
        self._sign = sign
        self.room = Workroom(frames.bases_of(base), sign)
        cells = frames.cells_of(self._frame, self.column)
        self.items = [Item(self._name(cell, n), cell, n, self.room) for n, cell in enumerate(cells)]
        if folder is not None:
            self.add_folder(folder)

    def _name(self, cell: object, row: int) -> str:
        try:
            source = sources.parse(cell, bases=self.room.bases)
        except RowError:
            return f"row {row + 1}"
        match source:
            case sources.PathSource(path):
                return path.name
            case sources.UrlSource(url):  # without its query, which may be a signature
                parts = urlsplit(url)
                return unquote(parts.path.rsplit("/", 1)[-1]) or parts.hostname or "link"
            case sources.CloudSource() | sources.MediaSource():
                return source.key.rsplit("/", 1)[-1]
            case _:
                return f"audio in memory, row {row + 1}"

    def add_files(self, files: Iterable[tuple[str, bytes]]) -> list[Item]:
        """Add whole files, each by name and content."""
        return self._add((name, data) for name, data in files)

    def add_folder(self, folder: str | os.PathLike[str]) -> list[Item]:
        """Add what `voiceprint_nb.find_audio` finds in a folder; files that are listed already stay once.

        Raises
        ------
        UsageError
            There is no such folder, or no audio in it.
        """
        text = os.fspath(folder).strip()
        if not _is_folder(text):
            raise UsageError(f"There is no folder {readable(text)!r} here: give its whole path.")
        place = Path(text).expanduser().absolute()
        with warnings.catch_warnings():  # what may not be read is not listed, as in any file dialog
            warnings.simplefilter("ignore")
            found = [Path(path) for path in find_audio(place).audio]
        there = {item.cell for item in self.items if isinstance(item.cell, str) and not item.removed}
        return self._add((path.name, str(path)) for path in found if str(path) not in there)

    def _add(self, named: Iterable[tuple[str, object]]) -> list[Item]:
        added = [Item(name, cell, None, self.room) for name, cell in named]
        self.items += added
        return added

    def check(self, items: Sequence[Item]) -> list[Outcome]:
        """What `voiceprint_nb.check` says of some clips; takes a while and changes nothing."""
        request = Request(self.room.bases, "error")
        work = check_all([item.heard for item in items], request, Tally(len(items)), sign=self._sign)
        outcomes = loop_thread().start(work).wait()
        return [outcomes[position] for position in range(len(items))]

    def counts(self) -> dict[str, int]:
        """How many clips there are in each state."""
        states = [item.state for item in self.items]
        return {state: states.count(state) for state in WORDS if state in states}

    def told(self) -> list[str]:
        """The same in words."""
        return [f"{n} {WORDS[state][1]}" for state, n in self.counts().items()]

    def frame(self) -> pd.DataFrame:
        """The frame for `voiceprint_nb.voiceprints`; cuts that are not made yet are made now.

        A recording that cannot be read any more stays as it was given: its row will say why.
        """
        kept = sorted((item for item in self.items if not item.removed), key=lambda item: item.row is None)
        given = [item.row for item in kept if item.row is not None]
        frame = self._frame.iloc[given].copy()
        added = [item for item in kept if item.row is None]
        if added:
            more = pd.DataFrame(
                {self.column: [None] * len(added)}, index=_labels(self._frame.index, added), dtype=object
            )
            frame = pd.concat([frame, more]) if len(frame.columns) > 1 or len(frame) else more
            frame.attrs = dict(self._frame.attrs)
        cells = [_used(item) for item in kept]
        if added or any(item.window is not None for item in kept):
            frame[self.column] = pd.Series(cells, index=frame.index, dtype=object)
        if added and "name" not in frame.columns:
            frame["name"] = [item.name for item in kept]
        for place, name in enumerate(self._names.values()):
            frame[name] = np.array([item.window[place] if item.window else np.nan for item in kept], float)
        return frame

    def close(self) -> None:
        """Remove the copies that were made for listening."""
        self.room.close()


def _is_folder(text: str | os.PathLike[str]) -> bool:
    path = os.fspath(text).strip()
    try:
        return bool(path) and Path(path).expanduser().is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL character, no such user
        return False


def _used(item: Item) -> object:
    try:
        return item.used()
    except RowError as error:
        item.use_whole()
        item.trouble = str(error)
        return item.cell


def _labels(index: pd.Index[Any], added: Sequence[Item]) -> pd.Index[Any]:
    """Index labels for new rows: the next numbers, or names where the index is not of numbers."""
    if pd.api.types.is_integer_dtype(index.dtype):
        start = int(index.max()) + 1 if len(index) else 0
        return pd.RangeIndex(start, start + len(added))
    names = [item.name for item in added]
    if isinstance(index, pd.MultiIndex):
        rest = (None,) * (index.nlevels - 1)
        return pd.MultiIndex.from_tuples([(name, *rest) for name in names], names=index.names)
    return pd.Index(names, name=index.name)
