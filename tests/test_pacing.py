"""Never more than the limit in any window, whoever waits, pauses or learns. Only sleeping moves the clock."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceprint_nb.pacing import OwnTurns, Pacer

EXAMPLES = settings(max_examples=60, deadline=None, database=None)


class Timeline:
    """A clock, and sleeping tasks that it wakes in order when nothing else is left to do."""

    def __init__(self, start_s: float = 1000.0, *, oversleep_s: float = 0.0) -> None:
        self.now_s = start_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._oversleep_s = oversleep_s
        self._random = random.Random(4)  # noqa: S311 - jitter

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        late = self._random.uniform(0, self._oversleep_s)
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.now_s + seconds + late, self._count, future))
        await future

    async def run(self, *work: asyncio.Task[None]) -> None:
        while not all(task.done() for task in work):
            for _ in range(5):
                await asyncio.sleep(0)
            while self._sleepers and self._sleepers[0][2].done():
                heapq.heappop(self._sleepers)
            if self._sleepers and not all(task.done() for task in work):
                at, _, future = heapq.heappop(self._sleepers)
                self.now_s = max(self.now_s, at)
                future.set_result(None)
        for task in work:
            if not task.cancelled():
                task.result()


def most_in_a_window(passed: Sequence[float], window_s: float) -> int:
    return max(sum(start <= t < start + window_s for t in passed) for start in passed)


async def _pass_through(
    pacer: Pacer, timeline: Timeline, arrivals: Sequence[float], passed: list[float]
) -> list[asyncio.Task[None]]:
    async def request(at: float) -> None:
        if at > 0:
            await timeline.sleep(at)
        await pacer.slot()
        passed.append(timeline.now_s)

    return [asyncio.create_task(request(at)) for at in arrivals]


@given(
    limit=st.integers(1, 40),
    arrivals=st.lists(st.floats(0, 130), min_size=1, max_size=90),
    oversleep_s=st.sampled_from([0.0, 0.01, 3.0]),
    pauses=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 70)), max_size=4),
    gives_up=st.lists(st.integers(0, 89), max_size=5),
)
@EXAMPLES
def test_no_window_exceeds_the_limit(
    limit: int,
    arrivals: list[float],
    oversleep_s: float,
    pauses: list[tuple[float, float]],
    gives_up: list[int],
) -> None:
    async def main() -> None:
        timeline, passed = Timeline(oversleep_s=oversleep_s), []
        pacer = Pacer(per_window=limit, clock=timeline.clock, sleep=timeline.sleep)
        quiet: list[tuple[float, float]] = []

        async def pause(at: float, seconds: float) -> None:
            await timeline.sleep(at)
            pacer.pause(seconds)
            quiet.append((timeline.now_s, timeline.now_s + seconds))

        tasks = await _pass_through(pacer, timeline, arrivals, passed)
        stops = [asyncio.create_task(pause(*given_pause)) for given_pause in pauses]
        await asyncio.sleep(0)
        for position in gives_up:
            tasks[position % len(tasks)].cancel()
        await timeline.run(*tasks, *stops)
        assert pacer.waiting == 0
        assert len(passed) == sum(not task.cancelled() for task in tasks)
        if passed:
            assert most_in_a_window(passed, 60.0) <= limit
        assert not [t for t in passed for start, end in quiet if start < t < end - 1e-6]

    asyncio.run(main())


def test_the_pace_is_even_and_near_the_limit() -> None:
    async def main() -> None:
        timeline, passed = Timeline(), []
        pacer = Pacer(per_window=100, clock=timeline.clock, sleep=timeline.sleep)
        await timeline.run(*await _pass_through(pacer, timeline, [0.0] * 500, passed))
        gaps = [later - earlier for earlier, later in pairwise(passed)]
        assert max(gaps) < 0.62 and min(gaps) > 0.599
        assert passed[-1] - passed[0] < 499 * 0.6 * 1.01

    asyncio.run(main())


def test_who_came_first_goes_first_and_the_waiting_are_counted() -> None:
    async def main() -> None:
        timeline, order = Timeline(), []
        pacer = Pacer(per_window=10, clock=timeline.clock, sleep=timeline.sleep)

        async def request(number: int) -> None:
            await pacer.slot()
            order.append(number)

        tasks = [asyncio.create_task(request(number)) for number in range(20)]
        await asyncio.sleep(0)
        assert (order, pacer.waiting) == ([0], 19)
        await timeline.run(*tasks)
        assert order == list(range(20))
        assert pacer.waiting == 0

    asyncio.run(main())


def test_without_a_limit_nobody_waits_until_one_is_learned() -> None:
    async def main() -> None:
        timeline, passed = Timeline(), []
        pacer = Pacer(clock=timeline.clock, sleep=timeline.sleep)
        await timeline.run(*await _pass_through(pacer, timeline, [0.0] * 50, passed))
        assert set(passed) == {1000.0}
        for nothing in (None, 0, -3):
            pacer.learn(nothing)
        pacer.learn(6)
        await pacer.slot()
        await timeline.run(*await _pass_through(pacer, timeline, [0.0] * 4, later := []))
        assert [round(t - 1000) for t in later] == [10, 20, 30, 40]

    asyncio.run(main())


@pytest.mark.parametrize(("old", "new"), [(60, 6), (6, 60)])
def test_a_new_limit_holds_for_those_who_wait(old: int, new: int) -> None:
    async def main() -> None:
        timeline, passed = Timeline(), []
        pacer = Pacer(per_window=old, clock=timeline.clock, sleep=timeline.sleep)
        tasks = await _pass_through(pacer, timeline, [0.0] * 30, passed)
        await asyncio.sleep(0)
        pacer.learn(new)
        await timeline.run(*tasks)
        after = passed[2:]  # the first is through, and the second's turn stands
        assert most_in_a_window(after, 60.0) <= new
        assert passed[1] - passed[0] == pytest.approx(60 / old, rel=0.02)
        assert after[-1] - after[0] == pytest.approx(27 * 60 / new, rel=0.02, abs=2.1)

    asyncio.run(main())


def test_a_pause_holds_back_those_who_already_wait_and_lets_no_burst_through() -> None:
    async def main() -> None:
        timeline, passed = Timeline(), []
        pacer = Pacer(per_window=60, clock=timeline.clock, sleep=timeline.sleep)
        tasks = await _pass_through(pacer, timeline, [0.0] * 40, passed)
        await asyncio.sleep(0)
        pacer.pause(30.0)
        pacer.pause(5.0)  # a shorter one, heard later, does not end it
        await timeline.run(*tasks)
        assert passed[0] == 1000.0
        assert passed[1] >= 1030.0
        assert most_in_a_window(passed[1:], 10.0) <= 10

    asyncio.run(main())


def test_after_a_rest_the_first_goes_at_once_and_the_rest_saves_nothing_up() -> None:
    async def main() -> None:
        timeline, passed = Timeline(), []
        pacer = Pacer(per_window=6, clock=timeline.clock, sleep=timeline.sleep)
        await pacer.slot()
        timeline.now_s += 1000.0
        await timeline.run(*await _pass_through(pacer, timeline, [0.0] * 3, passed))
        assert [round(t - 2000) for t in passed] == [0, 10, 20]

    asyncio.run(main())


# --- several who share one limit ------------------------------------------------------------------------


class Window:
    """A service that counts in fixed windows, from the first request on, and tells what is left."""

    def __init__(self, limit: int, timeline: Timeline) -> None:
        self._limit, self._timeline = limit, timeline
        self._start_s, self._used = float("-inf"), 0
        self.refused = 0
        self.answered: list[float] = []

    def ask(self, pacer: Pacer) -> bool:
        if self._timeline.now_s - self._start_s >= 60.0:
            self._start_s, self._used = self._timeline.now_s, 0
        left_s = math.ceil(60.0 - (self._timeline.now_s - self._start_s))
        if self._used >= self._limit:
            self.refused += 1
            pacer.learn(self._limit, remaining=0, reset_s=left_s)
            return False
        self._used += 1
        self.answered.append(self._timeline.now_s)
        pacer.learn(self._limit, remaining=self._limit - self._used, reset_s=left_s)
        return True


def shared(n_clients: int, *, share: bool) -> Window:
    """Clients, each with 150 requests, under one limit of 100 a minute."""

    async def main() -> Window:
        timeline = Timeline(oversleep_s=0.01)
        window, turns = Window(100, timeline), OwnTurns(timeline.clock)

        async def client(start_s: float) -> None:
            await timeline.sleep(start_s)
            own = turns if share else None
            pacer = Pacer(per_window=100, turns=own, clock=timeline.clock, sleep=timeline.sleep)

            async def request() -> None:
                await pacer.slot()
                while not window.ask(pacer):
                    await pacer.slot()

            await asyncio.gather(*(request() for _ in range(150)))

        await timeline.run(*(asyncio.create_task(client(7.3 * number)) for number in range(n_clients)))
        return window

    return asyncio.run(main())


@pytest.mark.parametrize(("share", "most_refused"), [(True, 0.0), (False, 0.03)], ids=["turns", "strangers"])
@pytest.mark.parametrize("n_clients", [1, 2, 4])
def test_who_shares_a_limit_is_hardly_refused_and_uses_it_up(
    n_clients: int, share: bool, most_refused: float
) -> None:
    window, n = shared(n_clients, share=share), 150 * n_clients
    assert len(window.answered) == n
    assert window.refused <= most_refused * n
    assert window.answered[-1] - window.answered[0] < n / 100 * 60 * 1.03


def test_a_late_wake_up_is_made_up_for_and_a_rest_is_not() -> None:
    now_s = 100.0
    turns = OwnTurns(clock=lambda: now_s)
    assert turns.take(1.0) == 0.0
    now_s += 1.2  # late by a fifth of an interval
    assert turns.take(1.0) == 0.0
    assert turns.take(1.0) == pytest.approx(0.8)
    now_s += 1.7  # late by more than the margin holds in a window
    assert turns.take(1.0) == 0.0
    assert turns.take(1.0) == pytest.approx(0.75)
    now_s += 60.0
    assert turns.take(1.0) == 0.0
    assert turns.take(1.0) == pytest.approx(1.0)
