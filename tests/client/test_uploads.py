from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty import SIGNED, Fault, Faulty, acts_then, answers, fails

from voiceprint_nb.client import uploads
from voiceprint_nb.client.transport import Api
from voiceprint_nb.contract import MEDIA_INPUT_PATH
from voiceprint_nb.errors import KeyRefused, NoCredit, ProtocolError, RowError, ServiceError

Talk = Callable[..., Any]


def upload(
    path: Path, *, n_bytes: int | None = None, sent: Callable[[int], None] = lambda n_bytes: None
) -> Callable[[Api], Any]:
    n_bytes = path.stat().st_size if n_bytes is None else n_bytes
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    media_key = uploads.media_key(digest)
    return lambda api: uploads.put(api, path, n_bytes=n_bytes, media_key=media_key, sent=sent)


def stored(wire: Faulty) -> list[bytes]:
    return [sent.content for sent in wire.requests if sent.method == "PUT" and hasattr(sent, "_content")]


def test_bytes_arrive_under_their_digest_without_the_key(talk: Talk, wire: Faulty, clip: Path) -> None:
    talk(upload(clip), api_key="key-0f3a")
    ticket, transfer = wire.requests
    key = json.loads(ticket.content)["url"]
    assert key == f"media://voiceprint-nb/{hashlib.sha256(clip.read_bytes()).hexdigest()}"
    assert "_" not in key
    assert ticket.headers["authorization"] == "Bearer key-0f3a"
    assert "authorization" not in transfer.headers
    assert transfer.headers["content-length"] == str(clip.stat().st_size)
    assert "transfer-encoding" not in transfer.headers
    assert stored(wire) == [clip.read_bytes()]


@pytest.mark.parametrize("status", [400, 403])
def test_expired_link_gets_a_fresh_ticket_thrice(talk: Talk, wire: Faulty, clip: Path, status: int) -> None:
    wire.on("PUT", "/media/", *[answers(status)] * 3)
    talk(upload(clip))
    assert wire.paths("POST") == [MEDIA_INPUT_PATH] * 4
    wire.always("PUT", "/media/", answers(403, {"message": SIGNED}))
    with pytest.raises(RowError, match="403") as refused:
        talk(upload(clip))
    assert refused.value.code == "upload_failed"
    assert SIGNED not in str(refused.value)
    assert "/media/" not in str(refused.value)


@pytest.mark.parametrize(
    "fault",
    [answers(500), answers(408), answers(429), fails(httpx.ReadError), acts_then(fails(httpx.ReadError))],
)
def test_broken_transfer_begins_anew_with_all_bytes(
    talk: Talk, wire: Faulty, clip: Path, fault: Fault
) -> None:
    wire.on("PUT", "/media/", fault, fault)
    told: list[int] = []
    talk(upload(clip, sent=told.append))
    assert stored(wire)[-1] == clip.read_bytes()
    assert sum(told) == clip.stat().st_size  # what came to nothing is taken back
    wire.always("PUT", "/media/", fault)
    with pytest.raises(RowError) as broken:
        talk(upload(clip))
    assert broken.value.code == "upload_failed"


@pytest.mark.parametrize("status", [400, 401, 402, 404, 413])
def test_storage_that_refuses_does_not_speak_for_the_account(
    talk: Talk, wire: Faulty, clip: Path, status: int
) -> None:
    wire.always("PUT", "/media/", answers(status))
    with pytest.raises(RowError, match=str(status)) as refused:
        talk(upload(clip))
    assert refused.value.code == "upload_failed"


@pytest.mark.parametrize(("status", "kind"), [(401, KeyRefused), (402, NoCredit), (403, KeyRefused)])
def test_account_that_is_refused_is_no_matter_of_the_row(
    talk: Talk, wire: Faulty, clip: Path, status: int, kind: type[ServiceError]
) -> None:
    wire.always("POST", MEDIA_INPUT_PATH, answers(status))
    with pytest.raises(kind):
        talk(upload(clip))


@pytest.mark.parametrize("body", [{}, {"url": 5}, ["url"]])
def test_ticket_without_an_address(talk: Talk, wire: Faulty, clip: Path, body: Any) -> None:
    wire.on("POST", MEDIA_INPUT_PATH, answers(201, body))
    with pytest.raises(ProtocolError):
        talk(upload(clip))


def test_file_that_is_gone_or_has_changed_is_not_stored(talk: Talk, wire: Faulty, clip: Path) -> None:
    with pytest.raises(RowError, match="changed") as changed:
        talk(upload(clip, n_bytes=10))
    session = upload(clip)
    clip.unlink()
    with pytest.raises(RowError, match="can no longer be read") as gone:
        talk(session)
    assert changed.value.code == gone.value.code == "upload_failed"
    assert not stored(wire)
