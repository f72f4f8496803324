"""The service as its users run it: started by the command, in a process of its own, on a free port."""

from __future__ import annotations

import io
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from voiceprint_nb.command import main

COMMAND = (sys.executable, "-m", "voiceprint_nb")
DEADLINE_S = 30.0


@dataclass(frozen=True)
class Served:
    """A service that listens."""

    base_url: str
    key: str = field(repr=False)
    data_dir: Path
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def serving(data_dir: Path, *options: str, key: str | None = None) -> Iterator[Served]:
    """Serve until the block ends, then ask the service to stop: it must do so in order.

    Parameters
    ----------
    data_dir : Path
        The service's folder; its log is written beside it.
    *options : str
        More options of ``voiceprint-nb serve``.
    key : str, optional
        A key of an earlier service with this folder; a new one is made otherwise.
    """
    key = key or new_key(data_dir)
    log = data_dir.with_name(f"{data_dir.name}.log")
    command = [*COMMAND, "serve", "--port", "0", "--data-dir", str(data_dir), *options]
    with log.open("a") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield Served(_address(process, log), key, data_dir, process, log)
        process.terminate()
        assert process.wait(DEADLINE_S) == 0, log.read_text()[-2000:]
    finally:
        process.kill()
        process.communicate()


def new_key(data_dir: Path, *options: str) -> str:
    """A new key of the service with this folder."""
    told = io.StringIO()
    with redirect_stdout(told):
        assert main(["keys", "add", "--data-dir", str(data_dir), *options]) == 0
    return told.getvalue().strip()


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Base URL from the line that the service prints when it listens."""
    assert process.stdout is not None
    told = select.select([process.stdout], [], [], DEADLINE_S)[0] and process.stdout.readline()
    found = re.search(r"https?://[^\s/]+:\d+", told or "")
    assert found, f"no address in {told!r}: {log.read_text()[-2000:]}"
    return found[0]
