from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.records import Change, host_of, job_id_at

NOW_MS = 1_763_469_434_750
DAY_MS = 24 * 3600 * 1000
TEAM = "default"
HOOK = "https://receiver.example/hook"
OUTPUT = '{"voiceprint": "cHJpbnQ="}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite3"


@pytest.fixture
def table(file: Path) -> Iterator[JobTable]:
    with closing(JobTable(file)) as opened:
        yield opened


def add(
    table: JobTable, n: int = 1, *, team: str = TEAM, at_ms: int = NOW_MS, hook: str | None = None
) -> Any:
    ids = [table.add(team, VoiceprintRequest("media://a", None, hook), now_ms=at_ms) for _ in range(n)]
    return ids if n > 1 else ids[0]


def ends(table: JobTable, *seqs: int, status: str = "succeeded", at_ms: int = NOW_MS) -> None:
    table.write([Change(seq, status, at_ms, OUTPUT) for seq in seqs])


def ids_of(jobs: list[Any]) -> list[str]:
    return [job.id for job in jobs]


# --- ids ------------------------------------------------------------------------------------------------


def test_ids_grow_within_a_millisecond_and_when_the_clock_is_set_back(table: JobTable, file: Path) -> None:
    ids = add(table, 5000) + add(table, 100, at_ms=NOW_MS - DAY_MS)
    table.close()
    with closing(JobTable(file)) as again:
        ids += add(again, 100, at_ms=NOW_MS - 2 * DAY_MS)
        ids.append(add(again, at_ms=NOW_MS + 10))
        assert ids == sorted(set(ids))
        assert ids_of(again.newest(TEAM, 10_000)) == ids[::-1]
    assert ids[-1][:13] == job_id_at(NOW_MS + 10)[:13]
    assert {uuid.UUID(each).version for each in ids} == {7}


def test_ids_of_many_threads_are_in_the_order_of_arrival(table: JobTable) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: add(table), range(200)))
    ids = ids_of(table.newest(TEAM, 1000))
    assert len(ids) == 200
    assert ids == sorted(ids, reverse=True)


# --- lists ----------------------------------------------------------------------------------------------


def test_teams_see_their_own_jobs_only(table: JobTable) -> None:
    ada, bob = add(table, 3, team="ada"), add(table, 2, team="bob")
    ends(table, 1, 4)
    assert ids_of(table.newest("ada", 10)) == ada[::-1]
    assert ids_of(table.newest("bob", 10, before=ada[2])) == []
    assert ids_of(table.newest("ada", 10, before=bob[0])) == ada[::-1]
    assert ids_of(table.newest("ada", 10, status="created")) == [ada[2], ada[1]]
    assert (table.count("ada"), table.count("bob"), table.count("eve")) == (3, 2, 0)
    assert (table.count("ada", status="succeeded"), table.count("bob", status="created")) == (1, 1)
    assert table.find("ada", bob[0]) is None
    assert table.find("bob", bob[0]) is not None
    assert table.counts() == {"created": 3, "succeeded": 2}


@given(cursor=st.uuids() | st.integers(0, 8).map(lambda n: uuid.UUID(job_id_at(NOW_MS + n * 1000))))
def test_any_uuid_is_a_cursor(cursor: uuid.UUID, spaced: tuple[JobTable, list[str]]) -> None:
    table, ids = spaced
    older = [each for each in ids if each < str(cursor)]
    assert ids_of(table.newest(TEAM, 10, before=str(cursor))) == older[::-1]
    assert ids_of(table.newest(TEAM, 2, before=str(cursor), skip=1)) == older[::-1][1:3]


@pytest.fixture(scope="module")
def spaced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[JobTable, list[str]]]:
    """Jobs of a second each, with another team's in between."""
    with closing(JobTable(tmp_path_factory.mktemp("spaced") / "jobs.sqlite3")) as table:
        ids = []
        for n in range(6):
            ids.append(add(table, at_ms=NOW_MS + n * 1000 + 500))
            add(table, team="other", at_ms=NOW_MS + n * 1000 + 700)
        yield table, ids


def test_pages_follow_each_other_without_gap(table: JobTable) -> None:
    ids = add(table, 25)
    pages, cursor = [], None
    while page := ids_of(table.newest(TEAM, 10, before=cursor)):
        pages.append(page)
        cursor = page[-1]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [each for page in pages for each in page] == ids[::-1]


