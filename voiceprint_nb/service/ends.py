"""Who waits, in this very process, to hear that a job has ended."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Collection

from voiceprint_nb.contract import Job, is_terminal

Callback = Callable[[Job], None]
_Name = tuple[str, str]  # team and job

_log = logging.getLogger(__name__)


class Ends:
    """Listeners by job; usable from any thread.

    Parameters
    ----------
    find : callable
        A job of a team as it is now.

    Examples
    --------
    >>> job = Job("a", "succeeded", "2025-11-18T12:37:14Z", None, None)
    >>> heard = []
    >>> stop = Ends(lambda team, job_id: job).listen("default", "a", heard.append)
    >>> heard == [job]
    True
    """

    def __init__(self, find: Callable[[str, str], Job | None]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._listeners: dict[_Name, list[Callback]] = {}
        self._open: set[_Name] = set()  # jobs that have not ended, certainly

    def open(self, team: str, add: Callable[[], str]) -> str:
        """Add a job, whose id the function returns: who listens to it need not look whether it has ended."""
        with self._lock:
            job_id = add()
            self._open.add((team, job_id))
        return job_id

    def listen(self, team: str, job_id: str, callback: Callback) -> Callable[[], None]:
        """Have a job's end, at once if it has ended already.

        Parameters
        ----------
        team, job_id : str
            The job.
        callback : callable
            Takes the job, in this thread or the one that ends it; it must neither block nor raise, and may
            hear the same end twice.

        Returns
        -------
        callable
            Ends it; safe to call twice.
        """
        name = team, job_id
        with self._lock:
            self._listeners.setdefault(name, []).append(callback)
            may_have_ended = name not in self._open
        if may_have_ended and (job := self._ended(*name)) is not None:
            callback(job)

        def stop() -> None:
            with self._lock:
                listening = self._listeners.get(name, [])
                if callback in listening:
                    listening.remove(callback)
                if not listening:
                    self._listeners.pop(name, None)

        return stop

    def tell(self, names: Collection[tuple[str, str]], job_of: Callable[[tuple[str, str]], Job]) -> None:
        """Tell those who listen to any of these teams' jobs that it has ended; the function makes the job."""
        with self._lock:
            self._open.difference_update(names)
            listeners = {name: list(self._listeners[name]) for name in names if name in self._listeners}
        told = [(callbacks, job_of(name)) for name, callbacks in listeners.items()]
        for callbacks, job in told:  # all are made first: whoever listens hears of all at once
            for callback in callbacks:
                callback(job)

    def _ended(self, team: str, job_id: str) -> Job | None:
        """The job if it has ended; one that cannot be read is not told: its listener looks in the end."""
        try:
            job = self._find(team, job_id)
        except sqlite3.Error:
            _log.exception("the end of a job is not told", extra={"job": job_id})
            return None
        return job if job is not None and is_terminal(job.status) else None
