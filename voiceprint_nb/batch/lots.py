"""Threads that take work in lots: for small work the way to a thread and back costs as much as the work."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]

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
                self._threads.submit(_run, lot, loop)
            except RuntimeError as error:  # closed, or the interpreter ends
                _tell([(done, None, error) for _, done in lot])


def _run(lot: list[_Work], loop: asyncio.AbstractEventLoop) -> None:
    """In a thread: all that somebody still waits for."""
    ended: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
    for work, done in lot:
        if done.cancelled():
            continue
        try:
            ended.append((done, work(), None))
        except BaseException as error:  # the row's to know
            ended.append((done, None, error))
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
        loop.call_soon_threadsafe(_tell, ended)


def _tell(ended: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for done, value, error in ended:
        if done.done():  # nobody waits any more
            continue
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)