# --- work -----------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_all_as_it_was(table: JobTable) -> None:
    add(table, 2, hook=HOOK)
    with pytest.raises(sqlite3.IntegrityError):
        table.write([Change(1, "succeeded", NOW_MS, OUTPUT), Change(2, None, NOW_MS)])  # type: ignore[arg-type]
    assert table.counts() == {"created": 2}
    assert table.due(now_ms=NOW_MS, per_team=9, per_host=9) == []
    ends(table, 1)
    assert table.counts() == {"created": 1, "succeeded": 1}


def test_waiting_jobs_are_told_line_by_line_and_of_each_team_the_oldest(table: JobTable) -> None:
    def told(line: str, per_team: int) -> list[int]:
        return [job.seq for job in table.waiting(line, per_team=per_team)]

    assert told("upload", 9) == []
    for team, url in [
        *[("ada", "https://clips.example/a")] * 3,
        *[("ada", "media://a")] * 3,
        *[("bob", "file:///a")] * 2,
        ("Zoe", "HTTP://clips.example/a"),
        ("", "media://a"),
    ]:
        table.add(team, VoiceprintRequest(url), now_ms=NOW_MS)
    table.write([Change(4, "running", NOW_MS)])
    assert [told("upload", 1), told("upload", 2)] == [[5, 7, 10], [5, 6, 7, 8, 10]]
    assert [told("link", 2), told("link", 9)] == [[1, 2, 9], [1, 2, 3, 9]]


def test_a_line_that_was_empty_is_looked_at_again(table: JobTable) -> None:
    def told() -> list[list[int]]:
        return [[job.seq for job in table.waiting(line, per_team=9)] for line in ("upload", "link", "alone")]

    assert told() == [[], [], []]
    table.add("ada", VoiceprintRequest("media://a"), now_ms=NOW_MS)
    table.add("ada", VoiceprintRequest("https://clips.example/a"), now_ms=NOW_MS)
    assert told() == [[1], [2], []]
    table.write([Change(seq, "running", NOW_MS, starts=2 * seq) for seq in (1, 2)])
    assert told() == [[], [], []]
    table.write([Change(seq, "created", NOW_MS, starts=-2) for seq in (1, 2)])
    assert told() == [[1], [], [2]]
    table.write([Change(seq, "running", NOW_MS) for seq in (1, 2)])
    assert told() == [[], [], []]
    table.reopen()
    assert told() == [[1], [], [2]]


def test_the_first_jobs_of_each_team_are_found_fast_among_many(table: JobTable) -> None:
    for _ in range(10_000):
        table.add("ada", VoiceprintRequest("https://clips.example/a"), now_ms=NOW_MS)
    add(table, 20, team="ada")
    add(table, 20, team="bob")
    steps = [0]

    def count() -> None:
        steps[0] += 1

    table._connection.set_progress_handler(count, 100)  # every so many steps of SQLite
    assert len(table.waiting("upload", per_team=2)) == 4
    assert len(table.waiting("link", per_team=2)) == 2
    assert steps[0] < 10


def test_a_job_forgets_its_link_at_its_end(table: JobTable, file: Path) -> None:
    add(table, 2)
    table.write([Change(1, "running", NOW_MS), Change(2, "running", NOW_MS)])
    table.write([Change(1, "canceled", NOW_MS, '{"error": "stopped"}'), Change(2, "created", NOW_MS)])
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT url FROM jobs ORDER BY seq").fetchall() == [(None,), ("media://a",)]
    assert [job.seq for job in table.waiting("upload", per_team=9)] == [2]


def test_jobs_that_wait_too_long_are_those_that_nobody_has_begun(table: JobTable) -> None:
    for late_ms in range(4):
        add(table, at_ms=NOW_MS + late_ms)
    table.write([Change(1, "running", NOW_MS)])
    ends(table, 2)

    def since(late_ms: int, limit: int = 9) -> list[int]:
        return [job.seq for job in table.waiting_since(NOW_MS + late_ms, limit=limit)]

    assert [since(2), since(3), since(9), since(9, 1)] == [[], [3], [3, 4], [3]]


# --- webhooks -------------------------------------------------------------------------------------------


