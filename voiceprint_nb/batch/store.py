"""The ledger: what was asked, which jobs are open, what came back; one SQLite file, shared by kernels.

A finished row is in the ledger before it is in a DataFrame, so a killed process loses nothing and a second
run of the same line buys nothing twice. Voiceprints are biometric data: the file is 0600 in a 0700 folder,
and deleted values are overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from voiceprint_nb.batch.writing import Writer
from voiceprint_nb.contract import MEDIA_LIFE_S
from voiceprint_nb.errors import UsageError
from voiceprint_nb.pacing import LONGEST_PAUSE_S, made_up_s

FILE_NAME = "ledger.sqlite3"
_CLAIM_S = 120.0  # longer than any POST; where liveness of a process cannot be told, a claim ends by age
_BUSY_S = 30.0
_TOLD = "told by "

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS jobs (
  key TEXT PRIMARY KEY NOT NULL, state TEXT NOT NULL, owner TEXT, claimed_at REAL NOT NULL, job_id TEXT,
  opened_at REAL, closed_at REAL, voiceprint TEXT, warning TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_id ON jobs (job_id);
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY, started_at REAL NOT NULL, finished_at REAL, n_rows INTEGER NOT NULL,
  destination TEXT NOT NULL, call TEXT NOT NULL, frame BLOB, counts TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (
  run_id TEXT NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (run_id, position)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_key ON rows (key);
CREATE TABLE IF NOT EXISTS uploads (name TEXT PRIMARY KEY, uploaded_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS turns (name TEXT PRIMARY KEY, next_at REAL NOT NULL) WITHOUT ROWID;
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
    told_by : str
        The run that has ended and told of this unknown fate; empty if none has.
    voiceprint, warning : str or None
        The result of a succeeded request.
    """

    state: State
    job_id: str
    claimed_at: float
    orphaned: bool
    told_by: str = ""
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
    counts: Mapping[str, int]


