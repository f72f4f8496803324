"""httpx towards the API: bearer key, pace, retries of what may be retried, statuses as errors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from voiceprint_nb import contract, settings
from voiceprint_nb.client.breaker import PATIENCE_S, Breaker
from voiceprint_nb.client.skew import ServerClock
from voiceprint_nb.client.wire import (
    CONNECT_S,
    CONNECTIONS,
    TRANSFER_S,
    UPLOADS,
    as_unavailable,
    new_request,
    open_client,
    root_of,
)
from voiceprint_nb.errors import (
    KeyRefused,
    NoCredit,
    ProtocolError,
    RateLimited,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
)
from voiceprint_nb.fetching import veil
from voiceprint_nb.pacing import LONGEST_PAUSE_S, Pacer, Turns

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_SLOWEST_BYTES_S = 20_000.0  # an upload slower than this on the whole is given up
_ATTEMPTS, _FEW_ATTEMPTS = 8, 5
_LEAST_REFUSALS = 30  # (429) of one request, before its run ends: at a slow pace ten minutes are few turns
_FEW_REFUSALS = 2  # of the job list, where single reads do as well
_FALLBACK_PAUSE_S = 5.0  # a 429 without any header
_SILENT = logging.NullHandler()
_LEAST_PAUSE_S = 0.1
_LEAST_KEY = 8  # characters: shorter ones are words of a sentence, too


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
        Monotonic seconds and an awaitable sleep, for all pauses but those between retries; tests pass
        their own.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = CONNECT_S + TRANSFER_S,
        new_pacer: Callable[..., Pacer] = Pacer,
        turns: Callable[[str], Turns] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._base_url = base_url
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
        self._pacers = {
            "submit": self.submit_pacer,
            "media": self.media_pacer,
            "read": self.read_pacer,
            "list": self.list_pacer,
        }
        self._test_pacer = new_pacer()  # its limit is its own, not that of the reads
        self.clock, self.sleep = clock, sleep
        self._breakers = {
            pacer: Breaker(self._works, clock=clock, sleep=sleep) for pacer in self._pacers.values()
        }
        self._storage_breaker = Breaker(self._stores, clock=clock, sleep=sleep)
        self._storage = ""
        self.server_clock = ServerClock()
        self.n_refused = 0

    async def __aenter__(self) -> Self:
        self._client = open_client(self._base_url, self._transport)
        self._connections = asyncio.Semaphore(CONNECTIONS)  # a request's time begins when it has one
        self._uploads = asyncio.Semaphore(UPLOADS)  # of their own: an answer must not wait for them
        return self

    async def __aexit__(self, *exc: object) -> None:
        for breaker in self._all_breakers:
            await breaker.close()
        await self.client.aclose()

    @property
    def client(self) -> httpx.AsyncClient:
        """The open client, without the key."""
        if self._client is None:
            raise RuntimeError("the client is not open: use 'async with'")
        return self._client

    @property
    def is_down(self) -> bool:
        """Whether requests wait for the service, or its storage, to work again."""
        return any(breaker.is_open for breaker in self._all_breakers)

    @property
    def n_outages(self) -> int:
        """How often something of the service was out."""
        return sum(breaker.n_outages for breaker in self._all_breakers)

    @property
    def _all_breakers(self) -> list[Breaker]:
        return [*self._breakers.values(), self._storage_breaker]

    @property
    def waiting_for_limit(self) -> int:
        """Uploads and submissions that wait for their turn right now."""
        return self.media_pacer.waiting + self.submit_pacer.waiting

    @property
    def requests(self) -> dict[str, int]:
        """Requests so far: by group of endpoints, and those that were ``refused`` as too many (429)."""
        counts = {group: pacer.n_taken for group, pacer in self._pacers.items()}
        return counts | {"refused": self.n_refused}

    @property
    def limits(self) -> dict[str, tuple[int, int]]:
        """Requests used and allowed in the service's present windows, by group of endpoints."""
        told = {group: pacer.used_of_limit for group, pacer in self._pacers.items()}
        return {group: used for group, used in told.items() if used is not None}

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

    async def put(
        self, url: str, chunks: Callable[[], AsyncIterator[bytes]], n_bytes: int, *, media_key: str
    ) -> None:
        """Stream bytes to a presigned link, without the key; retried with the same bytes."""
        headers = {"Content-Length": str(n_bytes), "Content-Type": "application/octet-stream"}
        timeout_s = self._timeout_s + n_bytes / _SLOWEST_BYTES_S
        self._storage = root_of(url)

        async def once() -> None:
            async with self._uploads, self._storage_breaker.passing(media_key):
                request = new_request(self.client, "PUT", url, headers, content=chunks())
                veil(request)
                answer = await self._sent(request, timeout_s)
                if answer.status_code >= 300:
                    _raise_for_status(answer, storage=True)

        await _patiently(once, self._storage_breaker, repeatable=True)

    async def _sent(self, request: httpx.Request, timeout_s: float) -> httpx.Response:
        with as_unavailable():
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
            url = self._base_url + path
            return new_request(self.client, method, url, self._key_header, params=params, json=body)

        breaker = self._breakers[pacer] if patient else None
        is_job = method == "GET" and not params  # all attempts for one job or clip are one request
        url = (body or {}).get("url")  # may be signed, and partials show what they hold
        request = path if is_job else hash(url) if url else object()
        once = partial(self._answered, build, pacer, before, breaker, request)
        if breaker is not None:
            return await _patiently(once, breaker, repeatable=repeatable)
        return await _retried(once, repeatable=repeatable, attempts=_FEW_ATTEMPTS)

    async def _answered(
        self,
        build: Callable[[], httpx.Request],
        pacer: Pacer,
        before: Callable[[], None] | None,
        breaker: Breaker | None,
        request: Hashable,
    ) -> object:
        """What one answer holds that is not 429: a refused request was not carried out and waits its turn."""
        first_refused_at = math.inf
        for n_asked in itertools.count(1):
            if breaker is None:
                await pacer.slot()
            passing = breaker.passing(request, turn=pacer.slot) if breaker else contextlib.nullcontext()
            async with passing, self._connections:
                if before is not None:
                    before()
                sent_at = time.time()
                answer = await self._sent(build(), self._timeout_s)
                received_at = time.time()
                self.server_clock.note_answer(
                    answer.headers.get("date"), sent_at=sent_at, received_at=received_at
                )
                facts = contract.RateFacts.from_headers(answer.headers, now_unix_s=received_at)
                pacer.learn(facts.limit, remaining=facts.remaining, reset_s=facts.reset_s)
                if answer.status_code != 429:
                    return _content(answer)
            self.n_refused += 1
            pacer.pause(_pause_s(facts))
            first_refused_at = min(first_refused_at, self.clock())
            if pacer is self.list_pacer and breaker is None and n_asked >= _FEW_REFUSALS:
                raise RateLimited("The job list answers too seldom.", retry_after_s=_pause_s(facts))
            if n_asked >= _LEAST_REFUSALS and self.clock() - first_refused_at > PATIENCE_S:
                error = RateLimited(
                    f"The service kept answering for {PATIENCE_S / 60:.0f} minutes that there are too many "
                    "requests: others use up the account's limit. resume() goes on later.",
                    retry_after_s=_pause_s(facts),
                )
                error.concerns_all_rows = True
                raise error
        raise AssertionError("unreachable: the count has no end")

    async def _works(self) -> bool:
        """Whether the service answers at all; asked by the breaker only."""
        url = self._base_url + contract.TEST_PATH
        return await self._answers(new_request(self.client, "GET", url, self._key_header))

    async def _stores(self) -> bool:
        """Whether the storage answers at all, to a request without key and signature."""
        return await self._answers(new_request(self.client, "GET", self._storage, {}))

    async def _answers(self, request: httpx.Request) -> bool:
        try:
            answer = await self._sent(request, self._timeout_s)
        except ServiceError:
            return False
        return answer.status_code < 500


