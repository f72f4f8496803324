"""Who waits, in this very process, to hear that a job has ended."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable

from voiceprint_nb.contract import Job, is_terminal

Callback = Callable[[Job], None]

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
        self._listeners: dict[tuple[str, str], list[Callback]] = {}  # by team and job

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
        with self._lock:
            self._listeners.setdefault((team, job_id), []).append(callback)
        self.tell([(team, job_id)])  # it may have ended before anybody listened

        def stop() -> None:
            with self._lock:
                listening = self._listeners.get((team, job_id), [])
                if callback in listening:
                    listening.remove(callback)
                if not listening:
                    self._listeners.pop((team, job_id), None)

        return stop

    def tell(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Tell those who listen to any of these teams' jobs that it has ended, if it has.

        One that cannot be read now is not told: whoever listens looks for lost ends in the end.
        """
        with self._lock:
            wanted = [name for name in jobs if name in self._listeners]
        ended = [(name, job) for name in wanted if (job := self._ended(*name)) is not None]
        for name, job in ended:  # all are found first: whoever listens hears of all at once
            with self._lock:
                callbacks = list(self._listeners.get(name, ()))
            for callback in callbacks:
                callback(job)

    def _ended(self, team: str, job_id: str) -> Job | None:
        try:
            job = self._find(team, job_id)
        except sqlite3.Error:
            _log.exception("the end of a job is not told", extra={"job": job_id})
            return None
        return job if job is not None and is_terminal(job.status) else None
