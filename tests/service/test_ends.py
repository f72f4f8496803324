"""Ends of jobs told inside the process: to who listens before, after and beside each other."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from voiceprint_nb.contract import Job, VoiceprintRequest
from voiceprint_nb.service.ends import Ends
from voiceprint_nb.service.local import LocalService


class Table:
    """Jobs as a test sets them."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, str], Job] = {}
        self.looked_for: list[str] = []

    def put(self, status: str, *, team: str = "ours", job_id: str = "a") -> tuple[str, Job]:
        job = self.jobs[team, job_id] = Job(job_id, status, "2025-11-18T12:37:14Z", None, None)
        return team, job

    def find(self, team: str, job_id: str) -> Job | None:
        self.looked_for.append(job_id)
        return self.jobs.get((team, job_id))


def tell(ends: Ends, named: tuple[str, Job]) -> None:
    team, job = named
    ends.tell([(team, job.job_id)], lambda _: job)


@pytest.fixture
def table() -> Table:
    return Table()


def test_an_end_is_told_once_it_has_come_and_not_before(table: Table) -> None:
    ends, heard = Ends(table.find), list[Job]()
    table.put("running")
    ends.listen("ours", "a", heard.append)
    tell(ends, table.put("succeeded", job_id="b"))
    assert heard == []
    tell(ends, table.put("failed"))
    assert [job.status for job in heard] == ["failed"]


def test_who_comes_late_hears_at_once(table: Table) -> None:
    ends, heard = Ends(table.find), list[Job]()
    table.put("succeeded")
    ends.listen("ours", "a", heard.append)
    assert [job.job_id for job in heard] == ["a"]


def test_another_teams_job_is_not_told(table: Table) -> None:
    ends, heard = Ends(table.find), list[Job]()
    table.put("succeeded")
    ends.listen("theirs", "a", heard.append)
    assert heard == []


def test_two_teams_jobs_of_one_name_are_two(table: Table) -> None:
    ends, heard = Ends(table.find), list[Job]()
    table.put("running", team="theirs")
    ends.listen("theirs", "a", heard.append)
    tell(ends, table.put("succeeded"))
    assert heard == []


def test_a_job_that_cannot_be_read_is_told_of_when_it_ends(table: Table) -> None:
    def find(team: str, job_id: str) -> Job | None:
        raise sqlite3.OperationalError("disk I/O error")

    ends, heard = Ends(find), list[Job]()
    ends.listen("ours", "a", heard.append)
    assert heard == []
    tell(ends, table.put("succeeded"))
    assert [job.job_id for job in heard] == ["a"]


def test_each_listener_stops_for_itself(table: Table) -> None:
    ends, first, second = Ends(table.find), list[Job](), list[Job]()
    stop_first, stop_second = (ends.listen("ours", "a", heard.append) for heard in (first, second))
    stop_first()
    stop_first()
    tell(ends, table.put("canceled"))
    stop_second()
    assert (len(first), len(second)) == (0, 1)
    assert ends._listeners == {}


def test_a_job_that_is_certainly_open_is_not_looked_for(table: Table) -> None:
    ends, early, late = Ends(table.find), list[Job](), list[Job]()
    assert ends.open("ours", lambda: "a") == "a"
    ends.listen("ours", "a", early.append)
    assert table.looked_for == []
    tell(ends, table.put("succeeded"))
    ends.listen("ours", "a", late.append)
    assert (len(early), len(late), table.looked_for) == (1, 1, ["a"])
    assert ends._open == set()


def test_a_job_that_cannot_be_added_is_not_open(table: Table) -> None:
    def fail() -> str:
        raise sqlite3.OperationalError("disk I/O error")

    ends = Ends(table.find)
    with pytest.raises(sqlite3.OperationalError):
        ends.open("ours", fail)
    assert ends._open == set()
    ends.open("ours", lambda: "a")  # and the next one can be


@pytest.mark.parametrize("is_open", [False, True])
def test_no_end_is_missed_between_looking_and_listening(table: Table, is_open: bool) -> None:
    ends, heard = Ends(table.find), list[str]()
    ids = [f"job-{number}" for number in range(300)]

    def end(job_id: str) -> None:
        tell(ends, table.put("succeeded", job_id=job_id))

    with ThreadPoolExecutor(4) as threads:
        for job_id in ids:
            if is_open:
                ends.open("ours", lambda job_id=job_id: job_id)
            threads.submit(end, job_id)
            threads.submit(ends.listen, "ours", job_id, lambda job: heard.append(job.job_id))
    assert set(heard) == set(ids)
    assert ends._open == set()


def test_a_service_tells_of_what_is_on_disk(clip: Any, tmp_path: Path) -> None:
    stored, done = list[str](), threading.Event()
    with LocalService(threads=1, data_dir=tmp_path / "service") as service:
        assert service.problem is None
        created = service.submit(VoiceprintRequest(clip().as_uri()))

        def hear(job: Job) -> None:
            assert job.voiceprint is not None
            found = service._works.desk.job("default", job.job_id)
            stored.append(found.status if found else "lost")
            done.set()

        service.listen(created.job_id, hear)
        assert done.wait(30)
    assert set(stored) == {"succeeded"}
    assert service.problem is not None
