"""How far the service's clock is ahead of this one, from the ``Date`` of its answers."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

_RESOLUTION_S = 1.0  # of an HTTP date
_UNKNOWN_S = 120.0  # what clocks may differ by while no answer has told
_SLACK_S = 3.0  # the clock that dates jobs need not be the one that dates answers


class ServerClock:
    """Bounds on the difference of two clocks; each answer with a date may narrow them.

    Examples
    --------
    >>> clock = ServerClock()
    >>> clock.note("Thu, 01 Jan 1970 00:01:40 GMT", sent_at=69.5, received_at=70.0)
    >>> clock.window(80.0, 81.0)
    (107.0, 115.5)
    """

    def __init__(self) -> None:
        self._least_s, self._most_s = -_UNKNOWN_S, _UNKNOWN_S
        self._is_told = False

    def note(self, date: str | None, *, sent_at: float, received_at: float) -> None:
        """Take over what an answer tells; times are this machine's Unix seconds."""
        try:
            told_at = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least_s, most_s = told_at - received_at, told_at + _RESOLUTION_S - sent_at
        if self._is_told and least_s <= self._most_s and most_s >= self._least_s:
            least_s, most_s = max(least_s, self._least_s), min(most_s, self._most_s)
        self._least_s, self._most_s, self._is_told = least_s, most_s, True  # a clock may have been set

    def window(self, begin_at: float, end_at: float) -> tuple[float, float]:
        """The same stretch of time by the service's clock, with all that is not known of it."""
        slack_s = _SLACK_S if self._is_told else 0.0
        return begin_at + self._least_s - slack_s, end_at + self._most_s + slack_s
