"""Webhooks: one attempt, and the plan of attempts over a table that outlives the process."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from voiceprint_nb.contract import (
    WEBHOOK_MAX_REDIRECTS,
    WEBHOOK_RETRY_DELAYS_S,
    WEBHOOK_TIMEOUT_S,
    is_webhook_url,
    sign_webhook,
)
from voiceprint_nb.errors import RowError
from voiceprint_nb.fetching import USER_AGENT, veil
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.meter import Meter
from voiceprint_nb.service.outside import Outside
from voiceprint_nb.service.records import Delivery

if TYPE_CHECKING:
    import httpx

AT_ONCE = 96  # fewer than a client's connections
AT_ONCE_A_TEAM = 48
AT_ONCE_A_HOST = 8  # of a team

_PLACES = AT_ONCE, AT_ONCE_A_TEAM, AT_ONCE_A_HOST
_LEASE_S = WEBHOOK_TIMEOUT_S + 5.0  # after a crash in the middle of an attempt, it is made again then
_log = logging.getLogger(__name__)


async def deliver(
    client: httpx.AsyncClient,
    delivery: Delivery,
    secret: str,
    *,
    now_unix_s: float,
    plain: bool = False,
    timeout_s: float = WEBHOOK_TIMEOUT_S,
) -> str | None:
    """Make one attempt: None when a 2xx came in time, else one of `WEBHOOK_RETRY_REASONS`.

    The whole attempt, redirects included, has `timeout_s` seconds. A redirect gets the same POST, whatever
    its status: one turned into a GET would lose the event. With ``plain``, http addresses are allowed.
    """
    import httpx

    body = json.dumps(delivery.event.to_wire(), separators=(",", ":")).encode()
    headers = _headers(delivery, secret, body, timestamp=str(int(now_unix_s)))
    try:
        async with asyncio.timeout(timeout_s):
            return await _post(client, delivery, headers=headers, body=body, plain=plain)
    except (TimeoutError, httpx.TimeoutException):
        return "http_timeout"
    except (httpx.NetworkError, RowError) as error:  # RowError: an address that is not visited
        return "ssl_error" if _is_about_tls(error) else "connection_failed"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return "unknown_error"


async def _post(
    client: httpx.AsyncClient, delivery: Delivery, *, headers: dict[str, str], body: bytes, plain: bool
) -> str | None:
    url = delivery.url
    for _ in range(WEBHOOK_MAX_REDIRECTS + 1):
        if not is_webhook_url(url) or not (plain or url.startswith("https://")):
            return "connection_failed"
        request = client.build_request(
            "POST", url, content=body, headers=headers, timeout=None
        )  # the caller's is
        veil(request)
        async with aclosing(await client.send(request, stream=True)) as answer:
            if not answer.has_redirect_location:
                return None if answer.is_success else "http_error"
            url = urljoin(url, answer.headers["location"])
    return "too_many_redirects"


def _headers(delivery: Delivery, secret: str, body: bytes, *, timestamp: str) -> dict[str, str]:
    headers = {
        "User-Agent": USER_AGENT,
        "Content-Type": "application/json",
        "X-Request-Timestamp": timestamp,
        "X-Signature": sign_webhook(secret, timestamp, body),
    }
    if delivery.attempt:
        headers["x-retry-num"] = str(delivery.attempt)
        headers["x-retry-reason"] = delivery.reason or "unknown_error"
    return headers


def _parts(place: tuple[str, str]) -> list[tuple[str, ...]]:
    """All, those of the team, those of its host: each has its own bound."""
    return [place[:n] for n in range(3)]


def _is_about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


class Deliveries:
    """The webhooks that are due, a bounded number at once; all but `__init__` runs on the clerk's thread.

    Parameters
    ----------
    table : JobTable
        Holds what is due; an attempt that a crash interrupts is made again.
    outside : Outside
        Sends.
    secret_of : callable
        Webhook secret of a team.
    clock : callable
        Unix time in seconds.
    note : callable
        Leaves a note for the clerk, from any thread.
    plain : bool
        Whether events may go to http addresses.
    meter : Meter
        Counts attempts.
    """

    def __init__(
        self,
        table: JobTable,
        outside: Outside,
        *,
        secret_of: Callable[[str], str],
        clock: Callable[[], float],
        note: Callable[[Callable[[], None]], None],
        plain: bool,
        meter: Meter,
    ) -> None:
        self._table, self._outside, self._secret_of, self._clock = table, outside, secret_of, clock
        self._note, self._plain, self._meter = note, plain, meter
        self._out: dict[int, tuple[str, str]] = {}  # job -> team and host, of attempts that are being made

    def turn(self) -> float | None:
        """Start what is due; seconds until more will be, if any is planned."""
        now_s = self._clock()
        if chosen := self._chosen(now_s):
            self._table.postpone([each.seq for each in chosen], until_ms=int((now_s + _LEASE_S) * 1000))
            for delivery in chosen:
                self._send(delivery, now_s)
        next_ms = self._table.next_due_ms(after_ms=int(now_s * 1000))
        return None if next_ms is None else max(0.001, next_ms / 1000 - now_s)

    def _chosen(self, now_s: float) -> list[Delivery]:
        """Those due longest that have a free place: hosts that never answer do not hold up the others."""
        if len(self._out) >= AT_ONCE:
            return []
        busy = Counter(part for place in self._out.values() for part in _parts(place))
        chosen = []
        for delivery in self._table.due(
            now_ms=int(now_s * 1000), per_team=AT_ONCE_A_TEAM, per_host=AT_ONCE_A_HOST
        ):
            parts = _parts((delivery.team, delivery.host))
            is_free = all(busy[part] < most for part, most in zip(parts, _PLACES, strict=True))
            if is_free and delivery.seq not in self._out:
                busy.update(parts)
                chosen.append(delivery)
        return chosen

    def _send(self, delivery: Delivery, now_s: float) -> None:
        self._out[delivery.seq] = delivery.team, delivery.host
        try:
            secret = self._secret_of(delivery.team)
            step = self._outside.start(
                functools.partial(
                    deliver, delivery=delivery, secret=secret, now_unix_s=now_s, plain=self._plain
                )
            )
        except Exception as error:
            step = Future()
            step.set_exception(error)
        step.add_done_callback(lambda ended: self._note(functools.partial(self._sent, delivery, ended)))

    def _sent(self, delivery: Delivery, step: Future[str | None]) -> None:
        self._out.pop(delivery.seq, None)
        if step.cancelled():
            return
        if error := step.exception():
            _log.error("a webhook failed by a fault of the service", exc_info=error)
        reason = "unknown_error" if error else step.result()
        facts = {"job": delivery.event.job_id, "attempt": delivery.attempt, "reason": reason}
        self._meter.webhook_attempted(reason or "delivered")
        if reason is None:
            self._table.settle(delivery.seq)
            _log.info("webhook delivered", extra=facts)
        elif delivery.attempt < len(WEBHOOK_RETRY_DELAYS_S):
            due_s = self._clock() + WEBHOOK_RETRY_DELAYS_S[delivery.attempt]
            self._table.retry(
                delivery.seq, attempt=delivery.attempt + 1, reason=reason, due_ms=int(due_s * 1000)
            )
            _log.info("webhook failed", extra=facts)
        else:
            self._table.settle(delivery.seq)
            self._meter.webhook_given_up()
            _log.warning("webhook given up", extra=facts)
