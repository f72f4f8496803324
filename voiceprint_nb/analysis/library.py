"""People and their voiceprints: enrolled, kept in one private file, looked at, forgotten."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.matching import People
from voiceprint_nb.analysis.prints import labels_of, prints_of
from voiceprint_nb.analysis.similarity import vectors
from voiceprint_nb.analysis.trials import Scoring, person_scores, unit
from voiceprint_nb.contract import decode_voiceprint
from voiceprint_nb.display import Bundled, facts_table
from voiceprint_nb.errors import MissingExtra, UsageError
from voiceprint_nb.scratch import write_private

_FORMAT = "voiceprint_nb library"
_VERSION = 1
_OTHER_MODEL = (
    "These voiceprints were made by another model or feature recipe than the library's: make them again with "
    "its settings, or begin a new library."
)
_COLUMNS = ("name", "voiceprint", "enrolled_at", "consent")


@dataclass(frozen=True)
class Enrolled:
    """One voiceprint of a person."""

    name: str
    voiceprint: str = field(repr=False)
    enrolled_at: str
    consent: str | None = None


class Library(Bundled):
    """Enrolled people, each with one or more voiceprints of one model.

    Several prints of a person are kept side by side, never merged into one: each can be looked at, and taken
    out again. Voiceprints are biometric data, so the file is private to the user (0600), and its prints are
    never shown.

    Examples
    --------
    >>> library = Library.from_frame(out, name="speaker")           # doctest: +SKIP
    >>> library.check()                                             # doctest: +SKIP
    >>> library.save("people.json")                                 # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._prints: list[Enrolled] = []

    @classmethod
    def from_frame(
        cls, data: pd.DataFrame, name: Hashable = "speaker", *, consent: str | None = None
    ) -> Self:
        """Enroll the people of a frame.

        Parameters
        ----------
        data : DataFrame
            A result of `voiceprints`; rows without a print or a name are left out.
        name : hashable
            Column that says who speaks.
        consent : str, optional
            A note that is kept with each print: who agreed, when, to what.

        Raises
        ------
        UsageError
            No such column, nobody to enroll, hosted (opaque) prints, or prints of several models.
        """
        library, prints = cls(), prints_of(data)
        labels = labels_of(data, name, prints)
        texts: dict[str, list[str]] = {}
        for text, label in zip(prints.texts, labels, strict=True):
            if label is not None:
                texts.setdefault(str(label), []).append(text)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        library._prints = [
            Enrolled(label, text, now, consent) for label, own in texts.items() for text in dict.fromkeys(own)
        ]
        if not len(library):
            raise UsageError(f"No row with a voiceprint has a name in {name!r}: nobody can be enrolled.")
        return library

    def add(self, name: str, prints: Iterable[Any], *, consent: str | None = None) -> None:
        """Enroll a person, or more prints of one; prints that are there already stay as they are.

        Parameters
        ----------
        name : str
            Who it is.
        prints : iterable of Voiceprint or str
            One or more.
        consent : str, optional
            A note to keep with them.

        Raises
        ------
        UsageError
            No name, no print, hosted (opaque) prints, or prints of another model than the library's.
        """
        if not str(name).strip():
            raise UsageError("A person needs a name.")
        found = prints_of([prints] if isinstance(prints, str) or hasattr(prints, "text") else prints)
        if self._prints and found.model != self.model:
            raise UsageError(_OTHER_MODEL)
        there = {one.voiceprint for one in self._prints if one.name == str(name)}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._prints += [
            Enrolled(str(name), text, now, consent)
            for text in dict.fromkeys(found.texts)
            if text not in there
        ]

    def extend(self, other: Library) -> None:
        """Take over all people of another library, with their dates and notes.

        Raises
        ------
        UsageError
            Its voiceprints were made by another model.
        """
        if self._prints and other._prints and other.model != self.model:
            raise UsageError(_OTHER_MODEL)
        there = {(one.name, one.voiceprint) for one in self._prints}
        self._prints += [one for one in other._prints if (one.name, one.voiceprint) not in there]

    def rename(self, old: str, new: str) -> None:
        """Give a person another name; raises `UsageError` if it is taken: `merge` joins two people."""
        self._require(old)
        if new in self:
            raise UsageError(f"{new!r} is enrolled already: merge() makes two people one.")
        self._change(old, new)

    def merge(self, name: str, into: str) -> None:
        """Make two people one: the prints of the first become the second's."""
        self._require(name)
        self._require(into)
        self._change(name, into)

    def remove(self, name: str) -> int:
        """Forget a person: every print of them goes, and how many is returned.

        A file that was saved before still has them, until `save` writes it anew.
        """
        self._require(name)
        left = [one for one in self._prints if one.name != name]
        n_removed = len(self._prints) - len(left)
        self._prints = left
        print(f"Forgotten: {name!r}, {n_removed} voiceprints. save() takes them out of the file, too.")
        return n_removed

    @property
    def model(self) -> str:
        """Fingerprint of the model that made all prints; empty for an empty library."""
        return decode_voiceprint(self._prints[0].voiceprint).fingerprint if self._prints else ""

    @property
    def names(self) -> list[str]:
        """Who is enrolled, in the order of enrollment."""
        return list(dict.fromkeys(one.name for one in self._prints))

    @property
    def people(self) -> pd.DataFrame:
        """A row for each person: ``name``, ``n_prints``, ``enrolled_at`` (the first), ``consent``."""
        owned: dict[str, list[Enrolled]] = {}
        for one in self._prints:
            owned.setdefault(one.name, []).append(one)
        rows = []
        for name, own in owned.items():
            notes = dict.fromkeys(one.consent for one in own if one.consent)
            rows.append((name, len(own), min(one.enrolled_at for one in own), "; ".join(notes) or None))
        return pd.DataFrame(rows, columns=["name", "n_prints", "enrolled_at", "consent"])

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return any(one.name == name for one in self._prints)

    def __repr__(self) -> str:
        return f"<Library of {len(self)} people, {len(self._prints)} voiceprints>"

    def _repr_html_(self) -> str:
        shown = self.people.head(20)
        counts = [
            (name, f"{n_prints} voiceprints")
            for name, n_prints in zip(shown["name"], shown["n_prints"], strict=True)
        ]
        more = [("…", f"and {len(self) - 20} more")] if len(self) > 20 else []
        return facts_table([("Library", f"{len(self)} people; their prints are not shown"), *counts, *more])

    def arrays(self) -> People:
        """The people as arrays; raises `UsageError` for an empty library."""
        if not self._prints:
            raise UsageError("The library is empty: enroll people with add() or Library.from_frame().")
        names = self.names
        number = {name: place for place, name in enumerate(names)}
        ordered = sorted(self._prints, key=lambda one: number[one.name])
        persons = np.array([number[one.name] for one in ordered])
        prints = unit(vectors([one.voiceprint for one in ordered]))
        return People(names, prints, np.searchsorted(persons, np.arange(len(names))))

    def check(self, *, scoring: Scoring = "centroid") -> pd.DataFrame:
        """Look at each person: who may be taken for whom, and which prints may be another's.

        Parameters
        ----------
        scoring : {"centroid", "best"}
            As `match` will be asked to score.

        Returns
        -------
        DataFrame
            A row for each person: ``name``, ``n_prints``, ``own_score`` (the lowest of a print against the
            person's others; missing for a single one), ``nearest`` (who else is most alike),
            ``nearest_score`` (the highest of the person's prints against them), ``odd_prints`` (numbers,
            from 1, of prints that are more like another person than like the others of their own) and
            ``remark`` (a sentence, or missing).
        """
        people = self.arrays()
        ends = np.append(people.begins[1:], len(people.prints))
        spans = [slice(begin, end) for begin, end in zip(people.begins, ends, strict=True)]
        rows = []
        for place, name in enumerate(people.names):
            own = people.prints[spans[place]]
            others = [n for n in range(len(spans)) if n != place]
            against = (
                np.stack(
                    [person_scores(own, people.prints[spans[n]], scoring=scoring) for n in others], axis=1
                )
                if others
                else np.empty((len(own), 0), np.float32)
            )
            alone = (
                [
                    float(person_scores(own[[n]], np.delete(own, n, axis=0), scoring=scoring)[0])
                    for n in range(len(own))
                ]
                if len(own) > 1
                else []
            )
            rows.append(_row(name, alone, against, [people.names[n] for n in others]))
        names = ["name", "n_prints", "own_score", "nearest", "nearest_score", "odd_prints", "remark"]
        return pd.DataFrame(rows, columns=names)

    # --- files ------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file, private to the user (0600): Parquet if its name says so, else JSON.

        Raises
        ------
        UsageError
            It cannot be written.
        MissingExtra
            Parquet without pyarrow.
        """
        target = Path(path).expanduser()
        records = [asdict(one) for one in self._prints]
        if target.suffix.lower() == ".parquet":
            buffer = io.BytesIO()
            frame = pd.DataFrame(records, columns=list(_COLUMNS))
            frame.attrs = {"format": _FORMAT, "version": _VERSION, "model": self.model}
            try:
                frame.to_parquet(buffer, index=False)
            except ImportError as error:
                raise MissingExtra("Parquet needs pyarrow: pip install 'voiceprint_nb[parquet]'.") from error
            data = buffer.getvalue()
        else:
            told = {"format": _FORMAT, "version": _VERSION, "model": self.model, "prints": records}
            data = json.dumps(told, ensure_ascii=False, indent=1).encode()
        try:
            write_private(target, data)
        except OSError as error:
            raise UsageError(
                f"The library cannot be written to {str(target)!r} ({error.strerror})."
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` has written.

        Raises
        ------
        UsageError
            No such file, or it is none of ours, damaged, or of a newer version.
        MissingExtra
            Parquet without pyarrow.
        """
        source = Path(path).expanduser()
        try:
            data = source.read_bytes()
        except OSError as error:
            raise UsageError(f"The library {str(source)!r} cannot be read ({error.strerror}).") from error
        try:
            told = _read(data)
            known = told["format"] == _FORMAT
            is_newer = known and told["version"] > _VERSION
            prints = (
                [Enrolled(*(one[column] for column in _COLUMNS)) for one in told["prints"]] if known else []
            )
        except ImportError as error:
            raise MissingExtra("Parquet needs pyarrow: pip install 'voiceprint_nb[parquet]'.") from error
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{str(source)!r} is not a library that save() has written ({type(error).__name__})."
            raise UsageError(reason) from None  # the error itself may hold the whole file
        if not known:
            raise UsageError(f"{str(source)!r} is not a library that save() has written.")
        if is_newer:
            raise UsageError(
                f"{str(source)!r} was written by a newer version: upgrade voiceprint_nb to read it."
            )
        library = cls()
        library._prints = prints
        if library._prints:
            vectors([one.voiceprint for one in library._prints])  # of one model, and whole
        return library

    # --- one person -------------------------------------------------------------------------------------

    def _require(self, name: str) -> None:
        if name not in self:
            some = ", ".join(map(repr, self.names[:10]))
            raise UsageError(f"{name!r} is not enrolled ({some or 'nobody is'}).")

    def _change(self, old: str, new: str) -> None:
        self._prints = [
            Enrolled(new, one.voiceprint, one.enrolled_at, one.consent) if one.name == old else one
            for one in self._prints
        ]


def _row(name: str, alone: list[float], against: np.ndarray, others: list[str]) -> tuple[Any, ...]:
    nearest, nearest_score = None, np.nan
    odd: list[int] = []
    remarks = []
    if others:
        highest = against.max(axis=0)
        nearest, nearest_score = others[int(highest.argmax())], float(highest.max())
        odd = [n + 1 for n, own in enumerate(alone) if against[n].max() > own]
    for number in odd:
        like = others[int(against[number - 1].argmax())]
        remarks.append(
            f"Print {number} of {len(alone)} is more like {like!r} than like the others: listen to it."
        )
    if not odd and alone and others and nearest_score > min(alone):
        remarks.append(f"May be taken for {nearest!r}: enroll more and longer clips of both.")
    if not alone:
        remarks.append("One clip alone: enroll two more.")
    return (
        name,
        len(alone) or 1,
        min(alone, default=np.nan),
        nearest,
        nearest_score,
        odd,
        " ".join(remarks) or None,
    )


def _read(data: bytes) -> Any:
    if not data.startswith(b"PAR1"):
        return json.loads(data)
    frame = pd.read_parquet(io.BytesIO(data))
    return {**frame.attrs, "prints": frame.astype(object).where(frame.notna(), None).to_dict("records")}
