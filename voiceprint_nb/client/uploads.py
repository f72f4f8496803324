"""A clip becomes a ``media://`` key: ticket, then a streamed PUT, named by the content's digest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from voiceprint_nb import contract
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import RequestRefused, RowError, ServiceUnavailable

_CHUNK_BYTES = 1 << 18
_TICKETS = 2  # a link may expire while the upload waits


async def put(api: Api, path: Path, *, n_bytes: int, digest: str) -> str:
    """Upload a file and return its ``media://`` key.

    Parameters
    ----------
    api : Api
        The open client.
    path : Path
        File to stream.
    n_bytes : int
        Its size, sent as Content-Length.
    digest : str
        Names the content; no underscore, which the hosted service has refused in keys.

    Raises
    ------
    RowError
        ``upload_failed``.
    """
    key = f"media://voiceprint-nb/{digest}"
    for tickets_left in reversed(range(_TICKETS)):
        body = contract.MediaRequest(key).to_wire()
        answer = await api.post(contract.MEDIA_INPUT_PATH, body, pacer=api.media_pacer, repeatable=True)
        ticket = contract.MediaTicket.from_wire(answer)
        try:
            await api.put(ticket.url, lambda: _chunks(path, n_bytes), n_bytes)
        except RequestRefused as error:
            if error.status == 403 and tickets_left:
                continue
            raise RowError("upload_failed", f"The clip could not be uploaded: {error}") from error
        except ServiceUnavailable as error:
            if error.concerns_all_rows:
                raise
            raise RowError("upload_failed", f"The upload broke off: {error} Run the line again.") from error
        return key
    raise AssertionError("unreachable: the last ticket returns or raises")


def _chunks(path: Path, n_bytes: int) -> AsyncIterator[bytes]:
    """The file's bytes; other content under the digest of what was there before must not be stored."""
    try:
        if path.stat().st_size != n_bytes:
            raise RowError("upload_failed", "The clip has changed during the run: run the line again.")
    except OSError as error:
        raise RowError(
            "upload_failed", f"The clip can no longer be read ({error.strerror}): run the line again."
        ) from error
    return _read(path)


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
