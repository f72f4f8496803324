"""Who may call a service: keys with permissions, and the secret that signs each team's webhooks."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from voiceprint_nb.errors import UsageError

PERMISSIONS = ("jobs:read", "jobs:write", "media:read", "media:write")  # contract, section 1
METRICS_PERMISSION = "metrics:read"  # ours: may read /metrics; only for keys that name it
ALL_PERMISSIONS = (*PERMISSIONS, METRICS_PERMISSION)
DEFAULT_TEAM = "default"
KEYS_FILE_NAME = "keys.sqlite3"

_MAX_HEADER_CHARS = 256  # a key has 48
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-_.]{0,63}")
_SCHEMA_VERSION = 1
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL,
    team TEXT NOT NULL,
    permissions TEXT NOT NULL,
    note TEXT NOT NULL,
    created_s REAL NOT NULL,
    revoked_s REAL
);
CREATE TABLE IF NOT EXISTS webhook_secrets (team TEXT PRIMARY KEY, secret TEXT NOT NULL);
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class Caller:
    """Whose key a request carries, and what it may do."""

    team: str
    permissions: frozenset[str]


class Door(Protocol):
    """Decides who a caller is."""

    def caller(self, authorization: str) -> Caller | None:
        """The caller with this ``Authorization`` header; None is nobody."""

    def webhook_secret(self, team: str) -> str:
        """What signs the webhooks of this team."""


class OpenDoor:
    """The door of a service without keys: everybody is the default team and may do everything.

    Parameters
    ----------
    webhook_secret : str, optional
        By default a new random one.

    Examples
    --------
    >>> OpenDoor().caller("").team
    'default'
    """

    def __init__(self, webhook_secret: str | None = None) -> None:
        self._secret = _new_webhook_secret() if webhook_secret is None else webhook_secret
        self._caller = Caller(DEFAULT_TEAM, frozenset(ALL_PERMISSIONS))

    def caller(self, authorization: str) -> Caller | None:
        """Always the default team, whatever the header says."""
        return self._caller

    def webhook_secret(self, team: str) -> str:
        """The one secret of this service."""
        return self._secret


@dataclass(frozen=True)
class NewKey:
    """A key at the only moment when its text is known."""

    id: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class KeyFacts:
    """What is kept of a key, without the digest; times in Unix seconds."""

    id: str
    team: str
    permissions: frozenset[str]
    note: str
    created_s: float
    revoked_s: float | None


class KeyRing:
    """The keys of a served service, in one SQLite file; usable from any thread and several processes.

    Parameters
    ----------
    path : Path
        The file, kept at mode 0600; its folder is made with mode 0700 if it is not there.
    clock : callable
        Unix time in seconds.

    Raises
    ------
    UsageError
        The file cannot be used, or a newer version wrote it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():  # opening one in use, and closing it again, would take SQLite's locks away
                path.touch(mode=0o600)
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"The key file {str(path)!r} cannot be used: {error}.") from error

    def _prepare(self) -> None:
        run = self._connection.execute
        (version,) = run("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise UsageError(f"The key file has format {version}: upgrade voiceprint_nb to use it.")
        with suppress(sqlite3.OperationalError):  # does not wait for others; the next opening tries again
            run("PRAGMA journal_mode=WAL")
        if version < _SCHEMA_VERSION:
            self._connection.executescript(_SCHEMA)

    def add(
        self, team: str = DEFAULT_TEAM, permissions: Iterable[str] = PERMISSIONS, note: str = ""
    ) -> NewKey:
        """Make a key; its text is told here and never again.

        Parameters
        ----------
        team : str
            1 to 64 letters, digits, ``-``, ``_`` or ``.``, the first a letter or digit.
        permissions : iterable of str
            Some of `ALL_PERMISSIONS`.
        note : str
            What the key is for; shown in lists, so nothing secret.

        Raises
        ------
        UsageError
            The team's name is not allowed, or a permission does not exist.
        """
        _refuse_team(team)
        wanted = frozenset(permissions)
        if unknown := wanted.difference(ALL_PERMISSIONS):
            raise UsageError(
                f"Unknown permission {', '.join(sorted(unknown))}: use some of {', '.join(ALL_PERMISSIONS)}."
            )
        text = "vpnb_" + secrets.token_urlsafe(32)
        digest = _digest(text)
        key_id = digest.hex()[:8]
        row = (key_id, digest, team, " ".join(sorted(wanted)), note, self._clock())
        with self._lock:
            self._connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
        return NewKey(key_id, text)

    def keys(self) -> list[KeyFacts]:
        """All keys, revoked ones too, in the order of their making."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, team, permissions, note, created_s, revoked_s FROM keys ORDER BY rowid"
            ).fetchall()
        return [KeyFacts(row[0], row[1], frozenset(row[2].split()), *row[3:]) for row in rows]

    def revoke(self, key_id: str) -> None:
        """Let a key in no more, for good; once more changes nothing.

        Raises
        ------
        UsageError
            There is no key of this id.
        """
        with self._lock:
            found = self._connection.execute(
                "UPDATE keys SET revoked_s = coalesce(revoked_s, ?) WHERE id = ?", (self._clock(), key_id)
            ).rowcount
        if not found:
            raise UsageError("There is no key of that id: the list of keys shows all ids, 8 digits each.")

    def caller(self, authorization: str) -> Caller | None:
        """Whose active key the ``Authorization`` header carries, as ``Bearer KEY``; None for any other."""
        if len(authorization) > _MAX_HEADER_CHARS or not authorization.isascii():
            return None
        scheme, _, text = authorization.partition(" ")
        offered = _digest(text.strip())
        # Asking the file each time shows at once what other processes changed. A check takes 22 µs with 20
        # keys; a cache behind PRAGMA data_version would save 15 of them.
        with self._lock:
            rows = self._connection.execute(
                "SELECT digest, team, permissions FROM keys WHERE revoked_s IS NULL"
            ).fetchall()
        # All are compared, so that time tells nothing.
        found = [
            Caller(row[1], frozenset(row[2].split())) for row in rows if hmac.compare_digest(row[0], offered)
        ]
        return found[0] if found and scheme.lower() == "bearer" else None

    @property
    def is_empty(self) -> bool:
        """Whether no key was ever made: a ring of revoked keys only is not empty."""
        with self._lock:
            return self._connection.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is None

    def webhook_secret(self, team: str) -> str:
        """What signs the webhooks of this team: made on first need, then always the same.

        It lies in the file as it is, because it has to sign.

        Raises
        ------
        UsageError
            The team's name is not allowed.
        """
        _refuse_team(team)
        query = "SELECT secret FROM webhook_secrets WHERE team = ?"
        with self._lock:
            run = self._connection.execute
            if (row := run(query, (team,)).fetchone()) is None:
                made = (team, _new_webhook_secret())  # unless another process was faster
                run("INSERT INTO webhook_secrets VALUES (?, ?) ON CONFLICT DO NOTHING", made)
                row = run(query, (team,)).fetchone()
        return str(row[0])

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._connection.close()


def _digest(text: str) -> bytes:
    """SHA-256, not a slow password hash: nobody guesses 256 random bits."""
    return hashlib.sha256(text.encode()).digest()


def _new_webhook_secret() -> str:
    return "whsec_" + secrets.token_urlsafe(32)


def _refuse_team(team: str) -> None:
    if not _TEAM.fullmatch(team):
        raise UsageError(
            f"{team!r} is no name of a team: use 1 to 64 letters, digits, '-', '_' or '.', "
            "the first a letter or digit."
        )
