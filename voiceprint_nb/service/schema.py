"""The file of the job table: who may open it, its format, and the way from older formats.

A second, empty file is locked for the life of the table, so two services never work on the same jobs, while
an operator's command can still read them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.records import host_of

FORMAT = 4

_STARTS = "starts INTEGER NOT NULL DEFAULT 0"  # how often the engine got the job and did not give it back
_LINE = """
line TEXT AS (
    CASE WHEN starts >= 2 THEN 'alone' WHEN url GLOB 'media://*' OR url GLOB 'file://*' THEN 'upload'
    ELSE 'link' END
)
"""  # where a job waits
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    url TEXT,
    output TEXT,
    team TEXT NOT NULL DEFAULT 'default',
    webhook TEXT,
    webhook_status_only INTEGER NOT NULL DEFAULT 0,
    {_STARTS},
    {_LINE}
);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY,
    attempt INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    reason TEXT,
    host TEXT NOT NULL DEFAULT '',
    team TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS jobs_waiting ON jobs (line, team) WHERE status = 'created';
CREATE INDEX IF NOT EXISTS deliveries_by_due ON deliveries (due_ms);
CREATE INDEX IF NOT EXISTS deliveries_by_team_host ON deliveries (team, host, due_ms)
"""
_OF_MANY = """;
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, seq);
CREATE INDEX IF NOT EXISTS jobs_with_output ON jobs (updated_ms) WHERE output IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_of_team ON jobs (team);
CREATE INDEX IF NOT EXISTS jobs_of_team_by_status ON jobs (team, status)
"""  # a table of one process, and one team, does without
_ADD_LINE = f"ALTER TABLE jobs ADD COLUMN {_STARTS}; ALTER TABLE jobs ADD COLUMN {_LINE};"
_ADD_TEAM = """
ALTER TABLE deliveries ADD COLUMN team TEXT NOT NULL DEFAULT '';
UPDATE deliveries SET team = coalesce((SELECT team FROM jobs WHERE jobs.seq = deliveries.seq), '');
"""
_UPGRADES = {
    1: f"""
ALTER TABLE jobs ADD COLUMN team TEXT NOT NULL DEFAULT 'default';
ALTER TABLE jobs ADD COLUMN webhook TEXT;
ALTER TABLE jobs ADD COLUMN webhook_status_only INTEGER NOT NULL DEFAULT 0;
{_ADD_LINE}
""",
    2: f"""
DROP INDEX jobs_by_team;
DROP INDEX jobs_by_team_status;
ALTER TABLE deliveries ADD COLUMN host TEXT NOT NULL DEFAULT '';
UPDATE deliveries
SET host = coalesce((SELECT host_of(webhook) FROM jobs WHERE jobs.seq = deliveries.seq), '');
{_ADD_LINE} {_ADD_TEAM}
""",  # noqa: S608 - constant texts
    3: f"DROP INDEX deliveries_by_host; {_ADD_LINE} {_ADD_TEAM}",
}


def claimed(path: Path) -> sqlite3.Connection:
    """An empty SQLite file, locked until the connection is closed or its process ends.

    Raises
    ------
    UsageError
        Another service has locked it, or the folder cannot be used.
    """
    with _explained(path):
        _make_private(path)
        claim = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
        try:
            claim.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            claim.close()
            if "locked" not in str(error):
                raise
            raise UsageError(
                "Another service already works on this data folder: stop it, or name another folder."
            ) from error
    return claim


def opened(path: Path, *, lasting: bool = True) -> sqlite3.Connection:
    """The table's file, in the present format; its function ``host_of`` tells the host of an address.

    Parameters
    ----------
    path : Path
        The file.
    lasting : bool
        Whether it outlives the process: one that does not need not reach the disk.

    Raises
    ------
    UsageError
        A newer version wrote it, or it cannot be used.
    """
    with _explained(path):
        _make_private(path)
        connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, lasting=lasting)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(connection: sqlite3.Connection, *, lasting: bool) -> None:
    run = connection.execute
    connection.create_function("host_of", 1, host_of, deterministic=True)
    if lasting:
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
    else:  # nobody else reads it, and nobody after this process
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("PRAGMA journal_mode=MEMORY")
        run("PRAGMA synchronous=OFF")
    run("PRAGMA secure_delete=ON")  # a deleted voiceprint is overwritten
    if _format(connection) == FORMAT:
        return
    run("BEGIN IMMEDIATE")
    found = _format(connection)  # another process may have been faster
    if found > FORMAT:
        raise UsageError(f"This data folder has format {found}: upgrade voiceprint_nb to use it.")
    for statement in (_UPGRADES.get(found, "") + _SCHEMA + (_OF_MANY if lasting else "")).split(";"):
        run(statement.strip())
    run(f"PRAGMA user_version={FORMAT}")
    run("COMMIT")


def _format(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _make_private(path: Path) -> None:
    """An empty file of mode 0600, which SQLite's side files take over.

    One that is there is left alone: closing a second descriptor would drop the process's locks on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{str(path)!r} cannot be used ({reason}): make room, allow writing, or name another folder."
        ) from error
