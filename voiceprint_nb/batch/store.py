"""The ledger: what was asked, which jobs are open, what came back; one SQLite file, shared by kernels.

A finished row is in the ledger before it is in a DataFrame, so a killed process loses nothing and a second
run of the same line buys nothing twice. Voiceprints are biometric data: the file is 0600 in a 0700 folder,
and deleted values are overwritten.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from voiceprint_nb.errors import UsageError

FILE_NAME = "ledger.sqlite3"
_CLAIM_S = 120.0  # longer than any POST; where liveness of a process cannot be told, a claim ends by age
_BUSY_S = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
  key TEXT PRIMARY KEY, state TEXT NOT NULL, owner TEXT, claimed_at REAL NOT NULL, job_id TEXT,
  opened_at REAL, closed_at REAL, voiceprint TEXT, warning TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_id ON jobs (job_id);
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY, started_at REAL NOT NULL, finished_at REAL, n_rows INTEGER NOT NULL,
  destination TEXT NOT NULL, call TEXT NOT NULL, frame BLOB, counts TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
  run_id TEXT NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (run_id, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_key ON rows (key);
"""

State = Literal["submitting", "open", "succeeded"]


@dataclass(frozen=True)
class Entry:
    """What the ledger knows of one request for one content.

    Attributes
    ----------
    state : {"submitting", "open", "succeeded"}
        Failed requests are not kept: they cost nothing and may be asked again.
    job_id : str
        Known from ``open`` on, else empty.
    claimed_at : float
        Unix seconds when the submission began.
    orphaned : bool
        A submission whose process is gone: its fate is unknown.
    voiceprint, warning : str or None
        The result of a succeeded request.
    """

    state: State
    job_id: str
    claimed_at: float
    orphaned: bool
    voiceprint: str | None = field(default=None, repr=False)
    warning: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """One run as the ledger keeps it."""

    run_id: str
    started_at: float
    finished_at: float | None
    n_rows: int
    destination: str
    call: Mapping[str, Any] = field(repr=False)
    frame: bytes | None = field(repr=False)
    counts: Mapping[str, int]