async def _patiently(once: Callable[[], Awaitable[T]], breaker: Breaker, *, repeatable: bool) -> T:
    """Retried for seconds, and again after each outage in the meantime: that costs no row."""
    has_doubted = False
    while True:
        n_outages = breaker.n_outages
        try:
            return await _retried(once, repeatable=repeatable)
        except ServiceError as error:
            may_be_outage = breaker.is_open and not has_doubted  # the next attempt waits until that is known
            if not _may_repeat(error, repeatable=repeatable):
                raise
            if breaker.n_outages == n_outages and not may_be_outage:
                raise
            has_doubted = has_doubted or may_be_outage


async def _retried(once: Callable[[], Awaitable[T]], *, repeatable: bool, attempts: int = _ATTEMPTS) -> T:
    may_repeat = partial(_may_repeat, repeatable=repeatable)
    failed: ServiceError | None = None
    try:
        return await once()
    except ServiceError as error:
        if not may_repeat(error):
            raise
        failed = error
    import stamina  # the machinery of retries costs a seventh of a request that needs none

    # without a handler of the user's, its warnings about planned retries would reach standard error
    logging.getLogger("stamina").addHandler(_SILENT)
    # No bound on the time of all attempts: waiting for the rate limit would count, and each has its own.
    async for attempt in stamina.retry_context(on=may_repeat, attempts=attempts, timeout=None):
        with attempt:
            if failed is not None:  # the first attempt was made above
                first, failed = failed, None
                raise first
            return await once()
    raise AssertionError("unreachable: the last attempt returns or raises")


