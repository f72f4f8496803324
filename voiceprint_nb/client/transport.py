"""httpx towards the API: bearer key, pace, retries of what may be retried, statuses as errors."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from voiceprint_nb import contract, settings
from voiceprint_nb.client.breaker import Breaker
from voiceprint_nb.errors import (
    KeyRefused,
    NoCredit,
    ProtocolError,
    RateLimited,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
    UsageError,
)
from voiceprint_nb.fetching import USER_AGENT, veil
from voiceprint_nb.pacing import LONGEST_PAUSE_S, Pacer, Turns

if TYPE_CHECKING:
    import httpx

CONNECTIONS = 16
_CONNECT_S, _TRANSFER_S = 10.0, 60.0
_SLOWEST_BYTES_S = 20_000.0  # an upload slower than this on the whole is given up
_ATTEMPTS = 5
_MOST_PAUSES = 30  # consecutive 429 answers to one request
_FALLBACK_PAUSE_S = 5.0  # a 429 without any header
_SILENT = logging.NullHandler()
_LEAST_PAUSE_S = 0.1


class Api:
    """One service and one key, as an async context manager.

    Parameters
    ----------
    base_url : str
        Address of the service, without ``/v1``.
    api_key : str or None
        Bearer key; sent to the API only, never to storage.
    transport : httpx.AsyncBaseTransport, optional
        The wire: in process for the local service, the network otherwise.
    timeout_s : float
        Bound on one request from its first byte to the end of its answer, in seconds; uploads get more by
        their size. httpx only bounds the silence between two pieces, and nothing for a wire in process.
    new_pacer : callable
        Makes the pacers; tests pass one with a clock of their own.
    turns : callable, optional
        Turns of a group of endpoints that others share; by default each `Api` has its own.
    clock, sleep
        Monotonic seconds and an awaitable sleep, for the breaker; tests pass their own.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = _CONNECT_S + _TRANSFER_S,
        new_pacer: Callable[..., Pacer] = Pacer,
        turns: Callable[[str], Turns] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._base_url = base_url
        self._headers = {"User-Agent": USER_AGENT}
        self._key_header = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._timeout_s = timeout_s
        hosted = base_url == settings.HOSTED_URL

        def pacer(group: str, hosted_limit: int | None) -> Pacer:
            return new_pacer(per_window=hosted_limit if hosted else None, turns=turns and turns(group))

        self.submit_pacer = pacer("submit", contract.WRITES_PER_WINDOW)
        self.media_pacer = pacer("media", contract.WRITES_PER_WINDOW)
        self.read_pacer = pacer("read", contract.READS_PER_WINDOW)
        self.list_pacer = pacer("list", contract.READS_PER_WINDOW)
        self._test_pacer = new_pacer()  # its limit is its own, not that of the reads
        self.breaker = Breaker(self._works, clock=clock, sleep=sleep)

    async def __aenter__(self) -> Self:
        import httpx

        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        timeout = httpx.Timeout(_TRANSFER_S, connect=_CONNECT_S, pool=None)
        try:
            self._client = _client_without_cookies()(
                base_url=self._base_url,
                transport=self._transport,
                limits=limits,
                timeout=timeout,
                headers=self._headers,
            )
        except httpx.InvalidURL as error:
            raise UsageError(f"service= is not an address ({error}): use one such as https://host.") from None
        self._connections = asyncio.Semaphore(CONNECTIONS)  # a request's time begins when it has one
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.breaker.close()
        await self.client.aclose()

    @property
    def client(self) -> httpx.AsyncClient:
        """The open client, without the key."""
        if self._client is None:
            raise RuntimeError("the client is not open: use 'async with'")
        return self._client

    @property
    def waiting_for_limit(self) -> int:
        """Requests that wait for their slot right now."""
        pacers = (self.submit_pacer, self.media_pacer, self.read_pacer, self.list_pacer)
        return sum(pacer.waiting for pacer in pacers)

    async def get(
        self, path: str, *, pacer: Pacer, params: Mapping[str, str] | None = None, patient: bool = True
    ) -> object:
        """GET a JSON answer, retried while the service is unavailable; unless ``patient``, for seconds."""
        return await self._call("GET", path, pacer=pacer, params=params, repeatable=True, patient=patient)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        pacer: Pacer,
        repeatable: bool,
        before: Callable[[], None] | None = None,
    ) -> object:
        """POST JSON; unless ``repeatable``, it is retried only if it certainly never left this machine.

        ``before`` is called each time right before the request leaves; what it raises keeps it here.
        """
        return await self._call("POST", path, pacer=pacer, body=body, repeatable=repeatable, before=before)

    async def check_key(self) -> None:
        """Ask the service whether it is there and takes the key."""
        await self.get(contract.TEST_PATH, pacer=self._test_pacer, patient=False)

    async def put(self, url: str, chunks: Callable[[], AsyncIterator[bytes]], n_bytes: int) -> None:
        """Stream bytes to a presigned link, without the key; retried with the same bytes."""
        import httpx

        headers = {"Content-Length": str(n_bytes), "Content-Type": "application/octet-stream"}
        timeout_s = self._timeout_s + n_bytes / _SLOWEST_BYTES_S
        async for attempt in _attempts(repeatable=True):
            with attempt:
                try:
                    request = self._request("PUT", url, headers, content=chunks())
                except httpx.InvalidURL:
                    raise ProtocolError("The service's upload address is not an address.") from None
                veil(request)
                answer = await self._sent(request, timeout_s)
                if answer.status_code >= 300:
                    _raise_for_status(answer, storage=True)

    async def _sent(
        self, request: httpx.Request, timeout_s: float, before: Callable[[], None] | None = None
    ) -> httpx.Response:
        async with self._connections:
            if before is not None:
                before()
            with _as_unavailable():
                async with asyncio.timeout(timeout_s):
                    return await self.client.send(request)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        pacer: Pacer,
        repeatable: bool,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        before: Callable[[], None] | None = None,
        patient: bool = True,
    ) -> object:
        def build() -> httpx.Request:
            return self._request(method, self._base_url + path, self._key_header, params=params, json=body)

        async def answered() -> object:
            async for attempt in _attempts(repeatable=repeatable):
                with attempt:
                    answer = await self._answered(build, pacer, before, patient=patient)
                    if answer.status_code >= 300:
                        _raise_for_status(answer)
                    try:
                        return answer.json()
                    except (ValueError, RecursionError):  # not JSON, or nested without end
                        raise ProtocolError("The service answered with something other than JSON.") from None
            raise AssertionError("unreachable: the last attempt returns or raises")

        try:
            return await answered()
        except ServiceUnavailable as error:
            if not (patient and self.breaker.is_open) or (error.sent and not repeatable):
                raise
        await self.breaker.passed()  # an outage costs no row: once more when it is over
        return await answered()

    def _request(self, method: str, url: str, headers: Mapping[str, str], **content: Any) -> httpx.Request:
        """A request made here: the client's own merging of URLs and headers costs more than the sending."""
        import httpx

        timeout = {"timeout": self.client.timeout.as_dict()}
        return httpx.Request(method, url, headers={**self._headers, **headers}, extensions=timeout, **content)

    async def _answered(
        self,
        build: Callable[[], httpx.Request],
        pacer: Pacer,
        before: Callable[[], None] | None,
        *,
        patient: bool,
    ) -> httpx.Response:
        """One answer that is not 429: a refused request was not carried out and waits for its turn."""
        for _ in range(_MOST_PAUSES):
            if patient:
                await self.breaker.passed()
            await pacer.slot()
            answer = await (self._noted if patient else self._sent)(build(), self._timeout_s, before)
            facts = contract.RateFacts.from_headers(answer.headers, now_unix_s=time.time())
            pacer.learn(facts.limit, remaining=facts.remaining, reset_s=facts.reset_s)
            if answer.status_code != 429:
                return answer
            pacer.pause(_pause_s(facts))
        raise RateLimited(
            "The service kept answering that there are too many requests: run resume() later.",
            retry_after_s=_pause_s(facts),
        )

    async def _noted(
        self, request: httpx.Request, timeout_s: float, before: Callable[[], None] | None = None
    ) -> httpx.Response:
        """One answer, of which the breaker hears whether the service works."""
        try:
            answer = await self._sent(request, timeout_s, before)
            if answer.status_code >= 500:
                _raise_for_status(answer)
        except ServiceUnavailable as error:
            self.breaker.failed(str(error).rstrip("."))
            raise
        self.breaker.succeeded()
        return answer

    async def _works(self) -> bool:
        """Whether the service answers at all; asked by the breaker only."""
        url = self._base_url + contract.TEST_PATH
        try:
            answer = await self._sent(self._request("GET", url, self._key_header), self._timeout_s)
        except ServiceError:
            return False
        return answer.status_code < 500


