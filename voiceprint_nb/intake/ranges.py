"""Look at a link by asking for the few bytes that tell how long its audio is, not for all of them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from voiceprint_nb import contract, fetching
from voiceprint_nb.intake import headers, shares
from voiceprint_nb.intake.looking import RemoteFile

LEAST_BYTES = 1_100
"""Asked for at once: with an answer's headers they fill one packet of 1,460 bytes, and tell of most files."""

_LOOK_TIMEOUT_S = 30.0  # for one stretch
_MOST_REQUESTS = 8  # for one link; a file of so many parts is fetched whole
_RANGE_REFUSED = (400, 405, 416, 501)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_SIGNATURE = re.compile(r"x-(amz|goog)-.*")  # of Amazon and Google, version 4
_SIGNED = {  # by the parameter that tells of a signature: those that go with it, of CloudFront and Azure
    "signature": {"signature", "expires", "awsaccesskeyid", "googleaccessid", "key-pair-id", "policy"},
    "sig": {"sig", "sv", "ss", "srt", "sr", "sp", "st", "se", "spr", "sip"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv"},
}


class WholeOnly(Exception):
    """The server gives the file as a whole only, or tells too little about it."""


class Missing(Exception):
    """Bytes that have not been fetched yet."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop


class RangedFile:
    """A file of which some stretches are here; reading any other raises `Missing`."""

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._stretches: list[tuple[int, bytes]] = []
        self._position = 0

    def add(self, start: int, data: bytes) -> None:
        """Keep a stretch."""
        self._stretches.append((start, data))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to an offset from the start, or from the end if ``whence`` is 2."""
        self._position = max(0, offset + (self.n_bytes if whence == 2 else 0))
        return self._position

    def read(self, n_bytes: int = -1) -> bytes:
        """So many bytes, fewer only at the end of the file; raises `Missing`."""
        stop = self.n_bytes if n_bytes < 0 else min(self._position + n_bytes, self.n_bytes)
        pieces = []
        while self._position < stop:
            piece = self._piece(self._position, stop)
            pieces.append(piece)
            self._position += len(piece)
        return b"".join(pieces)

    def _piece(self, start: int, stop: int) -> bytes:
        for begin, data in self._stretches:
            if begin <= start < begin + len(data):
                return data[start - begin : stop - begin]
        raise Missing(start, min([stop, *(begin for begin, _ in self._stretches if begin > start)]))


async def look(
    url: str, scratch: Path, client: httpx.AsyncClient, *, name: str | None = None
) -> RemoteFile | None:
    """Size and facts of the audio behind a link, without fetching it; None if only the whole file can tell.

    That is so for other formats than those of `headers`, for headers that leave the length open, for servers
    that know no ranges (unless the beginning tells all) or no size, for files without a strong ETag or
    Last-Modified, and for tiny ones. What no header tells: whether anything can be heard, and whether the
    audio is damaged inside.

    The `RemoteFile.identity`, under which results are kept, is a digest of the link (scheme, host, path, and
    query without signatures), the size, the strong ETag and Last-Modified. Servers promise to change one of
    these with the content; the same content behind another link has another identity. For a link that was
    signed for an object, ``name`` is the object's address, which takes the link's place.

    Raises
    ------
    RowError
        As `fetching.download`, and ``not_audio``, ``truncated`` or ``bad_header``.
    """
    try:
        first = part = await _fetch(url, 0, LEAST_BYTES, scratch, client)
        shares.refuse_pointer(first.data)
        if first.total <= LEAST_BYTES:
            return None
        file = RangedFile(first.total)
        for _ in range(_MOST_REQUESTS - 1):
            file.add(part.start, part.data)
            try:
                facts = headers.read_facts(cast(IO[bytes], file))
            except Missing as missing:
                if not first.in_parts:
                    return None
                stop = min(max(missing.stop, missing.start + LEAST_BYTES), first.total)
                part = await _fetch(url, missing.start, stop, scratch, client)
                if (part.total, part.version) != (first.total, first.version):
                    return None  # it was replaced in between
            else:
                return RemoteFile(first.total, _identity(name or url, first), facts) if facts else None
    except WholeOnly:
        pass
    return None


@dataclass(frozen=True)
class _Part:
    start: int
    data: bytes
    total: int
    version: tuple[str, str]  # strong ETag and Last-Modified
    in_parts: bool  # whether there is more to be had


async def _fetch(url: str, start: int, stop: int, scratch: Path, client: httpx.AsyncClient) -> _Part:
    wire = _StretchTransport(client, start, stop)
    target = scratch / uuid.uuid4().hex
    async with httpx.AsyncClient(transport=wire) as ranged:
        await fetching.download(
            url, target, max_bytes=contract.MAX_BYTES, timeout_s=_LOOK_TIMEOUT_S, client=ranged
        )
    data = target.read_bytes()
    target.unlink()
    if len(data) < min(stop, wire.total) - start:
        raise WholeOnly
    return _Part(start, data, wire.total, wire.version, wire.in_parts)


class _StretchTransport(httpx.AsyncBaseTransport):
    """Asks for bytes from ``start`` to ``stop`` and reads no more than these, whatever the server sends.

    Raises `WholeOnly` for answers that do not tell what was asked; redirects and refusals pass.
    """

    def __init__(self, client: httpx.AsyncClient, start: int, stop: int) -> None:
        self._client = client
        self._start, self._stop = start, stop
        self.total, self.version, self.in_parts = 0, ("", ""), False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Range"] = f"bytes={self._start}-{self._stop - 1}"
        answer = await self._client.send(request, stream=True)
        try:
            self._note(answer)
        except BaseException:
            await answer.aclose()
            raise
        stream = _Beginning(answer, self._stop - self._start)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=stream)

    def _note(self, answer: httpx.Response) -> None:
        told = answer.headers
        if not answer.is_success and answer.status_code not in _RANGE_REFUSED:
            return
        self.in_parts = answer.status_code == 206
        if self.in_parts:
            match = _CONTENT_RANGE.fullmatch(told.get("content-range", ""))
            self.total = int(match[3]) if match and int(match[1]) == self._start else 0
        elif self._start == 0 and told.get("content-length", "").isdigit():
            self.total = int(told["content-length"])
        etag = told.get("etag", "")
        self.version = ("" if etag.startswith("W/") else etag, told.get("last-modified", ""))
        packed = told.get("content-encoding", "identity") != "identity"
        if not answer.is_success or packed or not self.total or not any(self.version):
            raise WholeOnly