class Ledger:
    """One connection to the ledger; close it, or use it as a context manager.

    Parameters
    ----------
    data_dir : Path or None
        Folder of the file; None keeps everything in memory, for ``ledger=False``.
    clock : callable
        Unix seconds.
    """

    def __init__(self, data_dir: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.path = data_dir / FILE_NAME if data_dir is not None else None
        if data_dir is not None and self.path is not None:
            try:
                data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise UsageError(
                    f"The ledger cannot be written in {str(data_dir)!r} ({error.strerror}): choose another "
                    "folder with VOICEPRINT_NB_DATA_DIR, or pass ledger=False."
                ) from error
        self._db = sqlite3.connect(
            self.path or ":memory:", isolation_level=None, timeout=_BUSY_S, check_same_thread=False
        )
        try:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON"):
                self._db.execute(f"PRAGMA {pragma}").fetchone()
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise UsageError(
                f"The ledger {str(self.path)!r} is not readable ({error}): move it away to begin a new one."
            ) from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was written stays."""
        self._db.close()

    def account(self, api_key: str | None) -> str:
        """Name of a key's account that does not reveal the key: a hash keyed with the ledger's secret."""
        if api_key is None:
            return ""
        self._db.execute(
            "INSERT OR IGNORE INTO meta VALUES ('secret', ?)",
            (secrets.token_hex(32),),
        )
        secret = str(self._db.execute("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0])
        return hmac.new(bytes.fromhex(secret), api_key.encode(), hashlib.sha256).hexdigest()[:32]

    # --- requests ---------------------------------------------------------------------------------------

    def find(self, key: str) -> Entry | None:
        """What is known of a request."""
        row = self._db.execute(
            "SELECT state, job_id, claimed_at, owner, voiceprint, warning FROM jobs WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        state, job_id, claimed_at, owner, voiceprint, warning = row
        gone = state == "submitting" and self._is_gone(owner, claimed_at)
        return Entry(state, job_id or "", claimed_at, gone, voiceprint, warning)

    def claim(self, key: str) -> bool:
        """Announce a submission before it is sent; False if the request is known already."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO jobs (key, state, owner, claimed_at) VALUES (?, 'submitting', ?, ?)",
            (key, _me(), self._clock()),
        )
        return cursor.rowcount == 1

    def opened(self, key: str, job_id: str, warning: str | None = None) -> None:
        """Keep the job's id; from now on nothing is submitted again for this request."""
        self._db.execute(
            "UPDATE jobs SET state = 'open', job_id = ?, warning = ?, opened_at = ? WHERE key = ?",
            (job_id, warning, self._clock(), key),
        )

    def succeeded(self, key: str, *, voiceprint: str, warning: str | None) -> None:
        """Keep a result."""
        self._db.execute(
            "UPDATE jobs SET state = 'succeeded', voiceprint = ?, warning = coalesce(?, warning), "
            "closed_at = ? WHERE key = ?",
            (voiceprint, warning, self._clock(), key),
        )

    def drop(self, key: str, entry: Entry | None = None) -> None:
        """Forget a request that came to nothing, so that it may be asked again.

        With ``entry``, only if the request is still as it was found: another process may have claimed it.
        """
        self._db.execute(
            "DELETE FROM jobs WHERE key = ?1 AND state != 'succeeded' AND (?2 IS NULL OR claimed_at = ?2)",
            (key, entry.claimed_at if entry else None),
        )

    def knows_job(self, job_id: str) -> bool:
        """Whether a job id belongs to any request of this ledger."""
        return self._db.execute("SELECT 1 FROM jobs WHERE job_id = ?", (job_id,)).fetchone() is not None

    # --- runs -------------------------------------------------------------------------------------------

    def begin_run(
        self, *, n_rows: int, destination: str, call: Mapping[str, Any], frame: bytes | None
    ) -> str:
        """Keep what is needed to go on after a crash; returns the run's id."""
        started_at = self._clock()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started_at))
        run_id = f"{stamp}-{secrets.token_hex(3)}"
        self._db.execute(
            "INSERT INTO runs (run_id, started_at, n_rows, destination, call, frame) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (run_id, started_at, n_rows, destination, json.dumps(dict(call)), frame),
        )
        return run_id

    def note_row(self, run_id: str, position: int, key: str) -> None:
        """Keep which request a row stands for: audio in memory cannot be found again otherwise."""
        self._db.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (run_id, position, key))

    def key_of_row(self, run_id: str, position: int) -> str | None:
        """The request of a row of an earlier run."""
        row = self._db.execute(
            "SELECT key FROM rows WHERE run_id = ? AND position = ?", (run_id, position)
        ).fetchone()
        return None if row is None else str(row[0])

    def end_run(self, run_id: str, counts: Mapping[str, int], *, finished: bool) -> None:
        """Keep the counts; a run that is not finished is what `resume` looks for."""
        self._db.execute(
            "UPDATE runs SET counts = ?, finished_at = ? WHERE run_id = ?",
            (json.dumps(dict(counts)), self._clock() if finished else None, run_id),
        )

    def runs(self) -> list[RunRecord]:
        """All runs, newest first."""
        rows = self._db.execute(
            "SELECT run_id, started_at, finished_at, n_rows, destination, call, frame, counts FROM runs "
            "ORDER BY started_at DESC, run_id DESC"
        )
        return [
            RunRecord(
                run_id,
                started_at,
                finished_at,
                n_rows,
                destination,
                json.loads(call),
                frame,
                json.loads(counts or "{}"),
            )
            for run_id, started_at, finished_at, n_rows, destination, call, frame, counts in rows
        ]

    def forget(self, run_ids: list[str]) -> int:
        """Delete runs and the results that no other run shares; returns how many voiceprints went."""
        marks = ",".join("?" * len(run_ids))
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            keys = [
                row[0]
                for row in self._db.execute(
                    f"SELECT key FROM rows GROUP BY key HAVING SUM(run_id NOT IN ({marks})) = 0",  # noqa: S608 - only question marks
                    run_ids,
                )
            ]
            removed = self._delete_jobs(keys)
            for table in ("rows", "runs"):
                self._db.execute(f"DELETE FROM {table} WHERE run_id IN ({marks})", run_ids)  # noqa: S608 - only question marks
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return removed

    def forget_everything(self) -> int:
        """Delete all runs, rows and results; returns how many voiceprints went."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            keys = [row[0] for row in self._db.execute("SELECT key FROM jobs")]
            removed = self._delete_jobs(keys)
            self._db.execute("DELETE FROM rows")
            self._db.execute("DELETE FROM runs")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return removed

    def _delete_jobs(self, keys: list[str]) -> int:
        removed = 0
        for key in keys:
            row = self._db.execute("SELECT voiceprint IS NOT NULL FROM jobs WHERE key = ?", (key,)).fetchone()
            removed += bool(row and row[0])
            self._db.execute("DELETE FROM jobs WHERE key = ?", (key,))
        return removed

    def _is_gone(self, owner: str | None, claimed_at: float) -> bool:
        alive = _is_alive(owner)
        return self._clock() - claimed_at > _CLAIM_S if alive is None else not alive


def request_key(*parts: str) -> str:
    """Name of a request: a digest over content, request, service and account."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_private(path: Path) -> bool:
    """Whether only this user can have written the file: what it holds may then be trusted."""
    if sys.platform == "win32":
        return True  # the user data folder is private by its access list there
    facts = path.stat()
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o077


def _me() -> str:
    return f"{os.uname().nodename if sys.platform != 'win32' else ''}:{os.getpid()}:{_birth(os.getpid())}"


def _birth(pid: int) -> str:
    """Start time of a process where the system tells it, so that a reused number is not taken for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _is_alive(owner: str | None) -> bool | None:
    """Whether the claiming process still runs; None where that cannot be told."""
    node, pid_text, birth = (owner or "::").rsplit(":", 2)
    if sys.platform == "win32" or not pid_text.isdigit() or node != os.uname().nodename:
        return None
    try:
        os.kill(int(pid_text), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _birth(int(pid_text)) == birth
