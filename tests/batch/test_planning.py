"""What is planned is what a run then does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faulty import write_clip
from helpers import World

from voiceprint_nb import contract
from voiceprint_nb.batch.orders import earlier_upload
from voiceprint_nb.batch.outcomes import Outcome, Request
from voiceprint_nb.batch.planning import (
    Looked,
    Totals,
    cost_of,
    look_at,
    minutes_at_limits,
    sorted_out,
    totals,
)
from voiceprint_nb.batch.progress import Tally
from voiceprint_nb.batch.store import Ledger
from voiceprint_nb.errors import UsageError


def look(world: World, cells: list[object]) -> list[Looked]:
    return asyncio.run(look_at(cells, world.request, Tally(len(cells)), service=world.service()))


def planned(world: World, cells: list[object]) -> tuple[list[str], Totals]:
    looked = look(world, cells)
    with world.ledger() as ledger:
        kinds, n_unclear = sorted_out(looked, ledger.find)

        def is_uploaded(digest: str) -> bool:
            found = earlier_upload(ledger, world.service(), digest, compress=world.request.compress)
            return found is not None

        return list(kinds), totals(looked, kinds, n_unclear=n_unclear, is_uploaded=is_uploaded)


def put(world: World) -> tuple[int, int]:
    """Uploads, and their bytes."""
    sizes = [len(sent.content) for sent in world.wire.requests if sent.method == "PUT"]
    return len(sizes), sum(sizes)


@contextmanager
def noted(world: World, clips: list[Path]) -> Iterator[tuple[Ledger, list[str]]]:
    """The ledger, and the names of the clips' requests in it."""
    keys = [row.key or "" for row in look(world, list(clips))]
    with world.ledger() as ledger:
        yield ledger, keys


@pytest.mark.parametrize("compress", [False, True])
def test_a_run_buys_and_uploads_what_was_planned(world: World, clips: list[Path], compress: bool) -> None:
    world.request = Request(compress=compress)
    cells = [clips[0], clips[1], clips[0], clips[2].read_bytes(), "no such file", None]
    kinds, sums = planned(world, cells)
    assert kinds == ["new", "new", "duplicate", "new", "invalid", "invalid"]
    assert world.wire.requests == []
    ran = world.run(cells)
    assert ran.codes[-2:] == ["file_not_found", "empty_cell"]
    assert sums.to_buy == world.wire.created.total() == 3
    assert (sums.n_uploads, sums.upload_bytes) == put(world)
    assert (sums.upload_bytes < sum(clip.stat().st_size for clip in clips[:3])) is compress
    assert sums.reasons == {"file_not_found": 1, "empty_cell": 1}
    assert sums.audio_s == pytest.approx(3 * 1.7)
    assert sums.billed_s == 60.0

    kinds, sums = planned(world, cells)
    assert kinds == ["reused"] * 4 + ["invalid"] * 2
    assert (sums.to_buy, sums.n_uploads, sums.upload_bytes, sums.billed_s) == (0, 0, 0, 0.0)


def test_what_the_ledger_knows_decides(world: World, clips: list[Path]) -> None:
    with noted(world, clips[:5]) as (ledger, keys):
        for key in keys[:4]:
            ledger.claim(key)
        for key in keys[:2]:
            ledger.opened(key, f"job-{key}")
        ledger.succeeded(keys[0], voiceprint="secret", warning=None)
        ledger.abandon(keys[3])
    kinds, sums = planned(world, [*clips[:5], *clips[:5]])
    assert kinds == ["reused", "open", "open", "new", "new", "reused", *["duplicate"] * 4]
    assert (sums.to_buy, sums.reused, sums.open, sums.duplicates, sums.invalid) == (2, 2, 2, 4, 0)
    assert sums.unclear == 1
    assert sums.n_rows == 10


def test_an_earlier_upload_is_not_sent_again(world: World, clips: list[Path]) -> None:
    cells: list[object] = list(clips[:3])
    run_id = world.run(cells).run_id
    with world.ledger() as ledger:
        ledger.forget([run_id])
    _, sums = planned(world, [*cells, clips[3]])
    assert (sums.to_buy, sums.n_uploads, sums.upload_bytes) == (4, 1, clips[3].stat().st_size)


def test_the_request_is_named_as_by_a_run(world: World, clips: list[Path]) -> None:
    world.run([clips[0]])
    assert planned(world, [clips[0]])[0] == ["reused"]
    world.request = Request(model="precision-3")
    assert planned(world, [clips[0]])[0] == ["new"]
    world.request, world.options = Request(), {"identity": "another"}
    assert planned(world, [clips[0]])[0] == ["new"]


def test_nothing_is_uploaded_to_a_service_that_reads_files(world: World, clips: list[Path]) -> None:
    world.options = {"sees_files": True}
    _, sums = planned(world, [clips[0], "media://kept-there"])
    assert (sums.to_buy, sums.n_uploads, sums.upload_bytes) == (2, 0, 0)


def test_each_print_is_billed_for_twenty_seconds_at_least(world: World, tmp_path: Path) -> None:
    long = write_clip(tmp_path / "long.wav", seed=1, duration_s=25.0)
    short = write_clip(tmp_path / "short.wav", seed=2, duration_s=3.0)
    _, sums = planned(world, [long, short, short])
    assert sums.audio_s == pytest.approx(28.0)
    assert sums.billed_s == pytest.approx(45.0)
    unmeasured = planned(world, ["media://kept-there"])[1]
    assert (unmeasured.audio_s, unmeasured.billed_s) == (0.0, contract.MAX_DURATION_S)


def of(*, to_buy: int, n_uploads: int = 0, n_open: int = 0) -> Totals:
    new = [
        Looked(Outcome("ok", duration_s=1.0), str(n), str(n) if n < n_uploads else None, upload_bytes=10)
        for n in range(to_buy)
    ]
    collected = [Looked(Outcome("ok", duration_s=1.0), f"open-{n}") for n in range(n_open)]
    return totals(new + collected, ["new"] * to_buy + ["open"] * n_open)


@pytest.mark.parametrize(
    ("sums", "minutes"),
    [
        (of(to_buy=0), 0.0),
        (of(to_buy=1000), 10.0),
        (of(to_buy=1000, n_uploads=1000), 10.0),
        (of(to_buy=0, n_open=600), 2.0),
        (of(to_buy=100, n_open=500), 2.0),
        (of(to_buy=300, n_open=300), 3.0),
    ],
)
def test_minutes_come_from_the_slowest_group_of_endpoints(sums: Totals, minutes: float) -> None:
    assert minutes_at_limits(sums) == minutes


def test_cost() -> None:
    sums = of(to_buy=90, n_open=10)
    assert cost_of(sums) is None
    assert cost_of(sums, price_per_print=0.5) == 45.0
    assert cost_of(sums, price_per_hour=2.0) == pytest.approx(1.0)
    assert cost_of(of(to_buy=0), price_per_print=0.5) == 0.0


def test_no_rows(world: World) -> None:
    kinds, sums = planned(world, [])
    assert kinds == []
    assert sums == totals([], [])


def test_a_full_disk_is_told_in_a_sentence(
    world: World, clips: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("voiceprint_nb.scratch.new_folder", lambda: tmp_path / "gone")
    with pytest.raises(UsageError, match="temporary file could not be written"):
        look(world, [clips[0].read_bytes()] * 3)
