"""httpx towards the API: bearer key, pace, retries of what may be retried, statuses as errors."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from voiceprint_nb import contract, settings
from voiceprint_nb.errors import (
    KeyRefused,
    NoCredit,
    ProtocolError,
    RateLimited,
    RequestRefused,
    ServiceUnavailable,
)
from voiceprint_nb.fetching import USER_AGENT
from voiceprint_nb.pacing import Pacer

if TYPE_CHECKING:
    import httpx

CONNECTIONS = 16
_CONNECT_S, _TRANSFER_S = 10.0, 60.0
_ATTEMPTS = 5
_MOST_PAUSES = 30  # consecutive 429 answers to one request
_FALLBACK_PAUSE_S = 5.0  # a 429 without any header


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
    """

    def __init__(
        self, *, base_url: str, api_key: str | None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._base_url = base_url
        self._headers = {"User-Agent": USER_AGENT}
        self._key_header = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        hosted = base_url == settings.HOSTED_URL
        self.submit_pacer = Pacer(per_window=contract.WRITES_PER_WINDOW if hosted else None)
        self.media_pacer = Pacer(per_window=contract.WRITES_PER_WINDOW if hosted else None)
        self.read_pacer = Pacer(per_window=contract.READS_PER_WINDOW if hosted else None)
        self.list_pacer = Pacer(per_window=contract.READS_PER_WINDOW if hosted else None)
        self.requests = 0
        self.throttled = 0

    async def __aenter__(self) -> Self:
        import httpx

        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        timeout = httpx.Timeout(_TRANSFER_S, connect=_CONNECT_S, pool=None)
        self._client = httpx.AsyncClient(
            base_url=self._base_url,
            transport=self._transport,
            limits=limits,
            timeout=timeout,
            headers=self._headers,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
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

    async def get(self, path: str, *, pacer: Pacer, params: Mapping[str, str] | None = None) -> object:
        """GET a JSON answer, retried while the service is unavailable."""
        return await self._call("GET", path, pacer=pacer, params=params, repeatable=True)

    async def post(self, path: str, body: Mapping[str, Any], *, pacer: Pacer, repeatable: bool) -> object:
        """POST JSON; unless ``repeatable``, it is retried only if it certainly never left this machine."""
        return await self._call("POST", path, pacer=pacer, body=body, repeatable=repeatable)

    async def check_key(self) -> None:
        """Ask the service whether it is there and takes the key."""
        await self.get(contract.TEST_PATH, pacer=self.read_pacer)

    async def put(self, url: str, chunks: Callable[[], AsyncIterator[bytes]], n_bytes: int) -> None:
        """Stream bytes to a presigned link, without the key; retried with the same bytes."""
        async for attempt in _attempts(repeatable=True):
            with attempt, _as_unavailable():
                answer = await self.client.put(
                    url,
                    content=chunks(),
                    headers={"Content-Length": str(n_bytes), "Content-Type": "application/octet-stream"},
                )
                if answer.status_code >= 300:
                    _raise_for_status(answer, storage=True)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        pacer: Pacer,
        repeatable: bool,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> object:
        async for attempt in _attempts(repeatable=repeatable):
            with attempt:
                answer = await self._answered(method, path, pacer, params, body)
                if answer.status_code >= 300:
                    _raise_for_status(answer)
                try:
                    return answer.json()
                except ValueError:
                    raise ProtocolError("The service answered with something other than JSON.") from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _answered(
        self,
        method: str,
        path: str,
        pacer: Pacer,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> httpx.Response:
        """One answer that is not 429: a refused request was not carried out and waits for its turn."""
        for _ in range(_MOST_PAUSES):
            await pacer.slot()
            self.requests += 1
            with _as_unavailable():
                answer = await self.client.request(
                    method, path, params=params, json=body, headers=self._key_header
                )
            facts = contract.RateFacts.from_headers(answer.headers, now_unix_s=time.time())
            pacer.learn(facts.limit)
            if answer.status_code != 429:
                return answer
            self.throttled += 1
            pacer.pause(facts.retry_after_s or facts.reset_s or _FALLBACK_PAUSE_S)
        raise RateLimited(
            "The service kept answering that there are too many requests: run resume() later.",
            retry_after_s=facts.retry_after_s or _FALLBACK_PAUSE_S,
        )


def _attempts(*, repeatable: bool) -> Any:
    import stamina

    def may_repeat(error: Exception) -> bool:
        return isinstance(error, ServiceUnavailable) and (repeatable or not error.sent)

    return stamina.retry_context(on=may_repeat, attempts=_ATTEMPTS, timeout=_TRANSFER_S)


@contextlib.contextmanager
def _as_unavailable() -> Any:
    """Turn httpx's errors into ours; their texts may repeat a signed address, so only the kind is told."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
        raise ServiceUnavailable(
            f"The service cannot be reached ({type(error).__name__}): check the network and the address.",
            sent=False,
        ) from None
    except (httpx.TransportError, httpx.StreamError) as error:
        raise ServiceUnavailable(f"The connection to the service broke ({type(error).__name__}).") from None


def _raise_for_status(answer: httpx.Response, *, storage: bool = False) -> None:
    status = answer.status_code
    try:
        told = contract.error_text(answer.json())
    except ValueError:
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
