"""The HTTP client under `transport`: connections, timeouts, cookies, and httpx's errors as ours.

httpx carries the requests as it comes: with 16 connections, transports on other libraries save a millisecond
or two of a job (``benchmarks/transports.py``), and tell less well whether a request was sent.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from voiceprint_nb import fetching
from voiceprint_nb.errors import ProtocolError, ServiceUnavailable, UsageError

if TYPE_CHECKING:
    import httpx

CONNECTIONS, UPLOADS = 16, 12  # most at a time, to the API and to the storage
CONNECT_S, TRANSFER_S = 10.0, 60.0


def open_client(base_url: str, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """A client of one service, without its key.

    Without a transport, the environment's proxies and certificates count, as in `fetching.new_client`.

    Raises
    ------
    UsageError
        The address is none, or what the environment says of proxies and certificates cannot be used.
    """
    import httpx

    try:
        httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise UsageError(f"service= is not an address ({error}): use one such as https://host.") from None
    return fetching.new_client(
        _client_without_cookies(),
        base_url=base_url,
        transport=transport,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS + UPLOADS),
        timeout=httpx.Timeout(TRANSFER_S, connect=CONNECT_S, pool=CONNECT_S),
    )


def new_request(
    client: httpx.AsyncClient, method: str, url: str, headers: Mapping[str, str], **content: Any
) -> httpx.Request:
    """A request made here: the client's own merging of URLs and headers costs more than the sending."""
    import httpx

    fetching.hush()
    told = {"User-Agent": fetching.USER_AGENT, **headers}
    return httpx.Request(
        method, url, headers=told, extensions={"timeout": client.timeout.as_dict()}, **content
    )


def root_of(url: str) -> str:
    """The host's own address, without path and query.

    Raises
    ------
    ProtocolError
        ``url``, which the service gave, is no address.
    """
    import httpx

    try:
        return str(httpx.URL(url).copy_with(raw_path=b"/"))
    except httpx.InvalidURL:
        raise ProtocolError("The service's upload address is not an address.") from None


@contextlib.contextmanager
def as_unavailable() -> Iterator[None]:
    """Turn httpx's errors into ours; their texts may repeat a signed address, so only the kind is told."""
    import httpx

    try:
        yield
    except _before_sending() as error:
        raise _unreachable(error) from None
    except (httpx.TransportError, httpx.StreamError, TimeoutError) as error:
        raise ServiceUnavailable(f"The connection to the service broke ({type(error).__name__}).") from None
    except httpx.DecodingError:
        raise ProtocolError("The service's answer cannot be unpacked.") from None


@functools.cache
def _before_sending() -> tuple[type[Exception], ...]:
    """What httpx raises before a request has left."""
    import httpx

    return (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
    )


def _unreachable(error: BaseException) -> ServiceUnavailable:
    """A failure before anything was sent; the same certificate and scheme would fail again."""
    import httpx

    chain, cause = [error], error.__cause__ or error.__context__
    while cause is not None and len(chain) < 10:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        failure = ServiceUnavailable(
            "The service's certificate is not accepted: check the address, the clock and the proxy.",
            sent=False,
        )
        failure.retryable = False
        return failure
    failure = ServiceUnavailable(
        f"The service cannot be reached ({type(error).__name__}): check the network and the address.",
        sent=False,
    )
    failure.retryable = not isinstance(error, httpx.UnsupportedProtocol)
    return failure


@functools.cache
def _client_without_cookies() -> type[httpx.AsyncClient]:
    """A client that no server can make remember anything, and that spends no time on looking for it."""
    import httpx

    class NoCookies(httpx.Cookies):
        def extract_cookies(self, response: httpx.Response) -> None:
            """Leave them where they are."""

    class ClientWithoutCookies(httpx.AsyncClient):
        @property  # type: ignore[misc]  # without the setter, on purpose
        def cookies(self) -> httpx.Cookies:
            return none

    none = NoCookies()
    return ClientWithoutCookies
