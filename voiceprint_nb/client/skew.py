"""How far the service's clock is ahead of this one, from what it dates: its answers, and jobs made here."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DATE_RESOLUTION_S = 1.0  # of an HTTP date
_UNKNOWN_S = 120.0  # what clocks may differ by while nothing has told
_DATE_SLACK_S = 3.0  # the clock that dates jobs need not be the one that dates answers
_JOB_SLACK_S = 0.5  # several computers may date jobs, and clocks drift


class ServerClock:
    """Bounds on the difference of two clocks; each date may narrow them, those of jobs most.

    Examples
    --------
    >>> clock = ServerClock()
    >>> clock.window(80.0, 81.0)
    (-40.0, 201.0)
    >>> clock.note_answer("Thu, 01 Jan 1970 00:01:40 GMT", sent_at=69.5, received_at=70.0)
    >>> clock.window(80.0, 81.0)
    (107.0, 115.5)
    >>> clock.note_job(moment_of("1970-01-01T00:01:40.000Z"), sent_at=69.5, received_at=70.0)
    >>> clock.window(80.0, 81.0)
    (109.5, 112.0)
    """

    def __init__(self) -> None:
        self._by_answers: tuple[float, float] | None = None
        self._by_jobs: tuple[float, float] | None = None

    def note_answer(self, date: str | None, *, sent_at: float, received_at: float) -> None:
        """Take over what an answer's ``Date`` tells; times are this machine's Unix seconds."""
        try:
            told_at = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        ahead_s = told_at - received_at, told_at + _DATE_RESOLUTION_S - sent_at
        self._by_answers = _narrowed(self._by_answers, ahead_s)

    def note_job(self, created: tuple[float, float], *, sent_at: float, received_at: float) -> None:
        """Take over what the creation of a job tells that was submitted here, between these moments."""
        self._by_jobs = _narrowed(self._by_jobs, (created[0] - received_at, created[1] - sent_at))

    def window(self, begin_at: float, end_at: float) -> tuple[float, float]:
        """The same stretch of time by the clock that dates jobs, with all that is not known of it."""
        if self._by_jobs is not None:
            (least_s, most_s), slack_s = self._by_jobs, _JOB_SLACK_S
        elif self._by_answers is not None:
            (least_s, most_s), slack_s = self._by_answers, _DATE_SLACK_S
        else:
            (least_s, most_s), slack_s = (-_UNKNOWN_S, _UNKNOWN_S), 0.0
        return begin_at + least_s - slack_s, end_at + most_s + slack_s


def moment_of(timestamp: str) -> tuple[float, float] | None:
    """The first and the last moment, in Unix seconds, that an ISO 8601 time may mean; None if it is none.

    Without a zone it is UTC; without a fraction it may be any moment of its second.

    Examples
    --------
    >>> moment_of("1970-01-01T00:00:10Z"), moment_of("1970-01-01T00:00:10.5"), moment_of("yesterday")
    ((10.0, 11.0), (10.5, 10.5), None)
    """
    try:
        moment = datetime.fromisoformat(timestamp)
        unix_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return unix_s, unix_s + (0.0 if "." in timestamp else 1.0)


def _narrowed(known: tuple[float, float] | None, told: tuple[float, float]) -> tuple[float, float]:
    """What both allow; where they contradict each other, a clock was set or there are several: all of it."""
    if known is None:
        return told
    least_s, most_s = max(known[0], told[0]), min(known[1], told[1])
    return (least_s, most_s) if least_s <= most_s else (min(known[0], told[0]), max(known[1], told[1]))
