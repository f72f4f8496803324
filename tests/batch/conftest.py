from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stamina

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faulty import Faulty, write_clip
from helpers import World

from voiceprint_nb.service.local import LocalService


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Retries happen at once."""
    with stamina.set_testing(True, attempts=5, cap=True):
        yield


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eight short clips of different content."""
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"{seed}.wav", seed=seed) for seed in range(8)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A service of its own, its wire, and a folder for the ledger."""
    with LocalService(threads=1) as local:
        yield World(Faulty(local.transport()), tmp_path / "data")


@pytest.fixture
def new_world(tmp_path: Path) -> Iterator[Callable[[], World]]:
    """As `world`, as often as wanted, with one service."""
    made = 0
    with LocalService(threads=1) as local:

        def make() -> World:
            nonlocal made
            made += 1
            return World(Faulty(local.transport()), tmp_path / f"data-{made}")

        yield make
