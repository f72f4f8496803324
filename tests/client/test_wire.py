from __future__ import annotations

import asyncio
import base64
import contextlib
import inspect
import json
import logging
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import pytest
from faulty import Faulty, Time

import voiceprint_nb as vp
from tests.service.parts import Handler, Receiver, self_signed
from voiceprint_nb import fetching
from voiceprint_nb.batch.inspecting import Inspector
from voiceprint_nb.batch.outcomes import Request
from voiceprint_nb.client.transport import Api
from voiceprint_nb.client.wire import CONNECT_S, TRANSFER_S
from voiceprint_nb.contract import MEDIA_INPUT_PATH, TEST_PATH
from voiceprint_nb.errors import ServiceUnavailable, UsageError
from voiceprint_nb.intake import ranges

KEY = "key-0f3a"
PROXY_USER = "me:proxy-word-77b1"
BUNDLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

Environment = Callable[..., None]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Sets what the environment says of the network; nothing else is left of it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in BUNDLES:
        monkeypatch.delenv(name, raising=False)

    def put(**values: object) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))

    return put


# --- the other sides ------------------------------------------------------------------------------------


class WebHandler(Handler):
    """A service and its storage, in a few words."""

    server: Web

    do_PUT = Handler._answer  # noqa: N815 - the base class's name


def answer(handler: Handler) -> None:
    ticket = {"url": f"{handler.server.url}/store/clip?X-Amz-Signature=5f1e"}
    body = handler.server.files.get(handler.path) or json.dumps(ticket).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Set-Cookie", "spy=1")
    handler.end_headers()
    handler.wfile.write(body)


