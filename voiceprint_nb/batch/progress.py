"""What happens to the rows: events folded into a tally, and the tally as text."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

LIVE_STATES = ("queued", "checking", "uploading", "running")
END_STATES = ("ok", "succeeded", "reused", "invalid", "failed", "canceled", "pending")
WAITING = "waiting for the limit"
SHOWN_STATES = (*END_STATES, "running", WAITING, "uploading", "checking", "queued")

_STATES = (*LIVE_STATES, *END_STATES)
_FEW = 5  # rows that say nothing of the rate
_RECENT_S = 60.0
_NOISE = 2.0  # standard deviations of a count


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
        Rows whose next request waits for the service's rate limit.
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
    limits : mapping
        Requests used and allowed in the service's present window, by group of endpoints.
    recent_per_s : float or None
        Rows that took work and ended, per second, in the last minute; None before there is half of one.
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
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    recent_per_s: float | None = None

    @property
    def done(self) -> int:
        """Rows that have reached an end state."""
        return sum(self.counts.get(state, 0) for state in END_STATES)

    @property
    def parts(self) -> dict[str, int]:
        """Rows by what is said of them, without zeros: those that wait for the limit are told apart."""
        waiting = min(self.waiting_for_limit, self.counts.get("uploading", 0))
        counts = {**self.counts, WAITING: waiting, "uploading": self.counts.get("uploading", 0) - waiting}
        return {state: n for state in SHOWN_STATES if (n := counts.get(state, 0))}

    @property
    def asides(self) -> list[str]:
        """What is to be said beside the counts of rows, in a few words each."""
        return [words for words in (str(self.uploads), self.notice) if words]

    @property
    def rows_per_s(self) -> float:
        """Rows ended per second, lately or since the start: those that took work, if there are any."""
        if self.recent_per_s is not None:
            return self.recent_per_s
        n_ended = _worked(self.counts) or self.done
        return n_ended / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> tuple[float, float] | None:
        """Seconds left, at least and at most; None where nothing can be said.

        From the rows of the last minute (of a shorter run, all), with twice the noise of a count, its square
        root, on either side.
        """
        rate_per_s = self.rows_per_s
        n_counted = min(self.done, rate_per_s * min(self.elapsed_s, _RECENT_S))
        if self.ended or n_counted < _FEW:
            return None
        noise, left = _NOISE / math.sqrt(n_counted), self.n_rows - self.done
        return left / (rate_per_s * (1 + noise)), left / (rate_per_s * (1 - noise))

    @property
    def time_text(self) -> str:
        """How long it took, or how long it may still take."""
        if self.ended or self.left_s is None:
            return duration_text(self.elapsed_s)
        least, most = map(duration_text, self.left_s)
        return f"about {least} left" if least == most else f"{least} to {most} left"

    def __str__(self) -> str:
        """One line: what is done, counts of what is not zero, time."""
        said = [f"{n} {state}" for state, n in self.parts.items() if state != "queued"] + self.asides
        rows = f"{self.done} of {self.n_rows} rows"
        return f"{self.title}: {rows} ({', '.join(said) or 'starting'}), {self.time_text}"


def duration_text(seconds: float) -> str:
    """A duration as people say it.

    Examples
    --------
    >>> duration_text(8.2), duration_text(412.0), duration_text(9_000.0)
    ('8 s', '7 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5940 else f"{seconds / 3600:.1f} h"


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
    limits: Callable[[], Mapping[str, tuple[int, int]]] = field(default=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _problems: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, str] = field(default_factory=dict)
    _ended_s: float | None = None
    _stopped_by: str | None = None

    def __post_init__(self) -> None:
        self._started_s = self.clock()
        self._states = bytearray(self.n_rows)  # indices into `_STATES`: one byte a row
        self._counts["queued"] = self.n_rows
        self._marks = deque(
            [(self._started_s, 0, 0)]
        )  # moments; rows ended by then, of which these took work

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
        recent_per_s = self._recent_per_s(now)
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
            self.limits(),
            recent_per_s,
        )

    def _recent_per_s(self, now_s: float) -> float | None:
        ended = sum(self._counts[state] for state in END_STATES)
        if now_s - self._marks[-1][0] >= 1.0:
            self._marks.append((now_s, ended, _worked(self._counts)))
        while len(self._marks) > 1 and self._marks[1][0] <= now_s - _RECENT_S:
            self._marks.popleft()
        since_s, ended_then, worked_then = self._marks[0]
        if now_s - since_s < _RECENT_S / 2:
            return None
        return (_worked(self._counts) - worked_then or ended - ended_then) / (now_s - since_s)


def _worked(counts: Mapping[str, int]) -> int:
    """Rows that ended and took work: others pass by in no time, and tell nothing of those to come."""
    return sum(counts.get(state, 0) for state in END_STATES if state not in ("reused", "invalid"))
