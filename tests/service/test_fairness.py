"""What one team sends holds up no other."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.service.parts import WAIT_S, Bureau, Receiver, job, raw, silence, until
from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.service.addresses import guarded_client
from voiceprint_nb.service.desk import Desk, DeskFull
from voiceprint_nb.service.webhooks import AT_ONCE_A_HOST, AT_ONCE_A_TEAM
from voiceprint_nb.service.workbench import ALONE_AFTER_S, LINKS, LINKS_A_TEAM

NAMES = [f"host{n}.example" for n in range(12)]
CLIP = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nRIFF")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


@pytest.fixture
def slow() -> Iterator[Receiver]:
    with Receiver() as server:
        server.otherwise = silence
        yield server


@pytest.fixture
def bureau(tmp_path: Path, receiver: Receiver, slow: Receiver) -> Iterator[Bureau]:
    """Desks, closed before the servers are."""
    desks = Bureau(tmp_path)
    yield desks
    desks.close()


def running(bureau: Bureau) -> list[str]:
    """The teams of the jobs in work."""
    rows = bureau.rows("SELECT team FROM jobs WHERE status = 'running' ORDER BY team")
    return [team for (team,) in rows]


def ends(desk: Desk, team: str, job_id: str, status: str = "succeeded") -> bool:
    return until(lambda: getattr(desk.job(team, job_id), "status", "") == status)


# --- the engine -----------------------------------------------------------------------------------------


def test_teams_take_turns_at_a_single_place(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open(in_flight=1)
    for team in ["ada"] * 5 + ["bob"] * 2 + ["eve"]:
        desk.submit(team, job())
    order = []
    for _ in range(8):
        held = bureau.engine.held.get(timeout=WAIT_S)
        order += running(bureau)
        held.set_result(np.zeros(1, np.float32))
    assert order == ["ada", "bob", "eve", "ada", "bob", "ada", "ada", "ada"]


def test_places_are_shared_whatever_jobs_last(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open(in_flight=4)
    for _ in range(8):
        desk.submit("ada", job())
    held = [bureau.engine.held.get(timeout=WAIT_S) for _ in range(4)]
    assert running(bureau) == ["ada"] * 4
    for _ in range(8):
        desk.submit("bob", job())
    for future in held[:2]:
        future.set_result(np.zeros(1, np.float32))
    held = held[2:] + [bureau.engine.held.get(timeout=WAIT_S) for _ in range(2)]
    assert running(bureau) == ["ada", "ada", "bob", "bob"]
    held.pop().set_result(np.zeros(1, np.float32))  # bob's: the place is his again
    bureau.engine.held.get(timeout=WAIT_S)
    assert running(bureau) == ["ada", "ada", "bob", "bob"]


# --- links ----------------------------------------------------------------------------------------------


def test_slow_links_hold_up_neither_uploads_nor_other_teams(
    bureau: Bureau, receiver: Receiver, slow: Receiver
) -> None:
    receiver.otherwise = CLIP
    desk = bureau.open(in_flight=2)
    for _ in range(2 * LINKS):
        desk.submit("ada", VoiceprintRequest(slow.url))
    until(lambda: slow.n_busy == LINKS_A_TEAM)
    for team, request in [
        ("ada", job()),
        ("bob", job()),
        ("bob", VoiceprintRequest(receiver.url)),
    ]:
        assert ends(desk, team, desk.submit(team, request).job_id)
    assert slow.most_busy == LINKS_A_TEAM
    assert desk.close()


def test_links_of_all_teams_have_a_bound(bureau: Bureau, slow: Receiver) -> None:
    desk = bureau.open()
    for n in range(4 * LINKS_A_TEAM):
        desk.submit(f"team {n % 4}", VoiceprintRequest(slow.url))
    until(lambda: slow.n_busy == LINKS)
    assert ends(desk, "eve", desk.submit("eve", job()).job_id)
    assert slow.most_busy == LINKS
    assert [running(bureau).count(f"team {n}") for n in range(4)] == [LINKS // 4] * 4
    assert desk.close()


# --- the queue ------------------------------------------------------------------------------------------


def test_one_team_may_fill_the_desk_until_another_comes(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open(in_flight=6, max_waiting=6)

    def end_one() -> None:
        n_open = desk.n_open
        bureau.engine.held.get(timeout=WAIT_S).set_result(np.zeros(1, np.float32))
        until(lambda: desk.n_open == n_open - 1)

    def is_taken(team: str) -> bool:
        try:
            return bool(desk.submit(team, job()))
        except DeskFull:
            return False

    assert [is_taken("ada") for _ in range(7)] == [True] * 6 + [False]
    end_one()
    assert is_taken("ada")  # nobody else has come
    assert not is_taken("bob")
    end_one()
    assert not is_taken("ada")  # it is bob's turn
    assert [is_taken("bob"), is_taken("bob")] == [True, False]
    for n_ada in (4, 3):
        end_one()
        assert desk.n_open == n_ada + 1
        assert not is_taken("ada")
    end_one()
    assert [is_taken("ada"), is_taken("ada")] == [True, False]
    assert [is_taken("bob"), is_taken("bob"), is_taken("bob")] == [True, True, False]


def test_a_team_that_was_refused_and_came_no_more_is_forgotten(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open(in_flight=4, max_waiting=4)
    for _ in range(4):
        desk.submit("ada", job())
    with pytest.raises(DeskFull):
        desk.submit("bob", job())
    for n_open in (3, 2, 1):
        bureau.engine.held.get(timeout=WAIT_S).set_result(np.zeros(1, np.float32))
        until(lambda n_open=n_open: desk.n_open == n_open)
    for _ in range(3):
        desk.submit("ada", job())
    assert desk.n_open == 4


def test_the_count_of_teams_outlives_the_desk(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open(max_waiting=4)
    for team in ("ada", "ada", "bob"):
        desk.submit(team, job())
    assert desk.close()
    desk = bureau.open(max_waiting=4)
    with pytest.raises(DeskFull):
        desk.submit("ada", job())
    desk.submit("bob", job())
    assert desk.n_open == 4


# --- webhooks -------------------------------------------------------------------------------------------


async def _loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def test_hosts_that_hang_hold_up_no_webhook_of_another_team(
    bureau: Bureau, receiver: Receiver, slow: Receiver
) -> None:
    desk = bureau.open(new_client=partial(guarded_client, allowed_hosts=NAMES, resolve=_loopback))
    for n in range(20 * len(NAMES)):
        desk.submit("ada", job(f"http://{NAMES[n % 12]}:{slow.server_port}/"))
    until(lambda: slow.n_busy == AT_ONCE_A_TEAM)
    for _ in range(20):
        desk.submit("bob", job(f"http://{NAMES[0]}:{receiver.server_port}/"))
    assert [bureau.meter.outcomes.get(timeout=WAIT_S) for _ in range(20)] == ["delivered"] * 20
    assert slow.most_busy == AT_ONCE_A_TEAM
    assert receiver.most_busy <= AT_ONCE_A_HOST
    assert desk.close()


# --- clips that kill ------------------------------------------------------------------------------------

LIFE = """
import itertools, os, signal, sys
from concurrent.futures import Future
from pathlib import Path
import numpy as np
from tests.service.parts import Bureau
from voiceprint_nb.contract import VoiceprintRequest

