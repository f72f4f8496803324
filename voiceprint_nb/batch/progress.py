"""What happens to the rows: events folded into a tally, and the tally as text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TextIO

LIVE_STATES = ("queued", "checking", "uploading", "running")
END_STATES = ("ok", "succeeded", "reused", "invalid", "failed", "canceled", "pending")
_LINE_EVERY_S = 10.0


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

    @property
    def done(self) -> int:
        """Rows that have reached an end state."""
        return sum(self.counts.get(state, 0) for state in END_STATES)

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
        if self.waiting_for_limit:
            parts.append(f"{self.waiting_for_limit} waiting for the limit")
        if self.notice:
            parts.append(self.notice)
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
    _states: dict[int, str] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _problems: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, str] = field(default_factory=dict)
    _ended_s: float | None = None
    _stopped_by: str | None = None

    def __post_init__(self) -> None:
        self._started_s = self.clock()
        self._counts["queued"] = self.n_rows

    def step(self, position: int, state: str) -> None:
        """A row has reached a state; one that has ended stays so, whatever comes late."""
        if self._states.get(position) in END_STATES:
            return
        self._counts[self._states.get(position, "queued")] -= 1
        self._counts[state] += 1
        self._states[position] = state

    def ended(self, position: int, state: str, code: str | None = None, sentence: str | None = None) -> None:
        """A row has reached its end state, with a reason unless it succeeded."""
        counted = self._states.get(position) not in END_STATES
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
