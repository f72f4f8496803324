"""The line that users write, with every kind of fault on the way, and killed: the benchmark, made small."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import faults
from tests.fault_proxy import FITTING, LOST, TWICE

ROWS = 40
EXPECTED = {
    "polling": {*FITTING["submit"], *FITTING["upload"]},
    "webhooks": {*FITTING["submit"], *FITTING["upload"], LOST, TWICE},
    "kills": {*FITTING["submit"], *FITTING["upload"]},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults.World]:
    folder = tmp_path_factory.mktemp("faults")
    with faults.world(folder, rows=ROWS, seed=5, quick=True, pause_s=0, slow_s=0.1) as world:
        yield world


@pytest.fixture(scope="module")
def prints(made: faults.World) -> list[str]:
    return faults.local_prints(made.clips)


@pytest.mark.parametrize(
    ("name", "options"),
    [("polling", {}), ("webhooks", {"receiver": True}), ("kills", {"kills": 3, "seed": 5})],
)
def test_no_row_is_lost_and_none_bought_twice_unseen(
    made: faults.World, prints: list[str], name: str, options: dict[str, int]
) -> None:
    story = faults.run(made, name, **options)
    faults.check(story, faults.media_keys(made), prints, kills=options.get("kills", 0))
    assert story.wrong + faults.check_service(made) == []
    assert EXPECTED[name] <= {fault for fault, _ in story.faults}
