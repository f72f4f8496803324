"""Hears everything that a test makes the package tell, and knows what must not be told."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import sqlite3
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import voiceprint_nb as vp
from voiceprint_nb.batch.bridge import loop_thread
from voiceprint_nb.notebook import frames

KEY = "sk_canary_7f3a9e51c0de4b8896aa"
SIGNATURE = "canary5b21f0e7d94c8a36"
SECRET = "whsec_canary_40b1d6c3e872"  # noqa: S105 - of nobody
PASSWORD = "canary-of-the-bucket-9c44"  # noqa: S105 - of nobody
QUERY = f"X-Amz-Credential=AKIDEXAMPLE&X-Amz-Signature={SIGNATURE}"
ECHO = f"Bearer {KEY} may not read https://storage.example/clip.wav?{QUERY}"
LOGGERS = ("httpx", "httpcore", "asyncio", "stamina", "uvicorn", "keyring", "voiceprint_nb")
WINDOW = 24  # characters of a voiceprint: 18 bytes, of about four numbers
LONG = re.compile(rf"[\w+/]{{{WINDOW},}}", re.ASCII)

_FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "sqlite3.connect", "subprocess.Popen"}


class Ears(logging.Handler):
    """Hears what is told, and knows what must not be."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[tuple[str, str]] = set()
        self.secrets = {"key": KEY, "link": SIGNATURE, "webhook": SECRET, "bucket": PASSWORD}
        self.prints: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.hear(f"log of {record.name}", f"{self.format(record)}\n{vars(record)!r}")

    def hear(self, where: str, what: object) -> None:
        self.told.add((where, str(what)))

    def knows(self, prints: Sequence[str]) -> None:
        """Voiceprints that were received; not what they begin with, nor their silence."""
        assert len(prints) and all(len(text) > 1000 for text in prints)
        for text in prints:
            windows = {text[at : at + WINDOW] for at in range(200, len(text) - WINDOW, WINDOW)}
            self.prints |= {window for window in windows if len(set(window)) > 8}

    def look_around(self) -> None:
        """Hear every object of the package that there is, and names of files."""
        for thing in gc.get_objects():
            if str(type(thing).__module__).startswith("voiceprint_nb") or type(thing) is partial:
                with contextlib.suppress(ReferenceError, RuntimeError):  # other threads work on it
                    self.hear(f"repr of a {type(thing).__qualname__}", repr(thing))
        for path in Path(tempfile.gettempdir()).rglob("*"):
            self.hear("name of a file", path)

    def leaks(self) -> set[tuple[str, str]]:
        found = set()
        for where, what in self.told:
            found |= {(name, where) for name, text in self.secrets.items() if text in what}
            long = " ".join(LONG.findall(what))
            if any(text in long for text in self.prints):
                found.add(("voiceprint", where))
        return found


_open_ears: list[Ears] = []


def _hear_event(event: str, values: tuple[object, ...]) -> None:
    """Names of files as they are opened, however short they live, and what other programs are given."""
    if event in _FILE_EVENTS and _open_ears:
        _open_ears[0].hear(event, values[:2])  # less the environment of programs


sys.addaudithook(_hear_event)  # there is no way to take it off again; it does nothing between tests


@contextlib.contextmanager
def hearing() -> Iterator[Ears]:
    """Ears for logs at DEBUG, warnings, names of files, and event loops that tell of each step."""
    ears = Ears()
    loggers = [logging.getLogger(name) for name in ("", *LOGGERS)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    loggers[0].addHandler(ears)
    loop = loop_thread().loop
    slow_s = loop.slow_callback_duration
    loop.slow_callback_duration = 0.0
    loop.set_debug(True)
    _open_ears.append(ears)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield ears
            ears.look_around()
    finally:
        _open_ears.clear()
        loop.set_debug(False)
        loop.slow_callback_duration = slow_s
        loggers[0].removeHandler(ears)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    ears.hear("warning", [str(warning) for warning in warned])


def hear_ledger(ears: Ears, folder: Path) -> None:
    """All that the ledger holds, but for voiceprints and the user's own cells, which it is for."""
    for path in folder.rglob("*"):
        ears.hear("name of a file", path)
    if not (folder / "ledger.sqlite3").exists():
        return
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite3")) as db:
        for table in ("meta", "jobs", "runs", "rows", "turns", "uploads"):
            names = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            kept = [name for name in names if name not in ("voiceprint", "frame")]
            for row in db.execute(f"SELECT {', '.join(kept)} FROM {table}"):  # noqa: S608 - names of columns
                ears.hear(f"ledger, {table}", row)
        packed = [frame for (frame,) in db.execute("SELECT frame FROM runs WHERE frame IS NOT NULL")]
    for frame, column in map(frames.unpack, packed):
        ears.hear("ledger, a frame", frame.drop(columns=column).to_csv())
        assert not frame[column].astype(str).str.contains(KEY).any()
    for path in folder.glob("ledger*"):
        assert KEY.encode() not in path.read_bytes()


def hear_error(ears: Ears, error: BaseException) -> None:
    for text in (str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)):
        ears.hear("error", text)
    seen: BaseException | None = error
    while seen is not None:
        ears.hear("cause of an error", f"{seen!r} {seen.args!r}")
        seen = seen.__cause__


def hear_locals(ears: Ears, error: BaseException) -> None:
    """What a traceback with local variables shows, as of IPython's ``%xmode Verbose``."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    ears.hear("locals of a traceback", "".join(shown.format()))


def hear_result(ears: Ears, out: pd.DataFrame) -> None:
    """A result as it is shown, but for the user's own column and the voiceprints."""
    told = out[[name for name in out if str(name).startswith("vp_")]]
    ears.hear("columns", told.to_csv() + told.to_html() + repr(told.to_dict()))
    ears.hear("attrs", repr(out.attrs))
    ears.hear("show()", f"{vp.show(out)._repr_html_()}{vp.show(out)!r}")


class Gate:
    """The real service, and before it a list of faults; it sees what arrives."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner
        self.url = ""
        self.forget()

    def forget(self) -> None:
        self.faults: list[tuple[str, str, ASGIApp]] = []
        self.ears: Ears | None = None
        self.keys: set[str] = set()
        self.bodies: list[bytes] = []
        self.puts: list[str] = []
        self.kinds: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.keys.add(headers.get("authorization", ""))
        if self.ears is not None:
            if scope["method"] == "PUT":
                self.puts.append(scope["path"])
                self.ears.secrets[f"upload {len(self.puts)}"] = scope["path"].rpartition("/")[2]
            if (kind := f"{scope['method']} {scope['path'][:8]}") not in self.kinds:
                self.kinds.add(kind)
                self.ears.look_around()
        for method, path, fault in self.faults:
            if scope["method"] == method and scope["path"].startswith(path):
                return await fault(scope, receive, send)

        async def heard() -> Message:
            message = await receive()
            if scope["method"] == "POST":
                self.bodies.append(message.get("body", b""))
            return message

        return await self.inner(scope, heard, send)
