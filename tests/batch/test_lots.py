"""Threads that take work in lots: results, faults, cancelled work."""

from __future__ import annotations

import asyncio
import threading

import pytest

from voiceprint_nb.batch.lots import Lots


async def gathered(n_threads: int, works: list, **options: bool) -> list:
    lots = Lots(n_threads)
    try:
        return await asyncio.gather(*(lots.run(work) for work in works), **options)
    finally:
        lots.close()


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


def test_a_closed_pool_refuses_who_still_asks() -> None:
    async def main() -> None:
        lots = Lots(1)
        lots.close()
        with pytest.raises(RuntimeError):
            await lots.run(lambda: 1)

    asyncio.run(main())


def test_what_nobody_waits_for_is_not_begun() -> None:
    begun, go_on = list[str](), threading.Event()

    async def main() -> None:
        lots = Lots(1)
        first = asyncio.create_task(lots.run(lambda: go_on.wait(10)))
        second = asyncio.create_task(lots.run(lambda: begun.append("second")))
        third = asyncio.create_task(lots.run(lambda: begun.append("third")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        go_on.set()
        await asyncio.gather(first, third)
        lots.close()

    asyncio.run(main())
    assert begun == ["third"]
