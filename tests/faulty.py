"""The real service's wire, with a script of faults; and clips that sound."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

Forward = Callable[[httpx.Request], Awaitable[httpx.Response]]
Fault = Callable[[httpx.Request, Forward], Awaitable[httpx.Response]]

SIGNED = "X-Amz-Signature-5f1e"


class Faulty(httpx.AsyncBaseTransport):
    """Passes requests on to a transport, but for those that the script names.

    Each rule is a method, the start of a path, and one fault (or None) for each matching request in turn;
    after the last, requests pass.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self._rules: list[tuple[str, str, Iterator[Fault | None]]] = []
        self.requests: list[httpx.Request] = []
        self.created: Counter[str] = Counter()
        self.before_each: Callable[[int], None] = lambda index: None

    def on(self, method: str, path: str, *faults: Fault | None) -> Faulty:
        self._rules.insert(0, (method, path, iter(faults)))
        return self

    def always(self, method: str, path: str, fault: Fault) -> Faulty:
        self._rules.insert(0, (method, path, itertools.repeat(fault)))
        return self

    def paths(self, method: str = "") -> list[str]:
        return [sent.url.path for sent in self.requests if sent.method.startswith(method)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.before_each(len(self.requests) - 1)
        for method, path, faults in self._rules:
            if request.method == method and request.url.path.startswith(path):
                fault = next(faults, None)
                if fault is not None:
                    return await fault(request, self._forward)
        return await self._forward(request)

    async def _forward(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        answer = await self._inner.handle_async_request(request)
        if request.method == "POST" and request.url.path == "/v1/voiceprint" and answer.status_code == 200:
            self.created[json.loads(content)["url"]] += 1
        return answer

    async def aclose(self) -> None:
        """The service's transport stays open for others."""


class Time:
    """Seconds that pass only in sleeps, which take real ones up to a bound."""

    def __init__(self, *, real_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.real_s = real_s
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(min(seconds, self.real_s))


async def passes(request: httpx.Request, forward: Forward) -> httpx.Response:
    """No fault, whatever earlier rules say."""
    return await forward(request)


def answers(status: int, body: Any = None, *, text: str | None = None, **headers: str) -> Fault:
    """An answer that the service never sees; header names with ``_`` for ``-``."""

    async def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if text is not None:
            return httpx.Response(status, text=text, headers=named)
        return httpx.Response(status, json={} if body is None else body, headers=named)

    return fault


def fails(error: type[httpx.TransportError], cause: BaseException | None = None) -> Fault:
    """The connection fails before the service sees the request."""

    async def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        raise error(f"no luck with {request.url.copy_with(query=SIGNED.encode())}") from cause

    return fault


def acts_then(then: Fault) -> Fault:
    """The service carries the request out, but its answer is lost."""

    async def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        await forward(request)
        return await then(request, forward)

    return fault


async def hangs(request: httpx.Request, forward: Forward) -> httpx.Response:
    """No answer, ever."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")


def changes(change: Callable[[Any], Any]) -> Fault:
    """The service's own answer, with another JSON body."""

    async def fault(request: httpx.Request, forward: Forward) -> httpx.Response:
        answer = await forward(request)
        return httpx.Response(answer.status_code, json=change(json.loads(await answer.aread())))

    return fault


def with_state(status: str) -> Fault:
    """A job, or all jobs of a list, in a state."""

    def change(body: Any) -> Any:
        if "items" in body:
            return body | {"items": [item | {"status": status} for item in body["items"]]}
        return {name: value for name, value in body.items() if name != "output"} | {"status": status}

    return changes(change)


def write_clip(path: Path, *, seed: int = 0, duration_s: float = 1.7) -> Path:
    """A short tone under a syllable-like envelope, with noise; each seed gives another content."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(duration_s * 16_000)) / 16_000
    tone = np.sin(2 * np.pi * draw.uniform(90, 300) * t)
    samples = 0.2 * tone * (0.6 + 0.4 * np.sin(8 * np.pi * t)) + draw.normal(0, 0.02, len(t))
    soundfile.write(path, samples, 16_000, subtype="PCM_16")
    return path
