"""Statements to a SQLite file: at once, or many of an event loop in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from voiceprint_nb.errors import UsageError

_LATEST_S = 0.1  # until what nobody waits for is written

_Statement = tuple[str, Sequence[object]]


class Writer:
    """Runs statements on one connection, from one thread.

    A transaction is begun and ended within one call, so no other writer ever waits for this one's turn.

    Parameters
    ----------
    db : sqlite3.Connection
        In autocommit mode.
    unusable : callable
        The error that tells users of a fault of SQLite's.

    Examples
    --------
    >>> writer = Writer(sqlite3.connect(":memory:", isolation_level=None), UsageError)
    >>> writer.keep("CREATE TABLE seen (name TEXT)")
    >>> writer.keep("INSERT INTO seen VALUES (?)", ("ada",))
    >>> writer.do("SELECT name FROM seen").fetchall()
    [('ada',)]
    """

    def __init__(
        self, db: sqlite3.Connection, unusable: Callable[[sqlite3.DatabaseError], UsageError]
    ) -> None:
        self._db, self._unusable = db, unusable
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[asyncio.Future[None]] = []  # done when what is pending is on disk
        self._latest: asyncio.TimerHandle | None = None
        self._pending: list[_Statement] = []
        self._unwritten: set[str] = set()  # what they concern
        self._failure: BaseException | None = None  # to write at the end of a turn

    @contextlib.contextmanager
    def in_turns(self) -> Iterator[None]:
        """Write what is kept together: at the end of a turn of the running loop in which somebody waits."""
        self._loop = asyncio.get_running_loop()
        try:
            yield
        except BaseException:
            self._loop = None
            with contextlib.suppress(Exception):  # what is on its way says why the run ends
                self._flush()
            raise
        self._loop = None
        self._flush()

    async def kept(self) -> None:
        """Wait until everything so far is on disk, or raise `UsageError`."""
        if self._pending and self._loop is not None:
            if not self._waiting:
                self._loop.call_soon(self._end_turn)
            self._waiting.append(written := self._loop.create_future())
            await written
        self.refuse_failed()

    def keep(self, statement: str, values: Sequence[object] = (), *, concerns: str = "") -> None:
        """Write when somebody waits for it, at the latest in 0.1 s; at once if there are no turns."""
        self.refuse_failed()
        if self._loop is None:
            self.do(statement, values)
            return
        self._pending.append((statement, values))
        self._unwritten.add(concerns)
        if self._latest is None:
            self._latest = self._loop.call_later(_LATEST_S, self._end_turn)

    def is_unwritten(self, name: str) -> bool:
        """Whether something that concerns this was kept, and is not written yet."""
        return name in self._unwritten

    def do(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run a statement after all that is pending."""
        self._flush()
        return self.run(statement, values)

    def run(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run a statement, whatever is pending."""
        try:
            return self._db.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def refuse_failed(self) -> None:
        """Raise what kept something from being written."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _end_turn(self) -> None:
        try:
            self._flush()
        except Exception as error:  # whoever waits, or writes next, hears of it
            self._failure = error

    def _flush(self) -> None:
        """Write what is pending, all or nothing. What fails stays pending."""
        pending, self._pending = self._pending, []
        waiting, self._waiting = self._waiting, []
        if self._latest is not None:
            self._latest.cancel()
            self._latest = None
        try:
            self._write(pending)
        except BaseException as error:
            self._pending = pending
            for written in waiting:
                if not written.done():  # nobody waits any more
                    written.set_exception(error)
            raise
        self._unwritten.clear()
        for written in waiting:
            if not written.done():
                written.set_result(None)

    def _write(self, statements: Sequence[_Statement]) -> None:
        try:
            if len(statements) > 1:
                self.run("BEGIN IMMEDIATE")
            for statement, values in statements:
                self.run(statement, values)
            if len(statements) > 1:
                self.run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
