from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from voiceprint_nb.batch.bridge import Background, LoopThread, loop_thread, ticking

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")


class Endless:
    """Work that goes on until it is cancelled, and says that it has cleaned up."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cleaned = False

    async def run(self) -> None:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            self.cleaned = True


async def answer(value: int = 42) -> int:
    await asyncio.sleep(0)
    return value


async def tasks_of_the_loop() -> int:
    return len(asyncio.all_tasks()) - 1


def left() -> int:
    return loop_thread().start(tasks_of_the_loop()).wait()


def test_blocking_wait_in_a_plain_script() -> None:
    assert loop_thread().start(answer()).wait() == 42
    assert left() == 0


def test_blocking_wait_within_a_running_loop() -> None:
    async def cell() -> int:
        return loop_thread().start(answer()).wait()

    assert asyncio.run(cell()) == 42


def test_awaiting_in_another_loop() -> None:
    async def cell() -> int:
        return await loop_thread().start(answer())

    assert asyncio.run(cell()) == 42


def test_errors_of_the_work_are_raised() -> None:
    async def fail() -> None:
        raise LookupError("here")

    background = loop_thread().start(fail())
    with pytest.raises(LookupError, match="here"):
        background.wait()
    with pytest.raises(LookupError, match="here"):
        asyncio.run(wait_for(background))


async def wait_for(background: Background[None]) -> None:
    await background


def test_cancelled_work_cleans_up() -> None:
    work = Endless()
    background = loop_thread().start(work.run())
    work.began.wait(5)
    background.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        background.wait()
    assert work.cleaned
    background.cancel()
    assert left() == 0


def test_work_that_is_cancelled_at_once_cleans_up_too() -> None:
    for _ in range(50):
        work = Endless()
        background = loop_thread().start(work.run())
        background.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            background.wait(timeout_s=5)
        assert work.cleaned


def test_timeout_leaves_the_work_alone() -> None:
    work = Endless()
    background = loop_thread().start(work.run())
    for timeout_s in (0.0, 0.01):
        with pytest.raises(TimeoutError):
            background.wait(timeout_s=timeout_s)
    assert not background.done
    background.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        background.wait()
    assert background.done


def test_slow_view_does_not_lengthen_the_timeout() -> None:
    work = Endless()
    background = loop_thread().start(work.run())
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        background.wait(tick=lambda: time.sleep(0.2), timeout_s=0.3)
    assert time.monotonic() - began_s < 0.65
    background.cancel()


def fails() -> None:
    raise BrokenPipeError


@pytest.mark.parametrize(
    "how",
    [
        lambda work: work.wait(tick=fails),
        lambda work: loop_thread().start(ticking(work_of(work), fails)).wait(),
    ],
)
def test_view_that_fails_does_not_end_the_run(how: Callable[[Background[int]], int]) -> None:
    assert how(loop_thread().start(answer())) == 42


async def work_of(background: Background[int]) -> int:
    return await background


def test_view_is_drawn_at_the_end_and_five_times_a_second() -> None:
    drawn: list[bool] = []

    async def work() -> int:
        await asyncio.sleep(0.5)
        return 1

    background = loop_thread().start(work())
    background.wait(tick=lambda: drawn.append(background.done))
    assert drawn[-1]
    assert 2 <= len(drawn) <= 5
    drawn.clear()
    assert loop_thread().start(ticking(work(), lambda: drawn.append(True))).wait() == 1
    assert 3 <= len(drawn) <= 5


@POSIX
def test_interrupt_cancels_the_work_at_once() -> None:
    work = Endless()
    background = loop_thread().start(work.run())
    assert work.began.wait(5)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    fired_s: list[float] = []
    signal.signal(signal.SIGALRM, lambda number, frame: fired_s.append(time.monotonic()) or raise_interrupt())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            background.wait()
        assert time.monotonic() - fired_s[0] < 0.5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert work.cleaned
    assert left() == 0


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_each_thread_asks_the_same_loop() -> None:
    assert loop_thread() is loop_thread()
    thread = LoopThread()
    assert thread.start(answer(1)).wait() == 1
    assert thread.loop is not loop_thread().loop
    thread.loop.call_soon_threadsafe(thread.loop.stop)
    deadline_s = time.monotonic() + 5
    while not thread.loop.is_closed():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


FORKED = """
import asyncio, os, sys
from voiceprint_nb.batch.bridge import loop_thread

async def answer():
    return os.getpid()

parent = loop_thread()
assert parent.start(answer()).wait() == os.getpid()
child = os.fork()
if child == 0:
    own = loop_thread()
    right = own is not parent and own.start(answer()).wait(timeout_s=10) == os.getpid()
    os._exit(0 if right else 1)
_, status = os.waitpid(child, 0)
assert loop_thread() is parent
assert parent.start(answer()).wait() == os.getpid()
sys.exit(os.waitstatus_to_exitcode(status))
"""

LEAVING = """
import asyncio, threading
from voiceprint_nb.batch.bridge import loop_thread

began = threading.Event()

async def endless():
    began.set()
    await asyncio.sleep(1000)

loop_thread().start(endless())
began.wait()
"""


@POSIX
@pytest.mark.parametrize("script", [FORKED, LEAVING], ids=["fork", "exit"])
def test_process(script: str) -> None:
    ignored = "ignore:This process:DeprecationWarning"  # a fork beside threads, which is what is tested
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-W", ignored, "-c", script],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
