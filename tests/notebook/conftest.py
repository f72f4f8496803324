from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jupyter_client import BlockingKernelClient, KernelManager

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0

Message = dict[str, Any]


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


@dataclass
class Cell:
    """An executed cell: its reply, and what was published for it."""

    reply: Message
    outputs: list[Message] = field(repr=False)
    took_s: float

    @property
    def status(self) -> str:
        return str(self.reply["content"]["status"])

    @property
    def ename(self) -> str:
        return str(self.reply["content"].get("ename", ""))

    def text(self, stream: str = "stdout") -> str:
        return "".join(
            message["content"]["text"]
            for message in self.outputs
            if message["msg_type"] == "stream" and message["content"]["name"] == stream
        )

    def displays(self) -> list[Message]:
        return [m["content"] for m in self.outputs if m["msg_type"] == "display_data"]


class Kernel:
    """A real kernel; what it publishes is kept in `heard`."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client
        self.heard: list[Message] = []
        self._replies: dict[str, Message] = {}

    def send(self, code: str) -> str:
        return str(self.client.execute(code, allow_stdin=False))

    def run(self, code: str, *, raises: str = "") -> Cell:
        """Execute a cell; it must end well, or with the named error."""
        (cell,) = self.collect([self.send(code)])
        assert cell.ename == raises, "\n".join(cell.reply["content"].get("traceback", []))
        return cell

    def collect(self, ids: list[str]) -> list[Cell]:
        began_s = time.monotonic()
        self.until(lambda: all(self._is_over(id_) for id_ in ids))
        took_s = time.monotonic() - began_s
        return [
            Cell(
                self._replies[id_], [m for m in self.heard if m["parent_header"].get("msg_id") == id_], took_s
            )
            for id_ in ids
        ]

    def until(self, holds: Callable[[], bool]) -> None:
        """Listen until something holds."""
        ends_s = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < ends_s, "the kernel did not get there in time"
            with contextlib.suppress(queue.Empty):
                self.heard.append(self.client.get_iopub_msg(timeout=0.05))
            with contextlib.suppress(queue.Empty):
                reply = self.client.get_shell_msg(timeout=0)
                self._replies[reply["parent_header"]["msg_id"]] = reply

    def said(self, kind: str) -> list[Message]:
        return [message for message in self.heard if message["msg_type"] == kind]

    def panel_texts(self) -> list[str]:
        """What the live panel was told to show, in order."""
        updates = [m["content"]["data"] for m in self.said("comm_msg")]
        return [str(data["state"]["value"]) for data in updates if "value" in data.get("state", {})]

    def open_widgets(self) -> set[str]:
        opened = {m["content"]["comm_id"] for m in self.said("comm_open")}
        return opened - {m["content"]["comm_id"] for m in self.said("comm_close")}

    def forget(self) -> None:
        self.heard.clear()

    def _is_over(self, id_: str) -> bool:
        idle = any(
            m["parent_header"].get("msg_id") == id_ and m["content"]["execution_state"] == "idle"
            for m in self.said("status")
        )
        return idle and id_ in self._replies


PREAMBLE = """
import asyncio, tempfile
import numpy as np, pandas as pd, voiceprint_nb as vp
from pathlib import Path
place = Path(tempfile.mkdtemp())

def noises(n, seed):
    rng = np.random.default_rng(seed)
    return [(rng.normal(scale=0.1, size=32_000).astype(np.float32), 16_000) for _ in range(n)]

def tasks():
    from voiceprint_nb.batch.bridge import loop_thread
    everything = asyncio.all_tasks(loop_thread().loop)
    return sorted(f"{task.get_name()} {task.get_coro().__qualname__}" for task in everything)
"""


@pytest.fixture(scope="module")
def module_kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    manager = KernelManager()
    manager.start_kernel(cwd=str(tmp_path_factory.mktemp("kernel")))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE_S)
        kernel = Kernel(manager, client)
        assert kernel.run(PREAMBLE).status == "ok"
        yield kernel
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


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