class Mortal:
    busy_s = 0.0
    def submit(self, load):
        if load.args[0].name == "lethal":
            os.kill(os.getpid(), signal.SIGKILL)
        future = Future()
        if not urls:  # else the first life, and the second, keep all in the engine
            future.set_result(np.zeros(1, np.float32))
        return future

folder, webhook, *urls = sys.argv[1:]
timer = itertools.chain([0.0], itertools.repeat(0.0 if urls else 10.0)).__next__
desk = Bureau(Path(folder)).open(engine=Mortal(), timer=timer)
if urls != ["again"]:
    for url in urls:
        desk.submit("ada", VoiceprintRequest(url, None, webhook if "lethal" in url else None))
desk.wait_idle(30)
"""


def test_a_clip_that_kills_the_process_ends_after_five_starts_and_takes_no_other_along(
    bureau: Bureau, receiver: Receiver
) -> None:
    def live(*urls: str) -> int:
        command = [sys.executable, "-c", LIFE, str(bureau.folder), receiver.url, *urls]
        return subprocess.run(command, cwd=Path(__file__).parents[2], timeout=60, check=False).returncode

    def rows() -> list[tuple[str, int]]:
        return bureau.rows("SELECT status, starts FROM jobs ORDER BY seq")

    assert live("file:///a", "file:///b", "file:///c", "file:///lethal") == -signal.SIGKILL
    assert rows() == [("running", 1)] * 4
    assert live("again") == -signal.SIGKILL
    assert rows() == [("running", 2)] * 4
    for n in (3, 4, 5):
        assert live() == -signal.SIGKILL
        assert rows() == [("succeeded", 3)] * 3 + [("running", n)]
    desk = bureau.open()
    (job_id,) = (each for (each,) in bureau.rows("SELECT id FROM jobs WHERE seq = 4"))
    assert json.loads(receiver.next().body) == {"jobId": job_id, "status": "failed"}
    stored = desk.job("ada", job_id)
    assert stored is not None
    assert str(stored.error).startswith("Internal error of the service: it broke off")
    assert desk.n_open == 0
    assert bureau.engine.held.empty()


def test_a_suspect_waits_a_little_and_has_the_engine_for_itself(bureau: Bureau, slow: Receiver) -> None:
    def finish() -> None:
        bureau.engine.held.get(timeout=WAIT_S).set_result(np.zeros(1, np.float32))

    timer_s = [0.0]
    bureau.engine.holds = True
    desk = bureau.open()
    ids = [desk.submit("ada", job()).job_id for _ in range(2)]
    assert desk.close()
    assert bureau.rows("SELECT status, starts FROM jobs") == [("created", 0)] * 2
    bureau.rows("UPDATE jobs SET starts = 2")
    bureau.engine.held = type(bureau.engine.held)()
    desk = bureau.open(timer=lambda: timer_s[0])
    link = desk.submit("eve", VoiceprintRequest(slow.url)).job_id
    until(lambda: slow.n_busy == 1)
    ids = [desk.submit("bob", job()).job_id, *ids]
    assert ends(desk, "bob", ids[0], "running")
    timer_s[0] = ALONE_AFTER_S
    ids.append(desk.submit("bob", job()).job_id)
    for n in range(3):
        finish()
        assert ends(desk, "ada" if n < 2 else "bob", ids[n + 1], "running")
        assert running(bureau) == (["ada", "eve"] if n < 2 else ["bob", "eve"])
    finish()
    assert ends(desk, "bob", ids[-1])
    assert ends(desk, "eve", link, "running")
    assert desk.close()


def test_a_suspect_is_taken_up_without_a_note(bureau: Bureau) -> None:
    bureau.engine.holds = True
    desk = bureau.open()
    job_id = desk.submit("ada", job()).job_id
    assert desk.close()
    bureau.rows("UPDATE jobs SET starts = 4")
    bureau.engine.holds = False
    began_s, first = time.monotonic(), itertools.chain([0.0], itertools.repeat(ALONE_AFTER_S - 0.2))
    desk = bureau.open(timer=lambda: (offset_s := next(first)) and offset_s + time.monotonic() - began_s)
    assert ends(desk, "ada", job_id)


@pytest.mark.parametrize("link", [False, True])
def test_only_what_the_engine_has_is_suspected(
    bureau: Bureau, receiver: Receiver, slow: Receiver, link: bool
) -> None:
    receiver.otherwise = CLIP
    bureau.engine.holds = True
    desk = bureau.open()
    desk.submit("ada", VoiceprintRequest(slow.url))
    desk.submit("ada", VoiceprintRequest(receiver.url if link else "media://a"))
    bureau.engine.held.get(timeout=WAIT_S)
    until(lambda: slow.n_busy == 1)
    assert bureau.rows("SELECT status, starts FROM jobs ORDER BY seq") == [("running", 0), ("running", 1)]
    assert desk.close()
    assert bureau.rows("SELECT status, starts FROM jobs ORDER BY seq") == [("created", 0)] * 2
