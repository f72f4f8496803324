"""Files of every kind, found or refused without hanging."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from voiceprint_nb import audio, contract
from voiceprint_nb.errors import RowError
from voiceprint_nb.intake import looking, sources

Look = Callable[[Path], looking.LocalFile]
Drop = Callable[[], contextlib.AbstractContextManager[None]]


def refusal(look: Callable[..., object], *args: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        look(*args)
    assert str(caught.value).endswith(".") and ": " in str(caught.value)
    return caught.value


def look_at(cell: object, scratch: Path) -> looking.LocalFile:
    source = sources.parse(cell)
    assert not isinstance(source, (sources.UrlSource, sources.CloudSource, sources.MediaSource))
    return looking.look_local(source, scratch)


def test_a_file_is_told_by_size_and_digest(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    assert look(path) == looking.LocalFile(path, 5, hashlib.sha256(b"hello").hexdigest())
    assert str(path) not in repr(look(path))


def test_equal_content_has_equal_digests_however_it_comes(scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF and so on")
    link = tmp_path / "link.wav"
    link.symlink_to(path)
    with path.open("rb") as file:
        cells = [
            path,
            str(link),
            path.read_bytes(),
            bytearray(path.read_bytes()),
            file,
            io.BytesIO(path.read_bytes()),
        ]
        assert len({look_at(cell, scratch).sha256 for cell in cells}) == 1
    other = look_at(b"RIFF and so on!", scratch)
    assert other.sha256 != look_at(path, scratch).sha256


def test_samples_have_the_digest_of_their_values(
    scratch: Path, tone: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tone()
    first = look_at((samples, 16_000), scratch)
    assert look_at((samples.astype(np.float64), 16_000.0), scratch).sha256 == first.sha256
    assert look_at((samples[::2].copy(), 16_000), scratch).sha256 != first.sha256
    assert look_at((samples, 8_000), scratch).sha256 != first.sha256
    assert look_at((samples[:, None], 16_000), scratch).sha256 != first.sha256
    assert np.array_equal(audio.read_mono(first.path), samples)
    assert audio.probe(look_at((np.stack([samples] * 8, axis=1), 384_000), scratch).path).channels == 8


@pytest.mark.parametrize(
    "name", ["gone.wav", "gone/gone.wav", "x" * 300, "a\ud800.wav", "file.wav/inside.wav"]
)
def test_files_that_are_not_there(look: Look, tmp_path: Path, name: str) -> None:
    (tmp_path / "file.wav").write_bytes(b"x")
    error = refusal(look, tmp_path / name)
    assert error.code == "file_not_found"
    assert "base=" in str(error)
    str(error).encode()


def test_links_in_a_circle(look: Look, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert refusal(look, tmp_path / "a").code == "file_not_found"


def test_folders_and_empty_files(look: Look, tmp_path: Path) -> None:
    assert refusal(look, tmp_path).code == "is_directory"
    assert refusal(look, Path()).code == "is_directory"
    (tmp_path / "empty.wav").touch()
    assert refusal(look, tmp_path / "empty.wav").code == "empty_file"


def test_special_files_are_refused_without_waiting(look: Look, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "zero.wav").symlink_to("/dev/zero")
    (tmp_path / "null.wav").symlink_to(os.devnull)
    for name in ("pipe.wav", "zero.wav", "null.wav"):
        errors: list[RowError] = []
        worker = threading.Thread(
            target=lambda n=name, e=errors: e.append(refusal(look, tmp_path / n)), daemon=True
        )
        worker.start()
        worker.join(5.0)
        assert [error.code for error in errors] == ["not_readable"]


def test_files_that_may_not_be_read(look: Look, as_nobody: Drop) -> None:
    folder = Path("/tmp", f"voiceprint-nb-test-{os.getpid()}-{time.monotonic_ns()}")  # noqa: S108 - anybody may enter it
    folder.mkdir(mode=0o755)
    path = folder / "a.wav"
    try:
        path.write_bytes(b"RIFF")
        path.chmod(0)
        with as_nobody():
            error = refusal(look, path)
        assert error.code == "not_readable" and "permissions" in str(error)
        folder.chmod(0o700 if os.geteuid() == 0 else 0o600)
        with as_nobody():
            assert refusal(look, path).code == "not_readable"
            assert sources.parse("a.wav", bases=[folder]) == sources.PathSource(path)
    finally:
        folder.chmod(0o700)
        path.unlink()
        folder.rmdir()


def test_a_huge_file_is_not_read_through(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    path.touch()
    os.truncate(path, 1 << 40)
    started = time.monotonic()
    assert look(path) == looking.LocalFile(path, 1 << 40, None)
    assert time.monotonic() - started < 1.0


# --- open files -----------------------------------------------------------------------------------------


class Reader:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def read(self, n_bytes: int = -1) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (OSError("gone"), "not_readable"),
        (RuntimeError("odd"), "not_readable"),
        ("text", "unsupported_cell"),
        (None, "unsupported_cell"),
        (b"", "empty_file"),
        (bytes(contract.MAX_BYTES + 1), "too_large"),
    ],
)
def test_open_files_that_cannot_be_used(scratch: Path, answer: object, code: str) -> None:
    assert refusal(look_at, Reader(answer), scratch).code == code
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_open_files_of_any_library(scratch: Path, kind: Any) -> None:
    assert look_at(Reader(kind(b"RIFF")), scratch).path.read_bytes() == b"RIFF"


def test_a_file_that_was_read_before_says_so(scratch: Path) -> None:
    file = io.BytesIO(b"RIFF")
    look_at(file, scratch)
    assert "seek(0)" in str(refusal(look_at, file, scratch))


# --- addresses ------------------------------------------------------------------------------------------


def test_a_web_address_is_copied(scratch: Path) -> None:
    async def main() -> looking.LocalFile:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=b"RIFF"))
        async with httpx.AsyncClient(transport=transport) as client:
            return await looking.look_remote(sources.UrlSource("https://host/a"), scratch, client)

    file = asyncio.run(main())
    assert file == looking.LocalFile(file.path, 4, hashlib.sha256(b"RIFF").hexdigest())
    assert file.path.parent == scratch
