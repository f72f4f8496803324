from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from faulty import Time

from voiceprint_nb.client.breaker import STREAK, Breaker
from voiceprint_nb.errors import ServiceUnavailable


def run(session: Callable[[Breaker, Time, list[bool]], Awaitable[Any]], works: list[bool]) -> Any:
    """A session with a breaker whose probes find the service as `works` says, the last one for ever."""

    async def main() -> Any:
        time, asked = Time(), []

        async def probe() -> bool:
            asked.append(works.pop(0) if len(works) > 1 else works[0])
            return asked[-1]

        breaker = Breaker(probe, clock=time.clock, sleep=time.sleep)
        try:
            return await session(breaker, time, asked)
        finally:
            await breaker.close()

    return asyncio.run(main())


def test_a_streak_of_equal_failures_holds_requests_until_a_probe_succeeds() -> None:
    async def session(breaker: Breaker, time: Time, asked: list[bool]) -> None:
        for _ in range(STREAK - 1):
            breaker.failed("answer 500")
        assert not breaker.is_open
        await breaker.passed()
        breaker.failed("answer 500")
        assert breaker.is_open
        await asyncio.gather(*(breaker.passed() for _ in range(50)))
        assert not breaker.is_open
        assert asked == [False, False, True]
        assert time.slept == [1.0, 2.0, 4.0]

    run(session, [False, False, True])


@pytest.mark.parametrize("between", ["success", "another failure"])
def test_single_failures_do_not_add_up(between: str) -> None:
    async def session(breaker: Breaker, time: Time, asked: list[bool]) -> None:
        for _ in range(5 * STREAK):
            breaker.failed("answer 500")
            if between == "success":
                breaker.succeeded()
            else:
                breaker.failed("answer 503")
        assert not breaker.is_open

    run(session, [True])


def test_a_service_that_stays_away_ends_the_run() -> None:
    async def session(breaker: Breaker, time: Time, asked: list[bool]) -> None:
        for _ in range(STREAK):
            breaker.failed("The connection to the service broke")
        rows = await asyncio.gather(*(breaker.passed() for _ in range(3)), return_exceptions=True)
        for error in rows:
            assert isinstance(error, ServiceUnavailable)
            assert error.concerns_all_rows
            assert "10 minutes" in str(error) and "resume()" in str(error)
        with pytest.raises(ServiceUnavailable):
            await breaker.passed()
        assert max(time.slept) == 30.0
        assert sum(time.slept) >= 600.0

    run(session, [False])


def test_a_cancelled_request_does_not_end_the_probing() -> None:
    async def session(breaker: Breaker, time: Time, asked: list[bool]) -> None:
        for _ in range(STREAK):
            breaker.failed("answer 503")
        request = asyncio.create_task(breaker.passed())
        await asyncio.sleep(0)
        request.cancel()
        await breaker.passed()
        assert not breaker.is_open

    run(session, [False, True])
