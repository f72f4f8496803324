"""The scheduling of the package's threads, as the system tells it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from voiceprint_nb import threads
from voiceprint_nb.batch.bridge import LoopThread
from voiceprint_nb.engine.pool import EnginePool


def is_allowed() -> bool:
    def try_it() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

    with ThreadPoolExecutor(1) as other:
        return hasattr(os, "SCHED_BATCH") and other.submit(try_it).exception() is None


pytestmark = pytest.mark.skipif(not is_allowed(), reason="the system has it not, or does not allow it")


def policy() -> int:
    return os.sched_getscheduler(0)


def in_thread(*steps: object) -> list[int]:
    found: list[int] = []

    def work() -> None:
        for step in steps:
            step()  # type: ignore[operator]
        found.append(policy())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    return found


def test_a_thread_gives_way_and_no_other() -> None:
    before = policy()
    assert in_thread(threads.give_way) == [os.SCHED_BATCH]
    assert in_thread() == [policy()] == [before]


def test_what_somebody_has_chosen_stays() -> None:
    def choose() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    assert in_thread(choose, threads.give_way) == [os.SCHED_IDLE]


def test_the_loop_and_the_engine_give_way() -> None:
    async def in_loop() -> int:
        return policy()

    assert LoopThread().start(in_loop()).wait() == os.SCHED_BATCH
    seen: list[int] = []

    def load() -> np.ndarray:
        seen.append(policy())
        return np.sin(np.arange(32_000) * 0.2).astype(np.float32)

    with EnginePool(threads=1) as pool:
        pool.submit(load).result()
    assert seen == [os.SCHED_BATCH]
