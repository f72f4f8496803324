"""Notebooks run by papermill, as reports are: with parameters, in a real kernel, to a saved file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import soundfile
from speech import speech_folder

from tools.notebooks import LONG_TEXT

ROOT = Path(__file__).parent.parent


def papermill(notebook: Path, folder: Path, **parameters: object) -> nbformat.NotebookNode:
    """What papermill saves; the ledger is in the folder."""
    saved = folder / "saved.ipynb"
    given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", str(notebook), str(saved), "--no-progress-bar", *given]
    environment = {**os.environ, "VOICEPRINT_NB_DATA_DIR": str(folder / "user-data")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(saved, as_version=4)


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A table like that of the samples: 20 clips of real speech, and four that fail."""
    folder = speech_folder()
    listed = pd.read_csv(folder / "manifest.csv")
    listed = listed[listed.duration_s.between(3, 4.5)]
    clips = listed[listed.groupby("speaker").path.transform("size") >= 5].groupby("speaker").head(5)[:20]
    paths = [str(folder / path) for path in clips.path]
    samples, rate_hz = soundfile.read(paths[0])
    soundfile.write(tmp_path / "long.flac", np.resize(samples, 31 * rate_hz), rate_hz)
    soundfile.write(tmp_path / "silent.flac", np.zeros(3 * rate_hz), rate_hz)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("A note.")
    speakers = clips.speaker.tolist()
    failing = {"long.flac": speakers[0], "empty.wav": None, "text.wav": None, "silent.flac": None}
    table = pd.DataFrame(
        {
            "audio": [*paths, *(str(tmp_path / name) for name in failing)],
            "speaker": [*speakers, *failing.values()],
            "note": [None] * len(paths) + ["fails"] * len(failing),
        }
    )
    table.to_csv(tmp_path / "manifest.csv", index=False)
    return tmp_path / "manifest.csv"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("01-quickstart", ["24 of 24 rows (20 succeeded, 4 invalid)", "reused 20"]),
        ("02-large-batch", ["canceled", "pending", "True"]),
        ("04-listening-to-failures", ["22 of 22 rows (2 succeeded, 20 reused)", "exported again", "True"]),
    ],
)
def test_notebooks_hold_on_real_speech(name: str, shown: list[str], speech: Path, tmp_path: Path) -> None:
    saved = papermill(ROOT / "notebooks" / f"{name}.ipynb", tmp_path, manifest=speech)
    told = [
        " ".join(output.data["text/plain"].split())
        for cell in saved.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    assert [words for words in shown if not any(words in text for text in told)] == []
    assert not LONG_TEXT.search(nbformat.writes(saved))
