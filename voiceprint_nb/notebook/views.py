"""Which view a run gets: a panel in notebooks, a bar in terminals, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

from voiceprint_nb.batch.meters import BarMeter, LineMeter, Meter
from voiceprint_nb.batch.progress import Snapshot

_EVERY_S = 0.2


def kernel_version() -> tuple[int, ...] | None:
    """Version of ipykernel in a kernel, ``()`` in kernels of another kind; None where there is no kernel."""
    if getattr(_shell(), "kernel", None) is None:
        return None
    try:
        version = metadata.version("ipykernel")
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def is_watched() -> bool:
    """Whether somebody sits at the front end: papermill and nbconvert say in each cell that nobody does."""
    request: dict[str, Any] = getattr(getattr(_shell(), "kernel", None), "get_parent", dict)() or {}
    return bool(request.get("content", {}).get("allow_stdin", True))


def meter_for(
    progress: bool,
    destination: str,
    *,
    on_cancel: Callable[[], None] | None = None,
    on_retry: Callable[[], None] | None = None,
    version: Callable[[], tuple[int, ...] | None] = kernel_version,
) -> Paced | None:
    """A view for this place, after the one line that says where the audio goes.

    The panel shows that line itself; everywhere else it is written to standard error, also without progress.
    """
    kernel = version()
    trouble = kernel_trouble(kernel)
    if progress and kernel is not None:
        from voiceprint_nb.notebook.widgets import PanelMeter, StillMeter

        if trouble is not None:
            print(trouble, file=sys.stderr, flush=True)
        with_widgets = trouble is None and is_watched()
        return Paced(PanelMeter(on_cancel=on_cancel, on_retry=on_retry) if with_widgets else StillMeter())
    if destination:
        print(destination, file=sys.stderr, flush=True)
    if not progress:
        return None
    return Paced(BarMeter(sys.stderr) if sys.stderr.isatty() else LineMeter(sys.stderr))


def kernel_trouble(version: tuple[int, ...] | None) -> str | None:
    """What is known to go wrong with widgets here, in a sentence."""
    if version is None:
        return None
    if version[:2] == (7, 0):
        return "ipykernel 7.0 loses widget updates: upgrade to 7.1 or later. The panel is without buttons."
    if "google.colab" in sys.modules and not metadata.version("ipywidgets").startswith("7."):
        return (
            "Google Colab shows the widgets of ipywidgets 7 only: pip install 'ipywidgets<8' and restart. "
            "The panel is without buttons."
        )
    return None


class Paced:
    """Keeps another meter to what `Meter` promises: five times a second at most, and the end exactly once.

    A view that fails is given up with one sentence: a run that costs money does not end for it.
    """

    def __init__(self, meter: Meter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._meter = meter
        self._clock = clock
        self._last_s = float("-inf")
        self._over = False
        self._lock = threading.Lock()  # a run's panel is opened by a cell and kept up by the loop's thread

    def begin_again(self) -> None:
        """Another end will come."""
        with self._lock:
            self._over, self._last_s = False, float("-inf")

    def show(self, snapshot: Snapshot) -> None:
        """Pass the snapshot on, if it is time."""
        with self._lock:
            now_s = self._clock()
            if self._over or not (snapshot.ended or now_s - self._last_s >= _EVERY_S):
                return
            self._last_s = now_s
            try:
                self._meter.show(snapshot)
            except Exception as error:
                self._over = True
                name = type(error).__name__
                print(f"Progress cannot be shown here ({name}); the run goes on.", file=sys.stderr)
            else:
                self._over = snapshot.ended


def _shell() -> Any:
    ipython = sys.modules.get("IPython")  # if nobody has imported it, this is no notebook
    return ipython.get_ipython() if ipython is not None else None
