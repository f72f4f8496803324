"""What the service reports about its work; who counts it is not its concern."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Takes reports from any thread; none of them carries anything of a caller."""

    def job_ended(self, status: str, *, engine_s: float) -> None:
        """A job has its terminal status, after so many seconds of work of the engine."""

    def webhook_attempted(self, outcome: str) -> None:
        """An event was ``delivered``, or failed for one of the contract's reasons."""

    def webhook_given_up(self) -> None:
        """The last attempt at an event has failed."""

    def request_answered(self, operation: str, status: int, duration_s: float) -> None:
        """A request to this route, by its template, has its answer."""


class NullMeter:
    """Counts nothing.

    Examples
    --------
    >>> NullMeter().webhook_attempted("delivered")
    """

    def job_ended(self, status: str, *, engine_s: float) -> None:
        """Forget it."""

    def webhook_attempted(self, outcome: str) -> None:
        """Forget it."""

    def webhook_given_up(self) -> None:
        """Forget it."""

    def request_answered(self, operation: str, status: int, duration_s: float) -> None:
        """Forget it."""
