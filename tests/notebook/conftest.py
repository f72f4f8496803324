from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kernels import DEADLINE_S, Kernel, opened_kernel
from voices import frame_of

import voiceprint_nb as vp
from voiceprint_nb.analysis import calibration as calibrating

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reaches the user's own ledger, key or service."""
    for name in ("PYANNOTEAI_API_KEY", "VOICEPRINT_NB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(tmp_path / "user-data"))
    return tmp_path


@pytest.fixture
def manifest() -> pd.DataFrame:
    """The sample manifest, with paths that hold in any folder."""
    frame = pd.read_csv(REPOSITORY / "data" / "samples" / "manifest.csv")
    return frame.assign(audio=[str(REPOSITORY / path) for path in frame.audio])


@pytest.fixture
def noises() -> Callable[..., list[tuple[np.ndarray, int]]]:
    """Makes cells that differ: ``(samples, sample_rate_hz)`` pairs."""

    def make(n: int, *, seed: int = 0) -> list[tuple[np.ndarray, int]]:
        rng = np.random.default_rng(seed)
        return [(rng.normal(scale=0.1, size=32_000).astype(np.float32), 16_000) for _ in range(n)]

    return make


@pytest.fixture(scope="module")
def module_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with opened_kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        yield kernel


@pytest.fixture
def kernel(module_kernel: Kernel) -> Kernel:
    """The module's kernel, with nothing heard yet."""
    module_kernel.forget()
    return module_kernel


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs this Python elsewhere, at home in an empty folder."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
        options = {"cwd": tmp_path, "env": environment, "timeout": DEADLINE_S, **options}
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, **options
        )

    return run


@pytest.fixture(scope="module")
def few_repeats() -> Iterator[None]:
    """Bootstraps of fewer draws, which take less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrating, "_REPEATS", 150)
        yield


@pytest.fixture(scope="module")
def calibration(few_repeats: None) -> vp.Calibration:
    """Of sixty made-up voices."""
    return vp.calibrate(frame_of(60, 6, seed=1), enrolled=3)


@pytest.fixture(scope="module")
def known() -> pd.DataFrame:
    """Twenty other ones, with their names."""
    return frame_of(20, 8, seed=2)
