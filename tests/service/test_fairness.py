"""What one team sends holds up no other."""

from __future__ import annotations

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
from voiceprint_nb.service.workbench import LINKS, LINKS_A_TEAM

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
