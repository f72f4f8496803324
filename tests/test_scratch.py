"""Temporary folders: private, and swept once their process is gone."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from voiceprint_nb import scratch


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_sweep_removes_what_killed_processes_left_and_nothing_else(temporary: Path) -> None:
    ours = scratch.new_folder()
    code = (
        "import os, signal, sys, tempfile\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "from voiceprint_nb import scratch\n"
        "(scratch.new_folder() / 'clip').write_bytes(b'audio')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(temporary)], check=False).returncode == -9
    (left,) = set(temporary.iterdir()) - {ours}
    others = [temporary / "voiceprint_nb-notes-x", temporary / "other-1-x"]
    for folder in others:
        folder.mkdir()
    scratch.sweep()
    assert not left.exists()
    assert all(folder.is_dir() for folder in (ours, *others))


def test_folders_are_private(temporary: Path) -> None:
    assert scratch.new_folder().stat().st_mode & 0o777 == 0o700


def test_private_files_are_whole_or_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "names.html"
    path.write_bytes(b"old")
    path.chmod(0o644)
    scratch.write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError, match="folder"):
        scratch.write_private(folder, b"new")
    assert set(tmp_path.iterdir()) == {path, folder}
