from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from faulty import Time

from voiceprint_nb.client.breaker import STREAK, Breaker
from voiceprint_nb.errors import RequestRefused, ServiceUnavailable


class Endpoints:
    """A breaker, time that passes in sleeps, and a service of which the test says what works.

    ``probes`` are the answers to the breaker's questions, the last one for ever; ``fails`` counts the
    requests that still fail.
    """

    def __init__(self, probes: list[bool], fails: int) -> None:
        self.time, self.probes, self.fails = Time(), probes, fails
        self.n_probed = self.n_asked = self.n_at_once = self.most_at_once = 0
        self.breaker = Breaker(self.probe, clock=self.time.clock, sleep=self.time.sleep)

    async def probe(self) -> bool:
        self.n_probed += 1
        return self.probes.pop(0) if len(self.probes) > 1 else self.probes[0]

    async def ask(self, request: object) -> bool:
        """One attempt: whether it was answered."""
        try:
            async with self.breaker.passing(request):
                self.n_asked += 1
                if self.fails:
                    self.fails -= 1
                    raise ServiceUnavailable("The service failed (500).", status=500)  # noqa: TRY301
        except ServiceUnavailable as error:
            if error.concerns_all_rows:
                raise
            return False
        return True

    async def opened(self) -> None:
        for number in range(STREAK):
            await self.ask(number)
        await asyncio.sleep(0)
        assert self.breaker.is_open


def run(
    session: Callable[[Endpoints], Awaitable[Any]], *, probes: list[bool] | None = None, fails: int = STREAK
) -> Any:
    async def main() -> Any:
        endpoints = Endpoints(probes or [True], fails)
        try:
            return await session(endpoints)
        finally:
            await endpoints.breaker.close()

    return asyncio.run(main())


def test_a_streak_of_failures_holds_requests_until_the_service_answers() -> None:
    async def session(it: Endpoints) -> None:
        for number in range(STREAK - 1):
            await it.ask(number)
        assert not it.breaker.is_open
        await it.ask("the last")
        assert it.breaker.is_open
        assert all(await asyncio.gather(*(it.ask(number) for number in range(50))))
        assert not it.breaker.is_open
        assert it.n_probed == 3
        assert it.time.slept == [1.0, 2.0, 4.0]
        assert it.breaker.n_outages == 1

    run(session, probes=[False, False, True])


def test_one_request_is_the_trial_and_the_others_wait() -> None:
    """The service answers, but these endpoints fail: each pause costs one request, not all of them."""

    async def session(it: Endpoints) -> None:
        await it.opened()
        answered = await asyncio.gather(*(it.ask(number) for number in range(50)))
        assert answered.count(False) == 3
        assert it.time.slept == [1.0, 2.0, 4.0, 8.0]

    run(session, fails=STREAK + 3)


def test_failures_of_several_kinds_add_up() -> None:
    async def session(it: Endpoints) -> None:
        for number in range(STREAK):
            with pytest.raises(ServiceUnavailable):
                async with it.breaker.passing(number):
                    raise ServiceUnavailable(f"Trace {number}", status=(500, 502, 503)[number % 3])
        assert it.breaker.is_open

    run(session)


@pytest.mark.parametrize("between", ["success", "refusal"])
def test_single_failures_do_not_add_up(between: str) -> None:
    async def session(it: Endpoints) -> None:
        for number in range(5 * STREAK):
            it.fails = 1
            await it.ask(number)
            if between == "success":
                await it.ask(number)
            else:
                with pytest.raises(RequestRefused):
                    async with it.breaker.passing(number):
                        raise RequestRefused("no", status=400)
        assert not it.breaker.is_open

    run(session)


def test_a_single_request_that_always_fails_is_no_outage() -> None:
    async def session(it: Endpoints) -> None:
        it.fails = 100
        assert not any([await it.ask("/v1/jobs/1") for _ in range(4 * STREAK)])
        assert it.breaker.n_outages == 0
        assert it.time.now_s < 1010

    run(session)


def test_two_requests_that_always_fail_are_no_outage_for_long() -> None:
    async def session(it: Endpoints) -> None:
        async def always_fails(name: str) -> None:
            for _ in range(20):
                with pytest.raises(ServiceUnavailable):
                    async with it.breaker.passing(name):
                        await asyncio.sleep(0)
                        raise ServiceUnavailable("The service failed (500).", status=500)

        await asyncio.gather(always_fails("a"), always_fails("b"))
        assert it.time.now_s < 1000 + 600
        assert it.breaker.n_outages == 1
        assert await it.ask("another")

    run(session, fails=0)


def test_a_single_request_to_a_service_that_is_down_waits() -> None:
    async def session(it: Endpoints) -> None:
        for _ in range(STREAK):
            await it.ask("/v1/jobs/1")
        assert await it.ask("/v1/jobs/1")
        assert it.breaker.n_outages == 1

    run(session, probes=[False, True])


def test_a_service_that_stays_away_ends_the_run() -> None:
    async def session(it: Endpoints) -> None:
        await it.opened()
        rows = await asyncio.gather(*(it.ask(number) for number in range(3)), return_exceptions=True)
        for error in rows:
            assert isinstance(error, ServiceUnavailable)
            assert error.concerns_all_rows
            assert "10 minutes (The service failed (500))" in str(error) and "resume()" in str(error)
        with pytest.raises(ServiceUnavailable):
            await it.ask("later")
        assert max(it.time.slept) == 30.0
        assert sum(it.time.slept) >= 600.0

    run(session, probes=[False])


@pytest.mark.parametrize("when", ["before the trial", "in the trial", "at its turn"])
def test_a_cancelled_request_is_no_trial(when: str) -> None:
    async def session(it: Endpoints) -> None:
        await it.opened()
        reached, never = asyncio.Event(), asyncio.Event()

        async def turn() -> None:
            if when == "at its turn":
                reached.set()
                await never.wait()

        async def ask() -> None:
            async with it.breaker.passing("cancelled", turn=turn):
                reached.set()
                await never.wait()

        request = asyncio.create_task(ask())
        if when == "before the trial":
            await asyncio.sleep(0)
        else:
            await reached.wait()
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert await it.ask("another")
        assert not it.breaker.is_open or await it.ask("a third")

    run(session)


def test_who_waited_for_a_turn_when_it_opened_waits_on() -> None:
    async def session(it: Endpoints) -> None:
        turn = asyncio.Event()
        asked: list[bool] = []

        async def ask() -> None:
            async with it.breaker.passing("early", turn=turn.wait):
                asked.append(it.breaker.is_open)

        early = [asyncio.create_task(ask()) for _ in range(10)]
        await asyncio.sleep(0)
        await it.opened()
        turn.set()
        await asyncio.gather(*early)
        assert asked.count(True) == 1  # the trial
        assert asked.count(False) == 9

    run(session)
