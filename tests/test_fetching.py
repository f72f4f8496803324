"""Web addresses, asked of a real server on loopback that behaves in every bad way."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import logging
import os
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from voiceprint_nb import fetching
from voiceprint_nb.errors import RowError

AUDIO = b"RIFF" + bytes(range(256)) * 40
SECRET = "token=s3cr3t"  # noqa: S105 - of nobody
PATH = "private-name"
BOMB = gzip.compress(bytes(30_000_000), 9)  # 29 kB


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))  # type: ignore[attr-defined]
        name = self.path.split("?")[0].rpartition("/")[2]
        if name.isdigit():
            return self.answer(int(name), b"an explanation", "text/plain")
        getattr(self, f"on_{name.replace('-', '_')}")()
        return None

    def answer(self, status: int, body: bytes, kind: str = "audio/wav", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def on_audio(self) -> None:
        self.answer(200, AUDIO)

    def on_empty(self) -> None:
        self.answer(200, b"")

    def on_page_by_type(self) -> None:
        self.answer(200, AUDIO, "Text/HTML; charset=utf-8")

    def on_page_by_content(self) -> None:
        self.answer(200, b"\xef\xbb\xbf \r\n<!DOCTYPE HTML><html>", "application/octet-stream")

    def on_page_in_pieces(self) -> None:
        self.begin()
        for piece in (b"\n", b"<!doc", b"type html>", b"<p>"):
            self.wfile.write(piece)
            self.wfile.flush()
            self.server.released.wait(0.02)  # type: ignore[attr-defined]

    def on_nothing(self) -> None:
        self.close_connection = True

    def on_cut(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2 * len(AUDIO)))
        self.end_headers()
        self.wfile.write(AUDIO)
        self.close_connection = True

    def on_garbage(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        self.close_connection = True

    def on_bad_encoding(self) -> None:
        self.answer(200, AUDIO, **{"Content-Encoding": "gzip"})

    def on_gzip(self) -> None:
        self.answer(200, gzip.compress(AUDIO), **{"Content-Encoding": "GZip"})

    def on_gzip_in_gzip(self) -> None:
        packed = gzip.compress(gzip.compress(AUDIO))
        self.answer(200, packed, **{"Content-Encoding": "gzip, gzip"})

    def on_deflate(self) -> None:
        self.answer(200, zlib.compress(AUDIO), **{"Content-Encoding": "deflate"})

    def on_gzip_cut(self) -> None:
        self.answer(200, gzip.compress(AUDIO)[:-20], **{"Content-Encoding": "gzip"})

    def on_bomb(self) -> None:
        self.answer(200, BOMB, **{"Content-Encoding": "gzip"})

    def on_zstd(self) -> None:
        self.answer(200, AUDIO, **{"Content-Encoding": "zstd"})

    def on_too_large(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000000")
        self.end_headers()
        self.server.bodies += 1  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            self.wfile.write(b"x" * 5_000_000)
        self.close_connection = True

    def on_endless(self) -> None:
        self.begin()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(b"\x00\x01" * 8192)

    def on_trickle(self) -> None:
        self.begin()
        with contextlib.suppress(OSError):
            for _ in range(100):
                self.wfile.write(b"x")
                self.wfile.flush()
                self.server.released.wait(0.05)  # type: ignore[attr-defined]

    def on_silent(self) -> None:
        self.server.released.wait(10)  # type: ignore[attr-defined]

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "audio/wav")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def redirect(self, to: str) -> None:
        self.answer(302, b"", Location=to)

    def on_hop1(self) -> None:
        self.redirect("audio?second")

    def on_hop2(self) -> None:
        self.redirect("/a/hop1")

    def on_hop3(self) -> None:
        self.redirect(f"http://127.0.0.1:{self.server.server_port}/a/hop2")

    def on_loop(self) -> None:
        self.redirect("loop")

    def on_to_file(self) -> None:
        self.redirect("file:///etc/hostname")

    def on_to_nowhere(self) -> None:
        self.redirect("http://[::1")

    def on_to_bad_host(self) -> None:
        self.redirect("http://" + "a" * 70 + "..example/")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.seen, server.bodies, server.released = [], 0, threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.released.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


def url_of(server: ThreadingHTTPServer, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{PATH}/{name}?{SECRET}"


def fetch(
    url: str, target: Path, *, max_bytes: int = 1_000_000, timeout_s: float = 10.0, quiet_s: float = 5.0
) -> fetching.Downloaded:
    work = fetching.download(url, target, max_bytes=max_bytes, timeout_s=timeout_s, quiet_s=quiet_s)
    return asyncio.run(work)


def refusal(url: str, target: Path, **options: float) -> RowError:
    with pytest.raises(RowError) as caught:
        fetch(url, target, **options)  # type: ignore[arg-type]
    sentence = str(caught.value)
    assert not target.exists()
    assert sentence.endswith(".") and ":" in sentence
    assert SECRET not in sentence and PATH not in sentence and "s3cr3t" not in sentence
    assert caught.value.__cause__ is None  # httpx repeats the address
    return caught.value


def test_signed_addresses_are_not_logged(
    server: ThreadingHTTPServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fetch(url_of(server, "hop1"), tmp_path / "copy")
    assert "HTTP Request: GET http://127.0.0.1/" in caplog.text
    assert "s3cr3t" not in caplog.text
    assert PATH not in caplog.text


@pytest.mark.parametrize("name", ["audio", "hop1", "hop2", "gzip", "deflate"])
def test_audio_arrives_with_size_and_digest(server: ThreadingHTTPServer, tmp_path: Path, name: str) -> None:
    copy = fetch(url_of(server, name), tmp_path / "copy")
    assert copy.path.read_bytes() == AUDIO
    assert (copy.n_bytes, copy.sha256) == (len(AUDIO), hashlib.sha256(AUDIO).hexdigest())
    assert str(tmp_path) not in repr(copy)
    headers = {key.lower(): value for key, value in server.seen[-1].items()}  # type: ignore[attr-defined]
    assert headers["user-agent"] == "voiceprint_nb"
    assert "authorization" not in headers and "cookie" not in headers


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("404", "url_not_found"),
        ("410", "url_not_found"),
        ("401", "url_refused"),
        ("403", "url_refused"),
        ("407", "url_refused"),
        ("304", "url_unreachable"),
        ("429", "url_unreachable"),
        ("500", "url_unreachable"),
        ("page-by-type", "url_web_page"),
        ("page-by-content", "url_web_page"),
        ("page-in-pieces", "url_web_page"),
        ("empty", "empty_file"),
        ("204", "empty_file"),
        ("nothing", "url_unreachable"),
        ("cut", "url_unreachable"),
        ("garbage", "url_unreachable"),
        ("bad-encoding", "url_unreachable"),
        ("gzip-in-gzip", "url_unreachable"),
        ("gzip-cut", "url_unreachable"),
        ("zstd", "url_unreachable"),
        ("endless", "too_large"),
        ("hop3", "url_redirects"),
        ("loop", "url_redirects"),
        ("to-file", "url_unreachable"),
        ("to-nowhere", "url_unreachable"),
        ("to-bad-host", "url_unreachable"),
    ],
)
def test_every_bad_answer_has_its_code(
    server: ThreadingHTTPServer, tmp_path: Path, name: str, code: str
) -> None:
    assert refusal(url_of(server, name), tmp_path / "copy").code == code


def test_a_length_beyond_the_limit_is_refused_before_the_body(
    server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    error = refusal(url_of(server, "too-large"), tmp_path / "copy", max_bytes=4_194_304)
    assert error.code == "too_large"
    assert "4.8 MiB" in str(error) and "4 MiB" in str(error)


def test_what_unpacks_to_far_more_takes_no_memory(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        error = refusal(url_of(server, "bomb"), tmp_path / "copy", max_bytes=4_000_000)
        assert error.code == "too_large"
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8_000_000


def test_copies_are_for_their_user_only(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        copy = fetch(url_of(server, "audio"), tmp_path / "copy")
    finally:
        os.umask(before)
    assert copy.path.stat().st_mode & 0o777 == 0o600


def test_the_limit_itself_is_allowed(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    assert fetch(url_of(server, "audio"), tmp_path / "copy", max_bytes=len(AUDIO)).n_bytes == len(AUDIO)
    assert refusal(url_of(server, "audio"), tmp_path / "copy", max_bytes=len(AUDIO) - 1).code == "too_large"


@pytest.mark.parametrize(
    ("name", "options"),
    [("trickle", {"timeout_s": 0.3}), ("silent", {"timeout_s": 0.3}), ("silent", {"quiet_s": 0.3})],
)
def test_slow_servers_are_left(
    server: ThreadingHTTPServer, tmp_path: Path, name: str, options: dict[str, float]
) -> None:
    started = time.monotonic()
    assert refusal(url_of(server, name), tmp_path / "copy", **options).code == "url_timeout"
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/a.wav",
        "http://no-such-host.invalid/a.wav",
        "http://" + "a" * 70 + ".example/a.wav",
        "http://a..example/a.wav",
        "http://127.0.0.1:99999/a.wav",
        "http://[::1/a.wav",
        "ftp://127.0.0.1/a.wav",
        "https://127.0.0.1:1/a.wav",
        "http:///a.wav",
    ],
)
def test_addresses_that_lead_nowhere(tmp_path: Path, url: str) -> None:
    assert refusal(url, tmp_path / "copy").code == "url_unreachable"


def test_a_cancelled_transfer_leaves_no_file(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    target = tmp_path / "copy"

    async def main() -> None:
        work = fetching.download(url_of(server, "trickle"), target, max_bytes=1000, timeout_s=10)
        task = asyncio.create_task(work)
        while not target.exists():  # noqa: ASYNC110 - another thread makes it
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not target.exists()


def test_a_given_client_stays_open_and_its_transport_is_used(tmp_path: Path) -> None:
    asked: list[httpx.URL] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, content=AUDIO)

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            for _ in range(2):
                copy = await fetching.download(
                    "https://host.example/a", tmp_path / "copy", max_bytes=1 << 20, timeout_s=5, client=client
                )
                assert copy.n_bytes == len(AUDIO)
            assert not client.is_closed

    asyncio.run(main())
    assert [url.host for url in asked] == ["host.example"] * 2
