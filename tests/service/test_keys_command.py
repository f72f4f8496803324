from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from voiceprint_nb.errors import UsageError
from voiceprint_nb.service.keys import PERMISSIONS, KeyRing
from voiceprint_nb.service.keys_command import add_parser, keys

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command line; what it printed on stdout and stderr."""
    monkeypatch.setenv("VOICEPRINT_NB_DATA_DIR", str(tmp_path))
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(dest="command", required=True))

    def run(*arguments: str) -> tuple[str, str]:
        options = vars(parser.parse_args(["keys", *arguments]))
        assert options.pop("command") == "keys"
        assert keys(**options) == 0
        return capsys.readouterr()

    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "service" / "keys.sqlite3"


def test_add_prints_the_key_alone_and_the_rest_beside(run: Run, path: Path) -> None:
    out, err = run("add")
    with closing(KeyRing(path)) as ring:
        caller = ring.caller(f"Bearer {out.strip()}")
        assert caller is not None
        assert (caller.team, caller.permissions) == ("default", frozenset(PERMISSIONS))
        key_id = ring.keys()[0].id
    assert out == out.strip() + "\n"
    assert err == f"Key {key_id} of team default. It is kept only as a hash: store it now.\n"


def test_list_and_revoke(run: Run) -> None:
    text = run("add", "--team", "lab", "--permissions", "jobs:read", "metrics:read", "--note", "a\nb")[0]
    other = run("add")[0]
    head, first, second = run("list")[0].splitlines()
    assert head.split() == ["id", "team", "permissions", "created", "revoked", "note"]
    key_id, team, permissions, created, revoked, note = first.split(maxsplit=5)
    assert (team, permissions, revoked, note) == ("lab", "jobs:read,metrics:read", "-", "a b")
    assert run("revoke", key_id) == ("", f"Key {key_id} is let in no more.\n")
    listed = run("list")[0]
    assert listed.splitlines()[1].split()[4] >= created
    assert listed.splitlines()[2].split() == second.split()
    assert text.strip() not in listed
    assert other.strip() not in listed


def test_an_empty_list_has_a_head(run: Run) -> None:
    assert len(run("list")[0].splitlines()) == 1


def test_secret_of_a_team_is_always_the_same(run: Run) -> None:
    secret = run("secret", "--team", "lab")[0]
    assert secret.startswith("whsec_")
    assert run("secret", "--team", "lab")[0] == secret != run("secret")[0]


def test_another_folder(run: Run, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run("add", "--data-dir=~/mine")
    assert (tmp_path / "mine" / "keys.sqlite3").exists()
    assert not path.exists()


def test_impossible_calls(run: Run) -> None:
    with pytest.raises(UsageError, match="no key of that id"):
        run("revoke", "00000000")
    with pytest.raises(UsageError, match="1 to 64 letters"):
        run("add", "--team", "a b")
    for arguments in ((), ("revoke",), ("add", "--permissions", "jobs:delete")):
        with pytest.raises(SystemExit, match="2"):
            run(*arguments)
