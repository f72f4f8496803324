"""Turns that all runs of an account share, in every kernel that uses the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from voiceprint_nb.batch.store import Ledger


@dataclass(frozen=True)
class LedgerTurns:
    """One group of endpoints of one account, as `pacing.Turns`.

    Attributes
    ----------
    ledger : Ledger
        Where the turns are kept.
    name : str
        Account and group.

    Examples
    --------
    >>> with Ledger(None, clock=lambda: 100.0) as ledger:
    ...     one, other = LedgerTurns(ledger, "submit"), LedgerTurns(ledger, "submit")
    ...     one.take(0.6), round(other.take(0.6), 3)
    (0.0, 0.6)
    """

    ledger: Ledger
    name: str

    def take(self, interval_s: float) -> float:
        """Seconds until the next turn; 0 if it was taken."""
        return self.ledger.take_turn(self.name, interval_s)

    def pause(self, seconds: float) -> None:
        """Let no turn come for so long."""
        self.ledger.pause_turns(self.name, seconds)
