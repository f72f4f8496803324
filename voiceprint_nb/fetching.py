"""Copy a web address into a file: capped in bytes, time and redirects, never with a key."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import hashlib
import logging
import os
import ssl
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from voiceprint_nb.errors import RowError, UsageError

if TYPE_CHECKING:
    import httpx

    C = TypeVar("C", httpx.AsyncClient, httpx.Client)

MAX_REDIRECTS = 2  # as the hosted service follows
USER_AGENT = "voiceprint_nb"  # the hosted service's front end refuses the agents of bare Python clients
QUIET_S = 20.0
_BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_ENCODINGS = {"", "identity", "gzip", "deflate"}  # one layer: in several, 300 bytes hold gigabytes
_PIECE_BYTES = 1 << 16
_is_hushed = contextvars.ContextVar("voiceprint_nb_is_hushed", default=False)
_HEAD_BYTES = 64  # of the content, to tell a web page that calls itself audio


@dataclass(frozen=True)
class Downloaded:
    """A finished copy.

    Attributes
    ----------
    path : Path
        Where the bytes are.
    n_bytes : int
        How many.
    sha256 : str
        Their digest, 64 hex digits.
    """

    path: Path = field(repr=False)
    n_bytes: int
    sha256: str


def new_client(kind: type[C], **options: Any) -> C:
    """A client of httpx that obeys the environment: proxies as httpx does, certificates as `trust` says.

    Raises
    ------
    UsageError
        A proxy's address or a file of certificates cannot be used.
    """
    import httpx

    in_process = options.get("transport") is not None
    verify = True if in_process else trust()
    try:
        return kind(verify=verify, **options)
    except (ImportError, ValueError, httpx.InvalidURL) as error:  # for proxies that httpx cannot take
        raise UsageError(
            f"The environment's proxy cannot be used ({type(error).__name__}): set HTTP_PROXY, HTTPS_PROXY "
            "and ALL_PROXY to an address such as http://host:3128 (socks5:// needs httpx[socks]), and "
            "NO_PROXY to names of hosts."
        ) from None  # the cause may repeat the proxy's password


def trust() -> ssl.SSLContext | bool:
    """Whom to trust: the first that the environment names, else (True) what httpx does.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` as for httpx, then ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE``,
    which other clients on the same machine read.

    Raises
    ------
    UsageError
        What is named there is no file or folder, or holds no certificate.
    """
    for name in _BUNDLES:
        if path := os.environ.get(name):
            try:
                if Path(path).is_dir():
                    return ssl.create_default_context(capath=path)
                return ssl.create_default_context(cafile=path)
            except OSError as error:  # that of ssl is one
                raise UsageError(
                    f"{name} names a file of certificates that cannot be read ({type(error).__name__}): "
                    "correct it or unset it."
                ) from None
    return True


def veil(request: httpx.Request) -> None:
    """Keep a request's address out of logs: httpx logs that of every request, and signed ones are secrets."""
    request.url = _veiled_url()(request.url)
    hush()


def hush() -> None:
    """Keep headers of answers to this task's requests out of httpcore's log: redirects hold signed links."""
    if not _is_hushed.get():
        for name in ("httpcore.http11", "httpcore.http2"):
            logging.getLogger(name).addFilter(_without_headers)
        _is_hushed.set(True)


def _without_headers(record: logging.LogRecord) -> bool:
    told = str(record.msg)
    if _is_hushed.get() and told.startswith("receive_response_headers.complete"):
        record.msg = told.partition(" ")[0]
    return True


@functools.cache
def _veiled_url() -> type[httpx.URL]:
    import httpx

    class VeiledURL(httpx.URL):
        def __str__(self) -> str:
            return f"{self.scheme}://{self.host}/"

        __repr__ = __str__

    return VeiledURL


async def download(
    url: str,
    target: Path,
    *,
    max_bytes: int,
    timeout_s: float,
    quiet_s: float = QUIET_S,
    client: httpx.AsyncClient | None = None,
) -> Downloaded:
    """Stream ``url`` into ``target``.

    Parameters
    ----------
    url : str
        An http or https address.
    target : Path
        File to write; removed again on failure.
    max_bytes : int
        More bytes than this end the transfer.
    timeout_s : float
        Bound on the whole transfer, in seconds.
    quiet_s : float
        No byte for so many seconds ends the transfer.
    client : httpx.AsyncClient, optional
        For its transport and connections; its cookies and keys are the caller's business.

    Raises
    ------
    RowError
        ``url_*`` codes, ``too_large`` or ``empty_file``.
    """
    import httpx

    host = _host(url)
    async with contextlib.AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(new_client(httpx.AsyncClient))
        try:
            async with asyncio.timeout(timeout_s):
                return await _follow(client, url, target, max_bytes=max_bytes, quiet_s=quiet_s, host=host)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, (TimeoutError, httpx.TimeoutException)):
                raise RowError(
                    "url_timeout", f"{host} sends too slowly or nothing: try later, or download the file."
                ) from None
            # ValueError: a host name, port or redirect that no parser or resolver takes
            if isinstance(error, (httpx.HTTPError, httpx.InvalidURL, ValueError, zlib.error)):
                raise RowError(
                    "url_unreachable",
                    f"{host} cannot be reached or breaks off ({type(error).__name__}): check the address.",
                ) from None  # the cause repeats the address, which may be signed
            raise


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "the address"
    except ValueError:
        return "the address"


async def _follow(
    client: httpx.AsyncClient, url: str, target: Path, *, max_bytes: int, quiet_s: float, host: str
) -> Downloaded:
    import httpx

    timeout = httpx.Timeout(quiet_s)
    headers = {"User-Agent": USER_AGENT, "Accept": "audio/*, */*;q=0.5", "Accept-Encoding": "identity"}
    for _ in range(MAX_REDIRECTS + 1):
        urlsplit(url).port  # noqa: B018 - raises for a port that the network layer would fall over
        request = client.build_request("GET", url, headers=headers, timeout=timeout)
        veil(request)
        async with contextlib.aclosing(await client.send(request, stream=True)) as answer:
            if answer.has_redirect_location:
                url = urljoin(url, answer.headers["location"])
                continue
            _refuse_status(answer.status_code, host)
            _refuse_headers(answer, max_bytes, host)
            return await _copy(_unpacked(answer), target, max_bytes, host)
    raise RowError(
        "url_redirects", f"{host} redirects more than {MAX_REDIRECTS} times: use the direct link to the file."
    )


def _refuse_status(status: int, host: str) -> None:
    if status in (404, 410):
        raise RowError("url_not_found", f"{host} answers {status}, nothing is there: check the address.")
    if status in (401, 403, 407):
        raise RowError(
            "url_refused", f"{host} answers {status}: make the link public, sign it, or download the file."
        )
    if status >= 300 or status < 200:
        raise RowError("url_unreachable", f"{host} answers {status} instead of audio: try later.")


def _refuse_headers(answer: httpx.Response, max_bytes: int, host: str) -> None:
    if answer.headers.get("content-type", "").lower().startswith(("text/html", "application/xhtml")):
        raise _web_page(host)
    if answer.headers.get("content-encoding", "").strip().lower() not in _ENCODINGS:
        raise RowError("url_unreachable", f"{host} packs the file in an unusual way: download the file.")
    length = answer.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(int(length), max_bytes)


def _web_page(host: str) -> RowError:
    return RowError(
        "url_web_page", f"{host} answers with a web page, not audio: use the direct link to the file."
    )


def _too_large(n_bytes: int, max_bytes: int) -> RowError:
    return RowError(
        "too_large",
        f"The file has {'at least ' if n_bytes == max_bytes + 1 else ''}{n_bytes / 2**20:.1f} MiB and the "
        f"limit is {max_bytes / 2**20:.0f} MiB: cut it, or store it compressed.",
    )


async def _unpacked(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The body without its layer of gzip or deflate, in pieces: httpx unpacks all that it has at once."""
    if answer.headers.get("content-encoding", "").strip().lower() in ("", "identity"):
        async for chunk in answer.aiter_bytes():
            yield chunk
        return
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # tells gzip and deflate apart itself
    async for packed in answer.aiter_raw():
        while packed and not unpack.eof:
            yield unpack.decompress(packed, _PIECE_BYTES)
            packed = unpack.unconsumed_tail  # noqa: PLW2901 - what is left of it
            await asyncio.sleep(0)
    if not unpack.eof:
        raise zlib.error("the packed body is cut short")


async def _copy(chunks: AsyncIterator[bytes], target: Path, max_bytes: int, host: str) -> Downloaded:
    digest, n_bytes, head = hashlib.sha256(), 0, b""
    descriptor = os.open(target, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        async for chunk in chunks:
            if len(head) < _HEAD_BYTES:
                head += chunk[:_HEAD_BYTES]
                start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
                if start.startswith((b"<!doctype html", b"<html")):
                    raise _web_page(host)
            n_bytes += len(chunk)
            if n_bytes > max_bytes:
                raise _too_large(max_bytes + 1, max_bytes)
            digest.update(chunk)
            file.write(chunk)
    if not n_bytes:
        raise RowError("empty_file", f"{host} sends an empty file: check the address.")
    return Downloaded(target, n_bytes, digest.hexdigest())
