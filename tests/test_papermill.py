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
from nbconvert import HTMLExporter, MarkdownExporter
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


def test_the_report_is_made_from_parameters(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "night.html"
    saved = papermill(ROOT / "notebooks" / "06-report.ipynb", tmp_path, report_path=path, title="Of a night")
    page = path.read_text()
    assert "<title>Of a night</title>" in page
    assert [f"<h2>{part}</h2>" in page for part in ("Outcome", "Calibration", "Voices found", "Methods")] == [
        True
    ] * 4
    assert not LONG_TEXT.search(page)
    assert not LONG_TEXT.search(nbformat.writes(saved))


TWO_RUNS = [
    "n_clips = 2",
    "import numpy as np, voiceprint_nb as vp\n"
    "rng = np.random.default_rng(0)\n"
    "clips = [(rng.normal(scale=0.1, size=32_000), 16_000) for _ in range(n_clips)]\n"
    "out = vp.voiceprints([*clips, 'no-such-file.wav'], service='local')",
    "run = vp.submit(clips, service='local', ledger=False)",
    "out = await run\nrun",
]


def test_what_papermill_saves_and_what_is_made_of_it_shows_how_runs_ended(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in TWO_RUNS]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "runs.ipynb"
    )
    saved = papermill(tmp_path / "runs.ipynb", tmp_path, n_clips=40)
    assert "widgets" not in saved.metadata
    blocking, submitted, named = [cell.outputs for cell in saved.cells[2:]]
    ended = ((blocking, "41 of 41 rows"), (submitted, "40 of 40 rows"), (named, "40 of 40 rows"))
    for (output,), words in ended:
        assert set(output.data) == {"text/plain", "text/html"}
        assert words in output.data["text/plain"]
        assert words in output.data["text/html"]
    for exporter in (HTMLExporter(), MarkdownExporter()):
        page, _ = exporter.from_notebook_node(saved)
        assert page.count("40 of 40 rows</b>") == 2
        assert page.count("41 of 41 rows</b>") == 1
        assert "<code>file_not_found</code>" in page
        assert "widget-view" not in page
