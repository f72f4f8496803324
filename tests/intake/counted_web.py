"""A web server on loopback with files of any kind, which honours ranges or not, and counts what it sends."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """What is at one address; ``headers`` overrides, and None leaves a header out."""

    data: bytes
    ranges: bool = True
    status: int | None = None
    chunked: bool = False
    headers: dict[str, str | None] = field(default_factory=dict)
    changes: bool = False  # with every answer


class Web:
    """The files, and what was asked for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pages: dict[str, Page] = {}
        self.asked: list[str | None] = []  # the Range header of each request
        self.pieces: list[int] = []

    @property
    def sent(self) -> int:
        """Bytes of bodies since the last `put`."""
        return sum(self.pieces)

    def put(self, data: bytes, name: str = "clip", **options: Any) -> str:
        self.pages[f"/{name}"] = Page(data, **options)
        self.asked, self.pieces = [], []  # new ones: an earlier answer may still be on its way
        return f"http://127.0.0.1:{self.port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:
        web = self.web
        self.pieces = web.pieces  # of now: a `put` may come before the answer
        web.asked.append(self.headers["Range"])
        page = web.pages.get(self.path.partition("?")[0])
        if page is None:
            return self.answer(404, b"nothing", {})
        etag = hashlib.md5(page.data[:64] + (b"%d" % len(web.asked) if page.changes else b"")).hexdigest()  # noqa: S324 - a version, no secret
        headers = {"Content-Type": "audio/wav", "ETag": f'"{etag}"', "Content-Length": str(len(page.data))}
        status, body = page.status or 200, page.data
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        if asked and page.ranges:
            start, stop = int(asked[1]), min(int(asked[2]) + 1, len(page.data))
            status, body = (206, page.data[start:stop]) if start < len(page.data) else (416, b"")
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(page.data)}"
            headers["Content-Length"] = str(len(body))
        if page.chunked:
            headers["Connection"] = "close"
        kept = {**headers, **page.headers, **({"Content-Length": None} if page.chunked else {})}
        return self.answer(page.status or status, body, {key: value for key, value in kept.items() if value})

    def answer(self, status: int, body: bytes, headers: dict[str, str | None]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, str(value))
        if "Content-Length" not in headers:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have enough
            for at in range(0, len(body), 4096):
                self.pieces.append(len(body[at : at + 4096]))
                self.wfile.write(body[at : at + 4096])

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Web]:
    handler = type("OneHandler", (Handler,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        web = handler.web = Web(server.server_port)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield web
        server.shutdown()
        thread.join()
