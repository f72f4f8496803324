from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import stamina

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faulty import Faulty, Time, write_clip

from voiceprint_nb.client.transport import Api
from voiceprint_nb.pacing import Pacer
from voiceprint_nb.service.local import LocalService

Session = Callable[[Api], Awaitable[Any]]


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Retries happen at once."""
    with stamina.set_testing(True, attempts=5, cap=True):
        yield


@pytest.fixture(scope="session")
def service() -> Iterator[LocalService]:
    with LocalService(threads=1) as local:
        yield local


@pytest.fixture
def wire(service: LocalService) -> Faulty:
    """The local service's transport, without faults so far."""
    return Faulty(service.transport())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.wav")


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def talk(wire: Faulty, time: Time) -> Callable[..., Any]:
    """Runs one session of a client in an event loop of its own; the pace costs no time."""

    def run(session: Session, *, api_key: str | None = None, **options: Any) -> Any:
        async def opened() -> Any:
            pacer = partial(Pacer, clock=time.clock, sleep=time.sleep)
            api = Api(
                base_url=LocalService.base_url,
                api_key=api_key,
                transport=wire,
                new_pacer=pacer,
                clock=time.clock,
                sleep=time.sleep,
                **options,
            )
            async with api:
                return await session(api)

        return asyncio.run(opened())

    return run
