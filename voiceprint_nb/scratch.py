"""Private files: written whole or not at all; temporary folders, swept when their process is gone."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

_NAME = re.compile(r"voiceprint_nb-([0-9]+)-.*")


def new_folder() -> Path:
    """A new folder (0700) of this process; the caller removes it, the next sweep if the process is killed."""
    return Path(tempfile.mkdtemp(prefix=f"voiceprint_nb-{os.getpid()}-"))


def write_private(path: Path, data: bytes) -> None:
    """The whole file or none, readable by this user only from its first moment.

    Raises
    ------
    OSError
        It cannot be written; what was there stays.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sweep() -> None:
    """Remove the folders of this user's processes that have ended without cleaning up.

    They hold copies of audio and results. Where a process cannot be asked for (Windows), nothing is removed.
    """
    if sys.platform == "win32":
        return
    for folder in Path(tempfile.gettempdir()).glob("voiceprint_nb-*-*"):
        match = _NAME.fullmatch(folder.name)
        if match and _is_ours(folder) and not _is_alive(int(match[1])):
            shutil.rmtree(folder, ignore_errors=True)  # another process may sweep the same one


def _is_ours(folder: Path) -> bool:
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return facts.st_uid == os.geteuid()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
