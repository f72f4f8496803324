"""Statements to a SQLite file: at once, or those of one turn of an event loop in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence

from voiceprint_nb.errors import UsageError

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
        self._turn: asyncio.Future[None] | None = None  # done when what is pending is on disk
        self._pending: list[_Statement] = []
        self._unwritten: set[str] = set()  # what they concern
        self._failure: BaseException | None = None  # to write at the end of a turn

    @contextlib.contextmanager
    def in_turns(self) -> Iterator[None]:
        """Write what is kept in one turn of the running event loop together, at its end."""
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
        if self._turn is not None:
            await asyncio.shield(self._turn)
        self._refuse_failed()

    def keep(self, statement: str, values: Sequence[object] = (), *, concerns: str = "") -> None:
        """Write at the end of the turn, or at once if there are none; see `is_unwritten`."""
        self._refuse_failed()
        if self._loop is None:
            self.do(statement, values)
            return
        self._pending.append((statement, values))
        self._unwritten.add(concerns)
        if self._turn is None:
            self._turn = self._loop.create_future()
            self._loop.call_soon(self._end_turn)

    def is_unwritten(self, name: str) -> bool:
        """Whether something that concerns this was kept, and is not written yet."""
        return name in self._unwritten

    def add(self, statement: str, values: Sequence[object]) -> bool:
        """Write at once, with what is pending; whether the statement has changed a row."""
        self._refuse_failed()
        self._pending.append((statement, values))
        try:
            cursor = self._flush()
        except BaseException:
            self._pending.pop()  # the caller knows
            raise
        return cursor is not None and cursor.rowcount == 1

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

    def _refuse_failed(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _end_turn(self) -> None:
        try:
            self._flush()
        except Exception as error:  # whoever waits, or writes next, hears of it
            self._failure = error

    def _flush(self) -> sqlite3.Cursor | None:
        """Write what is pending, all or nothing; the last statement's cursor. What fails stays pending."""
        pending, self._pending = self._pending, []
        turn, self._turn = self._turn, None
        try:
            cursor = self._write(pending)
        except BaseException as error:
            self._pending = pending
            if turn is not None:
                turn.set_exception(error)
                turn.exception()  # marks it as seen
            raise
        self._unwritten.clear()
        if turn is not None:
            turn.set_result(None)
        return cursor

    def _write(self, statements: Sequence[_Statement]) -> sqlite3.Cursor | None:
        cursor = None
        try:
            if len(statements) > 1:
                self.run("BEGIN IMMEDIATE")
            for statement, values in statements:
                cursor = self.run(statement, values)
            if len(statements) > 1:
                self.run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return cursor
