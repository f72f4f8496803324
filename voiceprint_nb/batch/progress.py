"""What happens to the rows: events folded into a tally, and the tally as text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TextIO

LIVE_STATES = ("queued", "checking", "uploading", "running")
END_STATES = ("ok", "succeeded", "reused", "invalid", "failed", "canceled", "pending")
_STATES = (*LIVE_STATES, *END_STATES)
_LINE_EVERY_S = 10.0


@dataclass
class Uploads:
    """What was uploaded so far.

    Attributes
    ----------
    n_clips, n_reused : int
        Uploads that have ended, and those of the last hours that were used again.
    n_bytes : int
        Bytes that have left, those of unfinished uploads too.
    saved_bytes : int
        What compressing has saved.
    """

    n_clips: int = 0
    n_reused: int = 0
    n_bytes: int = 0
    saved_bytes: int = 0

    def sent(self, n_bytes: int) -> None:
        """Bytes have left; a negative number when an attempt came to nothing."""
        self.n_bytes += n_bytes

    def ended(self, *, saved_bytes: int) -> None:
        """An upload has ended."""
        self.n_clips += 1
        self.saved_bytes += saved_bytes

    def reused(self) -> None:
        """An upload of an earlier run is used again."""
        self.n_reused += 1

    def __str__(self) -> str:
        """A few words, or nothing if there was no upload."""
        saved = f", {_megabytes(self.saved_bytes)} saved" if self.saved_bytes else ""
        return f"{_megabytes(self.n_bytes)} uploaded{saved}" if self.n_bytes else ""


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"


@dataclass(frozen=True)
class Snapshot:
    """The tally at one moment: plain values for any view.

    Attributes
    ----------
    title, destination : str
        What is done, and where the audio goes.
    n_rows : int
        Rows in all.
    counts : mapping
        Rows by state, `LIVE_STATES` and `END_STATES`.
    problems : tuple of (code, count, example)
        Reasons, most frequent first.
    elapsed_s : float
        Since the start.
    waiting_for_limit : int
        Requests that wait for the service's rate limit.
    ended : bool
        Whether the run is over.
    stopped_by : str or None
        What ended it before all rows were done, in a sentence.
    notice : str
        What holds all rows up right now, or empty.
    uploads : Uploads
        What was uploaded so far.
    requests : mapping
        Requests to the service by group of endpoints; ``refused`` were too many (429).
    """

    title: str
    destination: str
    n_rows: int
    counts: Mapping[str, int]
    problems: tuple[tuple[str, int, str], ...]
    elapsed_s: float
    waiting_for_limit: int
    ended: bool
    stopped_by: str | None = None
    notice: str = ""
    uploads: Uploads = field(default_factory=Uploads)
    requests: Mapping[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Rows that have reached an end state."""
        return sum(self.counts.get(state, 0) for state in END_STATES)

    @property
    def asides(self) -> list[str]:
        """What is to be said beside the counts of rows, in a few words each."""
        waiting = f"{self.waiting_for_limit} waiting for the limit" if self.waiting_for_limit else ""
        return [words for words in (waiting, str(self.uploads), self.notice) if words]

    @property
    def rows_per_s(self) -> float:
        """Rows ended per second since the start."""
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds left at the rate so far; None before the first row."""
        return (self.n_rows - self.done) / self.rows_per_s if self.rows_per_s else None

    def __str__(self) -> str:
        """One line: what is done, counts of what is not zero, rate and time left."""
        parts = [
            f"{self.counts[state]} {state}"
            for state in (*END_STATES, *LIVE_STATES[1:])
            if self.counts.get(state)
        ]
        parts += self.asides
        time_text = (
            f"{self.elapsed_s:.0f} s" if self.ended or self.left_s is None else f"{self.left_s:.0f} s left"
        )
        return (
            f"{self.title}: {self.done} of {self.n_rows} rows ({', '.join(parts) or 'starting'}), {time_text}"
        )


@dataclass
class Tally:
    """Folds events of rows into counts; the only state that a view needs."""

    n_rows: int
    title: str = "voiceprints"
    destination: str = ""
    clock: Callable[[], float] = time.monotonic
    waiting_for_limit: Callable[[], int] = field(default=lambda: 0)
    notice: Callable[[], str] = field(default=lambda: "")
    uploads: Uploads = field(default_factory=Uploads)
    requests: Callable[[], Mapping[str, int]] = field(default=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _problems: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, str] = field(default_factory=dict)
    _ended_s: float | None = None
    _stopped_by: str | None = None

    def __post_init__(self) -> None:
        self._started_s = self.clock()
        self._states = bytearray(self.n_rows)  # indices into `_STATES`: one byte a row
        self._counts["queued"] = self.n_rows

    def step(self, position: int, state: str) -> None:
        """A row has reached a state; one that has ended stays so, whatever comes late."""
        before = _STATES[self._states[position]]
        if before in END_STATES:
            return
        self._counts[before] -= 1
        self._counts[state] += 1
        self._states[position] = _STATES.index(state)

    def ended(self, position: int, state: str, code: str | None = None, sentence: str | None = None) -> None:
        """A row has reached its end state, with a reason unless it succeeded."""
        counted = _STATES[self._states[position]] not in END_STATES
        self.step(position, state)
        if code and counted:
            self._examples.setdefault(code, sentence or "")
            self._problems[code] += 1

    def stop(self, sentence: str) -> None:
        """Something that concerns all rows ends the run."""
        self._stopped_by = sentence

    def end(self) -> None:
        """The run is over; time stops."""
        if self._ended_s is None:
            self._ended_s = self.clock()

    def counts(self) -> dict[str, int]:
        """Rows by state, without zeros."""
        return {state: n for state in (*END_STATES, *LIVE_STATES) if (n := self._counts[state])}

    def snapshot(self) -> Snapshot:
        """All that a view shows."""
        now = self._ended_s if self._ended_s is not None else self.clock()
        counted = sorted(dict(self._problems).items(), key=lambda item: -item[1])
        problems = tuple((code, n, self._examples[code]) for code, n in counted)
        return Snapshot(
            self.title,
            self.destination,
            self.n_rows,
            self.counts(),
            problems,
            now - self._started_s,
            self.waiting_for_limit(),
            self._ended_s is not None,
            self._stopped_by,
            "" if self._ended_s is not None else self.notice(),
            replace(self.uploads),
            self.requests(),
        )


class Meter(Protocol):
    """A view over snapshots."""

    def show(self, snapshot: Snapshot) -> None:
        """Draw; called at most five times a second, and once more at the end."""


class LineMeter:
    """One line every ten seconds and one at the end, for logs and pipes."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last_s = clock()
        self._ended = False

    def show(self, snapshot: Snapshot) -> None:
        """Write a line if it is time; the last one only once."""
        now = self._clock()
        if not self._ended and (snapshot.ended or now - self._last_s >= _LINE_EVERY_S):
            self._last_s = now
            self._ended = snapshot.ended
            print(snapshot, file=self._stream, flush=True)


class BarMeter:
    """A bar in a terminal, drawn by tqdm."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._ended = False

    def show(self, snapshot: Snapshot) -> None:
        """Move the bar; at the end, replace it by a line."""
        from tqdm import tqdm

        if self._ended:
            return
        if self._bar is None:
            self._bar = tqdm(
                total=snapshot.n_rows, desc=snapshot.title, unit="row", file=self._stream, leave=False
            )
        shown = {state: n for state, n in snapshot.counts.items() if state != "queued"}
        self._bar.n = snapshot.done
        self._bar.set_postfix(shown, refresh=False)
        self._bar.refresh()
        if snapshot.ended:
            self._ended = True
            self._bar.close()
            print(snapshot, file=self._stream, flush=True)
