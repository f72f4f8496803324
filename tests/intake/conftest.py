from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent))

from voiceprint_nb.intake.looking import LocalFile, look_local
from voiceprint_nb.intake.sources import PathSource

RATE_HZ = 16_000


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    """Samples of a steady tone."""

    def make(duration_s: float = 2.5, rate_hz: int = RATE_HZ, level: float = 0.3) -> np.ndarray:
        t = np.arange(round(duration_s * rate_hz)) / rate_hz
        return (level * np.sin(2 * np.pi * 220 * t)).astype(np.float32)

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes samples to an audio file."""

    def put(samples: np.ndarray, rate_hz: int = RATE_HZ, *, name: str = "clip.wav", **options: Any) -> Path:
        path = tmp_path / name
        soundfile.write(path, samples, rate_hz, **options)
        return path

    return put


@pytest.fixture
def look(scratch: Path) -> Callable[[Path], LocalFile]:
    """Looks at a file as a row does."""
    return lambda path: look_local(PathSource(path), scratch)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def as_nobody() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Drops root's right to read everything, for the length of a with block."""

    @contextlib.contextmanager
    def drop() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return drop
