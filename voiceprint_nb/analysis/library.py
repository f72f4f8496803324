"""People and their voiceprints: enrolled, kept in one private file, looked at, forgotten."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from voiceprint_nb.analysis.checking import check
from voiceprint_nb.analysis.matching import People
from voiceprint_nb.analysis.names import name_of, quoted
from voiceprint_nb.analysis.prints import labels_of, prints_of
from voiceprint_nb.analysis.similarity import vectors
from voiceprint_nb.analysis.trials import Scoring, unit
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
        self._owned: dict[str, list[Enrolled]] = {}  # by name, in the order of enrollment

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
        now = datetime.now(UTC).isoformat(timespec="seconds")
        library._enroll(
            Enrolled(label, text, now, consent)
            for text, label in zip(prints.texts, labels, strict=True)
            if label is not None
        )
        if not len(library):
            raise UsageError(
                f"No row with a voiceprint has a name in {quoted(name)}: nobody can be enrolled."
            )
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
        name = _name(name)
        found = prints_of([prints] if isinstance(prints, str) or hasattr(prints, "text") else prints)
        if self._owned and found.model != self.model:
            raise UsageError(_OTHER_MODEL)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._enroll(Enrolled(name, text, now, consent) for text in found.texts)

    def extend(self, other: Library) -> None:
        """Take over all people of another library, with their dates and notes.

        Raises
        ------
        UsageError
            Its voiceprints were made by another model.
        """
        if self._owned and other._owned and other.model != self.model:
            raise UsageError(_OTHER_MODEL)
        self._enroll(list(other._prints))

    def rename(self, old: str, new: str) -> None:
        """Give a person another name; raises `UsageError` for none, or one that is taken: `merge` joins."""
        self._require(old)
        new = _name(new)
        if new in self:
            raise UsageError(f"{quoted(new)} is enrolled already: merge() makes two people one.")
        renamed = [replace(one, name=new) for one in self._owned[old]]
        self._owned = {
            new if name == old else name: renamed if name == old else own for name, own in self._owned.items()
        }

    def merge(self, name: str, into: str) -> None:
        """Make two people one: the prints of the first become the second's."""
        self._require(name)
        self._require(into)
        if name != into:
            self._enroll(replace(one, name=into) for one in self._owned.pop(name))

    def remove(self, name: str) -> int:
        """Forget a person: every print of them goes, and how many is returned.

        A file that was saved before still has them, until `save` writes it anew.
        """
        self._require(name)
        n_removed = len(self._owned.pop(name))
        print(f"Forgotten: {quoted(name)}, {n_removed} voiceprints. save() takes them out of the file, too.")
        return n_removed

    @property
    def model(self) -> str:
        """Fingerprint of the model that made all prints; empty for an empty library."""
        return next((decode_voiceprint(text).fingerprint for text in self.voiceprints), "")

    @property
    def names(self) -> list[str]:
        """Who is enrolled, in the order of enrollment."""
        return list(self._owned)

    @property
    def voiceprints(self) -> Iterator[str]:
        """All prints, those of one person after those of another."""
        return (one.voiceprint for one in self._prints)

    @property
    def people(self) -> pd.DataFrame:
        """A row for each person: ``name``, ``n_prints``, ``enrolled_at`` (the first), ``consent``."""
        rows = []
        for name, own in self._owned.items():
            notes = dict.fromkeys(one.consent for one in own if one.consent)
            rows.append((name, len(own), min(one.enrolled_at for one in own), "; ".join(notes) or None))
        return pd.DataFrame(rows, columns=["name", "n_prints", "enrolled_at", "consent"])

    def __len__(self) -> int:
        return len(self._owned)

    def __iter__(self) -> Iterator[str]:
        return iter(self._owned)

    def __contains__(self, name: object) -> bool:
        return name in self._owned

    def __repr__(self) -> str:
        n_prints = sum(map(len, self._owned.values()))
        return f"<Library of {len(self)} people, {n_prints} voiceprints>"

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
        if not self._owned:
            raise UsageError("The library is empty: enroll people with add() or Library.from_frame().")
        ends = np.cumsum([len(own) for own in self._owned.values()])
        return People(self.names, unit(vectors(self.voiceprints)), np.append(0, ends[:-1]))

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
        return check(self.arrays(), scoring=scoring)

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
            prints = [_enrolled(one) for one in told["prints"]] if known else []
            model = told["model"] if known else ""
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
        library._enroll(prints)
        if len(library):
            vectors(library.voiceprints)  # of one model, and whole
        if library.model != model:
            raise UsageError(
                f"{str(source)!r} is damaged: its voiceprints are not of the model that it names."
            )
        return library

    # --- one person -------------------------------------------------------------------------------------

    def _require(self, name: str) -> None:
        if name not in self:
            some = ", ".join(map(quoted, self.names[:10]))
            raise UsageError(f"{quoted(name)} is not enrolled ({some or 'nobody is'}).")

    @property
    def _prints(self) -> Iterator[Enrolled]:
        return (one for own in self._owned.values() for one in own)

    def _enroll(self, prints: Iterable[Enrolled]) -> None:
        """Take prints in, but for those that are a person's already."""
        there: dict[str, set[str]] = {}
        for one in prints:
            own = self._owned.setdefault(one.name, [])
            if one.name not in there:
                there[one.name] = {other.voiceprint for other in own}
            if one.voiceprint not in there[one.name]:
                there[one.name].add(one.voiceprint)
                own.append(one)


def _name(name: object) -> str:
    made = name_of(name)
    if made is None:
        raise UsageError("A person needs a name.")
    return made


def _enrolled(record: dict[str, Any]) -> Enrolled:
    """From a file; what is no name there is refused, too."""
    _, *others = (record[column] for column in _COLUMNS)
    return Enrolled(_name(record["name"]), *others)


def _read(data: bytes) -> Any:
    if not data.startswith(b"PAR1"):
        return json.loads(data)
    frame = pd.read_parquet(io.BytesIO(data))
    return {**frame.attrs, "prints": frame.astype(object).where(frame.notna(), None).to_dict("records")}
