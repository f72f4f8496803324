"""Requests to addresses that callers name, on an event loop in a thread of their own.

Clips are fetched and webhooks sent here, whatever loop the caller of the service runs.
"""

from __future__ import annotations

import asyncio
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

T = TypeVar("T")


def plain_client() -> httpx.AsyncClient:
    """An HTTP client as it comes: no keys, the environment's proxies."""
    import httpx

    return httpx.AsyncClient()


class Outside:
    """A thread for requests; it and its client start with the first one.

    Parameters
    ----------
    new_client : callable
        Makes the HTTP client, on the thread's own loop.
    """

    def __init__(self, new_client: Callable[[], httpx.AsyncClient] = plain_client) -> None:
        self._new_client = new_client
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def fetch(self, url: str, target: Path) -> Future[None]:
        """Start copying; the future ends with the file complete, or with a `RowError` and no file."""

        async def copy(client: httpx.AsyncClient) -> None:
            await download(url, target, max_bytes=MAX_BYTES, timeout_s=FETCH_TIMEOUT_S, client=client)

        return self.start(copy)

    def start(self, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine function with the client."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="voiceprint-outside", daemon=True
            )
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._with_client(work), self._loop)

    async def _with_client(self, work: Callable[[httpx.AsyncClient], Coroutine[Any, Any, T]]) -> T:
        if self._client is None:
            self._client = self._new_client()
        return await work(self._client)

    def close(self) -> None:
        """End all requests and the thread."""
        if self._loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = self._client = None

    async def _finish(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()