def test_only_the_end_of_a_job_with_a_webhook_is_due(table: JobTable) -> None:
    add(table, 3, hook=HOOK)
    add(table)
    table.write([Change(seq, "running", NOW_MS) for seq in (1, 2, 3, 4)])
    assert table.due(now_ms=NOW_MS, per_team=9, per_host=9) == []
    ends(table, 1, 4)
    ends(table, 2, status="failed")
    due = table.due(now_ms=NOW_MS, per_team=9, per_host=9)
    assert [(each.seq, each.attempt, each.reason, each.host) for each in due] == [
        (1, 0, None, "receiver.example"),
        (2, 0, None, "receiver.example"),
    ]
    assert [each.event.output is None for each in due] == [False, True]


def test_webhooks_are_due_at_their_moment_the_oldest_first(table: JobTable) -> None:
    add(table, 4, hook=HOOK)
    ends(table, 1, 2, 3, 4)
    table.retry(2, attempt=1, reason="http_error", due_ms=NOW_MS + 60_000)
    table.postpone([3], until_ms=NOW_MS + 15_000)
    table.settle(4)

    def due(later_ms: int) -> list[int]:
        return [each.seq for each in table.due(now_ms=NOW_MS + later_ms, per_team=9, per_host=9)]

    assert [due(0), due(14_999), due(15_000), due(59_999), due(60_000)] == [
        [1],
        [1],
        [1, 3],
        [1, 3],
        [1, 3, 2],
    ]
    assert table.next_due_ms(after_ms=NOW_MS) == NOW_MS + 15_000
    assert table.next_due_ms(after_ms=NOW_MS + 60_000) is None
    assert [each.seq for each in table.due(now_ms=NOW_MS + 60_000, per_team=2, per_host=9)] == [1, 3]
    assert table.due(now_ms=NOW_MS + 60_000, per_team=9, per_host=9)[2].reason == "http_error"


def test_no_webhook_waits_beyond_a_moment(table: JobTable) -> None:
    add(table, 2, hook=HOOK)
    ends(table, 1, 2)
    table.postpone([2], until_ms=NOW_MS + DAY_MS)
    table.hasten(latest_ms=NOW_MS + 1000)
    due = [table.due(now_ms=NOW_MS + late_ms, per_team=9, per_host=9) for late_ms in (0, 999, 1000)]
    assert [len(each) for each in due] == [1, 1, 2]


def test_no_host_takes_more_than_its_share(table: JobTable) -> None:
    hosts = ["a.example", "b.example:81", "c.example", "[::1]", "B.example"]
    for host in ["a.example"] * 50 + hosts:
        add(table, hook=f"https://{host}/")
    ends(table, *range(1, 56))
    due = table.due(now_ms=NOW_MS, per_team=9, per_host=2)
    assert [each.seq for each in due] == [1, 2, 52, 53, 54, 55]
    assert {each.host for each in due} == {"a.example", "b.example", "c.example", "::1"}
    assert [each.seq for each in table.due(now_ms=NOW_MS, per_team=3, per_host=2)] == [1, 2, 52]


def test_no_team_takes_more_than_its_share(table: JobTable) -> None:
    for team in ["ada"] * 50 + ["bob"] * 3:
        add(table, team=team, hook=HOOK)
    ends(table, *range(1, 54))
    due = table.due(now_ms=NOW_MS, per_team=4, per_host=2)
    assert [(each.seq, each.team) for each in due] == [(1, "ada"), (2, "ada"), (51, "bob"), (52, "bob")]
    due = table.due(now_ms=NOW_MS, per_team=2, per_host=9)
    assert [each.seq for each in due] == [1, 2, 51, 52]


@given(url=st.text())
def test_every_text_has_a_host_or_none(url: str) -> None:
    assert isinstance(host_of(url), str)
    assert isinstance(host_of(f"https://{url}"), str)


def test_a_webhook_can_be_sent_once_more_until_its_output_goes(table: JobTable) -> None:
    job_id = add(table, hook=HOOK)
    assert table.redelivery(job_id, now_ms=NOW_MS) is None
    ends(table, 1)
    table.settle(1)
    again = table.redelivery(job_id, now_ms=NOW_MS)
    assert again is not None
    assert (again.attempt, again.url, again.event.output) == (0, HOOK, {"voiceprint": "cHJpbnQ="})
    table.expire(outputs_before_ms=NOW_MS + 1, records_before_ms=0)
    assert table.redelivery(job_id, now_ms=NOW_MS + DAY_MS) is None


def test_a_webhook_that_is_due_keeps_its_address_and_no_longer(table: JobTable, file: Path) -> None:
    add(table, hook=HOOK)
    ends(table, 1)
    table.expire(outputs_before_ms=NOW_MS + 1, records_before_ms=0)
    (due,) = table.due(now_ms=NOW_MS + DAY_MS, per_team=9, per_host=9)
    assert (due.url, due.event.output) == (HOOK, None)
    table.settle(1)
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT webhook, output FROM jobs").fetchall() == [(None, None)]


