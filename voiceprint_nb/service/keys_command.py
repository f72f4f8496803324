"""``voiceprint-nb keys``: make, list and revoke the keys of a served service in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from voiceprint_nb.service.keys import ALL_PERMISSIONS, DEFAULT_TEAM, KEYS_FILE_NAME, PERMISSIONS, KeyRing
from voiceprint_nb.service.options import service_folder
from voiceprint_nb.service.records import timestamp


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``keys`` with its actions; what they parse is for `keys`."""
    does = "make, list and revoke the keys of a served service"
    parser = commands.add_parser("keys", help=does, description=f"keys: {does}.")
    actions = parser.add_subparsers(dest="action", required=True)

    def action(name: str, does: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=does, description=f"{name}: {does}.")
        made.add_argument("--data-dir", type=Path, help="folder of the service (default: the user's own)")
        return made

    add = action("add", "make a key and print it, once")
    add.add_argument(
        "--permissions",
        nargs="+",
        metavar="NAME",
        choices=ALL_PERMISSIONS,
        default=PERMISSIONS,
        help=f"some of {', '.join(ALL_PERMISSIONS)} (default: the first {len(PERMISSIONS)})",
    )
    add.add_argument("--note", default="", help="what the key is for")
    action("list", "show all keys, without their text")
    action("revoke", "let a key in no more").add_argument("key_id", metavar="ID", help="8 digits, see list")
    secret = action("secret", "print what signs the webhooks of a team")
    for command in (add, secret):
        command.add_argument("--team", default=DEFAULT_TEAM, help="(default: %(default)s)")


def keys(*, action: str, data_dir: Path | None, **options: Any) -> int:
    """Do one action; the exit status.

    Raises
    ------
    UsageError
        The key file cannot be used, or the action is impossible.
    """
    with closing(KeyRing(service_folder(data_dir) / KEYS_FILE_NAME)) as ring:
        _ACTIONS[action](ring, **options)
    return 0


def _add(ring: KeyRing, *, team: str, permissions: Sequence[str], note: str) -> None:
    key = ring.add(team, permissions, note)
    print(key.text, flush=True)  # alone, so that it can be captured
    print(f"Key {key.id} of team {team}. It is kept only as a hash: store it now.", file=sys.stderr)


def _list(ring: KeyRing) -> None:
    rows = [("id", "team", "permissions", "created", "revoked", "note")]
    facts = ring.keys()
    for key in facts:
        permissions = ",".join(sorted(key.permissions))
        note = " ".join(key.note.split())
        rows.append((key.id, key.team, permissions, _time(key.created_s), _time(key.revoked_s), note))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def _revoke(ring: KeyRing, *, key_id: str) -> None:
    ring.revoke(key_id)
    print(f"Key {key_id} is let in no more.", file=sys.stderr)


def _secret(ring: KeyRing, *, team: str) -> None:
    print(ring.webhook_secret(team))


def _time(unix_s: float | None) -> str:
    return "-" if unix_s is None else timestamp(round(unix_s * 1000))


_ACTIONS: dict[str, Callable[..., None]] = {
    "add": _add,
    "list": _list,
    "revoke": _revoke,
    "secret": _secret,
}