class Ledger:
    """One connection to the ledger; close it, or use it as a context manager.

    Parameters
    ----------
    data_dir : Path or None
        Folder of the file; None keeps everything in memory, for ``ledger=False``.
    paid : bool
        Whether entries stand for money: they then survive a power cut too, at the cost of a disk
        synchronisation each.
    clock : callable
        Unix seconds.
    """

    def __init__(
        self, data_dir: Path | None, *, paid: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._paid = paid
        self._clock = clock
        self.path = data_dir / FILE_NAME if data_dir is not None else None
        if data_dir is not None and self.path is not None:
            try:
                data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
                _make_private(self.path)
            except OSError as error:
                raise UsageError(
                    f"The ledger cannot be written in {str(data_dir)!r} ({error.strerror}): choose another "
                    "folder with VOICEPRINT_NB_DATA_DIR, or pass ledger=False."
                ) from error
        self._db = sqlite3.connect(
            self.path or ":memory:", isolation_level=None, timeout=_BUSY_S, check_same_thread=False
        )
        self._writer = Writer(self._db, self._unusable)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        for pragma in (f"synchronous={'FULL' if self._paid else 'NORMAL'}", "secure_delete=ON"):
            self._writer.do(f"PRAGMA {pragma}").fetchone()
        deadline_s = time.monotonic() + _BUSY_S
        while True:  # SQLite does not wait for its turn to switch a new file to WAL
            try:
                self._db.execute("PRAGMA journal_mode=WAL").fetchone()
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline_s:
                    raise self._unusable(error) from error
                time.sleep(0.01)
            except sqlite3.DatabaseError as error:
                raise self._unusable(error) from error
        for statement in _SCHEMA.split(";"):
            self._writer.do(statement)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was written stays."""
        self._db.close()

    @contextlib.contextmanager
    def in_turns(self) -> Iterator[None]:
        """Gather what rows keep: it is written when somebody waits for it (`kept`), at the latest in 0.1 s.

        Not where entries stand for money: those go to disk one by one, and at once.
        """
        if self.path is None or self._paid:
            yield
            return
        with self._writer.in_turns():
            yield

    async def kept(self) -> None:
        """Wait until everything so far is on disk, or raise `UsageError`."""
        await self._writer.kept()

    def _unusable(self, error: sqlite3.DatabaseError) -> UsageError:
        where = repr(str(self.path)) if self.path else "in memory"
        if isinstance(error, sqlite3.OperationalError):
            return UsageError(
                f"The ledger {where} cannot be used ({error}): make room, close other programs that use it, "
                "or choose another folder with VOICEPRINT_NB_DATA_DIR."
            )
        return UsageError(f"The ledger {where} is not readable ({error}): move it away to begin a new one.")

    def account(self, api_key: str | None) -> str:
        """Name of a key's account that does not reveal the key: a hash keyed with the ledger's secret."""
        if api_key is None:
            return ""
        self._writer.do(
            "INSERT OR IGNORE INTO meta VALUES ('secret', ?)",
            (secrets.token_hex(32),),
        )
        secret = str(self._writer.do("SELECT value FROM meta WHERE name = 'secret'").fetchone()[0])
        return hmac.new(bytes.fromhex(secret), api_key.encode(), hashlib.sha256).hexdigest()[:32]

    # --- requests ---------------------------------------------------------------------------------------

    def find(self, key: str) -> Entry | None:
        """What is known of a request."""
        read = self._writer.do if self._writer.is_unwritten(key) else self._writer.run
        row = read(
            "SELECT state, job_id, claimed_at, owner, voiceprint, warning FROM jobs WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        state, job_id, claimed_at, owner, voiceprint, warning = row
        gone = state == "submitting" and self._is_gone(owner, claimed_at)
        told_by = owner.removeprefix(_TOLD) if owner and owner.startswith(_TOLD) else ""
        return Entry(state, job_id or "", claimed_at, gone, told_by, voiceprint, warning)

    def now(self) -> float:
        """The moment, as all times here: Unix seconds."""
        return self._clock()

    def age_s(self, entry: Entry) -> float:
        """Seconds since the request's submission."""
        return self._clock() - entry.claimed_at

    def claim(self, key: str) -> bool:
        """Announce a submission, on disk, before it is sent; False if the request is known already."""
        self._writer.refuse_failed()
        claimed = self._writer.do(
            "INSERT OR IGNORE INTO jobs (key, state, owner, claimed_at) VALUES (?, 'submitting', ?, ?)",
            (key, _owner(os.getpid()), self._clock()),
        )
        return claimed.rowcount == 1

    def renew(self, key: str) -> None:
        """Say that a claimed submission is sent only now."""
        self._writer.do(
            "UPDATE jobs SET claimed_at = ? WHERE key = ? AND state = 'submitting'", (self._clock(), key)
        )

    def abandon(self, key: str) -> None:
        """Give a claim up without knowing its fate: whoever finds it asks the service first."""
        self._writer.do("UPDATE jobs SET owner = NULL WHERE key = ? AND state = 'submitting'", (key,))

    def tell(self, key: str, run_id: str, *, claimed_at: float) -> None:
        """Keep that a run has told of a claim's unknown fate: another run may submit again, this one not."""
        self._writer.do(
            "UPDATE jobs SET owner = ? WHERE key = ? AND state = 'submitting' AND claimed_at = ?",
            (_TOLD + run_id, key, claimed_at),
        )

    def opened(self, key: str, job_id: str, warning: str | None = None) -> Entry:
        """Keep the job's id, of a claimed request or a new one; from now on it is not submitted again.

        A result that another run has kept meanwhile stays.
        """
        now = self._clock()
        self._writer.keep(
            "INSERT INTO jobs (key, state, claimed_at, job_id, warning, opened_at) "
            "VALUES (?, 'open', ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state, "
            "job_id = excluded.job_id, warning = excluded.warning, opened_at = excluded.opened_at "
            "WHERE jobs.state <> 'succeeded'",
            (key, now, job_id, warning, now),
            concerns=key,
        )
        return Entry("open", job_id, now, orphaned=False, warning=warning)

    def succeeded(self, key: str, *, voiceprint: str, warning: str | None) -> None:
        """Keep a result; it may be shown once it is `kept`."""
        self._writer.keep(
            "UPDATE jobs SET state = 'succeeded', voiceprint = ?, warning = coalesce(?, warning), "
            "closed_at = ? WHERE key = ?",
            (voiceprint, warning, self._clock(), key),
            concerns=key,
        )

    def drop(self, key: str, *, claimed_at: float | None = None, job_id: str | None = None) -> None:
        """Forget a request that came to nothing, so that it may be asked again.

        Only the claim of that moment, or only that job: another run may have begun anew since.
        """
        if job_id is not None:
            self._writer.do("DELETE FROM jobs WHERE key = ? AND state = 'open' AND job_id = ?", (key, job_id))
        else:
            self._writer.do(
                "DELETE FROM jobs WHERE key = ? AND state = 'submitting' "
                "AND claimed_at = coalesce(?, claimed_at)",
                (key, claimed_at),
            )

    def times_of_job(self, job_id: str) -> tuple[float, float] | None:
        """Unix seconds between which a job was submitted; None if it belongs to no request of this ledger."""
        found = self._writer.do(
            "SELECT claimed_at, opened_at FROM jobs WHERE job_id = ?", (job_id,)
        ).fetchone()
        return found and (found[0], found[1])

    def times_of_run(self, run_id: str) -> list[tuple[float, float, float | None]]:
        """Unix seconds of a run's jobs, in order of submission: submitted, accepted, ended (None if open)."""
        found = self._writer.do(
            "SELECT DISTINCT jobs.key, claimed_at, opened_at, closed_at FROM rows JOIN jobs "
            "ON jobs.key = rows.key WHERE rows.run_id = ? AND opened_at IS NOT NULL ORDER BY claimed_at",
            (run_id,),
        )
        return [(row[1], row[2], row[3]) for row in found]

    def take_turn(self, name: str, interval_s: float) -> float:
        """`pacing.Turns.take` for everybody who uses this ledger and name."""
        now = self._clock()
        taken = self._writer.do(  # a turn beyond the longest pause is from before the clock was set back
            "INSERT INTO turns VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET next_at = "
            "CASE WHEN turns.next_at BETWEEN ? AND ? THEN max(turns.next_at, ?) + ? "
            "ELSE excluded.next_at END "
            "WHERE turns.next_at <= ? OR turns.next_at > ?",
            (
                *(name, now + interval_s),
                *(now - interval_s, now, now - made_up_s(interval_s), interval_s),  # as `OwnTurns` does
                *(now, now + 2 * LONGEST_PAUSE_S),
            ),
        )
        if taken.rowcount:
            return 0.0
        (next_at,) = self._writer.do("SELECT next_at FROM turns WHERE name = ?", (name,)).fetchone()
        return max(0.001, float(next_at) - now)

    def pause_turns(self, name: str, seconds: float) -> None:
        """`pacing.Turns.pause` for everybody who uses this ledger and name."""
        self._writer.do(
            "INSERT INTO turns VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
            "SET next_at = max(next_at, excluded.next_at)",
            (name, self._clock() + seconds),
        )

    # --- uploads ----------------------------------------------------------------------------------------

    def note_upload(self, name: str) -> None:
        """Keep that a content is in the service's storage."""
        self._writer.do("INSERT OR REPLACE INTO uploads VALUES (?, ?)", (name, self._clock()))

    def has_upload(self, name: str, *, within_s: float) -> bool:
        """Whether a content was put into the service's storage in the last so many seconds."""
        found = self._writer.do(
            "SELECT 1 FROM uploads WHERE name = ? AND uploaded_at > ?", (name, self._clock() - within_s)
        )
        return found.fetchone() is not None

    def drop_upload(self, name: str) -> None:
        """Forget an upload."""
        self._writer.do("DELETE FROM uploads WHERE name = ?", (name,))

    # --- runs -------------------------------------------------------------------------------------------

    def begin_run(
        self, *, n_rows: int, destination: str, call: Mapping[str, Any], frame: bytes | None
    ) -> str:
        """Keep what is needed to go on after a crash; returns the run's id."""
        started_at = self._clock()
        self._writer.do("DELETE FROM uploads WHERE uploaded_at < ?", (started_at - MEDIA_LIFE_S,))
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(started_at))
        run_id = f"{stamp}-{secrets.token_hex(3)}"
        self._writer.do(
            "INSERT INTO runs (run_id, started_at, n_rows, destination, call, frame) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (run_id, started_at, n_rows, destination, json.dumps(dict(call)), frame),
        )
        return run_id

    def note_row(self, run_id: str, position: int, key: str) -> None:
        """Keep which request a row stands for: audio in memory cannot be found again otherwise."""
        self._writer.keep("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (run_id, position, key))

    def key_of_row(self, run_id: str, position: int) -> str | None:
        """The request of a row of an earlier run."""
        row = self._writer.do(
            "SELECT key FROM rows WHERE run_id = ? AND position = ?", (run_id, position)
        ).fetchone()
        return None if row is None else str(row[0])

    def open_jobs(self, run_id: str) -> dict[int, str]:
        """Job ids of a run's rows whose jobs are open, by position; those that expire first come first."""
        found = self._writer.do(
            "SELECT rows.position, jobs.job_id FROM rows JOIN jobs ON jobs.key = rows.key "
            "WHERE rows.run_id = ? AND jobs.state = 'open' ORDER BY jobs.claimed_at",
            (run_id,),
        )
        return dict(found.fetchall())

    def end_run(self, run_id: str, counts: Mapping[str, int], *, finished: bool) -> None:
        """Keep the counts; a run that is not finished is what `resume` looks for."""
        self._writer.do(
            "UPDATE runs SET counts = ?, finished_at = ? WHERE run_id = ?",
            (json.dumps(dict(counts)), self._clock() if finished else None, run_id),
        )

    def frame_of(self, run_id: str) -> bytes | None:
        """The packed frame of a run; None if somebody else may have written the file."""
        if self.path is not None and not is_private(self.path):
            return None
        row = self._writer.do("SELECT frame FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else row[0]

    def runs(self) -> list[RunRecord]:
        """All runs, newest first."""
        rows = self._writer.do(
            "SELECT run_id, started_at, finished_at, n_rows, destination, call, counts FROM runs "
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
                json.loads(counts or "{}"),
            )
            for run_id, started_at, finished_at, n_rows, destination, call, counts in rows
        ]

    def forget(self, run_ids: list[str]) -> int:
        """Delete runs and the results that no other run shares; returns how many voiceprints went."""
        marks = ",".join("?" * len(run_ids))
        with self._db:
            self._writer.do("BEGIN IMMEDIATE")
            keys = [
                row[0]
                for row in self._writer.do(
                    f"SELECT key FROM rows GROUP BY key HAVING SUM(run_id NOT IN ({marks})) = 0",  # noqa: S608 - only question marks
                    run_ids,
                )
            ]
            removed = self._delete_jobs(keys)
            for table in ("rows", "runs"):
                self._writer.do(f"DELETE FROM {table} WHERE run_id IN ({marks})", run_ids)  # noqa: S608 - only question marks
        self._writer.do("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return removed

    def forget_everything(self) -> int:
        """Delete all runs, rows and results; returns how many voiceprints went."""
        with self._db:
            self._writer.do("BEGIN IMMEDIATE")
            keys = [row[0] for row in self._writer.do("SELECT key FROM jobs")]
            removed = self._delete_jobs(keys)
            for table in ("rows", "runs", "uploads", "turns"):
                self._writer.do(f"DELETE FROM {table}")  # noqa: S608 - fixed names
        self._writer.do("VACUUM")
        self._writer.do("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return removed

    def unlist(self, run_id: str) -> None:
        """Take a run off the list; its results stay, to be reused."""
        self._writer.do("DELETE FROM rows WHERE run_id = ?", (run_id,))
        self._writer.do("DELETE FROM runs WHERE run_id = ?", (run_id,))

    def _delete_jobs(self, keys: list[str]) -> int:
        removed = 0
        for key in keys:
            row = self._writer.do("SELECT voiceprint IS NOT NULL FROM jobs WHERE key = ?", (key,)).fetchone()
            removed += bool(row and row[0])
            self._writer.do("DELETE FROM jobs WHERE key = ?", (key,))
        return removed

    def _is_gone(self, owner: str | None, claimed_at: float) -> bool:
        if owner is None or owner.startswith(_TOLD):
            return True
        alive = _is_alive(owner)
        return self._clock() - claimed_at > _CLAIM_S if alive is None else not alive


def _make_private(path: Path) -> None:
    """A file of mode 0600 that is there afterwards.

    One that is there is not opened: closing a second descriptor would drop all locks of this process on it,
    and another process could take itself for the last user and delete the log of what is not in the file yet.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        if mode & 0o055 and not mode & 0o022:  # read by others; one written by others stays marked
            path.chmod(0o600)


def request_key(*parts: str) -> str:
    """Name of a request: a digest over content, request, service and account."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def is_private(path: Path) -> bool:
    """Whether only this user can have written the file: what it holds may then be trusted."""
    if sys.platform == "win32":
        return True  # the user data folder is private by its access list there
    facts = path.stat()
    return facts.st_uid == os.geteuid() and not facts.st_mode & 0o077


@functools.lru_cache(maxsize=4)
def _owner(pid: int) -> str:
    """Name of this process: machine, number, start time."""
    return f"{os.uname().nodename if sys.platform != 'win32' else ''}:{pid}:{_birth(pid)}"


def _birth(pid: int) -> str:
    """Start time of a process where the system tells it, so that a reused number is not taken for it."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "ended" if facts[0] in "ZX" else facts[19]  # killed, but its parent has not looked yet
    except (OSError, IndexError):
        return ""


def _is_alive(owner: str) -> bool | None:
    """Whether the claiming process still runs; None where that cannot be told."""
    node, pid_text, birth = owner.rsplit(":", 2)
    if sys.platform == "win32" or not pid_text.isdigit() or node != os.uname().nodename:
        return None
    try:
        os.kill(int(pid_text), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _birth(int(pid_text)) == birth