# --- older formats --------------------------------------------------------------------------------------

FORMAT_1 = """
CREATE TABLE jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, url TEXT, output TEXT);
CREATE INDEX jobs_by_status ON jobs (status, seq);
PRAGMA user_version=1;
"""
FORMAT_2 = """
CREATE TABLE jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, url TEXT, output TEXT,
team TEXT NOT NULL DEFAULT 'default', webhook TEXT, webhook_status_only INTEGER NOT NULL DEFAULT 0);
CREATE TABLE deliveries (seq INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, due_ms INTEGER NOT NULL,
reason TEXT);
CREATE INDEX jobs_by_status ON jobs (status, seq);
CREATE INDEX jobs_with_output ON jobs (updated_ms) WHERE output IS NOT NULL;
CREATE INDEX jobs_by_team ON jobs (team, id);
CREATE INDEX jobs_by_team_status ON jobs (team, status, id);
CREATE INDEX deliveries_by_due ON deliveries (due_ms);
PRAGMA user_version=2;
"""
OLD_IDS = [f"{digit}c8a89a5-dcc6-4edb-a75d-ffd64739674d" for digit in "f05"]  # random ones


FORMAT_3 = """
CREATE TABLE jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL, url TEXT, output TEXT,
team TEXT NOT NULL DEFAULT 'default', webhook TEXT, webhook_status_only INTEGER NOT NULL DEFAULT 0);
CREATE TABLE deliveries (seq INTEGER PRIMARY KEY, attempt INTEGER NOT NULL, due_ms INTEGER NOT NULL,
reason TEXT, host TEXT NOT NULL DEFAULT '');
CREATE INDEX jobs_by_status ON jobs (status, seq);
CREATE INDEX jobs_with_output ON jobs (updated_ms) WHERE output IS NOT NULL;
CREATE INDEX jobs_of_team ON jobs (team);
CREATE INDEX jobs_of_team_by_status ON jobs (team, status);
CREATE INDEX deliveries_by_due ON deliveries (due_ms);
CREATE INDEX deliveries_by_host ON deliveries (host, due_ms);
PRAGMA user_version=3;
"""
FORMATS = pytest.mark.parametrize("schema", [FORMAT_1, FORMAT_2, FORMAT_3], ids=["1", "2", "3"])


def write_old(file: Path, schema: str, *, also: Callable[[sqlite3.Connection], object] = bool) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(schema)
        rows = zip(
            OLD_IDS, ("succeeded", "running", "created"), (None, "media://a", "media://b"), strict=True
        )
        for job_id, status, url in rows:
            connection.execute(
                "INSERT INTO jobs (id, status, created_ms, updated_ms, url, output) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (job_id, status, NOW_MS, NOW_MS, url, None if url else OUTPUT),
            )
        also(connection)
        connection.commit()


def structure(file: Path) -> set[Any]:
    with closing(sqlite3.connect(file)) as connection:
        columns = {
            (table, *column[1:])
            for table in ("jobs", "deliveries")
            for column in connection.execute(f"PRAGMA table_xinfo({table})")
        }
        indexes = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'").fetchall()
        return columns | set(indexes) | set(connection.execute("PRAGMA user_version"))


@FORMATS
def test_older_formats_are_taken_over_with_their_jobs(file: Path, tmp_path: Path, schema: str) -> None:
    write_old(file, schema)
    with closing(JobTable(file)) as table, closing(JobTable(tmp_path / "new.sqlite3")):
        assert structure(file) == structure(tmp_path / "new.sqlite3")
        assert table.reopen() == {TEAM: 2}
        assert [job.url for job in table.waiting("upload", per_team=9)] == ["media://a", "media://b"]
        old = table.find(TEAM, OLD_IDS[0])
        assert old is not None
        assert old.to_job(now_ms=NOW_MS).voiceprint == "cHJpbnQ="
        ends(table, 2, 3)
        assert table.due(now_ms=NOW_MS, per_team=9, per_host=9) == []


