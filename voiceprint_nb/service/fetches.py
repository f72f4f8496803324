"""Downloads of linked clips, on an event loop in a thread of their own: they outlive the caller's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from voiceprint_nb.contract import MAX_BYTES
from voiceprint_nb.fetching import download

if TYPE_CHECKING:
    import httpx

FETCH_TIMEOUT_S = 60.0


def plain_client() -> httpx.AsyncClient:
    """An HTTP client as it comes: no keys, the environment's proxies."""
    import httpx

    return httpx.AsyncClient()


class Fetcher:
    """Copies links into files; its thread and client start with the first link.

    Parameters
    ----------
    client : callable
        Makes the HTTP client, on the fetcher's own loop.
    """

    def __init__(self, client: Callable[[], httpx.AsyncClient] = plain_client) -> None:
        self._new_client = client
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def fetch(self, url: str, target: Path) -> Future[None]:
        """Start copying; the future ends with the file complete, or with a `RowError` and no file."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="voiceprint-fetch", daemon=True
            )
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._copy(url, target), self._loop)

    async def _copy(self, url: str, target: Path) -> None:
        if self._client is None:
            self._client = self._new_client()
        await download(url, target, max_bytes=MAX_BYTES, timeout_s=FETCH_TIMEOUT_S, client=self._client)

    def close(self) -> None:
        """End all downloads and the thread."""
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