class _Beginning(httpx.AsyncByteStream):
    """So many bytes of an answer; one of just these is read to its end, so that the connection lives."""

    def __init__(self, answer: httpx.Response, n_bytes: int) -> None:
        self._answer = answer
        self._left = n_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        enough = 0 if self._answer.status_code == 206 else 1
        chunks = cast(AsyncGenerator[bytes, None], self._answer.aiter_raw())
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk[: self._left]
                self._left -= len(chunk)
                if self._left < enough:
                    return

    async def aclose(self) -> None:
        await self._answer.aclose()


def _identity(url: str, part: _Part) -> str:
    told = (*_without_signature(url), str(part.total), *part.version)
    return hashlib.sha256("\n".join(("link", *told)).encode()).hexdigest()


def _without_signature(url: str) -> tuple[str, str, str, str]:
    """Scheme, host, path and query of a link, less what signs it and what logs in."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    names = {name.lower() for name, _ in pairs}
    signing = {name for sign, others in _SIGNED.items() if sign in names for name in others}
    signing |= {name for name in names if _SIGNATURE.fullmatch(name)}
    kept = [(name, value) for name, value in pairs if name.lower() not in signing]
    return parts.scheme, parts.netloc.rpartition("@")[2].lower(), parts.path, urlencode(kept)
