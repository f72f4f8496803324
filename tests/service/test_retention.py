from __future__ import annotations

import asyncio
import base64
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.parts import (
    PRINT,
    TEAM,
    WAIT_S,
    Bureau,
    Receiver,
    job,
    raw,
    silence,
    turned,
    until,
)
from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.service.desk import DEADLINE_S, Desk, DeskFull
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.workbench import LINKS_A_TEAM

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def end(desk: Desk, job_id: str) -> tuple[str, Any]:
    stored = desk.job(TEAM, job_id)
    assert stored is not None
    return stored.status, stored.output


# --- jobs that take too long ----------------------------------------------------------------------------


def test_a_job_that_takes_too_long_is_canceled_and_its_late_result_ignored(
    bureau: Bureau, receiver: Receiver
) -> None:
    timer_s = [0.0]
    bureau.engine.holds = True
    receiver.otherwise = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nRIFF")
    desk = bureau.open(timer=lambda: timer_s[0])
    job_id = desk.submit(TEAM, VoiceprintRequest(f"{receiver.url}/clip")).job_id
    late = bureau.engine.held.get(timeout=WAIT_S)
    assert [path.name for path in (bureau.folder / "downloads").iterdir()] == ["1"]
    timer_s[0] = DEADLINE_S - 0.1
    bureau.engine.holds = False
    turned(desk)
    assert end(desk, job_id) == ("running", None)
    timer_s[0] = DEADLINE_S
    desk.wake()
    assert desk.wait_idle(WAIT_S)
    assert end(desk, job_id) == ("canceled", {"error": "Stopped: the work took longer than 600 s"})
    assert not list((bureau.folder / "downloads").iterdir())
    assert late.cancelled()
    turned(desk)
    assert end(desk, job_id)[0] == "canceled"
    assert (desk.n_open, desk.is_alive) == (0, True)


def test_a_result_after_the_end_changes_nothing(bureau: Bureau) -> None:
    timer_s = [0.0]
    bureau.engine.holds = True
    desk = bureau.open(timer=lambda: timer_s[0])
    job_id = desk.submit(TEAM, job()).job_id
    late = bureau.engine.held.get(timeout=WAIT_S)
    assert late.set_running_or_notify_cancel()  # a worker has it: it cannot be canceled any more
    timer_s[0] = DEADLINE_S
    desk.wake()
    assert desk.wait_idle(WAIT_S)
    late.set_result(np.zeros(1, np.float32))
    bureau.engine.holds = False
    turned(desk)
    assert end(desk, job_id)[0] == "canceled"
    assert desk.n_open == 0


def stalling(handler: Any) -> None:
    raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nRIFF")(handler)
    silence(handler)


def test_a_download_that_takes_too_long_is_stopped(bureau: Bureau, receiver: Receiver) -> None:
    timer_s = [0.0]
    receiver.otherwise = stalling
    desk = bureau.open(timer=lambda: timer_s[0])
    job_id = desk.submit(TEAM, VoiceprintRequest(f"{receiver.url}/clip")).job_id
    until(lambda: list((bureau.folder / "downloads").iterdir()))
    timer_s[0] = DEADLINE_S
    desk.wake()
    assert desk.wait_idle(WAIT_S)
    assert end(desk, job_id)[0] == "canceled"
    until(lambda: not list((bureau.folder / "downloads").iterdir()))


