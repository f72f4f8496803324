"""The job table: one SQLite file, one connection, one lock, short transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voiceprint_nb.contract import CREATED, RUNNING, TERMINAL_STATUSES, VoiceprintRequest
from voiceprint_nb.service.records import (
    ALONE,
    LINES,
    Change,
    Delivery,
    StoredJob,
    WaitingJob,
    job_id_at,
    line_of,
    moment_of,
)
from voiceprint_nb.service.schema import claimed, opened

_MAX_NTH = 4095
_MOST_ROWS = 2**62  # SQLite counts in 64 bits
_WAITING = """
WITH RECURSIVE teams (team) AS (
    SELECT min(team) FROM jobs WHERE status = 'created' AND line = :line
    UNION ALL
    SELECT (SELECT min(team) FROM jobs WHERE status = 'created' AND line = :line AND team > teams.team)
    FROM teams WHERE team IS NOT NULL
)
SELECT seq, id, jobs.team, line, url, created_ms FROM teams CROSS JOIN jobs ON seq IN (
    SELECT seq FROM jobs AS of_team INDEXED BY jobs_waiting
    WHERE status = 'created' AND line = :line AND of_team.team = teams.team ORDER BY seq LIMIT :per_team
) ORDER BY seq
"""  # one look into the index for each team, not one at each job that waits
_DUE = """
WITH RECURSIVE teams (team) AS (
    SELECT min(team) FROM deliveries
    UNION ALL
    SELECT (SELECT min(team) FROM deliveries WHERE team > teams.team) FROM teams WHERE team IS NOT NULL
), hosts (team, host) AS (
    SELECT team, (SELECT min(host) FROM deliveries AS of_team WHERE of_team.team = teams.team)
    FROM teams WHERE team IS NOT NULL
    UNION ALL
    SELECT team, (
        SELECT min(host) FROM deliveries AS of_team WHERE of_team.team = hosts.team AND host > hosts.host
    ) FROM hosts WHERE host IS NOT NULL
)
SELECT seq, attempt, reason, team, webhook, webhook_status_only, id, status, created_ms, updated_ms, output
FROM (
    SELECT seq, attempt, due_ms, reason,
        row_number() OVER (PARTITION BY deliveries.team ORDER BY due_ms, seq) AS nth
    FROM hosts CROSS JOIN deliveries ON seq IN (
        SELECT seq FROM deliveries AS of_host
        WHERE of_host.team = hosts.team AND of_host.host = hosts.host AND due_ms <= :now_ms
        ORDER BY due_ms, seq LIMIT :per_host
    )
) CROSS JOIN jobs USING (seq) WHERE nth <= :per_team ORDER BY due_ms, seq
"""  # one look into the index for each host of a team
_TERMINAL = tuple(sorted(TERMINAL_STATUSES))


class JobTable:
    """Jobs in the order of arrival; usable from any thread.

    Parameters
    ----------
    path : Path
        The SQLite file, made with mode 0600 if it is not there.
    alone : bool
        Whether this is the service that works on the jobs; an operator's command only reads.
    lasting : bool
        Whether the file outlives the process.

    Raises
    ------
    UsageError
        Another service works on the file, a newer version wrote it, or it cannot be used.
    """

    def __init__(self, path: Path, *, alone: bool = True, lasting: bool = True) -> None:
        self._mutex = threading.Lock()
        self._lines = set(LINES)  # in which a job may wait: the others need no look
        self._claim = claimed(path.with_suffix(".lock")) if alone else None
        try:
            self._connection = opened(path, lasting=lasting)
        except BaseException:
            if self._claim is not None:
                self._claim.close()
            raise
        last = self._read("SELECT id FROM jobs ORDER BY seq DESC LIMIT 1")
        self._last_id = moment_of(last[0][0]) if last else (0, 0)

    def add(self, team: str, request: VoiceprintRequest, *, now_ms: int) -> str:
        """Store a new job: it survives the end of the process, if not a power cut, when its id is told."""
        with self._mutex:
            job_id = self._next_id(now_ms)
            self._connection.execute(
                "INSERT INTO jobs (id, team, status, created_ms, updated_ms, url, webhook, "
                "webhook_status_only) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id,
                    team,
                    CREATED,
                    now_ms,
                    now_ms,
                    request.url,
                    request.webhook,
                    request.webhook_status_only,
                ),
            )
            self._lines.add(line_of(request.url))
        return job_id

    def find(self, team: str, job_id: str) -> StoredJob | None:
        """The team's job of this id with its output, if there is one."""
        rows = self._read(
            "SELECT id, status, created_ms, updated_ms, output FROM jobs WHERE id = ? AND team = ?",
            job_id,
            team,
        )
        return StoredJob(*rows[0]) if rows else None

    def newest(
        self, team: str, limit: int, *, before: str | None = None, status: str | None = None, skip: int = 0
    ) -> list[StoredJob]:
        """At most `limit` jobs of a team older than the id `before`, newest first, without output."""
        where, values = _of_team(team, status)
        if before is not None:
            where, values = f"{where} AND seq < ?", (*values, self._position(before))
        rows = self._read(
            "SELECT id, status, created_ms, updated_ms FROM jobs "  # noqa: S608 - constant texts
            f"WHERE {where} ORDER BY seq DESC LIMIT ? OFFSET ?",
            *values,
            limit,
            min(skip, _MOST_ROWS),
        )
        return [StoredJob(*row) for row in rows]

    def count(self, team: str, *, status: str | None = None) -> int:
        """How many jobs a team has."""
        where, values = _of_team(team, status)
        ((total,),) = self._read(f"SELECT count(*) FROM jobs WHERE {where}", *values)  # noqa: S608 - constant
        return int(total)

    def counts(self) -> Mapping[str, int]:
        """Jobs of all teams by status."""
        return dict(self._read("SELECT status, count(*) FROM jobs GROUP BY status"))

    def waiting(self, line: str, *, per_team: int) -> list[WaitingJob]:
        """The jobs of a line on which nobody works, of each team the oldest ones."""
        with self._mutex:
            if line not in self._lines:
                return []
            rows = self._connection.execute(_WAITING, {"line": line, "per_team": per_team}).fetchall()
            if not rows:
                self._lines.discard(line)
        return [WaitingJob(*row) for row in rows]

    def waiting_since(self, before_ms: int, *, limit: int) -> list[WaitingJob]:
        """The oldest jobs that were accepted before this moment and on which nobody works."""
        rows = self._read(
            "SELECT seq, id, team, line, url, created_ms FROM jobs "
            "WHERE status = 'created' AND created_ms < ? ORDER BY seq LIMIT ?",
            before_ms,
            limit,
        )
        return [WaitingJob(*row) for row in rows]

    def started(self, n_times: int) -> list[WaitingJob]:
        """Jobs that the engine got so often, and on which nobody works."""
        rows = self._read(
            "SELECT seq, id, team, line, url, created_ms FROM jobs "
            "WHERE status = 'created' AND line = ? AND starts >= ?",
            ALONE,
            n_times,
        )
        return [WaitingJob(*row) for row in rows]

    def reopen(self) -> Mapping[str, int]:
        """Make jobs that an earlier service left running wait again; the number of waiting jobs by team."""
        with self._writing() as run:
            run("UPDATE jobs SET status = ? WHERE status = ?", (CREATED, RUNNING))
            self._lines.update(LINES)
        return dict(self._read("SELECT team, count(*) FROM jobs WHERE status = ? GROUP BY team", CREATED))

    def write(self, changes: Sequence[Change]) -> None:
        """Store all changes in one transaction; each end of a job with a webhook makes its delivery due."""
        with self._writing() as run:
            for change in changes:
                if change.status == CREATED:
                    self._lines.update(LINES)
                ends = change.status in TERMINAL_STATUSES
                run(
                    "UPDATE jobs SET status = ?, updated_ms = ?, output = ?, starts = starts + ?, "
                    "url = CASE WHEN ? THEN NULL ELSE url END WHERE seq = ?",
                    (change.status, change.at_ms, change.output, change.starts, ends, change.seq),
                )
                if ends:
                    run(
                        "INSERT INTO deliveries (seq, attempt, due_ms, host, team) SELECT seq, 0, ?, "
                        "host_of(webhook), team FROM jobs WHERE seq = ? AND webhook IS NOT NULL",
                        (change.at_ms, change.seq),
                    )

    # --- webhooks ---------------------------------------------------------------------------------------

    def due(self, *, now_ms: int, per_team: int, per_host: int) -> list[Delivery]:
        """The webhooks of each team that are due longest, of each of its hosts at most `per_host`."""
        if not self._read("SELECT 1 FROM deliveries WHERE due_ms <= ? LIMIT 1", now_ms):
            return []
        rows = self._read(_DUE, now_ms=now_ms, per_team=per_team, per_host=per_host)
        return [
            Delivery(
                seq, attempt, reason, team, url, StoredJob(*job).to_event(now_ms=now_ms, status_only=only)
            )
            for seq, attempt, reason, team, url, only, *job in rows
        ]

    def next_due_ms(self, *, after_ms: int) -> int | None:
        """When the next webhook will be due."""
        ((due_ms,),) = self._read("SELECT min(due_ms) FROM deliveries WHERE due_ms > ?", after_ms)
        return None if due_ms is None else int(due_ms)

    def postpone(self, seqs: Sequence[int], *, until_ms: int) -> None:
        """Let webhooks rest, for as long as an attempt may take."""
        with self._writing() as run:
            for seq in seqs:
                run("UPDATE deliveries SET due_ms = ? WHERE seq = ?", (until_ms, seq))

    def hasten(self, *, latest_ms: int) -> None:
        """Have all webhooks due at this moment at the latest, whatever the clock said before."""
        with self._writing() as run:
            run("UPDATE deliveries SET due_ms = ? WHERE due_ms > ?", (latest_ms, latest_ms))

    def retry(self, seq: int, *, attempt: int, reason: str, due_ms: int) -> None:
        """Plan a failed webhook's next attempt."""
        with self._writing() as run:
            run(
                "UPDATE deliveries SET attempt = ?, reason = ?, due_ms = ? WHERE seq = ?",
                (attempt, reason, due_ms, seq),
            )

    def settle(self, seq: int) -> None:
        """A webhook was delivered, or is given up; its address goes if the output has gone."""
        with self._writing() as run:
            run("DELETE FROM deliveries WHERE seq = ?", (seq,))
            run("UPDATE jobs SET webhook = NULL WHERE seq = ? AND output IS NULL", (seq,))

    def redelivery(self, job_id: str, *, now_ms: int) -> Delivery | None:
        """The webhook of a job of any team that has ended, as a first attempt; None if there is none."""
        rows = self._read(
            "SELECT seq, team, webhook, webhook_status_only, id, status, created_ms, updated_ms, output "
            "FROM jobs WHERE id = ? AND webhook IS NOT NULL AND status IN (?, ?, ?)",
            job_id,
            *_TERMINAL,
        )
        for seq, team, url, only, *job in rows:
            return Delivery(
                seq, 0, None, team, url, StoredJob(*job).to_event(now_ms=now_ms, status_only=only)
            )
        return None

    # --- retention --------------------------------------------------------------------------------------

    def expire(self, *, outputs_before_ms: int, records_before_ms: int) -> None:
        """Delete outputs and webhook addresses of jobs that ended so long ago, and very old jobs whole."""
        with self._writing() as run:
            run(
                "UPDATE jobs SET output = NULL, "
                "webhook = CASE WHEN seq IN (SELECT seq FROM deliveries) THEN webhook END "
                "WHERE output IS NOT NULL AND updated_ms < ?",
                (outputs_before_ms,),
            )
            run(
                "DELETE FROM jobs WHERE seq < ifnull((SELECT seq FROM jobs WHERE created_ms >= ? "
                "ORDER BY seq LIMIT 1), ?) AND updated_ms < ? AND status IN (?, ?, ?) "
                "AND seq NOT IN (SELECT seq FROM deliveries)",
                (records_before_ms, _MOST_ROWS, records_before_ms, *_TERMINAL),
            )
        with self._mutex:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log still held what is deleted

    # --- inside -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the file back."""
        with self._mutex:
            self._connection.close()
            if self._claim is not None:
                self._claim.close()

    def _position(self, job_id: str) -> int:
        """Where a job stands in the order of arrival; of an unknown one, where it would stand."""
        if rows := self._read("SELECT seq FROM jobs WHERE id = ?", job_id):
            return int(rows[0][0])
        rows = self._read("SELECT seq FROM jobs WHERE id < ? ORDER BY id DESC LIMIT 1", job_id)
        return int(rows[0][0]) + 1 if rows else 0

    def _next_id(self, now_ms: int) -> str:
        """Later than every id before, also when the clock was set back."""
        last_ms, nth = self._last_id
        if now_ms > last_ms:
            self._last_id = now_ms, 0
        else:
            self._last_id = (last_ms, nth + 1) if nth < _MAX_NTH else (last_ms + 1, 0)
        return job_id_at(*self._last_id)

    def _read(self, query: str, *values: object, **named: object) -> list[tuple[Any, ...]]:
        with self._mutex:
            return self._connection.execute(query, named or values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._mutex:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite itself may have ended it
                    self._connection.execute("ROLLBACK")
                raise


def _of_team(team: str, status: str | None) -> tuple[str, tuple[object, ...]]:
    return ("team = ?", (team,)) if status is None else ("team = ? AND status = ?", (team, status))
