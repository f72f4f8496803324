from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from voiceprint_nb.batch import writing
from voiceprint_nb.batch.store import FILE_NAME, Ledger, is_private, request_key
from voiceprint_nb.errors import UsageError

SECRET_PRINT = "cHJpbnQtb2YtYWRh" * 200
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and processes of POSIX")

CLAIM = """
import sys, time
from pathlib import Path
from voiceprint_nb.batch.store import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    print(sum(ledger.claim(f"key-{n}") for n in range(int(sys.argv[2]))), flush=True)
    if sys.argv[3] == "stay":
        sys.stdin.read()
"""


def claiming(folder: Path, n: int, then: str = "end") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", CLAIM, str(folder), str(n), then]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def begin(ledger: Ledger, n_rows: int = 1, frame: bytes | None = None) -> str:
    return ledger.begin_run(n_rows=n_rows, destination="local", call={"fit": "error"}, frame=frame)


def finish(ledger: Ledger, key: str, voiceprint: str = SECRET_PRINT) -> None:
    assert ledger.claim(key)
    ledger.opened(key, f"job of {key}", "short")
    ledger.succeeded(key, voiceprint=voiceprint, warning=None)


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


@POSIX
def test_files_are_private(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    before = os.umask(0)
    try:
        with Ledger(folder) as ledger:
            finish(ledger, "a")
            files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert files == {FILE_NAME: 0o600, f"{FILE_NAME}-wal": 0o600, f"{FILE_NAME}-shm": 0o600}


@POSIX
def test_frame_of_a_file_that_others_may_write_is_not_handed_out(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        begin(ledger, frame=b"pickle")
        assert ledger.frame_of(ledger.runs()[0].run_id) == b"pickle"
        (tmp_path / FILE_NAME).chmod(0o666)
        assert not is_private(tmp_path / FILE_NAME)
        assert ledger.frame_of(ledger.runs()[0].run_id) is None


def test_path_of_a_request(tmp_path: Path) -> None:
    key = request_key("voiceprint", "digest", "", "local")
    with Ledger(tmp_path) as ledger:
        assert ledger.find(key) is None
        assert ledger.claim(key)
        assert not ledger.claim(key)
        claimed = ledger.find(key)
        assert claimed is not None
        assert (claimed.state, claimed.orphaned) == ("submitting", False)
        ledger.opened(key, "job-1", "short")
        assert ledger.times_of_job("job-2") is None
        claimed_at, opened_at = ledger.times_of_job("job-1") or (0.0, 0.0)
        assert claimed.claimed_at == claimed_at <= opened_at
        assert not ledger.claim(key)
        ledger.succeeded(key, voiceprint="print", warning=None)
    with Ledger(tmp_path) as ledger:
        done = ledger.find(key)
    assert done is not None
    assert (done.state, done.job_id, done.voiceprint, done.warning) == (
        "succeeded",
        "job-1",
        "print",
        "short",
    )
    assert "print" not in repr(done)


def test_only_what_was_seen_is_dropped(tmp_path: Path) -> None:
    now_s = [100.0]
    with Ledger(tmp_path, clock=lambda: now_s[0]) as ledger:
        ledger.claim("a")
        now_s[0] = 200.0
        ledger.drop("a", claimed_at=150.0)
        assert ledger.find("a") is not None
        ledger.renew("a")
        ledger.drop("a", claimed_at=100.0)
        assert ledger.find("a") is not None
        ledger.drop("a", claimed_at=200.0)
        assert ledger.find("a") is None
        ledger.claim("a")
        ledger.opened("a", "job-1")
        ledger.drop("a")
        ledger.drop("a", job_id="job-0")
        assert ledger.find("a") is not None
        ledger.drop("a", job_id="job-1")
        assert ledger.find("a") is None
        finish(ledger, "a")
        ledger.drop("a")
        ledger.drop("a", job_id="job of a")
        assert ledger.find("a") is not None


def test_abandoned_claim_is_an_orphan_at_once_and_still_bars_others(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.claim("a")
        ledger.abandon("a")
        entry = ledger.find("a")
        assert entry is not None
        assert entry.orphaned
        assert not ledger.claim("a")
        ledger.opened("b", "job")
        ledger.abandon("b")
        entry = ledger.find("b")
        assert entry is not None
        assert entry.state == "open"  # nothing was claimed


@POSIX
def test_one_process_wins_each_claim(tmp_path: Path) -> None:
    children = [claiming(tmp_path, 100) for _ in range(3)]
    won = [int(child.communicate(timeout=60)[0]) for child in children]
    assert sum(won) == 100


@POSIX
def test_claims_of_a_killed_process_are_orphans_even_before_its_parent_looks(tmp_path: Path) -> None:
    child = claiming(tmp_path, 1, "stay")
    assert child.stdout is not None
    assert child.stdout.readline() == "1\n"
    with Ledger(tmp_path) as ledger:
        alive = ledger.find("key-0")
        assert alive is not None
        assert not alive.orphaned
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but not yet reaped
        zombie = ledger.find("key-0")
        child.communicate()
        gone = ledger.find("key-0")
    assert zombie is not None
    assert gone is not None
    assert zombie.orphaned
    assert gone.orphaned


def test_claim_of_another_machine_ends_by_age(tmp_path: Path) -> None:
    now_s = [100.0]
    with Ledger(tmp_path, clock=lambda: now_s[0]) as ledger:
        ledger.claim("a")
        with sqlite3.connect(tmp_path / FILE_NAME) as database:
            database.execute("UPDATE jobs SET owner = 'elsewhere:1:1'")
        database.close()
        young = ledger.find("a")
        now_s[0] += 121
        old = ledger.find("a")
    assert young is not None
    assert old is not None
    assert (young.orphaned, old.orphaned) == (False, True)


def test_many_open_a_new_ledger_at_once(tmp_path: Path) -> None:
    def opened(_: int) -> bool:
        with Ledger(tmp_path / "data") as ledger:
            return ledger.claim("a")

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(opened, range(24))) == 1


def test_account_tells_keys_apart_without_telling_them(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger, Ledger(None) as other:
        first, second = ledger.account("key-of-a-team"), ledger.account("another-key")
        assert first == ledger.account("key-of-a-team") != second
        assert first != other.account("key-of-a-team")
        assert ledger.account(None) == ""
        assert b"key-of-a-team" not in bytes_of(tmp_path)
    with Ledger(tmp_path) as ledger:
        assert ledger.account("key-of-a-team") == first


def test_runs_are_listed_newest_first_with_their_counts(tmp_path: Path) -> None:
    now_s = [1000.0]
    with Ledger(tmp_path, clock=lambda: now_s[0]) as ledger:
        old = begin(ledger, 3)
        now_s[0] += 1
        new = begin(ledger, 2)
        ledger.end_run(old, {"succeeded": 3}, finished=True)
        ledger.end_run(new, {"pending": 2}, finished=False)
        listed = ledger.runs()
    assert [(run.run_id, run.n_rows, dict(run.counts)) for run in listed] == [
        (new, 2, {"pending": 2}),
        (old, 3, {"succeeded": 3}),
    ]
    assert [run.finished_at for run in listed] == [None, 1001.0]
    assert listed[0].call == {"fit": "error"}


def test_open_jobs_of_a_run(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        run_id, other = begin(ledger, 4), begin(ledger, 1)
        for position, key in enumerate("abca"):
            ledger.note_row(run_id, position, key)
        ledger.note_row(other, 0, "d")
        for key in "abd":
            ledger.claim(key)
        ledger.opened("a", "job-a")
        ledger.opened("d", "job-d")
        finish(ledger, "c")
        assert ledger.open_jobs(run_id) == {0: "job-a", 3: "job-a"}
        assert ledger.key_of_row(run_id, 1) == "b"
        assert ledger.key_of_row(run_id, 9) is None


def test_forgotten_voiceprints_are_gone_from_the_disk(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        first, second = begin(ledger, 2, b"frame-of-the-first"), begin(ledger, 1)
        ledger.note_row(first, 0, "a")
        ledger.note_row(first, 1, "shared")
        ledger.note_row(second, 0, "shared")
        finish(ledger, "a", "A" * 3000)
        finish(ledger, "shared")
        assert b"A" * 100 in bytes_of(tmp_path)
        assert ledger.forget([first]) == 1
        left = bytes_of(tmp_path)
        assert b"A" * 100 not in left
        assert b"frame-of-the-first" not in left
        assert ledger.find("a") is None
        assert ledger.find("shared") is not None
        assert [run.run_id for run in ledger.runs()] == [second]
        assert ledger.forget_everything() == 1
        assert SECRET_PRINT[:100].encode() not in bytes_of(tmp_path)
        assert not ledger.runs()
    assert SECRET_PRINT[:100].encode() not in bytes_of(tmp_path)


def test_ledger_of_the_earlier_layout_goes_on(tmp_path: Path) -> None:
    earlier = (
        "CREATE TABLE jobs (key TEXT PRIMARY KEY, state TEXT NOT NULL, owner TEXT, claimed_at REAL NOT NULL, "
        "job_id TEXT, opened_at REAL, closed_at REAL, voiceprint TEXT, warning TEXT) WITHOUT ROWID"
    )
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute(earlier)
        file.execute("INSERT INTO jobs (key, state, claimed_at, job_id) VALUES ('open', 'open', 1, 'job-1')")
        file.execute(
            "INSERT INTO jobs (key, state, claimed_at, voiceprint) VALUES ('a', 'succeeded', 1, ?)",
            (SECRET_PRINT,),
        )
    with Ledger(tmp_path) as ledger:
        assert (found := ledger.find("a")) is not None
        assert found.voiceprint == SECRET_PRINT
        assert not ledger.claim("open")
        ledger.succeeded("open", voiceprint="later", warning=None)
        finish(ledger, "new")
        assert ledger.forget_everything() == 3
        assert ledger.find("a") is None


@pytest.mark.parametrize("content", [b"not a database, but long enough to look at" * 50, b"\0" * 5000])
def test_damaged_file_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(UsageError, match="move it away"):
        Ledger(tmp_path)


def test_file_that_is_damaged_while_open_is_a_usage_error(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for n in range(50):
            finish(ledger, str(n))
    size = (tmp_path / FILE_NAME).stat().st_size
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(UsageError, match="ledger"), Ledger(tmp_path) as ledger:
        ledger.find("7")


@pytest.mark.parametrize("place", ["file/below", "file"])
def test_folder_that_cannot_be_is_a_usage_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="ledger=False"):
        Ledger(tmp_path / place)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_a_usage_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="ledger=False"):
        Ledger(tmp_path)


def test_opening_a_ledger_twice_keeps_its_locks(tmp_path: Path) -> None:
    """The locks of a process on a file end when it closes any descriptor of it; the log must survive that."""
    with Ledger(tmp_path) as first:
        assert first.claim("a")
        with Ledger(tmp_path):
            pass
        read = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM jobs')"
        subprocess.run([sys.executable, "-c", read, str(tmp_path / FILE_NAME)], check=True)
        assert first.find("a") is not None
        assert (tmp_path / f"{FILE_NAME}-wal").exists()


# --- turns that kernels share ---------------------------------------------------------------------------


def test_turns_are_shared_between_connections_and_survive_a_clock_set_back(tmp_path: Path) -> None:
    now = [1000.0]
    with Ledger(tmp_path, clock=lambda: now[0]) as one, Ledger(tmp_path, clock=lambda: now[0]) as other:
        assert one.take_turn("submit", 0.5) == 0.0
        assert other.take_turn("submit", 0.5) == pytest.approx(0.5)
        assert other.take_turn("read", 0.5) == 0.0
        now[0] += 0.5
        assert other.take_turn("submit", 0.5) == 0.0
        one.pause_turns("submit", 60.0)
        one.pause_turns("submit", 5.0)
        assert other.take_turn("submit", 0.5) == pytest.approx(60.0)
        now[0] -= 86_400
        assert other.take_turn("submit", 0.5) == 0.0


@pytest.mark.parametrize(("late_s", "next_s"), [(0.2, 0.8), (0.9, 0.75), (60.0, 1.0)])
def test_turns_make_up_for_late_wake_ups_as_own_ones_do(late_s: float, next_s: float) -> None:
    now_s = 100.0
    with Ledger(None, clock=lambda: now_s) as ledger:
        assert ledger.take_turn("submit", 1.0) == 0.0
        now_s += 1.0 + late_s
        assert ledger.take_turn("submit", 1.0) == 0.0
        assert ledger.take_turn("submit", 1.0) == pytest.approx(next_s)


def test_times_of_a_run_are_those_of_its_jobs(tmp_path: Path) -> None:
    now_s = [100.0]
    with Ledger(tmp_path, clock=lambda: now_s[0]) as ledger:
        run_id, other = begin(ledger, 4), begin(ledger)
        for position, key in enumerate(["late", "early", "early", "claimed"]):
            ledger.note_row(run_id, position, key)
        ledger.note_row(other, 0, "of another run")
        for key in ("early", "late", "of another run"):
            now_s[0] += 1
            ledger.claim(key)
            now_s[0] += 0.5
            ledger.opened(key, f"job of {key}")
        ledger.claim("claimed")
        now_s[0] = 110
        ledger.succeeded("early", voiceprint=SECRET_PRINT, warning=None)
        assert ledger.times_of_run(run_id) == [(101.0, 101.5, 110.0), (102.5, 103.0, None)]
        assert ledger.times_of_run("no such run") == []


def states_on_disk(folder: Path) -> dict[str, str]:
    with closing(sqlite3.connect(folder / FILE_NAME)) as reader:
        return dict(reader.execute("SELECT key, state FROM jobs").fetchall())


def test_what_rows_keep_is_on_disk_when_somebody_waits_for_it(tmp_path: Path) -> None:
    async def turns(ledger: Ledger) -> None:
        with ledger.in_turns():
            run_id = begin(ledger)
            ledger.note_row(run_id, 0, "a")
            assert ledger.claim("a")
            assert states_on_disk(tmp_path) == {"a": "submitting"}  # before anything is sent
            assert ledger.key_of_row(run_id, 0) == "a"
            ledger.opened("a", "job of a")
            await asyncio.sleep(0)
            assert states_on_disk(tmp_path) == {"a": "submitting"}
            entry = ledger.find("a")
            assert entry is not None
            assert entry.state == "open"  # the writer itself is never behind
            ledger.succeeded("a", voiceprint=SECRET_PRINT, warning=None)
            await asyncio.gather(ledger.kept(), ledger.kept())
            assert states_on_disk(tmp_path) == {"a": "succeeded"}
            await ledger.kept()  # nothing is left to wait for
            ledger.opened("b", "job of b")
        assert states_on_disk(tmp_path) == {"a": "succeeded", "b": "open"}

    with Ledger(tmp_path) as ledger:
        asyncio.run(turns(ledger))


def test_what_nobody_waits_for_is_on_disk_in_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_LATEST_S", 0.0)

    async def turns(ledger: Ledger) -> None:
        with ledger.in_turns():
            for key in ("a", "b"):  # the second has a moment of its own
                ledger.opened(key, f"job of {key}")
                async with asyncio.timeout(20):
                    while key not in states_on_disk(tmp_path):  # noqa: ASYNC110 - nobody else may wait
                        await asyncio.sleep(0)

    with Ledger(tmp_path) as ledger:
        asyncio.run(turns(ledger))
    assert states_on_disk(tmp_path) == {"a": "open", "b": "open"}


def test_who_stops_waiting_holds_up_nobody(tmp_path: Path) -> None:
    async def turns(ledger: Ledger) -> None:
        with ledger.in_turns():
            ledger.opened("a", "job of a")
            first, second = (asyncio.ensure_future(ledger.kept()) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            async with asyncio.timeout(20):
                await second
            assert states_on_disk(tmp_path) == {"a": "open"}

    with Ledger(tmp_path) as ledger:
        asyncio.run(turns(ledger))


def test_text_that_no_file_takes_leaves_nothing_open(tmp_path: Path) -> None:
    async def turns(ledger: Ledger) -> None:
        with pytest.raises(UnicodeEncodeError), ledger.in_turns():
            assert ledger.claim("a")
            ledger.opened("a", "job of a", "\ud83d")
            with pytest.raises(UnicodeEncodeError):
                await ledger.kept()
            assert not ledger._db.in_transaction
            with pytest.raises(UnicodeEncodeError):
                ledger.claim("b")
            assert states_on_disk(tmp_path) == {"a": "submitting"}

    with Ledger(tmp_path) as ledger:
        asyncio.run(turns(ledger))


def test_what_costs_money_is_on_disk_at_once(tmp_path: Path) -> None:
    async def turns(ledger: Ledger) -> None:
        with ledger.in_turns():
            assert ledger.claim("a")
            ledger.opened("a", "job of a")
            assert states_on_disk(tmp_path) == {"a": "open"}
            ledger.succeeded("a", voiceprint=SECRET_PRINT, warning=None)
            assert states_on_disk(tmp_path) == {"a": "succeeded"}
            await ledger.kept()

    with Ledger(tmp_path, paid=True) as ledger:
        asyncio.run(turns(ledger))


def test_what_costs_money_stands_for_itself(tmp_path: Path) -> None:
    with Ledger(tmp_path, paid=True) as ledger:
        for key in ("a", "b"):
            assert ledger.claim(key)
        with pytest.raises(UnicodeEncodeError):
            ledger.opened("a", "job of a", "\ud83d")
        ledger.opened("b", "job of b")
        ledger.abandon("a")
    assert states_on_disk(tmp_path) == {"a": "submitting", "b": "open"}


def test_a_result_is_not_opened_again(tmp_path: Path) -> None:
    """Two runs that make the same print, since nothing announces jobs that cost nothing."""
    with Ledger(tmp_path) as ours, Ledger(tmp_path) as theirs:
        ours.opened("a", "our job")
        ours.succeeded("a", voiceprint=SECRET_PRINT, warning=None)
        theirs.opened("a", "their job")
        theirs.drop("a", job_id="their job")
        entry = theirs.find("a")
    assert entry is not None
    assert (entry.state, entry.voiceprint) == ("succeeded", SECRET_PRINT)


def test_two_ledgers_of_one_loop_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async def run(name: str) -> None:
        with Ledger(tmp_path) as ledger, ledger.in_turns():
            for number in range(20):
                key = f"{name}-{number}"
                assert ledger.claim(key)
                ledger.opened(key, f"job of {key}")
                await asyncio.sleep(0)
                ledger.succeeded(key, voiceprint=SECRET_PRINT, warning=None)
                await ledger.kept()

    async def both() -> None:
        async with asyncio.timeout(20):  # a wait for SQLite's lock would take 30 s
            await asyncio.gather(run("a"), run("b"))

    asyncio.run(both())
    assert list(states_on_disk(tmp_path).values()) == ["succeeded"] * 40


def test_what_cannot_be_written_at_the_end_of_a_turn_is_heard_of(tmp_path: Path) -> None:
    async def turns(ledger: Ledger) -> None:
        with ledger.in_turns():
            run_id = begin(ledger)
            ledger._db.execute("DROP TABLE rows")
            ledger.note_row(run_id, 0, "a")
            waiting = asyncio.ensure_future(ledger.kept())
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="cannot be used"):
                await waiting
            with pytest.raises(UsageError, match="cannot be used"):
                ledger.claim("a")
            assert ledger.find("a") is None  # reading goes on
            ledger._db.execute("CREATE TABLE rows (run_id, position, key)")
        assert ledger.key_of_row(run_id, 0) == "a"  # tried again in the end

    with Ledger(tmp_path) as ledger:
        asyncio.run(turns(ledger))