def cut(handler: Handler) -> None:
    """Reset the connection, once the request is read."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


class Web(Receiver):
    """Keeps what arrives; answers as the service would."""

    def __init__(self, *script: Any, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(*script, tls=tls)
        self.RequestHandlerClass = WebHandler
        self.otherwise = answer
        self.files: dict[str, bytes] = {}
        self.n_connections = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        self.n_connections += 1  # before the handshake, which may fail
        return super().get_request()

    def all(self) -> list[Any]:
        return [self.next() for _ in range(self.got.qsize())]


class Proxy(socketserver.ThreadingTCPServer):
    """A forward proxy: tunnels by CONNECT, and requests in absolute form, one a connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.heads: list[str] = []  # of the requests to the proxy itself
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def lines(self) -> list[str]:
        return [head.partition("\r\n")[0] for head in self.heads]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class ProxyHandler(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        head = b"".join(iter(self.rfile.readline, b"\r\n")).decode()
        if not head:
            return
        self.server.heads.append(head)
        method, target, _ = head.partition("\r\n")[0].split()
        address = urlsplit(target if "://" in target else f"//{target}")
        with socket.create_connection((address.hostname, address.port)) as upstream:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                kept = [line for line in head.split("\r\n")[1:-1] if not line.lower().startswith("proxy-")]
                path = f"{address.path}?{address.query}" if address.query else address.path
                upstream.sendall("\r\n".join([f"{method} {path} HTTP/1.0", *kept, "", ""]).encode())
            sending = threading.Thread(target=self._pass_on, args=(self.rfile.read1, upstream))
            sending.start()
            self._pass_on(upstream.recv, self.connection)
            sending.join()

    def _pass_on(self, read: Callable[[int], bytes], target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := read(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class Certificates:
    """A server's certificate, and the ways to name it."""

    def __init__(self, folder: Path) -> None:
        self.file, key = self_signed(folder, "IP:127.0.0.1")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.file, key)

    @cached_property
    def folder(self) -> Path:
        """It alone, under the name that OpenSSL looks for."""
        command = ["openssl", "x509", "-noout", "-hash", "-in", str(self.file)]
        digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        folder = self.file.with_name("trusted")
        folder.mkdir()
        shutil.copy(self.file, folder / f"{digest}.0")
        return folder


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


# --- this side ------------------------------------------------------------------------------------------


async def everything(api: Api) -> None:
    """One request of each kind."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    await api.check_key()
    body = {"url": "media://a"}
    told = await api.post(MEDIA_INPUT_PATH, body, pacer=api.media_pacer, repeatable=False)
    assert isinstance(told, dict)
    await api.put(told["url"], chunks, 3, media_key="media://a")


async def check(api: Api) -> None:
    await api.check_key()


async def posted(api: Api) -> object:
    return await api.post(MEDIA_INPUT_PATH, {}, pacer=api.media_pacer, repeatable=False)


def talk(url: str, session: Callable[[Api], Awaitable[Any]] = everything) -> Any:
    time = Time()

    async def opened() -> Any:
        async with Api(base_url=url, api_key=KEY, clock=time.clock, sleep=time.sleep) as api:
            return await session(api)

    return asyncio.run(opened())


async def copied(url: str, folder: Path) -> fetching.Downloaded:
    return await fetching.download(url, folder / "copy", max_bytes=1 << 20, timeout_s=20.0)


async def inspected(url: str) -> str:
    async with Inspector(Request(), passes_on=lambda _: True) as inspector:
        return (await inspector.check(inspector.parse(url))).state


# --- proxies --------------------------------------------------------------------------------------------


def test_requests_go_through_the_proxy(environment: Environment, tmp_path: Path) -> None:
    with Proxy() as proxy, Web() as web:
        environment(HTTP_PROXY=proxy.url)
        talk(web.url)
        asyncio.run(copied(f"{web.url}/file", tmp_path))
        assert proxy.lines == [
            f"GET {web.url}{TEST_PATH} HTTP/1.1",
            f"POST {web.url}{MEDIA_INPUT_PATH} HTTP/1.1",
            f"PUT {web.url}/store/clip?X-Amz-Signature=5f1e HTTP/1.1",
            f"GET {web.url}/file HTTP/1.1",
        ]
        got = web.all()
        assert len(got) == 4
        assert got[2].body == b"abc"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_sees_nothing_of_what_is_encrypted(
    environment: Environment, certificates: Certificates, name: str, tmp_path: Path
) -> None:
    with Proxy() as proxy, Web(tls=certificates.tls) as web:
        proxy_url = proxy.url.replace("//", f"//{PROXY_USER}@")
        environment(**{name: proxy_url}, SSL_CERT_FILE=certificates.file)
        talk(web.url)
        asyncio.run(copied(f"{web.url}/file", tmp_path))
        assert set(proxy.lines) == {f"CONNECT 127.0.0.1:{web.server_port} HTTP/1.1"}
        assert all("proxy-authorization: basic" in head.lower() for head in proxy.heads)
        assert KEY not in "".join(proxy.heads)
        assert not any("proxy-authorization" in got.headers for got in web.all())


def test_no_proxy_leads_past_it(environment: Environment) -> None:
    with Proxy() as proxy, Web() as web:
        environment(HTTP_PROXY=proxy.url, NO_PROXY="example.org,127.0.0.1")
        talk(web.url)
        assert not proxy.heads


def test_a_proxy_that_is_away_leaves_the_request_here(environment: Environment) -> None:
    with Proxy() as proxy:
        pass
    with Web() as web:
        environment(HTTP_PROXY=proxy.url)
        with pytest.raises(ServiceUnavailable, match="cannot be reached") as failure:
            talk(web.url, check)
    assert not failure.value.sent


@pytest.mark.parametrize("url", [f"ftp://{PROXY_USER}@host:1", f"http://{PROXY_USER}@host:port"])
def test_a_proxy_that_is_none(environment: Environment, url: str) -> None:
    environment(HTTP_PROXY=url)
    with pytest.raises(UsageError, match="HTTP_PROXY") as refused:
        talk("http://127.0.0.1:1")
    assert PROXY_USER not in str(refused.value)
    with pytest.raises(UsageError, match="HTTP_PROXY"):
        asyncio.run(inspected("http://127.0.0.1:1/clip"))


def test_the_environment_is_nothing_to_the_service_in_this_process(
    environment: Environment, wire: Faulty
) -> None:
    environment(HTTP_PROXY="ftp://host", SSL_CERT_FILE="/no/such/file")

    async def session() -> None:
        async with Api(base_url="http://local", api_key=None, transport=wire) as api:
            await api.check_key()

    asyncio.run(session())


# --- certificates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLES)
def test_certificates_that_the_environment_names(
    environment: Environment, certificates: Certificates, name: str, tmp_path: Path
) -> None:
    environment(**{name: certificates.folder if name == "SSL_CERT_DIR" else certificates.file})
    with Web(tls=certificates.tls) as web:
        talk(web.url)
        asyncio.run(copied(f"{web.url}/file", tmp_path))
        assert len(web.all()) == 4


def test_the_bundle_of_httpx_comes_first(
    environment: Environment, certificates: Certificates, tmp_path: Path
) -> None:
    environment(SSL_CERT_FILE=certificates.file, REQUESTS_CA_BUNDLE=tmp_path / "none")
    with Web(tls=certificates.tls) as web:
        talk(web.url)


@pytest.mark.parametrize("through_proxy", [False, True])
def test_a_certificate_that_nobody_vouches_for_is_final(
    environment: Environment, certificates: Certificates, through_proxy: bool
) -> None:
    with Proxy() as proxy, Web(tls=certificates.tls) as web:
        if through_proxy:
            environment(HTTPS_PROXY=proxy.url)
        for session in (posted, check):
            before = web.n_connections
            with pytest.raises(ServiceUnavailable, match="certificate") as failure:
                talk(web.url, session)
            assert (failure.value.retryable, failure.value.sent) == (False, False)
            assert web.n_connections - before == 1
        assert len(proxy.heads) == (2 if through_proxy else 0)


@pytest.mark.parametrize("name", BUNDLES)
def test_certificates_that_are_none(environment: Environment, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for path in (tmp_path / "none.pem", tmp_path / "text.pem"):
        environment(**{name: path})
        with pytest.raises(UsageError, match=name):
            talk("http://127.0.0.1:1")
        with pytest.raises(UsageError, match=name):
            asyncio.run(inspected("http://127.0.0.1:1/clip"))


# --- whether a request was sent -------------------------------------------------------------------------


def test_a_connection_that_is_cut_after_the_request_may_have_carried_it(environment: Environment) -> None:
    with Web(cut) as web:
        with pytest.raises(ServiceUnavailable) as failure:
            talk(web.url, posted)
        assert failure.value.sent
        assert len(web.all()) == 1
    with Web(lambda handler: None) as web:  # closes in order, without an answer
        with pytest.raises(ServiceUnavailable) as failure:
            talk(web.url, posted)
        assert failure.value.sent
        assert len(web.all()) == 1


def test_a_connection_that_is_refused_carried_nothing(environment: Environment) -> None:
    with Web() as web:
        pass
    with pytest.raises(ServiceUnavailable) as failure:
        talk(web.url, posted)
    assert not failure.value.sent


def test_reads_and_uploads_are_repeated_over_cut_connections(environment: Environment) -> None:
    with Web(cut, answer, answer, cut) as web:
        talk(web.url)
        assert [got.method for got in web.all()] == ["GET", "GET", "POST", "PUT", "PUT"]


# --- what every request has -----------------------------------------------------------------------------


def test_every_request_says_who_asks_and_the_service_gets_no_cookie_back(
    environment: Environment, clip: Path, tmp_path: Path
) -> None:
    with Web() as web:
        web.files["/clip.wav"] = clip.read_bytes()
        talk(web.url)
        asyncio.run(copied(f"{web.url}/clip.wav", tmp_path))
        assert asyncio.run(inspected(f"{web.url}/clip.wav")) == "ok"
        got = web.all()
    assert [sent.method for sent in got[:4]] == ["GET", "POST", "PUT", "GET"]
    assert len(got) >= 5
    assert {sent.headers["user-agent"] for sent in got} == {fetching.USER_AGENT}
    assert not any("cookie" in sent.headers for sent in got[:3])
    assert [sent.headers.get("authorization") for sent in got[:4]] == [f"Bearer {KEY}"] * 2 + [None] * 2


def test_every_request_has_all_four_timeouts(wire: Faulty, clip: Path, tmp_path: Path) -> None:
    async def session() -> None:
        async with Api(base_url="http://local", api_key=None, transport=wire) as api:
            await everything(api)
            await api._works()
            await api._stores()

    asyncio.run(session())
    assert len(wire.requests) == 5
    expected = {"connect": CONNECT_S, "read": TRANSFER_S, "write": TRANSFER_S, "pool": CONNECT_S}
    assert all(sent.extensions["timeout"] == expected for sent in wire.requests)

    asked: list[httpx.Request] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield clip.read_bytes()

    def web(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        headers = {"ETag": '"1"', "Content-Length": str(clip.stat().st_size)}
        return httpx.Response(200, content=pieces(), headers=headers)

    async def intake() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(web)) as client:
            await ranges.look("http://host/clip.wav", tmp_path, client)
            target = tmp_path / "copy"
            await fetching.download("http://host/", target, max_bytes=1 << 20, timeout_s=9.0, client=client)

    asyncio.run(intake())
    assert len(asked) == 2
    quiet = dict.fromkeys(("connect", "read", "write", "pool"), fetching.QUIET_S)
    assert all(sent.extensions["timeout"] == quiet for sent in asked)


@pytest.mark.parametrize("encrypted", [False, True])
def test_logs_tell_no_key_link_or_password(
    environment: Environment,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    encrypted: bool,
) -> None:
    caplog.set_level(logging.DEBUG)
    with Proxy() as proxy, Web(tls=certificates.tls if encrypted else None) as web:
        proxy_url = proxy.url.replace("//", f"//{PROXY_USER}@")
        environment(ALL_PROXY=proxy_url, SSL_CERT_FILE=certificates.file)
        talk(web.url)
        asyncio.run(copied(f"{web.url}/file?sig=5f1e", tmp_path))
        assert len(web.all()) == 4
    assert "httpcore" in caplog.text
    secrets = [KEY, "5f1e", "/store/clip", PROXY_USER, PROXY_USER.partition(":")[2]]
    secrets += [base64.b64encode(PROXY_USER.encode()).decode()]
    assert not [secret for secret in secrets if secret in caplog.text]


# --- httpx stays inside ---------------------------------------------------------------------------------


def annotations(thing: object) -> Iterator[str]:
    """All that a public name tells of types, as text."""
    if inspect.isclass(thing):
        for base in thing.__mro__:
            yield f"{base.__module__}.{base.__qualname__}"
            for name, member in vars(base).items():
                if not name.startswith("_") or name in ("__init__", "__call__", "__aenter__"):
                    yield from annotations(member)
            yield from map(str, vars(base).get("__annotations__", {}).values())
    elif isinstance(thing, property):
        yield from annotations(thing.fget)
    elif isinstance(thing, classmethod | staticmethod):
        yield from annotations(thing.__func__)
    elif inspect.isfunction(thing):
        yield from map(str, inspect.get_annotations(thing).values())
        yield from (repr(value.default) for value in inspect.signature(thing).parameters.values())


@pytest.mark.parametrize("name", sorted({*vp.__all__} - {"plots"}))  # a module
def test_no_type_of_httpx_is_public(name: str) -> None:
    told = list(annotations(getattr(vp, name)))
    assert told
    assert not [text for text in told if "httpx" in text.lower() or "httpcore" in text.lower()]


def test_this_would_be_noticed() -> None:
    class Public:
        def send(self, request: httpx.Request) -> None: ...

    assert any("httpx" in text for text in annotations(Public))
