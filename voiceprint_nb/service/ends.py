"""Who waits, in this very process, to hear that a job has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from voiceprint_nb.contract import Job, is_terminal

Callback = Callable[[Job], None]


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
        self._listeners: dict[str, list[Callback]] = {}

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
            self._listeners.setdefault(job_id, []).append(callback)
        self.tell([(team, job_id)])  # it may have ended before anybody listened

        def stop() -> None:
            with self._lock:
                others = [each for each in self._listeners.pop(job_id, ()) if each is not callback]
                if others:
                    self._listeners[job_id] = others

        return stop

    def tell(self, jobs: Iterable[tuple[str, str]]) -> None:
        """Tell those who listen to any of these teams' jobs that it has ended, if it has."""
        with self._lock:
            wanted = [(team, job_id) for team, job_id in jobs if job_id in self._listeners]
        found = [job for team, job_id in wanted if (job := self._find(team, job_id)) is not None]
        for job in found:  # all are found first: whoever listens hears of all at once
            if is_terminal(job.status):
                with self._lock:
                    callbacks = list(self._listeners.get(job.job_id, ()))
                for callback in callbacks:
                    callback(job)
