from __future__ import annotations

import io
import sqlite3
import tempfile
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from faulty import Forward, acts_then, answers, fails, with_state
from helpers import World

from voiceprint_nb import contract
from voiceprint_nb.analysis.similarity import cosine_matrix, vectors
from voiceprint_nb.batch.outcomes import Request
from voiceprint_nb.batch.store import request_key
from voiceprint_nb.client.uploads import media_key
from voiceprint_nb.intake.looking import digest_of


def bodies(world: World) -> list[bytes]:
    """What was put into the storage."""
    return [sent.content for sent in world.wire.requests if sent.method == "PUT"]


# --- how much may be bought ---------------------------------------------------------------------------------


def test_no_more_is_bought_than_may_be(world: World, clips: list[Path]) -> None:
    world.request = Request(max_new=3)
    ran = world.run(clips)
    assert ran.error is None
    assert sorted(map(str, ran.codes)) == ["None"] * 3 + ["max_new"] * 5
    assert {row.status for row in ran.outcomes if row.error_code} == {"canceled"}
    assert world.wire.created.total() == len(bodies(world)) == 3
    again = world.run(clips)
    assert again.tally.counts() == {"succeeded": 3, "reused": 3, "canceled": 2}
    world.request = Request(max_new=0)
    assert world.run(clips).tally.counts() == {"reused": 6, "canceled": 2}
    assert world.wire.created.total() == 6


def test_equal_clips_are_one_purchase(world: World, clips: list[Path]) -> None:
    world.request = Request(max_new=1)
    assert all(world.run([clips[0]] * 5).prints)


@pytest.mark.parametrize("first", ["job_failed", "request_refused"])
def test_what_came_to_nothing_is_no_purchase(world: World, clips: list[Path], first: str) -> None:
    world.request, world.options = Request(max_new=1), {"in_flight": 1}
    if first == "request_refused":
        world.wire.on("POST", contract.VOICEPRINT_PATH, answers(400))
    ran = world.run(["media://nothing-is-stored-here", clips[0]])
    assert ran.codes == [first, None]


@pytest.mark.parametrize("endpoint", [("POST", contract.MEDIA_INPUT_PATH), ("PUT", "/media/")])
def test_an_upload_that_failed_is_no_purchase(
    world: World, clips: list[Path], endpoint: tuple[str, str]
) -> None:
    world.request, world.options = Request(max_new=1), {"in_flight": 1}
    world.wire.on(*endpoint, *[answers(500)] * 10)
    ran = world.run(clips[:2])
    assert ran.codes[0] in ("service_unavailable", "upload_failed")
    assert ran.codes[1] is None


def test_what_may_have_been_bought_is_a_purchase(world: World, clips: list[Path]) -> None:
    world.request, world.options = Request(max_new=1), {"in_flight": 1}
    world.wire.on("POST", contract.VOICEPRINT_PATH, acts_then(fails(httpx.ReadError)))
    assert world.run(clips[:2]).codes == ["submit_unknown", "max_new"]


# --- uploads ------------------------------------------------------------------------------------------------


def test_an_upload_is_used_again_for_a_day(world: World, clips: list[Path]) -> None:
    now_s = 1_800_000_000.0
    world.clock = lambda: now_s
    world.wire.on("POST", contract.VOICEPRINT_PATH, *[answers(400)] * 24)
    assert set(world.run(clips).codes) == {"request_refused"}
    now_s += 22.9 * 3600
    ran = world.run(clips)
    assert set(ran.codes) == {"request_refused"}
    assert len(bodies(world)) == len(clips)
    assert (ran.tally.uploads.n_reused, ran.tally.uploads.n_bytes) == (len(clips), 0)
    now_s += 0.2 * 3600
    world.run(clips)
    assert len(bodies(world)) == 2 * len(clips)


def test_old_uploads_are_forgotten(world: World, clips: list[Path]) -> None:
    now_s = 1_800_000_000.0
    world.clock = lambda: now_s
    world.run(clips[:3])
    now_s += 25 * 3600
    world.run([])
    with sqlite3.connect(world.data_dir / "ledger.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM uploads").fetchone() == (0,)
    database.close()


def test_an_upload_that_is_gone_is_made_again(world: World, clips: list[Path]) -> None:
    world.request = Request(max_new=1)
    with world.ledger() as ledger:
        ledger.note_upload(request_key("upload", media_key(digest_of(clips[0])), "test"))
    assert all(world.run(clips[:1]).prints)
    assert bodies(world) == [clips[0].read_bytes()]
    assert world.wire.created.total() == 2  # of which one failed, unbilled


