"""Labelled speech, which is not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def speech_folder() -> Path:
    """The folder, or the test is skipped."""
    named = os.environ.get("VOICEPRINT_NB_SPEECH")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "speech"
    if not (folder / "manifest.csv").exists():
        pytest.skip("no labelled speech: set VOICEPRINT_NB_SPEECH")
    return folder
