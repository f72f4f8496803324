"""Work that takes a while, beside a kernel that goes on answering."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

_THREADS = 2


class Errands:
    """Works in threads and brings results to the thread of the event loop that made it.

    There they are taken between cells, as clicks are. Where no loop runs, as in plain Python, work is done at
    once in the calling thread.
    """

    def __init__(self) -> None:
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._n_threads = 0
        self._closed = False

    @property
    def in_background(self) -> bool:
        """Whether work is done beside the caller."""
        return self._loop is not None

    def send(self, work: Callable[[], T], then: Callable[[T | None, Exception | None], Any]) -> None:
        """Do the work, then call with its result, or with what it raised."""

        def errand() -> None:
            try:
                result = work()
            except Exception as error:
                self.post(partial(then, None, error))
            else:
                self.post(partial(then, result, None))

        if self._loop is None:
            errand()
            return
        if self._n_threads < _THREADS:  # daemons: a kernel that ends does not wait for a long recording
            self._n_threads += 1
            threading.Thread(target=self._run, name="voiceprint-picker", daemon=True).start()
        self._waiting.put(errand)

    def post(self, call: Callable[[], Any]) -> None:
        """Call on the loop, from any thread; nothing is called any more after `close`."""
        if self._loop is None:
            call()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
            self._loop.call_soon_threadsafe(lambda: None if self._closed else call())

    def close(self) -> None:
        """End the threads after what they do now."""
        self._closed = True
        for _ in range(self._n_threads):
            self._waiting.put(None)

    def _run(self) -> None:
        while (errand := self._waiting.get()) is not None:
            if not self._closed:
                errand()
