from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty import fails, with_state
from helpers import World

from voiceprint_nb.audio import AudioFacts
from voiceprint_nb.batch import orders
from voiceprint_nb.batch.orders import Orders, fetches
from voiceprint_nb.batch.outcomes import Request
from voiceprint_nb.batch.progress import Uploads
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.contract import VOICEPRINT_PATH
from voiceprint_nb.errors import RowError, ServiceUnavailable
from voiceprint_nb.intake.clips import Clip
from voiceprint_nb.intake.sources import UrlSource

URL = "media://nothing-is-stored-here"


def run(world: World, session: Callable[[Orders, Ledger], Any], *, run_id: str = "run") -> Any:
    async def opened() -> Any:
        with world.ledger() as ledger:
            orders = Orders(world.service(), ledger, run_id, Request(), smaller=nullcontext, sent=Uploads())
            async with orders as taken:
                return await session(taken, ledger)

    return asyncio.run(opened())


def clip_of(path: Path, *, is_cut: bool = False, url: str | None = None) -> Clip:
    facts = AudioFacts(1.7, 16_000, 1, "WAV", "PCM_16")
    return Clip(path, path.stat().st_size, "ab" * 32, facts, 1.7, is_cut=is_cut, url=url)


@pytest.mark.parametrize(
    ("url", "sees_private_hosts", "goes_as_it_is"),
    [
        ("https://example.org/a.wav?sig=1", False, True),
        ("http://93.184.216.34/a.wav", False, True),
        ("http://127.0.0.1:8000/a.wav", False, False),
        ("http://[::1]/a.wav", False, False),
        ("http://10.0.0.7/a.wav", False, False),
        ("http://169.254.169.254/a.wav", False, False),
        ("http://localhost/a.wav", False, False),
        ("http://nas.local/a.wav", False, False),
        ("http://recorder/a.wav", False, False),
        ("http://localhost/a.wav", True, True),
    ],
)
def test_addresses_that_the_service_cannot_see_are_uploaded(
    world: World, clips: list[Path], url: str, sees_private_hosts: bool, goes_as_it_is: bool
) -> None:
    world.options = {"sees_private_hosts": sees_private_hosts}
    assert fetches(world.service(), url) is goes_as_it_is
    clip = clip_of(clips[0], url=url if goes_as_it_is else None)
    reached = run(world, lambda taken, _: taken.reach(UrlSource(url), clip))
    assert (reached == url) is goes_as_it_is
    assert goes_as_it_is or reached.startswith("media://")


def test_cut_clip_is_uploaded_whatever_its_address(world: World, clips: list[Path]) -> None:
    source = UrlSource("https://example.org/long.wav")
    reached = run(world, lambda taken, _: taken.reach(source, clip_of(clips[0], is_cut=True)))
    assert reached.startswith("media://")


def test_ledger_knows_the_job_before_anything_waits(world: World) -> None:
    async def session(taken: Orders, ledger: Ledger) -> None:
        submitted = await taken.submit("key", URL)
        entry = ledger.find("key")
        assert entry is not None
        assert submitted is not None
        assert (entry.state, entry.job_id) == ("open", submitted.job_id)
        assert await taken.submit("key", URL) is None

    run(world, session)
    assert world.wire.created.total() == 1


def test_claim_is_made_when_the_request_leaves_not_while_it_waits_for_its_turn(world: World) -> None:
    seen = []

    async def session(taken: Orders, ledger: Ledger) -> None:
        def note(index: int) -> None:
            entry = ledger.find("key")
            seen.append(entry.state if entry else None)

        world.wire.before_each = note
        taken._api.submit_pacer._sleep = wait_for_ever
        taken._api.submit_pacer.pause(60.0)
        sending = asyncio.create_task(taken.submit("key", URL))
        await asyncio.sleep(0.01)
        assert ledger.find("key") is None
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert ledger.find("key") is None

    run(world, session)
    assert not seen


async def wait_for_ever(seconds: float) -> None:
    await asyncio.get_running_loop().create_future()


def test_stop_during_the_request_still_learns_the_jobs_id(world: World) -> None:
    arrived = asyncio.Event()

    async def late(request: httpx.Request, forward: Any) -> httpx.Response:
        answer = await forward(request)
        arrived.set()
        await asyncio.sleep(0.05)
        return answer

    world.wire.on("POST", VOICEPRINT_PATH, late)

    async def session(taken: Orders, ledger: Ledger) -> None:
        sending = asyncio.create_task(taken.submit("key", URL))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        entry = ledger.find("key")
        assert entry is not None
        assert entry.state == "open"

    run(world, session)


def test_stop_during_a_request_without_an_answer_ends_soon_and_leaves_an_orphan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "_GRACE_S", 0.02)
    arrived = asyncio.Event()

    async def never(request: httpx.Request, forward: Any) -> httpx.Response:
        await forward(request)
        arrived.set()
        return await forward_nothing()

    async def forward_nothing() -> httpx.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    world.wire.on("POST", VOICEPRINT_PATH, never)

    async def session(taken: Orders, ledger: Ledger) -> None:
        sending = asyncio.create_task(taken.submit("key", URL))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        entry = ledger.find("key")
        assert entry is not None
        assert entry.orphaned

    run(world, session)
    world.wire.always("GET", "/v2/jobs", with_state("running"))  # it has failed in truth, and is free

    async def again(taken: Orders, ledger: Ledger) -> None:
        for _ in range(2):
            with pytest.raises(RowError) as told:
                await taken.known("key")
            assert told.value.code == "submit_unknown"

    async def broken(taken: Orders, ledger: Ledger) -> None:
        with pytest.raises(RowError):
            await taken.known("key")
        raise LookupError

    with pytest.raises(LookupError):  # a run that breaks off has told nobody
        run(world, broken)
    run(world, again)
    run(world, again)  # the same run, resumed: who knows whether anybody saw its rows
    assert run(world, lambda taken, ledger: taken.known("key"), run_id="another") is None


def test_orphan_is_left_when_the_service_cannot_be_asked(world: World) -> None:
    with world.ledger() as ledger:
        ledger.claim("key")
        ledger.abandon("key")
    world.wire.on("GET", "/v2/jobs", *[fails(httpx.ReadError)] * 10)

    async def session(taken: Orders, ledger: Ledger) -> None:
        with pytest.raises(ServiceUnavailable):
            await taken.known("key")
        assert ledger.find("key") is not None
        assert await taken.known("key") is None
        assert ledger.find("key") is None

    run(world, session)


def test_key_is_checked_once_a_run(world: World, clips: list[Path]) -> None:
    world.run(clips)
    assert world.wire.paths().count("/v1/test") == 1
