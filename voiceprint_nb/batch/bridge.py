"""From a synchronous cell to the async core: one event loop in one background thread, and `Run`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from voiceprint_nb import threads

T = TypeVar("T")

_SLICE_S = 0.1  # a blocked main thread looks for an interrupt this often
_TICK_S = 0.2  # views are drawn at most five times a second
_CLEANUP_S = 5.0  # bound on the wait for cancelled work

_log = logging.getLogger(__name__)


class LoopThread:
    """An event loop that runs in a daemon thread until the process ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        thread = threading.Thread(target=self._run, args=(started,), name="voiceprint-loop", daemon=True)
        thread.start()
        started.wait()

    def _run(self, started: threading.Event) -> None:
        threads.give_way()
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(started.set)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> Background[T]:
        """Begin work on the loop."""
        return Background(self.loop, work)


@functools.lru_cache(maxsize=4)
def _thread_of_process(_pid: int) -> LoopThread:
    return LoopThread()


def loop_thread() -> LoopThread:
    """The process's loop thread, started on first use; a forked child gets its own."""
    return _thread_of_process(os.getpid())


class Background(Generic[T]):
    """Work on the loop thread that goes on while the caller does something else."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._task: asyncio.Task[None] | None = None
        loop.call_soon_threadsafe(self._begin, work)

    def _begin(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(self._finish(work), name="voiceprint_nb")

    async def _finish(self, work: Coroutine[Any, Any, T]) -> None:
        try:
            result = await work
        except asyncio.CancelledError:  # not this task's own end: nobody awaits it
            self._future.set_exception(concurrent.futures.CancelledError())
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    @property
    def done(self) -> bool:
        """Whether the work has ended."""
        return self._future.done()

    def wait(self, *, tick: Callable[[], None] | None = None, timeout_s: float | None = None) -> T:
        """Block until the work ends, in short slices, so that an interrupt is heard.

        An interrupt cancels the work, waits until it has cleaned up, and is raised again.

        Parameters
        ----------
        tick : callable, optional
            Called about five times a second in the calling thread, and once at the end.
        timeout_s : float, optional
            Raise `TimeoutError` after so long; the work goes on.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        draw = _Ticker(tick)
        try:
            while True:
                left_s = _SLICE_S if deadline_s is None else max(0.0, deadline_s - time.monotonic())
                finished, _ = concurrent.futures.wait([self._future], timeout=min(_SLICE_S, left_s))
                draw(at_once=bool(finished))
                if finished:
                    break
                if deadline_s is not None and time.monotonic() >= deadline_s:
                    raise TimeoutError(f"not finished within {timeout_s} s; it goes on in the background")
        except KeyboardInterrupt:
            self.cancel()
            concurrent.futures.wait([self._future], timeout=_CLEANUP_S)
            draw(at_once=True)
            raise
        return self._future.result()

    def cancel(self) -> None:
        """Ask the work to stop; it still cleans up."""
        # a turn of the loop later: a task that is cancelled before its first step would never end its future
        self._loop.call_soon_threadsafe(self._loop.call_soon, self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def __await__(self) -> Generator[Any, None, T]:
        return self._sliced().__await__()

    async def _sliced(self) -> T:
        while not self._future.done():  # noqa: ASYNC110 - sliced, so that interrupting an awaiting cell works
            await asyncio.sleep(_SLICE_S)
        return self._future.result()


async def ticking(work: Coroutine[Any, Any, T], tick: Callable[[], None]) -> T:
    """Run work, and call ``tick`` about five times a second and once at the end."""
    draw = _Ticker(tick)

    async def beat() -> None:
        while True:
            draw(at_once=True)
            await asyncio.sleep(_TICK_S)

    beating = asyncio.create_task(beat())
    try:
        return await work
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        draw(at_once=True)


class _Ticker:
    """Draws a view in its rhythm; one that fails is given up, as it is not worth the run."""

    def __init__(self, tick: Callable[[], None] | None) -> None:
        self._tick = tick
        self._next_s = 0.0

    def __call__(self, *, at_once: bool) -> None:
        if self._tick is None or not (at_once or time.monotonic() >= self._next_s):
            return
        self._next_s = time.monotonic() + _TICK_S
        try:
            self._tick()
        except Exception:
            self._tick = None
            _log.warning("the view of the run failed and is not drawn any more", exc_info=True)
