from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceprint_nb.service.media import BadLink, MediaStore, MediaTooLarge

TEAM = "default"
KEY = "media://team/a.wav"
BASE = "http://voiceprint.local/"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_763_469_434.75

    def __call__(self) -> float:
        return self.now_s


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def token(link: str) -> str:
    return link.rpartition("/")[2]


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "media", max_bytes=3_000_000, clock=Clock())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- files ----------------------------------------------------------------------------------------------


def test_upload_is_kept_under_the_hash_of_its_key(store: MediaStore, tmp_path: Path) -> None:
    assert asyncio.run(store.write(TEAM, KEY, chunks(b"ab", b"", b"c"))) == 3
    assert store.path(TEAM, KEY).read_bytes() == b"abc"
    assert len(store.path(TEAM, KEY).name) == 64
    assert not any("team" in str(path) for path in tmp_path.rglob("*"))


def test_pieces_of_a_large_chunk_keep_their_order(store: MediaStore) -> None:
    data = bytes(range(256)) * 10_000
    asyncio.run(store.write(TEAM, KEY, chunks(data)))
    assert store.path(TEAM, KEY).read_bytes() == data


def test_last_upload_replaces_and_readers_keep_what_they_opened(store: MediaStore) -> None:
    asyncio.run(store.write(TEAM, KEY, chunks(b"first")))
    with store.path(TEAM, KEY).open("rb") as reader:
        asyncio.run(store.write(TEAM, KEY, chunks(b"second")))
        assert reader.read() == b"first"
    assert store.path(TEAM, KEY).read_bytes() == b"second"


@pytest.mark.parametrize("parts", [(b"x" * 3_000_001,), (b"x" * 3_000_000, b"x")])
def test_too_large_uploads_leave_what_was_there(store: MediaStore, tmp_path: Path, parts: Any) -> None:
    asyncio.run(store.write(TEAM, KEY, chunks(b"old")))
    with pytest.raises(MediaTooLarge):
        asyncio.run(store.write(TEAM, KEY, chunks(*parts)))
    assert store.path(TEAM, KEY).read_bytes() == b"old"
    assert len(names(tmp_path)) == 2


def test_largest_upload_is_taken(store: MediaStore) -> None:
    assert asyncio.run(store.write(TEAM, KEY, chunks(b"x" * 3_000_000))) == 3_000_000


def test_broken_and_canceled_uploads_leave_nothing(store: MediaStore, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionError

    async def canceled() -> None:
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"half"
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.write(TEAM, KEY, endless()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with pytest.raises(ConnectionError):
        asyncio.run(store.write(TEAM, KEY, broken()))
    asyncio.run(canceled())
    assert names(tmp_path) == ["link.secret"]


def test_leftovers_of_an_earlier_service_go_away(store: MediaStore, tmp_path: Path) -> None:
    asyncio.run(store.write(TEAM, KEY, chunks(b"kept")))
    (tmp_path / "media" / "incoming" / "half").write_bytes(b"x")
    again = MediaStore(tmp_path / "media")
    again.discard_partial()
    assert names(tmp_path) == sorted(["link.secret", store.path(TEAM, KEY).name])


def test_folders_and_files_are_private(store: MediaStore, tmp_path: Path) -> None:
    asyncio.run(store.write(TEAM, KEY, chunks(b"x")))
    for path in (tmp_path / "media", *(tmp_path / "media").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


# --- links ----------------------------------------------------------------------------------------------


def test_link_names_its_key_for_one_hour_even_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    link = MediaStore(tmp_path / "media", clock=clock).link("PUT", TEAM, KEY, base_url=BASE)
    assert link.startswith("http://voiceprint.local/media/")
    store = MediaStore(tmp_path / "media", clock=clock)
    clock.now_s += 3599
    assert store.opened("PUT", token(link)) == (TEAM, KEY)
    clock.now_s += 2
    with pytest.raises(BadLink, match="expired"):
        store.opened("PUT", token(link))


def test_link_is_for_one_method_and_one_store(store: MediaStore, tmp_path: Path) -> None:
    link = token(store.link("PUT", TEAM, KEY, base_url=BASE))
    with pytest.raises(BadLink):
        store.opened("GET", link)
    with pytest.raises(BadLink):
        MediaStore(tmp_path / "other", clock=Clock()).opened("PUT", link)


def test_no_changed_link_is_taken(store: MediaStore) -> None:
    link = token(store.link("PUT", TEAM, KEY, base_url=BASE))
    claim, _, signature = link.partition(".")
    later = token(
        MediaStore(store.path(TEAM, KEY).parents[1], clock=lambda: 2e9).link("PUT", TEAM, KEY, base_url=BASE)
    )
    changed = [
        "",
        ".",
        claim,
        f"{claim}.",
        f".{signature}",
        f"{claim}.{signature[:-1]}",
        f"{claim}.{signature}0",
        f"{claim}.{signature.upper()}",
        f"{claim[:-1]}.{signature}",
        f"{claim}A.{signature}",
        f"{later.partition('.')[0]}.{signature}",
    ]
    for text in changed:
        with pytest.raises(BadLink):
            store.opened("PUT", text)


@given(text=st.text(max_size=60))
def test_no_text_crashes_the_check(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "links"
    with pytest.raises(BadLink):
        MediaStore(folder).opened("PUT", text)
