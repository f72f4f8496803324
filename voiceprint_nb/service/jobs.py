"""The job table: one SQLite file, one connection, one lock, short transactions.

The file is locked for the life of the table, so two services never work on the same jobs.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voiceprint_nb.contract import CREATED, OUTPUT_LIFE_S, RUNNING, Job, JobListItem
from voiceprint_nb.errors import UsageError

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    url TEXT,
    output TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, seq);
"""


@dataclass(frozen=True)
class WaitingJob:
    """What the work on a job needs.

    Parameters
    ----------
    seq : int
        Position in the order of arrival.
    url : str
        Where its audio lies; may be a signed link.
    """

    seq: int
    url: str = field(repr=False)


@dataclass(frozen=True)
class StoredJob:
    """One row as readers see it; ``output`` is JSON text."""

    seq: int
    id: str
    status: str
    created_ms: int
    updated_ms: int
    output: str | None = field(default=None, repr=False)

    def to_job(self, *, now_ms: int) -> Job:
        """The job as callers read it: its output is there during 24 h after its end."""
        alive = now_ms - self.updated_ms <= OUTPUT_LIFE_S * 1000
        output = json.loads(self.output) if self.output is not None and alive else None
        return Job(self.id, self.status, timestamp(self.created_ms), timestamp(self.updated_ms), output)

    def to_item(self) -> JobListItem:
        """The job as an item of a list."""
        return JobListItem(self.id, self.status, timestamp(self.created_ms))


@dataclass(frozen=True)
class Change:
    """A job's new status; the link goes away with the first final one, which alone has an output."""

    seq: int
    status: str
    at_ms: int
    output: str | None = field(default=None, repr=False)


class JobTable:
    """Jobs in the order of arrival; usable from any thread.

    Parameters
    ----------
    path : Path
        The SQLite file, made with mode 0600 if it is not there.

    Raises
    ------
    UsageError
        Another service has the file open, or a newer version wrote it.
    """

    def __init__(self, path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's side files take over this mode
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.OperationalError as error:
            self._connection.close()
            if "locked" not in str(error):
                raise
            raise UsageError(
                "Another service already works on this data folder: stop it, or name another folder."
            ) from error
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        (version,) = run("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise UsageError(f"This data folder has format {version}: upgrade voiceprint_nb to use it.")
        self._connection.executescript(_SCHEMA)
        run(f"PRAGMA user_version={_SCHEMA_VERSION}")

    def add(self, job_id: str, url: str, *, now_ms: int) -> None:
        """Store a new job; it is on disk when this returns."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO jobs (id, status, created_ms, updated_ms, url) VALUES (?, ?, ?, ?, ?)",
                (job_id, CREATED, now_ms, now_ms, url),
            )

    def find(self, job_id: str) -> StoredJob | None:
        """The job of this id with its output, if there is one."""
        with self._lock:
            row = self._connection.execute(
                "SELECT seq, id, status, created_ms, updated_ms, output FROM jobs WHERE id = ?", (job_id,)
            ).fetchone()
        return None if row is None else StoredJob(*row)

    def newest(self, limit: int, *, before_seq: int | None, status: str | None) -> list[StoredJob]:
        """At most `limit` jobs, newest first, without output."""
        before_seq = 1 << 62 if before_seq is None else before_seq
        query = "SELECT seq, id, status, created_ms, updated_ms FROM jobs WHERE "
        if status is None:
            query += "seq < ? ORDER BY seq DESC LIMIT ?"
            parameters: tuple[object, ...] = (before_seq, limit)
        else:
            query += "status = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
            parameters = (status, before_seq, limit)
        with self._lock:
            rows = self._connection.execute(query, parameters).fetchall()
        return [StoredJob(*row) for row in rows]

    def waiting(self, *, after_seq: int, limit: int) -> list[WaitingJob]:
        """The oldest jobs after `after_seq` on which nobody works."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT seq, url FROM jobs WHERE status = ? AND seq > ? ORDER BY seq LIMIT ?",
                (CREATED, after_seq, limit),
            ).fetchall()
        return [WaitingJob(*row) for row in rows]

    def reopen(self) -> int:
        """Make jobs that an earlier service left running wait again; the number of waiting jobs."""
        with self._lock:
            self._connection.execute("UPDATE jobs SET status = ? WHERE status = ?", (CREATED, RUNNING))
            (count,) = self._connection.execute(
                "SELECT count(*) FROM jobs WHERE status = ?", (CREATED,)
            ).fetchone()
        return int(count)

    def write(self, changes: Sequence[Change]) -> None:
        """Store all changes in one transaction."""
        rows = [
            (change.status, change.at_ms, change.output, change.status != RUNNING, change.seq)
            for change in changes
        ]
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "UPDATE jobs SET status = ?, updated_ms = ?, output = ?, "
                    "url = CASE WHEN ? THEN NULL ELSE url END WHERE seq = ?",
                    rows,
                )
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._connection.close()


def timestamp(unix_ms: int) -> str:
    """ISO 8601 text in UTC with milliseconds and ``Z``.

    >>> timestamp(1763469434750)
    '2025-11-18T12:37:14.750Z'
    """
    seconds, rest_ms = divmod(unix_ms, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest_ms:03d}Z"