def test_a_job_that_waits_for_a_day_is_canceled_at_a_sweep(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open(in_flight=1, max_waiting=3)
    running = desk.submit(TEAM, job()).job_id
    held = bureau.engine.held.get(timeout=WAIT_S)
    bureau.clock.now_s += 1
    old = desk.submit(TEAM, job()).job_id
    bureau.clock.now_s += DAY_S / 2
    young = desk.submit(TEAM, job()).job_id
    with pytest.raises(DeskFull):
        desk.submit(TEAM, job())
    bureau.clock.now_s += DAY_S / 2
    assert end(desk, old) == ("created", None)
    bureau.clock.now_s += HOUR_S  # a turn may have swept a moment too early
    desk.wake()
    until(lambda: end(desk, old)[0] == "canceled")
    assert end(desk, old)[1] == {"error": "Stopped: the job waited longer than its upload is kept"}
    assert (end(desk, running)[0], end(desk, young)[0]) == ("running", "created")
    assert desk.n_open == 2
    last = desk.submit(TEAM, job()).job_id  # there is room again
    bureau.engine.holds = False
    held.set_result(np.zeros(1, np.float32))
    assert desk.wait_idle(WAIT_S)
    assert [end(desk, each)[0] for each in (running, young, last)] == ["succeeded"] * 3
    assert desk.n_open == 0


def test_what_a_worker_has_not_begun_is_created_again_at_closing(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open(in_flight=2)
    ids = [desk.submit(TEAM, job()).job_id for _ in range(3)]
    begun, _ = (bureau.engine.held.get(timeout=WAIT_S) for _ in range(2))
    assert begun.set_running_or_notify_cancel()
    assert not desk.close(timeout_s=0.1)
    until(
        lambda: (
            bureau.rows("SELECT status FROM jobs ORDER BY seq") == [("running",), ("created",), ("created",)]
        )
    )
    begun.set_result(np.zeros(1, np.float32))
    assert desk.close()
    rows = bureau.rows("SELECT id, status, url FROM jobs ORDER BY seq")
    assert rows == [
        (ids[0], "succeeded", None),
        (ids[1], "created", "media://a"),
        (ids[2], "created", "media://a"),
    ]


# --- forgetting -----------------------------------------------------------------------------------------


def on_disk(bureau: Bureau, text: str) -> bool:
    """Whether any piece of a text lies in the table's files."""
    pieces = [
        text[start : start + 30].encode() for start in range(0, len(text), 30) if start + 30 <= len(text)
    ]
    files = [path.read_bytes() for path in bureau.folder.glob("jobs.sqlite3*")]
    return any(piece in data for piece in pieces for data in files)


@pytest.mark.parametrize("n_bytes", [300, 6_000], ids=["within a page", "over pages"])
def test_the_bytes_of_what_is_forgotten_are_gone(bureau: Bureau, receiver: Receiver, n_bytes: int) -> None:
    texts = [f"{receiver.url}/hook/{secrets.token_hex(60)}", f"{receiver.url}/{secrets.token_hex(60)}"]

    def voiceprint(vector: object) -> str:
        texts.append(base64.b64encode(secrets.token_bytes(n_bytes)).decode())
        return texts[-1]

    receiver.otherwise = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nRIFF")
    desk = bureau.open(voiceprint=voiceprint)
    ids = [desk.submit(TEAM, VoiceprintRequest(texts[1], None, texts[0])).job_id for _ in range(20)]
    assert desk.wait_idle(WAIT_S)
    until(lambda: not bureau.rows("SELECT 1 FROM deliveries"))
    assert [on_disk(bureau, text) for text in texts] == [True] * 22
    bureau.clock.now_s += DAY_S
    desk.wake()
    turned(desk)
    assert "voiceprint" in end(desk, ids[0])[1]
    bureau.clock.now_s += HOUR_S
    desk.wake()
    until(lambda: not any(on_disk(bureau, text) for text in texts[:22]))
    assert {end(desk, each) for each in ids} == {("succeeded", None)}


def test_records_go_after_thirty_days_but_not_before_their_webhook(bureau: Bureau) -> None:
    with Receiver(500, 500) as receiver:
        desk = bureau.open()
        told = desk.submit(TEAM, job()).job_id
        untold = desk.submit(TEAM, job(receiver.url)).job_id
        until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 2"))
        receiver.otherwise = silence
        bureau.clock.now_s += 30 * DAY_S
        desk.wake()
        assert len([receiver.next() for _ in range(3)]) == 3  # the third is being made
        assert end(desk, told) == end(desk, untold) == ("succeeded", None)
        bureau.clock.now_s += HOUR_S
        desk.wake()
        until(lambda: desk.job(TEAM, told) is None)
        assert end(desk, untold) == ("succeeded", None)
        receiver.released.set()
        until(lambda: bureau.rows("SELECT 1 FROM deliveries WHERE attempt = 3"))
        bureau.clock.now_s += HOUR_S
        desk.wake()
        until(lambda: not bureau.rows("SELECT 1 FROM deliveries"))
        bureau.clock.now_s += HOUR_S
        desk.wake()
        until(lambda: desk.job(TEAM, untold) is None)


def test_a_running_job_is_never_forgotten(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open()
    job_id = desk.submit(TEAM, job()).job_id
    held = bureau.engine.held.get(timeout=WAIT_S)
    bureau.clock.now_s += 31 * DAY_S
    bureau.engine.holds = False
    turned(desk)
    assert end(desk, job_id) == ("running", None)
    held.set_result(np.zeros(1, np.float32))
    assert desk.wait_idle(WAIT_S)
    assert end(desk, job_id) == ("succeeded", {"voiceprint": PRINT})


def test_uploads_go_between_one_and_two_days(bureau: Bureau) -> None:
    media = MediaStore(bureau.folder / "media", clock=bureau.clock)
    desk = bureau.open(media=media)
    asyncio.run(media.write(TEAM, "media://a", pieces(b"RIFF")))
    for hours in (24, 12):
        bureau.clock.now_s += hours * HOUR_S
        turned(desk)
        assert media.path(TEAM, "media://a").exists()
    asyncio.run(media.write(TEAM, "media://b", pieces(b"RIFF")))
    bureau.clock.now_s += HOUR_S
    turned(desk)
    assert not media.path(TEAM, "media://a").exists()
    assert media.path(TEAM, "media://b").exists()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_an_upload_that_cannot_be_deleted_keeps_no_other(
    bureau: Bureau, caplog: pytest.LogCaptureFixture
) -> None:
    media = MediaStore(bureau.folder / "media", clock=bureau.clock)
    folder = media.path(TEAM, "media://odd")
    folder.mkdir()
    for name in ("a", "b", "c"):
        media.path(TEAM, f"media://{name}").write_bytes(b"RIFF")
    for path in folder.parent.iterdir():
        os.utime(path, (0, 0))
    desk = bureau.open(media=media)
    turned(desk)
    assert list(folder.parent.iterdir()) == [folder]
    assert desk.is_alive
    assert "cannot be deleted" in caplog.text


def test_an_upload_that_replaces_an_old_one_during_a_sweep_stays(tmp_path: Path) -> None:
    media = MediaStore(tmp_path)
    path, over = media.path(TEAM, "media://a"), threading.Event()
    for n in range(50):
        media.path(TEAM, f"media://{n}").touch()

    def sweep() -> None:
        while not over.is_set():
            media.expire()

    with ThreadPoolExecutor(1) as thread:
        sweeping = thread.submit(sweep)
        try:
            for _ in range(300):
                path.touch()
                with suppress(FileNotFoundError):
                    os.utime(path, (0, 0))
                asyncio.run(media.write(TEAM, "media://a", pieces(b"RIFF")))
                media.expire()
                assert path.exists()
        finally:
            over.set()
        sweeping.result()


def test_a_link_secret_that_a_power_cut_emptied_is_made_anew(tmp_path: Path) -> None:
    MediaStore(tmp_path)
    (tmp_path / "link.secret").write_bytes(b"")
    link = MediaStore(tmp_path).link("PUT", TEAM, "media://a", base_url="http://service")
    assert len((tmp_path / "link.secret").read_bytes()) == 32
    assert MediaStore(tmp_path).opened("PUT", link.rpartition("/")[2]) == (TEAM, "media://a")


def test_sweeps_come_at_the_start_and_every_hour_whatever_the_clock_does(bureau: Bureau) -> None:
    def swept_after(passed_s: float) -> bool:
        bureau.rows("UPDATE jobs SET output = '{}', updated_ms = 0 WHERE team = ?", TEAM)
        bureau.clock.now_s += passed_s
        turned(desk)
        return not bureau.rows("SELECT 1 FROM jobs WHERE team = ? AND output IS NOT NULL", TEAM)

    desk = bureau.open()
    desk.submit(TEAM, job())
    assert desk.wait_idle(WAIT_S)
    assert not swept_after(HOUR_S - 0.5)
    assert desk.close()
    desk = bureau.open()
    turned(desk)
    assert not bureau.rows("SELECT 1 FROM jobs WHERE team = ? AND output IS NOT NULL", TEAM)
    bureau.rows("UPDATE jobs SET created_ms = ?", 10**15)  # or the record would go, too
    assert not swept_after(HOUR_S - 0.5)
    assert swept_after(0.5)
    assert not swept_after(0.5)
    assert swept_after(-365 * DAY_S)
    assert not swept_after(HOUR_S - 0.5)
    assert swept_after(0.5)


# --- what goes wrong with one job -----------------------------------------------------------------------


class Refusing:
    """An engine that was closed."""

    busy_s = 0.0

    def submit(self, load: object) -> Any:
        raise RuntimeError("this engine is closed: /home/me/model.onnx")


def no_engine(bureau: Bureau) -> Desk:
    return bureau.open(engine=Refusing())


def no_text(bureau: Bureau) -> Desk:
    def voiceprint(vector: object) -> str:
        raise ValueError("not finite: /home/me")

    return bureau.open(voiceprint=voiceprint)


def no_client(bureau: Bureau) -> Desk:
    def new_client() -> Any:
        raise FileNotFoundError("/home/me/certificates.pem")

    return bureau.open(new_client=new_client)


class Canceling(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise asyncio.CancelledError


def canceled_by_nobody(bureau: Bureau) -> Desk:
    return bureau.open(new_client=lambda: httpx.AsyncClient(transport=Canceling()))


def no_room_for_the_file(bureau: Bureau) -> Desk:
    desk = bureau.open()
    for seq in range(1, 10):
        (bureau.folder / "downloads" / str(seq)).mkdir()
    return desk


@pytest.mark.parametrize(
    ("opened", "scheme"),
    [(no_engine, "media"), (no_engine, "http"), (no_text, "media"), (no_client, "http"),
     (canceled_by_nobody, "http"), (no_room_for_the_file, "http")],
)  # fmt: skip
def test_a_fault_ends_one_job_and_nothing_else(
    bureau: Bureau, receiver: Receiver, caplog: pytest.LogCaptureFixture, opened: Any, scheme: str
) -> None:
    receiver.otherwise = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nRIFF")
    url = "media://a" if scheme == "media" else receiver.url
    desk = opened(bureau)
    ids = [desk.submit(TEAM, VoiceprintRequest(url)).job_id for _ in range(3)]
    assert desk.wait_idle(WAIT_S)
    assert [end(desk, each) for each in ids] == [("failed", {"error": "Internal error of the service"})] * 3
    assert desk.is_alive
    assert "fault of the service" in caplog.text


def test_slow_downloads_hold_up_no_webhook(bureau: Bureau, receiver: Receiver) -> None:
    with Receiver() as slow:
        slow.otherwise = silence
        desk = bureau.open()
        for _ in range(140):
            desk.submit(TEAM, VoiceprintRequest(slow.url))
        until(lambda: slow.n_busy == LINKS_A_TEAM)
        desk.submit(TEAM, job(receiver.url))
        assert bureau.meter.outcomes.get(timeout=WAIT_S) == "delivered"
        assert slow.most_busy == LINKS_A_TEAM
        assert desk.close()


# --- what goes wrong with everything --------------------------------------------------------------------


def test_a_table_that_fails_is_told_and_work_goes_on_when_it_is_mended(
    bureau: Bureau, caplog: pytest.LogCaptureFixture
) -> None:
    bureau.engine.holds = True
    desk = bureau.open()
    job_id = desk.submit(TEAM, job()).job_id
    held = bureau.engine.held.get(timeout=WAIT_S)
    until(lambda: end(desk, job_id)[0] == "running")
    assert desk.is_alive
    bureau.rows("ALTER TABLE jobs RENAME TO hidden")
    held.set_result(np.zeros(1, np.float32))
    until(lambda: not desk.is_alive)
    for _ in range(2):
        with pytest.raises(sqlite3.Error):
            desk.submit(TEAM, job())
    assert desk.n_open == 1
    assert not desk.wait_idle(0.05)
    bureau.rows("ALTER TABLE hidden RENAME TO jobs")
    desk.wake()
    assert desk.wait_idle(WAIT_S)
    assert end(desk, job_id) == ("succeeded", {"voiceprint": PRINT})
    until(lambda: desk.is_alive)
    assert desk.n_open == 0
    assert "jobs are not worked on" in caplog.text
    assert "worked on again" in caplog.text


def test_the_clerk_tries_again_by_itself(bureau: Bureau) -> None:
    desk = bureau.open()
    bureau.rows("ALTER TABLE jobs RENAME TO hidden")
    desk.wake()
    until(lambda: not desk.is_alive)
    bureau.rows("ALTER TABLE hidden RENAME TO jobs")
    until(lambda: desk.is_alive)


def test_closing_ends_though_the_table_fails(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open()
    job_id = desk.submit(TEAM, job()).job_id
    bureau.engine.held.get(timeout=WAIT_S)
    until(lambda: end(desk, job_id)[0] == "running")
    bureau.rows("ALTER TABLE jobs RENAME TO hidden")
    assert desk.close()
    with pytest.raises(RuntimeError, match="closed"):
        desk.submit(TEAM, job())
    assert not desk.is_alive
    bureau.rows("ALTER TABLE hidden RENAME TO jobs")
    bureau.engine.holds = False
    again = bureau.open()
    assert again.wait_idle(WAIT_S)
    assert end(again, job_id)[0] == "succeeded"


def test_a_desk_that_cannot_open_gives_the_folder_back(bureau: Bureau) -> None:
    odd = bureau.folder / "media" / "incoming" / "odd"
    odd.mkdir(parents=True)
    with pytest.raises(OSError, match="odd"):
        bureau.open()
    odd.rmdir()
    turned(bureau.open())


def test_requests_that_do_not_end_do_not_keep_the_desk_open(bureau: Bureau, receiver: Receiver) -> None:
    receiver.otherwise = silence
    desk = bureau.open()
    for _ in range(3):
        desk.submit(TEAM, VoiceprintRequest(receiver.url))
    until(lambda: receiver.n_busy == 3)
    began_s = time.monotonic()
    assert desk.close()
    assert time.monotonic() - began_s < 5
    assert bureau.rows("SELECT DISTINCT status FROM jobs") == [("created",)]
