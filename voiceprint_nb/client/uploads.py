"""A clip becomes a ``media://`` key: ticket, then a streamed PUT, named by the content's digest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

from voiceprint_nb import contract
from voiceprint_nb.client.transport import Api
from voiceprint_nb.errors import RequestRefused, RowError, ServiceUnavailable

_CHUNK_BYTES = 1 << 18
_TICKETS = 4  # a link may expire while the upload waits
_EXPIRED = (400, 403)  # what storages answer to such a link


def media_key(digest: str, *, smaller: bool = False) -> str:
    """The ``media://`` key of a content, or of what was made of it to be smaller.

    It has no underscore, which the hosted service has refused in keys.

    Examples
    --------
    >>> media_key("9f86d081"), media_key("9f86d081", smaller=True)
    ('media://voiceprint-nb/9f86d081', 'media://voiceprint-nb/9f86d081-small')
    """
    return f"media://voiceprint-nb/{digest}{'-small' if smaller else ''}"


async def put(
    api: Api, path: Path, *, n_bytes: int, media_key: str, sent: Callable[[int], None] = lambda n_bytes: None
) -> None:
    """Upload a file to a ``media://`` key.

    Parameters
    ----------
    api : Api
        The open client.
    path : Path
        File to stream.
    n_bytes : int
        Its size, sent as Content-Length.
    media_key : str
        Where to.
    sent : callable
        Told of bytes that have left; of a negative number when an attempt came to nothing.

    Raises
    ------
    RowError
        ``upload_failed``.
    """
    n_sent = 0

    def chunks() -> AsyncIterator[bytes]:
        nonlocal n_sent
        sent(-n_sent)
        n_sent = 0
        return _chunks(path, n_bytes, count)

    def count(n_read: int) -> None:
        nonlocal n_sent
        n_sent += n_read
        sent(n_read)

    for tickets_left in reversed(range(_TICKETS)):
        body = contract.MediaRequest(media_key).to_wire()
        answer = await api.post(contract.MEDIA_INPUT_PATH, body, pacer=api.media_pacer, repeatable=True)
        ticket = contract.MediaTicket.from_wire(answer)
        try:
            await api.put(ticket.url, chunks, n_bytes, media_key=media_key)
        except RequestRefused as error:
            if error.status in _EXPIRED and tickets_left:
                continue
            raise RowError(
                "upload_failed", f"The clip could not be uploaded: {error} Run the line again."
            ) from error
        except ServiceUnavailable as error:
            if error.concerns_all_rows:
                raise
            raise RowError("upload_failed", f"The upload broke off: {error} Run the line again.") from error
        return
    raise AssertionError("unreachable: the last ticket returns or raises")


def _chunks(path: Path, n_bytes: int, count: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The file's bytes; other content under the digest of what was there before must not be stored."""
    try:
        if path.stat().st_size != n_bytes:
            raise RowError("upload_failed", "The clip has changed during the run: run the line again.")
    except OSError as error:
        raise _unreadable(error) from error
    return _read(path, count)


async def _read(path: Path, count: Callable[[int], None]) -> AsyncIterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
                count(len(chunk))
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> RowError:
    return RowError(
        "upload_failed", f"The clip can no longer be read ({error.strerror}): run the line again."
    )
