"""A picker in a running loop, as kernels have one: work is done beside it, nothing is drawn from threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

import voiceprint_nb as vp
from tests.notebook.recordings import SAMPLES, write_meeting
from voiceprint_nb.notebook.errands import Errands


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    return write_meeting(tmp_path_factory.mktemp("long") / "meeting.wav")


async def until(is_so):
    """Let the loop turn until something is so."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - what waits for a user sets no event
            await asyncio.sleep(0)


def test_the_loop_goes_on_while_a_recording_is_read(meeting):
    """In a running loop, as a kernel has it, work is done beside it and results come back to its thread."""

    async def use() -> None:
        picker = vp.Picker([str(meeting), *[str(SAMPLES / "ada-1.wav")] * 70])
        items, view = picker._picks.items, picker._view
        assert items[0].state == items[70].state == "checking"
        drawn = []
        view.picture.observe(lambda _: drawn.append(threading.current_thread()), names="value")
        await until(lambda: "<svg" in view.picture.value and "<audio" in view.player.value)
        await until(lambda: all(item.outcome is not None for item in items))
        assert set(drawn) == {threading.main_thread()}
        assert "70 ok, 1 too long" in repr(picker)
        view.best.click()
        await until(lambda: items[0]._cut is not None)
        picker.close()

    asyncio.run(use())


def test_leaving_a_recording_ends_its_reading(meeting):
    async def use() -> None:
        picker = vp.Picker([str(meeting), str(SAMPLES / "ada-1.wav")])
        first, view = picker._picks.items[0], picker._view
        await until(lambda: first.outcome is not None)
        view.list.value = 1
        await until(lambda: "ada-1.wav" in view.picture.value)
        assert first.trouble is None
        view.list.value = 0
        await until(lambda: "meeting.wav" in view.picture.value)
        picker.close()

    asyncio.run(use())


def test_errands_are_done_at_once_where_no_loop_runs():
    told = []
    errands = Errands()
    errands.send(threading.current_thread, lambda *came: told.append(came))
    errands.send(lambda: 1 // 0, lambda *came: told.append(came))
    assert told[0] == (threading.main_thread(), None)
    assert told[1][0] is None and isinstance(told[1][1], ZeroDivisionError)
    assert not errands.in_background


def test_nothing_comes_back_after_the_end():
    async def use() -> None:
        errands, told, gate = Errands(), [], threading.Event()
        errands.send(gate.wait, lambda *came: told.append(came))
        errands.close()
        gate.set()
        for thread in threading.enumerate():
            if thread.name == "voiceprint-picker":
                await asyncio.to_thread(thread.join, 10)
                assert not thread.is_alive()
        await asyncio.sleep(0)
        assert told == []

    asyncio.run(use())
