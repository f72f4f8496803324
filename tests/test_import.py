"""``import voiceprint_nb`` does nothing that anybody could notice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import voiceprint_nb as vp

IMPORTED = """
import sys, threading, warnings
import pandas
before, threads = set(sys.modules), threading.enumerate()
filters = list(warnings.filters)
import voiceprint_nb
assert threading.enumerate() == threads
assert warnings.filters == filters
print(*sorted(set(sys.modules) - before))
"""
HEAVY = {
    "IPython", "anyio", "asyncio", "httpx", "ipywidgets", "nest_asyncio", "onnxruntime", "platformdirs",
    "socket", "soundfile", "soxr", "sqlite3", "stamina", "starlette", "tqdm",
}  # fmt: skip


def run_python(home: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment, cwd=home, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_import_loads_little_and_leaves_nothing(tmp_path):
    done = run_python(tmp_path, IMPORTED)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(done.stdout.split())
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    assert {name for name in loaded if name.startswith("voiceprint_nb")} == {
        "voiceprint_nb",
        "voiceprint_nb.notebook",
        "voiceprint_nb.notebook.accessor",
    }
    assert list(tmp_path.iterdir()) == []


def test_every_name_loads_without_a_warning_and_without_the_engine(tmp_path):
    done = run_python(
        tmp_path,
        "import sys, voiceprint_nb as vp\n"
        "names = set(vp.__all__) - {'Receiver'}  # which is a web application\n"
        "for name in names: assert getattr(vp, name).__doc__, name\n"
        "print(*{'onnxruntime', 'ipywidgets', 'starlette', 'IPython'} & set(sys.modules))",
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "\n")
    assert list(tmp_path.iterdir()) == []


def test_public_names():
    assert set(vp.__all__) <= set(dir(vp))
    assert sorted(vp.__all__) == vp.__all__
    homes = [getattr(getattr(vp, name), "__module__", "voiceprint_nb.plots") for name in vp.__all__]
    assert all(home.startswith("voiceprint_nb.") for home in homes)
    assert vp.__version__.count(".") == 2


@pytest.mark.parametrize("name", ["create", "_secret", "diarize", "__wrapped__"])
def test_unknown_names(name):
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
        getattr(vp, name)


def test_the_accessor_is_registered():
    assert type(pd.DataFrame().voiceprint).__name__ == "VoiceprintAccessor"