@pytest.mark.parametrize("kind", ["stereo", "small"])
def test_compressed_uploads(world: World, tmp_path: Path, clips: list[Path], kind: str) -> None:
    samples, rate_hz = soundfile.read(clips[0])
    path = tmp_path / "clip.ogg"
    if kind == "stereo":
        path = tmp_path / "clip.wav"
        samples = np.stack([samples, samples], axis=1)
    soundfile.write(path, samples, rate_hz)
    plain = world.run([path], keep=False).prints
    world.request = Request(compress=True)
    ran = world.run([path])
    data = bodies(world)[-1]
    if kind == "stereo":
        facts = soundfile.info(io.BytesIO(data))
        assert (facts.samplerate, facts.channels, facts.format) == (16_000, 1, "FLAC")
        assert ran.tally.uploads.saved_bytes == path.stat().st_size - len(data) > 0
    else:  # what is small already goes as it is
        assert data == path.read_bytes()
        assert ran.tally.uploads.saved_bytes == 0
    assert ran.tally.uploads.n_bytes == len(data)
    assert cosine_matrix(vectors([*plain, *ran.prints]))[0, 1] > 0.999
    assert f"{len(data) / 1e6:.1f} MB uploaded" in str(ran.tally.snapshot())
    world.request = Request()
    assert world.run([path]).tally.counts() == {"reused": 1}


def test_no_copy_is_kept_while_jobs_run(
    world: World, clips: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left: list[list[Path]] = []

    async def looks(request: httpx.Request, forward: Forward) -> httpx.Response:
        left.append([path for path in tmp_path.glob("voiceprint_nb-*/*") if path.is_file()])
        return await with_state("running")(request, forward)

    world.wire.on("GET", "/v1/jobs/", *[looks] * 5)
    cells = [path.read_bytes() for path in clips[:2]]
    assert all(world.run(cells).prints)
    assert [] in left


# --- which rows come first ----------------------------------------------------------------------------------


def test_open_jobs_of_the_run_come_first_oldest_first(world: World, clips: list[Path]) -> None:
    world.options = {"in_flight": 1, "deadline_s": lambda duration_s, n_open: 0.01}
    world.wire.on("GET", "/v1/jobs/", *[with_state("running")] * 1000)
    late = world.run([*clips[3:6], *clips[:3]])
    assert set(late.codes) == {"job_timeout"}
    world.wire._rules.clear()
    world.options = {"in_flight": 1}
    world.wire.requests.clear()
    with world.ledger() as ledger:  # as if the others had never begun
        for position in (0, 1):
            ledger.drop(ledger.key_of_row(late.run_id, position) or "", job_id=late.outcomes[position].job_id)
    world.run([*clips[3:6], *clips[:3]], run_id=late.run_id)
    asked = [path.rsplit("/", 1)[1] for path in world.wire.paths("GET") if path.startswith("/v1/jobs/")]
    first = list(dict.fromkeys(asked))[:4]
    assert first == [row.job_id for row in late.outcomes[2:]]


# --- what is told -------------------------------------------------------------------------------------------


def test_requests_are_counted(world: World, clips: list[Path]) -> None:
    world.wire.on("POST", contract.VOICEPRINT_PATH, answers(429, Retry_After="1"))
    ran = world.run(clips)
    assert all(ran.prints)
    told = ran.tally.snapshot().requests
    assert (told["submit"], told["media"], told["refused"]) == (len(clips) + 1, len(clips), 1)
    assert told["read"] + told["list"] == sum(
        path.startswith(("/v1/jobs", "/v2/jobs")) for path in world.wire.paths("GET")
    )


def test_an_earlier_runs_job_that_failed_is_submitted_anew(world: World, clips: list[Path]) -> None:
    world.options = {"deadline_s": lambda duration_s, n_open: 0.01}
    world.wire.on("GET", "/v1/jobs/", *[with_state("running")] * 1000)
    assert world.run(clips[:1]).codes == ["job_timeout"]
    world.wire._rules.clear()
    world.wire.on("GET", "/v1/jobs/", with_state("failed"))
    world.options = {}
    ran = world.run(clips[:1])
    assert all(ran.prints)
    assert world.wire.created.total() == 2  # the first failed, unbilled
