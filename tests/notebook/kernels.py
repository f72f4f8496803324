"""A real kernel, spoken to as front ends do."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client import BlockingKernelClient, KernelManager

DEADLINE_S = 60.0

Message = dict[str, Any]


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
        return str(self.client.execute(code, allow_stdin=True))

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

    def shows_work(self) -> bool:
        """Whether a panel shows rows that are finished, and rows that are not."""
        return any("succeeded" in text and "running" in text for text in self.panel_texts())

    def buttons(self) -> dict[str, str]:
        """Models of the buttons that were made, by their words."""
        opened = [m["content"] for m in self.said("comm_open")]
        states = [(m["comm_id"], m["data"]["state"]) for m in opened]
        return {state["description"]: id_ for id_, state in states if state["_model_name"] == "ButtonModel"}

    def click(self, name: str) -> None:
        """Press a button, as front ends say it."""
        content = {
            "comm_id": self.buttons()[name],
            "data": {"method": "custom", "content": {"event": "click"}},
        }
        self.client.shell_channel.send(self.client.session.msg("comm_msg", content))

    def forget(self) -> None:
        self.heard.clear()

    def _is_over(self, id_: str) -> bool:
        idle = any(
            m["parent_header"].get("msg_id") == id_ and m["content"]["execution_state"] == "idle"
            for m in self.said("status")
        )
        return idle and id_ in self._replies


PREAMBLE = """
import asyncio, tempfile, time
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


@contextlib.contextmanager
def opened_kernel(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[Kernel]:
    """A kernel with the preamble run; it ends with the block."""
    manager = KernelManager()
    manager.start_kernel(cwd=str(folder), **({"env": dict(environ)} if environ else {}))
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
