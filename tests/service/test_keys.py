from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.keys import ALL_PERMISSIONS, PERMISSIONS, Caller, KeyRing, OpenDoor

NOW_S = 1_763_469_434.75
OPEN_RING = """
import pathlib, sys
from voiceprint_nb.service.keys import KeyRing
ring = KeyRing(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "service" / "keys.sqlite3"


@pytest.fixture
def ring(path: Path) -> Iterator[KeyRing]:
    with closing(KeyRing(path, clock=lambda: NOW_S)) as ring:
        yield ring


def elsewhere(path: Path, act: str) -> str:
    """What another process prints that acts on a ring."""
    program = [sys.executable, "-c", OPEN_RING + act, str(path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return done.stdout.strip()


# --- callers --------------------------------------------------------------------------------------------


def test_every_active_key_is_let_in_as_its_team_with_its_permissions(ring: KeyRing) -> None:
    first = ring.add()
    middle = [ring.add("b", ["jobs:read"]) for _ in range(3)]
    last = ring.add("Team_1.x-y", ["media:write", "metrics:read"])
    assert ring.caller(f"Bearer {first.text}") == Caller("default", frozenset(PERMISSIONS))
    assert {ring.caller(f"Bearer {key.text}") for key in middle} == {Caller("b", frozenset({"jobs:read"}))}
    expected = Caller("Team_1.x-y", frozenset({"media:write", "metrics:read"}))
    assert ring.caller(f"Bearer {last.text}") == expected


def test_spelling_of_the_header(ring: KeyRing) -> None:
    key = ring.add().text
    for header in (f"bearer {key}", f"BEARER {key}", f"Bearer   {key} "):
        assert ring.caller(header), header
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    for header in (
        "", "Bearer", "Bearer ", key, f"Basic {key}", f"Bearer{key}", f"Bearer {key[:-1]}", f"Bearer {key}A",
        f"Bearer {changed}", f"Bearer {key} {key}", f"Bearer {key.upper()}", f"Bearer {key}\N{DEGREE SIGN}",
        f"Bearer {key}" + " " * 300,
    ):  # fmt: skip
        assert ring.caller(header) is None, header


@example("Bearer \ud800")
@given(header=st.text(max_size=300) | st.text(max_size=60).map("Bearer {}".format))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_crashes_the_door(ring: KeyRing, header: str) -> None:
    assert ring.caller(header) is None


def test_revoked_keys_stay_outside(ring: KeyRing) -> None:
    kept, revoked = ring.add(), ring.add()
    ring.revoke(revoked.id)
    assert ring.caller(f"Bearer {revoked.text}") is None
    assert ring.caller(f"Bearer {kept.text}")


def test_threads_share_a_ring(ring: KeyRing) -> None:
    seen = []

    def use() -> None:
        for _ in range(5):
            seen.append(ring.caller(f"Bearer {ring.add().text}"))
            seen.append(ring.webhook_secret("a"))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 40
    assert None not in seen
    assert len(set(seen)) == 2


# --- keeping --------------------------------------------------------------------------------------------


def test_a_list_tells_all_but_the_key(ring: KeyRing) -> None:
    first, second = ring.add(note="of the notebook"), ring.add("b", ["jobs:read"])
    ring.revoke(first.id)
    ring.revoke(first.id)
    facts = ring.keys()
    assert [fact.id for fact in facts] == [first.id, second.id]
    assert (facts[0].note, facts[0].created_s, facts[0].revoked_s) == ("of the notebook", NOW_S, NOW_S)
    assert (facts[1].team, facts[1].permissions, facts[1].revoked_s) == ("b", frozenset({"jobs:read"}), None)


def test_the_first_revocation_counts(path: Path) -> None:
    times = iter([1.0, 2.0, 3.0])
    with closing(KeyRing(path, clock=lambda: next(times))) as ring:
        key = ring.add()
        ring.revoke(key.id)
        ring.revoke(key.id)
        assert ring.keys()[0].revoked_s == 2.0


def test_a_ring_is_empty_until_the_first_key_ever(ring: KeyRing) -> None:
    assert ring.is_empty
    ring.revoke(ring.add().id)
    assert not ring.is_empty


def test_keys_and_secrets_outlive_a_restart(ring: KeyRing, path: Path) -> None:
    key, secret = ring.add(), ring.webhook_secret("a")
    ring.close()
    with closing(KeyRing(path)) as again:
        assert again.caller(f"Bearer {key.text}")
        assert again.webhook_secret("a") == secret


def test_every_team_has_one_secret(ring: KeyRing) -> None:
    assert ring.webhook_secret("a") == ring.webhook_secret("a") != ring.webhook_secret("b")
    assert ring.webhook_secret("a").startswith("whsec_")


@pytest.mark.parametrize("team", ["", "a b", "a/b", "..", "-a", "é", "a\n", "x" * 65])
def test_odd_teams_are_refused(ring: KeyRing, team: str) -> None:
    with pytest.raises(UsageError, match="1 to 64 letters"):
        ring.add(team)
    with pytest.raises(UsageError, match="1 to 64 letters"):
        ring.webhook_secret(team)
    assert ring.is_empty


def test_unknown_permissions_and_keys_are_refused(ring: KeyRing) -> None:
    with pytest.raises(UsageError, match=r"jobs:delete: use some of jobs:read, .*, metrics:read"):
        ring.add(permissions=["jobs:read", "jobs:delete"])
    for key_id in ("", "%", ring.add().text):
        with pytest.raises(UsageError, match="no key of that id"):
            ring.revoke(key_id)


# --- secrecy --------------------------------------------------------------------------------------------


def test_no_key_is_in_a_repr_or_in_a_file(ring: KeyRing, path: Path) -> None:
    keys = [ring.add() for _ in range(3)]
    secret = ring.webhook_secret("a")
    told = repr([keys, ring, ring.keys(), OpenDoor(secret), ring.caller(f"Bearer {keys[0].text}")])
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert secret.encode() in files  # so what is written is looked at
    assert secret not in told
    for key in keys:
        assert key.text.removeprefix("vpnb_") not in told
        assert key.text.removeprefix("vpnb_").encode() not in files


def test_file_and_folder_are_private(ring: KeyRing, path: Path) -> None:
    ring.add()
    names = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert set(names) == {"keys.sqlite3", "keys.sqlite3-wal", "keys.sqlite3-shm"}
    assert set(names.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(ring: KeyRing, path: Path) -> None:
    ring.close()
    path.chmod(0o644)
    KeyRing(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


# --- other processes and versions -----------------------------------------------------------------------


def test_changes_of_another_process_are_seen_at_once(ring: KeyRing, path: Path) -> None:
    mine = ring.add()
    text = elsewhere(path, f"print(ring.add('b').text); ring.revoke({mine.id!r})")
    assert ring.caller(f"Bearer {mine.text}") is None
    caller = ring.caller(f"Bearer {text}")
    assert caller is not None
    assert caller.team == "b"
    assert elsewhere(path, "print(ring.webhook_secret('b'))") == ring.webhook_secret("b")


def test_rings_opened_at_the_same_moment_share_a_new_file(path: Path) -> None:
    gate, texts, failed = threading.Barrier(6), [], []

    def add() -> None:
        gate.wait()
        try:
            with closing(KeyRing(path)) as ring:
                texts.append(ring.add().text)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with closing(KeyRing(path)) as ring:
        assert all(ring.caller(f"Bearer {text}") for text in texts)
        assert len(ring.keys()) == 6


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    KeyRing(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(UsageError, match="format 2: upgrade"):
        KeyRing(path)


def test_a_path_that_holds_no_keys_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no keys here, but enough text to be taken for a file of its own")
    for path in (file, file / "keys.sqlite3", tmp_path):
        with pytest.raises(UsageError, match="cannot be used"):
            KeyRing(path)


# --- the open door --------------------------------------------------------------------------------------


def test_the_open_door_lets_everybody_in() -> None:
    door = OpenDoor()
    assert door.caller("") == door.caller("Basic \ud800") == Caller("default", frozenset(ALL_PERMISSIONS))
    assert door.webhook_secret("a") == door.webhook_secret("b") != OpenDoor().webhook_secret("a")
    assert OpenDoor("whsec_mine").webhook_secret("a") == "whsec_mine"