def _may_repeat(error: Exception, *, repeatable: bool) -> bool:
    if isinstance(error, ServiceUnavailable):
        if error.concerns_all_rows:  # an outage without end: whoever asks the breaker again hears the same
            return False
        return error.retryable and (repeatable or not error.sent)
    return isinstance(error, ProtocolError) and repeatable


def _content(answer: httpx.Response) -> object:
    if answer.status_code >= 300:
        _raise_for_status(answer)
    try:
        return answer.json()
    except (ValueError, RecursionError):  # not JSON, or nested without end
        raise ProtocolError("The service answered with something other than JSON.") from None


def _pause_s(facts: contract.RateFacts) -> float:
    told = facts.retry_after_s if facts.retry_after_s is not None else facts.reset_s
    return min(max(_FALLBACK_PAUSE_S if told is None else told, _LEAST_PAUSE_S), LONGEST_PAUSE_S)


def _raise_for_status(answer: httpx.Response, *, storage: bool = False) -> None:
    status = answer.status_code
    try:
        told = contract.scrubbed(_without_key(answer, contract.error_text(answer.json())))
    except (ValueError, RecursionError):
        told = ""
    said = f" It said: {told.rstrip('.')}." if told and not storage else ""
    if storage and status < 500 and status not in (408, 429):
        raise RequestRefused(f"The storage answered {status} to the upload.{said}", status=status)
    if status == 401:
        raise KeyRefused(f"The service refused the key (401): check api_key=.{said}", status=status)
    if status == 403:
        raise KeyRefused(f"The key lacks a permission (403): create one that has it.{said}", status=status)
    if status == 402:
        raise NoCredit(f"The account has no subscription or credit left (402).{said}", status=status)
    if status >= 500 or status == 408 or (storage and status == 429):
        raise ServiceUnavailable(f"The service failed ({status}).{said}", status=status)
    raise RequestRefused(f"The service refused the request ({status}).{said}", status=status)


def _without_key(answer: httpx.Response, told: str) -> str:
    """What a service says, less the key, which some repeat when they refuse it."""
    key = answer.request.headers.get("authorization", "").removeprefix("Bearer ")
    return told.replace(key, "<key>") if len(key) >= _LEAST_KEY else told