@FORMATS
def test_jobs_of_older_formats_are_listed_and_forgotten_in_their_time(file: Path, schema: str) -> None:
    write_old(file, schema)
    with closing(JobTable(file)) as table:
        new = add(table, 2, at_ms=NOW_MS + 31 * DAY_MS)
        assert new == sorted(new)
        listed = [*new[::-1], *OLD_IDS[::-1]]
        assert ids_of(table.newest(TEAM, 10)) == listed
        for n, cursor in enumerate(listed):
            assert ids_of(table.newest(TEAM, 10, before=cursor)) == listed[n + 1 :]
        ends(table, 1, 2, 3)
        table.expire(outputs_before_ms=NOW_MS + 1, records_before_ms=NOW_MS)
        assert table.count(TEAM) == 5
        table.expire(outputs_before_ms=NOW_MS + 1, records_before_ms=NOW_MS + 1)
        assert ids_of(table.newest(TEAM, 10)) == new[::-1]


@pytest.mark.parametrize("schema", [FORMAT_2, FORMAT_3], ids=["2", "3"])
def test_due_webhooks_of_older_formats_are_sent(file: Path, schema: str) -> None:
    def also(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE jobs SET webhook = ?", (HOOK,))
        connection.execute(
            "INSERT INTO deliveries (seq, attempt, due_ms, reason) VALUES (1, 2, ?, 'http_error')", (NOW_MS,)
        )
        if schema == FORMAT_3:
            connection.execute("UPDATE deliveries SET host = 'receiver.example'")

    write_old(file, schema, also=also)
    with closing(JobTable(file)) as table:
        (due,) = table.due(now_ms=NOW_MS, per_team=9, per_host=2)
        assert (due.seq, due.attempt, due.reason, due.url, due.host) == (
            1,
            2,
            "http_error",
            HOOK,
            "receiver.example",
        )


# --- the file -------------------------------------------------------------------------------------------

OPEN = """
import sys
from pathlib import Path
from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.jobs import JobTable
try:
    JobTable(Path(sys.argv[1])).close()
except UsageError as error:
    print(error)
"""


def told_elsewhere(script: str, file: Path) -> str:
    """What another process prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def test_a_second_table_on_the_file_is_refused_and_the_first_keeps_its_claim(
    table: JobTable, file: Path
) -> None:
    with pytest.raises(UsageError, match="Another service"):
        JobTable(file)
    with closing(JobTable(file, alone=False)) as reader:
        job_id = add(table)
        assert reader.find(TEAM, job_id) is not None
    assert "Another service" in told_elsewhere(OPEN, file)  # closing a file drops the locks of its process
    table.close()
    assert told_elsewhere(OPEN, file) == ""
    JobTable(file).close()


def test_a_table_that_cannot_open_gives_its_claim_back(file: Path) -> None:
    file.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"cannot be used \(file is not a database\)"):
            JobTable(file)
    file.unlink()
    JobTable(file).close()


def test_files_that_cannot_be_made_are_told(tmp_path: Path) -> None:
    (tmp_path / "taken.sqlite3").mkdir()
    (tmp_path / "closed.lock").mkdir()
    for name in ("taken", "closed", "no/such/folder/jobs"):
        with pytest.raises(UsageError, match="cannot be used"):
            JobTable(tmp_path / f"{name}.sqlite3")


FULL = """
import resource, signal, sqlite3, sys
from pathlib import Path
from voiceprint_nb.contract import VoiceprintRequest
from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.jobs import JobTable
from voiceprint_nb.service.records import Change

def room(n_bytes):
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
file = Path(sys.argv[1])
room(0)
try:
    JobTable(file)
except UsageError as error:
    print("cannot be used" in str(error))
room(soft)
table = JobTable(file)
request = VoiceprintRequest("media://" + "a" * 200)
room(200_000)
added = []
try:
    while len(added) < 10_000:
        added.append(table.add("ada", request, now_ms=1))
except sqlite3.Error:
    print(0 < len(added) < 10_000)
for _ in range(2):
    try:
        table.write([Change(seq + 1, "succeeded", 1, "x" * 1000) for seq in range(len(added))])
    except sqlite3.Error:
        print(table.counts() == {"created": len(added)})
room(soft)
table.write([Change(seq + 1, "succeeded", 1, "{}") for seq in range(len(added))])
added.append(table.add("ada", request, now_ms=1))
print(table.counts() == {"created": 1, "succeeded": len(added) - 1})
table.close()
with_another = JobTable(file)
print(with_another.count("ada") == len(added))
"""


def test_a_full_disk_loses_nothing_that_was_accepted(file: Path) -> None:
    assert told_elsewhere(FULL, file).split() == ["True"] * 6