def _pause_s(facts: contract.RateFacts) -> float:
    told = facts.retry_after_s if facts.retry_after_s is not None else facts.reset_s
    return min(max(_FALLBACK_PAUSE_S if told is None else told, _LEAST_PAUSE_S), LONGEST_PAUSE_S)


def _attempts(*, repeatable: bool) -> Any:
    import stamina

    # without a handler of the user's, its warnings about planned retries would reach standard error
    logging.getLogger("stamina").addHandler(_SILENT)

    def may_repeat(error: Exception) -> bool:
        return isinstance(error, ServiceUnavailable) and error.retryable and (repeatable or not error.sent)

    # No bound on the time of all attempts: waiting for the rate limit would count, and each has its own.
    return stamina.retry_context(on=may_repeat, attempts=_ATTEMPTS, timeout=None)


@contextlib.contextmanager
def _as_unavailable() -> Iterator[None]:
    """Turn httpx's errors into ours; their texts may repeat a signed address, so only the kind is told."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
        raise _unreachable(error) from None
    except (httpx.TransportError, httpx.StreamError, TimeoutError) as error:
        raise ServiceUnavailable(f"The connection to the service broke ({type(error).__name__}).") from None
    except httpx.DecodingError:
        raise ProtocolError("The service's answer cannot be unpacked.") from None


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


def _raise_for_status(answer: httpx.Response, *, storage: bool = False) -> None:
    status = answer.status_code
    try:
        told = contract.scrubbed(contract.error_text(answer.json()))
    except (ValueError, RecursionError):
        told = ""
    said = f" It said: {told}" if told and not storage else ""
    if storage and status < 500:
        raise RequestRefused(f"The storage answered {status} to the upload.{said}", status=status)
    if status == 401:
        raise KeyRefused(f"The service refused the key (401): check api_key=.{said}", status=status)
    if status == 403:
        raise KeyRefused(f"The key lacks a permission (403): create one that has it.{said}", status=status)
    if status == 402:
        raise NoCredit(f"The account has no subscription or credit left (402).{said}", status=status)
    if status >= 500:
        raise ServiceUnavailable(f"The service failed ({status}).{said}", status=status)
    raise RequestRefused(f"The service refused the request ({status}).{said}", status=status)
