"""Requests to addresses that callers name, on an event loop in a thread of their own.

Clips are fetched and webhooks sent here, whatever loop the caller of the service runs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from voiceprint_nb.contract import MAX_BYTES
from voiceprint_nb.fetching import download

if TYPE_CHECKING:
    import httpx

FETCH_TIMEOUT_S = 60.0

_FINISH_S = 1.0
_log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[["httpx.AsyncClient"], Coroutine[Any, Any, T]]


def plain_client() -> httpx.AsyncClient:
    """An HTTP client as it comes: no keys, the environment's proxies."""
    import httpx

    return httpx.AsyncClient()


class Outside:
    """A thread for requests; it and its clients start with the first ones.

    The caller sees to it that fewer are at once than a client has connections: time runs while one waits.

    Parameters
    ----------
    new_client : callable
        Makes the HTTP client, on the thread's own loop.
    """

    def __init__(self, new_client: Callable[[], httpx.AsyncClient] = plain_client) -> None:
        self._new_client = new_client
        self._clients: dict[str, httpx.AsyncClient] = {}  # clips and the rest: neither waits for the other
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    def fetch(self, url: str, target: Path) -> Future[None]:
        """Start copying; the future ends with the file complete, or with a `RowError` and no file."""

        async def copy(client: httpx.AsyncClient) -> None:
            await download(url, target, max_bytes=MAX_BYTES, timeout_s=FETCH_TIMEOUT_S, client=client)

        return self._begin("clips", copy)

    def start(self, work: Work[T]) -> Future[T]:
        """Run a coroutine function with a client."""
        return self._begin("others", work)

    def _begin(self, use: str, work: Work[T]) -> Future[T]:
        if self._running is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="voiceprint-outside", daemon=True)
            try:
                thread.start()
            except BaseException:
                loop.close()
                raise
            self._running = loop, thread
        return asyncio.run_coroutine_threadsafe(self._with_client(use, work), self._running[0])

    async def _with_client(self, use: str, work: Work[T]) -> T:
        if use not in self._clients:
            self._clients[use] = self._new_client()
        return await work(self._clients[use])

    def close(self) -> None:
        """End all requests and the thread; one that a request holds up is left to end with the process."""
        if self._running is None:
            return
        loop, thread = self._running
        self._running = None
        asyncio.run_coroutine_threadsafe(self._finish(), loop)
        thread.join(5 * _FINISH_S)
        if thread.is_alive():
            _log.error("a request to the outside cannot be ended")
        else:
            loop.close()

    async def _finish(self) -> None:
        try:
            running = asyncio.all_tasks() - {asyncio.current_task()}
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running, timeout=_FINISH_S)
            async with asyncio.timeout(_FINISH_S):
                for client in self._clients.values():
                    await client.aclose()
        except Exception:
            _log.exception("requests to the outside did not end in order")
        finally:
            asyncio.get_running_loop().stop()
