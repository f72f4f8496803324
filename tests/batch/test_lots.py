"""Threads that take work in lots: results, faults, cancelled work."""

from __future__ import annotations

import asyncio
import threading

import pytest

from voiceprint_nb.batch import lots
from voiceprint_nb.batch.lots import Lots


async def gathered(n_threads: int, works: list, **options: bool) -> list:
    pool = Lots(n_threads)
    try:
        return await asyncio.gather(*(pool.run(work) for work in works), **options)
    finally:
        pool.close()


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("n_works", [1, 2, 7, 40])
def test_each_caller_gets_its_own_result(n_threads: int, n_works: int) -> None:
    works = [lambda number=number: number for number in range(n_works)]
    assert asyncio.run(gathered(n_threads, works)) == list(range(n_works))


def test_a_fault_is_its_own_callers() -> None:
    def fail() -> None:
        raise KeyError("mine")

    ended = asyncio.run(gathered(1, [lambda: 1, fail, lambda: 2], return_exceptions=True))
    assert ended[0] == 1
    assert isinstance(ended[1], KeyError)
    assert ended[2] == 2


def test_what_comes_together_is_shared_out_evenly() -> None:
    both = threading.Barrier(2, timeout=10)  # two at a time, or it breaks
    asyncio.run(gathered(2, [both.wait] * 6))
    assert not both.broken


def test_slow_work_does_not_hold_up_what_came_with_it() -> None:
    go_on = threading.Event()

    async def main() -> None:
        pool = Lots(2)
        slow = asyncio.ensure_future(pool.run(lambda: go_on.wait(20)))
        quick = [asyncio.ensure_future(pool.run(lambda number=number: number)) for number in range(9)]
        async with asyncio.timeout(10):
            assert await asyncio.gather(*quick[5:]) == [5, 6, 7, 8]  # shared out to the other thread
        go_on.set()
        assert await asyncio.gather(slow, *quick[:5]) == [True, 0, 1, 2, 3, 4]
        pool.close()

    asyncio.run(main())


def test_what_is_left_after_a_moment_is_shared_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lots, "_LOT_S", -1.0)  # each work takes longer than a lot may
    works = [lambda number=number: number for number in range(20)]
    assert asyncio.run(gathered(2, works)) == list(range(20))


def test_an_end_of_iteration_is_a_fault_as_others() -> None:
    def fail() -> None:
        raise StopIteration

    ended = asyncio.run(gathered(1, [fail, lambda: 2], return_exceptions=True))
    assert isinstance(ended[0], RuntimeError)
    assert ended[1] == 2


def test_a_closed_pool_refuses_who_still_asks() -> None:
    async def main() -> None:
        pool = Lots(1)
        pool.close()
        with pytest.raises(RuntimeError):
            await pool.run(lambda: 1)

    asyncio.run(main())


def test_what_nobody_waits_for_is_not_begun() -> None:
    begun, go_on = list[str](), threading.Event()

    async def main() -> None:
        pool = Lots(1)
        first = asyncio.create_task(pool.run(lambda: go_on.wait(10)))
        second = asyncio.create_task(pool.run(lambda: begun.append("second")))
        third = asyncio.create_task(pool.run(lambda: begun.append("third")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        go_on.set()
        await asyncio.gather(first, third)
        pool.close()

    asyncio.run(main())
    assert begun == ["third"]
