"""Which view a run gets: a panel in notebooks, a bar in terminals, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from voiceprint_nb.batch.progress import BarMeter, LineMeter, Meter


def meter_for(
    progress: bool, destination: str, *, on_cancel: Callable[[], None] | None = None
) -> Meter | None:
    """A view for this place, after the one line that says where the audio goes.

    The panel shows that line itself; everywhere else it is written to standard error, also without progress.
    """
    if progress and in_kernel() and not kernel_trouble():
        from voiceprint_nb.notebook.widgets import PanelMeter

        return PanelMeter(on_cancel=on_cancel)
    if destination:
        print(destination, file=sys.stderr, flush=True)
    if not progress:
        return None
    if in_kernel():
        print(kernel_trouble(), file=sys.stderr, flush=True)
    return BarMeter(sys.stderr) if sys.stderr.isatty() else LineMeter(sys.stderr)


def in_kernel() -> bool:
    """Whether this code runs in a Jupyter kernel."""
    return getattr(_shell(), "kernel", None) is not None


def kernel_trouble() -> str | None:
    """What is known to go wrong with this kernel's widgets, in a sentence."""
    version = kernel_version()
    if version is not None and version[:2] == (7, 0):
        return "ipykernel 7.0 loses widget updates: upgrade to 7.1 or later. Progress is shown as text."
    return None


def kernel_version() -> tuple[int, ...] | None:
    """Version of ipykernel in a kernel, else None."""
    if not in_kernel():
        return None
    return tuple(int(part) for part in metadata.version("ipykernel").split(".")[:2] if part.isdigit())


def _shell() -> Any:
    ipython = sys.modules.get("IPython")  # if nobody has imported it, this is no notebook
    return ipython.get_ipython() if ipython is not None else None
