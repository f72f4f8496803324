"""Threads that take work in lots: for small work the way to a thread and back costs as much as the work."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]
_End = tuple[Any, BaseException | None]

_MOST, _LOT_S = 8, 0.01  # of a lot: the first waits for the last


class Lots:
    """Runs functions in threads; those that come in one turn of the event loop are shared out together.

    Parameters
    ----------
    n_threads : int
        Threads, at most.

    Examples
    --------
    >>> async def main() -> list[int]:
    ...     lots = Lots(2)
    ...     try:
    ...         return await asyncio.gather(*(lots.run(lambda n=n: n * n) for n in range(4)))
    ...     finally:
    ...         lots.close()
    >>> asyncio.run(main())
    [0, 1, 4, 9]
    """

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="voiceprint-intake")
        self._waiting: list[_Work] = []

    async def run(self, work: Callable[[], T]) -> T:
        """What a function returns, or raises, in one of the threads."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append((work, done))
        if len(self._waiting) == 1:
            loop.call_soon(self._share_out, loop)
        return await done

    def close(self) -> None:
        """Begin nothing more; what runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _share_out(self, loop: asyncio.AbstractEventLoop) -> None:
        works, self._waiting = self._waiting, []
        self._send(works, loop)

    def _send(self, works: list[_Work], loop: asyncio.AbstractEventLoop) -> None:
        size = min(_MOST, math.ceil(len(works) / self._n_threads))
        for start in range(0, len(works), size):
            lot = works[start : start + size]
            try:
                running = loop.run_in_executor(self._threads, _run, lot)
            except RuntimeError as error:  # closed, or the interpreter ends
                _tell(lot, [(None, error)] * len(lot))
            else:
                running.add_done_callback(partial(self._ended, lot))

    def _ended(self, lot: list[_Work], running: asyncio.Future[list[_End]]) -> None:
        if running.cancelled():  # closed before a thread was free
            for _, done in lot:
                done.cancel()
            return
        ends = running.result()
        _tell(lot, ends)
        if rest := lot[len(ends) :]:
            self._send(rest, running.get_loop())


def _run(lot: list[_Work]) -> list[_End]:
    """In a thread: what somebody still waits for, as much as a moment allows, and at least one."""
    until_s, ends = time.monotonic() + _LOT_S, list[_End]()
    for work, done in lot:
        ends.append((None, None) if done.cancelled() else _end(work))
        if time.monotonic() > until_s:
            break
    return ends


def _end(work: Callable[[], Any]) -> _End:
    try:
        return work(), None
    except StopIteration as error:  # which no future takes
        return None, RuntimeError(f"the work ended with {error!r}")
    except BaseException as error:  # the caller's to know
        return None, error


def _tell(lot: list[_Work], ends: Sequence[_End]) -> None:
    for (_, done), (value, error) in zip(lot, ends, strict=False):
        if done.done():  # nobody waits any more
            continue
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
