"""Connections that do not come to the point are closed: uvicorn itself waits for headers without end."""

from __future__ import annotations

import asyncio
from typing import Any

HEADERS_S = 20.0


def protocol(headers_s: float = HEADERS_S) -> type[asyncio.Protocol]:
    """Uvicorn's protocol, with so many seconds for the headers of each request."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_watching()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:  # the headers are there
                self._stop_watching()
            elif self._patience is None:
                self._patience = self.loop.call_later(headers_s, self.transport.close)

        def _stop_watching(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

    return Impatient
