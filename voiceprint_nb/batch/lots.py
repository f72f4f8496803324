"""Threads that take work in lots: for small work the way to a thread and back costs as much as the work."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]
_End = tuple[Any, BaseException | None]

_MOST = 8  # of a lot: the first waits for the last


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
        size = min(_MOST, math.ceil(len(works) / self._n_threads))
        for start in range(0, len(works), size):
            lot = works[start : start + size]
            try:
                running = loop.run_in_executor(self._threads, _run, lot)
            except RuntimeError as error:  # closed, or the interpreter ends
                _tell(lot, [(None, error)] * len(lot))
            else:
                running.add_done_callback(partial(_ended, lot))


def _run(lot: list[_Work]) -> list[_End]:
    """In a thread: all that somebody still waits for."""
    return [(None, None) if done.cancelled() else _end(work) for work, done in lot]


def _end(work: Callable[[], Any]) -> _End:
    try:
        return work(), None
    except BaseException as error:  # the caller's to know
        return None, error


def _ended(lot: list[_Work], running: asyncio.Future[list[_End]]) -> None:
    if running.cancelled():  # closed before a thread was free
        for _, done in lot:
            done.cancel()
    else:
        _tell(lot, running.result())


def _tell(lot: list[_Work], ends: Sequence[_End]) -> None:
    for (_, done), (value, error) in zip(lot, ends, strict=True):
        if done.done():  # nobody waits any more
            continue
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
