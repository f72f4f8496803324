"""Hostile input, one line each; nothing of it gets where it wants to, and the service goes on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import queue
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpcore
import httpx
import pytest
import uvicorn

from voiceprint_nb.engine.embedder import Embedder, voiceprint_text
from voiceprint_nb.engine.model import Model
from voiceprint_nb.engine.pool import EnginePool
from voiceprint_nb.errors import RowError
from voiceprint_nb.fetching import download
from voiceprint_nb.service.addresses import guarded_client
from voiceprint_nb.service.app import Policy, create_app
from voiceprint_nb.service.desk import Desk
from voiceprint_nb.service.keys import KeyRing
from voiceprint_nb.service.logs import AccessLog
from voiceprint_nb.service.media import MediaStore
from voiceprint_nb.service.meter import NullMeter
from voiceprint_nb.service.reading import MAX_JSON_BYTES
from voiceprint_nb.service.server import MAX_HEADER_BYTES

REFUSED, UNREACHABLE, REDIRECTS = "url_refused", "url_unreachable", "url_redirects"
FAR = "9.9.9.9"  # stands for any public address; never connected to

NAMES: dict[str, Sequence[str]] = {
    "stage.example": ["127.0.0.1"],  # allowed: redirects to wherever it is told
    "public.example": [FAR],
    "localhost": ["127.0.0.1", "::1"],
    "localhost.localdomain": ["127.0.0.1"],
    "inside.example": ["10.0.0.5"],
    "loop.example": ["127.0.0.1"],
    "loop6.example": ["::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "wrapped.example": ["64:ff9b::7f00:1"],
    "scoped.example": ["fe80::1%lo"],
    "mixed.example": [FAR, "127.0.0.1"],
    "mixed6.example": ["::1", FAR],
    "last.example": [f"9.9.{n}.9" for n in range(50)] + ["127.0.0.1"],
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata6.example": ["fd00:ec2::254"],
    "nothing.example": [],
}

# Addresses that lead to this machine, and to the canary there; `{}` is its port.
REACHING = {
    "plain": "http://127.0.0.1:{}/",
    "scheme in capitals": "HTTP://127.0.0.1:{}/",
    "decimal": "http://2130706433:{}/",
    "octal": "http://017700000001:{}/",
    "octal part": "http://0177.1:{}/",
    "hexadecimal": "http://0x7f000001:{}/",
    "hexadecimal parts": "http://0x7F.0x0.0x0.0x1:{}/",
    "two parts": "http://127.1:{}/",
    "three parts": "http://127.0.1:{}/",
    "zero": "http://0:{}/",
    "all zeros": "http://0.0.0.0:{}/",
    "unspecified, v6": "http://[::]:{}/",
    "loopback, v6": "http://[::1]:{}/",
    "loopback, v6 in full": "http://[0000:0:0:0:0:0:0:1]:{}/",
    "mapped": "http://[::ffff:127.0.0.1]:{}/",
    "mapped, hexadecimal": "http://[::FFFF:7f00:1]:{}/",
    "ideographic stops": "http://127\u30020\u30020\u30021:{}/",
    "trailing dot": "http://127.0.0.1.:{}/",
    "localhost in capitals": "http://LOCALHOST:{}/",
    "localhost with a dot": "http://localhost.:{}/",
    "localhost with a domain": "http://localhost.localdomain:{}/",
    "public user": "http://public.example@127.0.0.1:{}/",
    "public user and password": "http://public.example:80@127.0.0.1:{}/",
    "public user, backslash": "http://public.example\\@127.0.0.1:{}/",
    "public fragment": "http://127.0.0.1:{}#@public.example/",
    "public query": "http://127.0.0.1:{}?@public.example/",
    "name of loopback": "http://loop.example:{}/",
    "name of loopback, v6": "http://loop6.example:{}/",
    "name of a mapped address": "http://mapped.example:{}/",
    "address in a name": "http://127.0.0.1.nip.example:{}/",
}

# Addresses that lead elsewhere, with the code of the refusal.
OTHERS = {
    "octal in four parts": ("http://0177.0.0.1:{}/", UNREACHABLE),
    "compatible": ("http://[::127.0.0.1]:{}/", REFUSED),
    "6to4": ("http://[2002:7f00:1::]:{}/", REFUSED),
    "Teredo": ("http://[2001:0:7f00:1::80ff:fffe]:{}/", REFUSED),
    "NAT64": ("http://[64:ff9b::127.0.0.1]:{}/", REFUSED),
    "NAT64 of a local network": ("http://[64:ff9b:1::7f00:1]:{}/", REFUSED),
    "link-local with a scope": ("http://[fe80::1%25eth0]:{}/", REFUSED),
    "link-local with a bare scope": ("http://[fe80::1%lo]:{}/", REFUSED),
    "loopback with a scope": ("http://[::1%25lo]:{}/", REFUSED),
    "full-width digits": ("http://\uff11\uff12\uff17.0.0.1:{}/", UNREACHABLE),
    "circled digits": ("http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:{}/", UNREACHABLE),
    "circled letters": ("http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3:{}/", UNREACHABLE),
    "percent-encoded digits": ("http://%31%32%37.0.0.1:{}/", REFUSED),
    "percent-encoded name": ("http://localhos%74:{}/", REFUSED),
    "NUL in the host": ("http://127.0.0.1%00.public.example:{}/", REFUSED),
    "tab in the host": ("http://127.0.0.1\t.public.example:{}/", UNREACHABLE),
    "space in the host": ("http://127.0.0.1 .public.example:{}/", REFUSED),
    "line break in the path": ("http://127.0.0.1:{}/\r\nHost: public.example", UNREACHABLE),
    "no host": ("http:///127.0.0.1:{}/", REFUSED),
    "a port and no host": ("http://:{}/", REFUSED),
    "one slash": ("http:/127.0.0.1:{}/", REFUSED),
    "no slash": ("http:127.0.0.1:{}/", REFUSED),
    "no scheme": ("//127.0.0.1:{}/", REFUSED),
    "nothing": ("", REFUSED),
    "host of dots": ("http://...:{}/", UNREACHABLE),
    "very long host": ("http://" + "a." * 2000 + "example:{}/", UNREACHABLE),
    "port beyond the last": ("http://127.0.0.1:65536{}/", UNREACHABLE),
    "two ports": ("http://127.0.0.1:80:{}/", UNREACHABLE),
    "TLS to loopback": ("https://127.0.0.1:{}/", REFUSED),
    "metadata": ("http://169.254.169.254/latest/meta-data/", REFUSED),
    "metadata, decimal": ("http://2852039166/", REFUSED),
    "metadata, mapped": ("http://[::ffff:a9fe:a9fe]/", REFUSED),
    "metadata, v6": ("http://[fd00:ec2::254]/", REFUSED),
    "metadata by name": ("http://metadata.google.internal/computeMetadata/v1/", REFUSED),
    "metadata by name, v6": ("http://metadata6.example/", REFUSED),
    "metadata in a shared block": ("http://100.100.100.200/", REFUSED),
    "metadata with a public number": ("http://168.63.129.16/", REFUSED),
    "shared": ("http://100.64.0.1/", REFUSED),
    "private, 10": ("http://10.0.0.1/", REFUSED),
    "private, 172": ("http://172.16.0.1/", REFUSED),
    "private, 192": ("http://192.168.0.1/", REFUSED),
    "multicast": ("http://224.0.0.1/", REFUSED),
    "reserved": ("http://240.0.0.1/", REFUSED),
    "broadcast": ("http://255.255.255.255/", REFUSED),
    "name of a private address": ("http://inside.example:{}/", REFUSED),
    "name of a wrapped address": ("http://wrapped.example:{}/", REFUSED),
    "name of a scoped address": ("http://scoped.example:{}/", REFUSED),
    "public and private": ("http://mixed.example:{}/", REFUSED),
    "private and public": ("http://mixed6.example:{}/", REFUSED),
    "private after fifty public": ("http://last.example:{}/", REFUSED),
    "name without address": ("http://nothing.example:{}/", UNREACHABLE),
    "file": ("file:///etc/passwd", REFUSED),
    "file on a host": ("file://127.0.0.1/etc/passwd", REFUSED),
    "ftp": ("ftp://127.0.0.1:{}/", REFUSED),
    "gopher": ("gopher://127.0.0.1:{}/_GET%20/", REFUSED),
    "websocket": ("ws://127.0.0.1:{}/", REFUSED),
    "socket file": ("http+unix://%2Fvar%2Frun%2Fdocker.sock/", REFUSED),
    "data": ("data:audio/wav;base64,UklGRg==", REFUSED),
}

# What an allowed host answers as `Location`, with the code of the refusal.
REDIRECTED = {
    "without a scheme": ("//127.0.0.1:{}/", REFUSED),
    "without a scheme, v6": ("//[::1]:{}/", REFUSED),
    "without a scheme, by name": ("//LocalHost:{}/", REFUSED),
    "three slashes": ("///127.0.0.1:{}/", REDIRECTS),
    "own name as user": ("http://stage.example@127.0.0.1:{}/", REFUSED),
    "in UTF-8": ("http://127\u30020\u30020\u30021:{}/", REFUSED),
    "to a file": ("file:///etc/passwd", REFUSED),
    "to ftp": ("ftp://127.0.0.1:{}/", REFUSED),
    "to data": ("data:audio/wav;base64,UklGRg==", UNREACHABLE),
    "to another scheme": ("gopher://127.0.0.1:{}/", REFUSED),
    "to metadata": ("http://169.254.169.254/latest/meta-data/", REFUSED),
    "to metadata by name": ("http://metadata.google.internal/", REFUSED),
    "to a private address": ("https://inside.example/", REFUSED),
    "to mixed addresses": ("http://mixed.example:{}/", REFUSED),
    "to a broken address": ("http://[::1", UNREACHABLE),
    "to itself for ever": ("/loop", REDIRECTS),
    "in two hops": ("/to?http://127.0.0.1:{}/", REFUSED),
    "in three hops": ("/to?/to?http://127.0.0.1:{}/", REDIRECTS),
}


class Outside:
    """An internet on loopback: a stage that redirects, a canary that nobody may reach, one client.

    Attributes
    ----------
    reached : list of str
        Connections that the canary got.
    connected : list of (str, int)
        Where the client connected, or would have: what is not on loopback stays unconnected.
    asked : list of str
        Names and addresses that were resolved.
    """

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.asked: list[str] = []
        self._servers = contextlib.AsyncExitStack()

    async def open(self) -> None:
        listen, enter = asyncio.start_server, self._servers.enter_async_context
        canary = await enter(await listen(self._sing, "127.0.0.1", 0))
        self.canary_port = canary.sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):  # a machine without IPv6
            await enter(await listen(self._sing, "::1", self.canary_port))
        stage = await enter(await listen(self._redirect, "127.0.0.1", 0))
        self.stage_port = stage.sockets[0].getsockname()[1]
        self.guarded = self.client()
        self.allowing = self.client(httpx.URL(url.format(1)).host for url in REACHING.values())

    async def close(self) -> None:
        await self.guarded.aclose()
        await self.allowing.aclose()
        await self._servers.aclose()

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Names by the table, literals as the system reads them; the network is not asked."""
        self.asked.append(host)
        name = host.rstrip(".").lower()
        if name == "rebind.example":
            return [FAR] if self.asked.count(host) == 1 else ["127.0.0.1"]
        if name in NAMES:
            return NAMES[name]
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [str(sockaddr[0]) for *_, sockaddr in found]

    def client(self, allowed: Iterable[str] = ("stage.example",)) -> httpx.AsyncClient:
        """A guarded client with these names and ears."""
        client = guarded_client(allowed_hosts=list(allowed), resolve=self.resolve)
        client.event_hooks = {"request": [self._tap]}
        return client

    async def _tap(self, request: httpx.Request) -> None:
        request.extensions["trace"] = self._trace

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self.connected.append((info["host"], info["port"]))
            if info["host"].startswith("9."):
                raise httpcore.ConnectError

    async def _sing(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached.append(str(writer.get_extra_info("sockname")))
        await _answer(reader, writer, lambda _: b"200 OK\r\nContent-Length: 4\r\n\r\nRIFF")

    async def _redirect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def to(path: str) -> bytes:
            location = "/loop" if path == "/loop" else unquote(path.removeprefix("/to?"))
            return f"302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()

        await _answer(reader, writer, to)


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: Callable[[str], bytes]
) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + text(head.split()[1].decode()))
        await writer.drain()
    writer.close()


class World:
    """The outside and the event loop that all tests of the table share."""

    def __init__(self, runner: asyncio.Runner, outside: Outside, target: Path) -> None:
        self.run: Callable[[Awaitable[Any]], Any] = runner.run  # type: ignore[assignment]
        self.outside, self.target = outside, target

    def fetch(self, url: str, *, client: httpx.AsyncClient | None = None) -> None:
        """Download as a service does, with counters at zero."""
        outside = self.outside
        for record in (outside.reached, outside.connected, outside.asked):
            record.clear()
        client = client or outside.guarded
        self.run(download(url, self.target, max_bytes=1000, timeout_s=5, client=client))

    def refusal(self, url: str) -> RowError:
        """The error of a download that must not happen."""
        with pytest.raises(RowError) as caught:
            self.fetch(url)
        assert not self.target.exists()
        assert self.outside.reached == []
        return caught.value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with asyncio.Runner() as runner:
        outside = Outside()
        runner.run(outside.open())
        yield World(runner, outside, tmp_path_factory.mktemp("hostile") / "copy")
        runner.run(outside.close())


# --- addresses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", REACHING.values(), ids=REACHING)
def test_an_address_of_this_machine_is_refused(world: World, url: str) -> None:
    assert world.refusal(url.format(world.outside.canary_port)).code == REFUSED
    assert world.outside.connected == []
    assert len(world.outside.asked) == 1


@pytest.mark.parametrize("url", REACHING.values(), ids=REACHING)
def test_the_same_address_leads_there_when_the_operator_allows_it(world: World, url: str) -> None:
    if any(mark in url for mark in ("[", "loop6", "mapped")):
        _need_ipv6()
    world.fetch(url.format(world.outside.canary_port), client=world.outside.allowing)
    assert len(world.outside.reached) == 1


@pytest.mark.parametrize(("url", "code"), OTHERS.values(), ids=OTHERS)
def test_an_address_that_is_not_public_is_refused(world: World, url: str, code: str) -> None:
    error = world.refusal(url.format(world.outside.canary_port))
    assert error.code == code
    assert world.outside.connected == []
    resolved = [address for name in NAMES if name in url for address in NAMES[name]]
    assert not any(address in str(error) for address in resolved)


@pytest.mark.parametrize("url", REACHING.values(), ids=REACHING)
def test_a_redirect_to_an_address_of_this_machine_is_refused(world: World, url: str) -> None:
    port = world.outside.stage_port
    target = quote(url.format(world.outside.canary_port))
    assert world.refusal(f"http://stage.example:{port}/to?{target}").code == REFUSED
    assert world.outside.connected == [("127.0.0.1", port)]


@pytest.mark.parametrize(("location", "code"), REDIRECTED.values(), ids=REDIRECTED)
def test_a_redirect_elsewhere_is_refused(world: World, location: str, code: str) -> None:
    port = world.outside.stage_port
    target = quote(location.format(world.outside.canary_port))
    assert world.refusal(f"http://stage.example:{port}/to?{target}").code == code
    assert 1 <= len(world.outside.connected) <= 3
    assert set(world.outside.connected) == {("127.0.0.1", port)}


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_a_name_that_changes_its_address_is_connected_to_what_was_checked(world: World, hops: int) -> None:
    stage, port = world.outside.stage_port, world.outside.canary_port
    url = f"http://rebind.example:{port}/"
    for _ in range(hops):
        url = f"http://stage.example:{stage}/to?{quote(url)}"
    assert world.refusal(url).code == UNREACHABLE
    assert world.outside.connected == [("127.0.0.1", stage)] * hops + [(FAR, port)]
    assert world.outside.asked.count("rebind.example") == 1


def test_a_name_that_has_changed_its_address_is_refused(world: World) -> None:
    url = f"http://rebind.example:{world.outside.canary_port}/"
    client = world.outside.guarded

    async def twice() -> None:
        with pytest.raises(httpx.ConnectError):
            await client.get(url)
        await client.get(url)

    world.outside.asked.clear()
    world.outside.connected.clear()
    with pytest.raises(RowError, match="not at a public"):
        world.run(twice())
    assert world.outside.connected == [(FAR, world.outside.canary_port)]
    assert world.outside.asked == ["rebind.example"] * 2


def _need_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")


# --- the service ----------------------------------------------------------------------------------------

MAX_UPLOAD_BYTES = 100_000
UNKNOWN_ID = "3c8a89a5-dcc6-4edb-a75d-ffd64739674d"


class Service(NullMeter):
    """A service with keys of three teams, one of them revoked; no other place of this file builds one."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.late_s = 0.0  # by how much the clock of presigned links is ahead
        self.attempts: queue.SimpleQueue[str] = queue.SimpleQueue()  # webhooks
        self.ring = KeyRing(folder / "keys.sqlite3")
        self.made = {team: self.ring.add(team) for team in ("ada", "bob", "gone")}
        self.ring.revoke(self.made["gone"].id)
        self.media = MediaStore(
            folder / "media", max_bytes=MAX_UPLOAD_BYTES, clock=lambda: time.time() + self.late_s
        )
        self.pool = EnginePool(Embedder, threads=1)
        self.desk = Desk(
            folder,
            self.pool,
            self.media,
            voiceprint=partial(voiceprint_text, fingerprint=Model.packaged().fingerprint),
            webhook_secret=self.ring.webhook_secret,
            plain_webhooks=True,
            new_client=world.outside.client,
            meter=self,
        )
        policy = Policy(self.ring, plain_webhooks=True)
        self.app = AccessLog(create_app(self.desk, self.media, policy), self)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://voiceprint.example")

    async def open(self) -> None:
        """Listen on a port too, for what no client library sends."""
        config = uvicorn.Config(
            self.app, port=0, http="h11", ws="none", lifespan="off", log_config=None, access_log=False,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )  # fmt: skip
        config.load()
        self.server = uvicorn.Server(config)
        self.server.lifespan = config.lifespan_class(config)
        await self.server.startup()
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    async def close(self) -> None:
        await self.server.shutdown()
        await self.client.aclose()
        assert self.desk.close()
        self.pool.close()
        self.ring.close()

    def webhook_attempted(self, outcome: str) -> None:
        self.attempts.put(outcome)

    def key(self, team: str) -> dict[str, str]:
        """The header with a team's key."""
        return {"Authorization": f"Bearer {self.made[team].text}"}

    def call(self, method: str, path: str, *, team: str = "ada", **options: Any) -> httpx.Response:
        """One request with a team's key."""
        headers = {**self.key(team), **options.pop("headers", {})}
        answer = self.world.run(self.client.request(method, path, headers=headers, **options))
        assert isinstance(answer, httpx.Response)
        return answer

    def link(self, way: str, key: str, *, team: str = "ada") -> str:
        """Path of a presigned link, for ``input`` or ``output``."""
        answer = self.call("POST", f"/v1/media/{way}", team=team, json={"url": key})
        assert answer.status_code == 201
        return str(urlsplit(answer.json()["url"]).path)

    def upload(self, key: str, data: bytes) -> None:
        """Store a clip for the team ada."""
        assert self.call("PUT", self.link("input", key), content=data).status_code == 200

    def ended(self, body: dict[str, Any], *, team: str = "ada") -> dict[str, Any]:
        """Submit a job, and have it done."""
        created = self.call("POST", "/v1/voiceprint", team=team, json=body)
        assert created.status_code == 200
        assert self.world.run(asyncio.to_thread(self.desk.wait_idle, 30.0))
        return dict(self.call("GET", f"/v1/jobs/{created.json()['jobId']}", team=team).json())

    def files(self) -> dict[str, bytes]:
        """All files of the service, and around it, but its tables; with their content."""
        root = self.folder.parent
        files = [path for path in root.rglob("*") if path.is_file() and ".sqlite3" not in path.name]
        return {str(path.relative_to(root)): path.read_bytes() for path in files}

    async def raw(self, request: bytes, *, cut: bool = False) -> bytes:
        """Head of the answer to these bytes; nothing if there is none. With `cut`, we stop sending then.

        KEY in them is a good key, LINK the path of a presigned link.
        """
        link = self.media.link("PUT", "ada", "media://cut", base_url="")
        request = request.replace(b"KEY", self.made["ada"].text.encode()).replace(b"LINK", link.encode())
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            if cut:
                writer.write_eof()
            async with asyncio.timeout(5):
                return await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            return getattr(error, "partial", b"")
        finally:
            writer.close()


@pytest.fixture(scope="module")
def service(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("hostile") / "service"
    folder.mkdir()
    service = Service(folder, world)
    world.run(service.open())
    yield service
    world.run(service.close())


@pytest.fixture(autouse=True)
def no_faults(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever comes in, the service finds no fault with itself, and logs no key, link or address."""
    caplog.set_level(logging.INFO)
    yield
    records = caplog.get_records("call")
    assert [record for record in records if record.levelno >= logging.ERROR] == []
    told = [str(vars(record)) for record in records if record.name.startswith("voiceprint_nb")]
    assert not re.search(r"vpnb_|whsec_|/media/[\w.-]{9}|https?://|X-Injected", " ".join(told))


# --- keys of uploads ------------------------------------------------------------------------------------

# Allowed by the contract: nothing but names, each with another that is not the same upload.
ODD_KEYS = {
    "parents": ("media://../../etc/passwd", "media://etc/passwd"),
    "parents in the middle": ("media://a/../../b", "media://b"),
    "absolute": ("media:///etc/passwd", "media://etc/passwd"),
    "one dot": ("media://.", "media://./"),
    "two dots": ("media://..", "media://../"),
    "dots only": ("media://...", "media://...."),
    "slashes only": ("media://////", "media:///"),
    "into the tables": ("media://../jobs.sqlite3", "media://jobs.sqlite3"),
    "into the secret": ("media://../link.secret", "media://link.secret"),
    "as long as it may be": ("media://" + "x" * 247, "media://" + "x" * 246),
    "dash": ("media://--help", "media://-help"),
    "capitals": ("media://A", "media://a"),
}
BAD_KEYS = {
    "one character too long": "media://" + "x" * 248,
    "very long": "media://" + "x" * 60_000,
    "empty": "media://",
    "nothing": "",
    "percent-encoded parents": "media://%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "NUL": "media://a\0.wav",
    "line break": "media://a\r\nX-Injected: yes",
    "line break at the end": "media://a\n",
    "space": "media://a b",
    "backslashes": "media://..\\..\\windows",
    "letters of another alphabet": "media://\u0430.wav",
    "full-width stops": "media://\uff0e\uff0e/etc",
    "emoji": "media://\U0001f600",
    "half of a pair": "media://\ud83d",
    "from right to left": "media://\u202evaw.a",
    "colon": "media://9999999999:bob:x",
    "query": "media://a?b=c",
    "fragment": "media://a#b",
    "scheme in capitals": "MEDIA://a",
    "one slash": "media:/etc/passwd",
    "file": "file:///etc/passwd",
    "web address": "http://127.0.0.1/",
    "list": ["media://a"],
    "object": {"url": "media://a"},
    "number": 5,
    "null": None,
}
JOB_KEYS = {
    "percent-encoded parents": "media://%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "backslashes": "media://..\\..\\windows",
    "very long": "media://" + "x" * 4000,
    "query": "media://victim?team=ada",
    "colons": "media://ada:media://victim",
    "never uploaded": "media://../../../../../../../../etc/passwd",
}


@pytest.mark.parametrize(("key", "other"), ODD_KEYS.values(), ids=ODD_KEYS)
def test_a_key_is_a_name_and_never_a_path(service: Service, clip: Any, key: str, other: str) -> None:
    before, voice = service.files(), clip().read_bytes()
    service.upload(key, voice)
    changed = {path: data for path, data in service.files().items() if before.get(path) != data}
    assert list(changed.values()) == [voice]
    (path,) = changed
    assert re.fullmatch("service/media/objects/[0-9a-f]{64}", path)
    assert service.ended({"url": key})["status"] == "succeeded"
    assert service.call("GET", service.link("output", key)).content == voice
    assert service.call("POST", "/v1/media/output", json={"url": other}).status_code == 404
    (service.folder.parent / path).unlink()


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_gets_no_link(service: Service, key: object) -> None:
    before, body = service.files(), json.dumps({"url": key}).encode()
    for way in ("input", "output"):
        answer = service.call(
            "POST", f"/v1/media/{way}", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400
        assert [error["field"] for error in answer.json()["errors"]] == ["url"]
    assert service.files() == before


@pytest.mark.parametrize("key", JOB_KEYS.values(), ids=JOB_KEYS)
def test_a_job_on_an_odd_key_finds_nothing(service: Service, key: str) -> None:
    job = service.ended({"url": key})
    assert job["status"] == "failed"
    assert job["output"]["error"].startswith("Could not load audio")
    assert str(service.folder) not in job["output"]["error"]


# --- presigned links ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Links:
    """Paths of links to a victim's upload, and what they are made of."""

    put: str
    get: str
    mine: str
    late_put: str
    late_get: str

    @property
    def claim(self) -> str:
        return self.put.removeprefix("/media/").partition(".")[0]

    @property
    def sign(self) -> str:
        return self.put.partition(".")[2]

    def claiming(self, old: str, new: str) -> str:
        """The signature under another claim."""
        claim = base64.urlsafe_b64decode(self.claim + "=" * (-len(self.claim) % 4)).decode()
        assert re.search(old, claim)
        other = base64.urlsafe_b64encode(re.sub(old, new, claim).encode()).decode().rstrip("=")
        return f"/media/{other}.{self.sign}"


LINKS: dict[str, tuple[str, Callable[[Links], str], int]] = {
    "signature forged": ("PUT", lambda x: f"/media/{x.claim}.{'0' * 64}", 403),
    "signature in capitals": ("PUT", lambda x: f"/media/{x.claim}.{x.sign[:-2].upper()}Ab", 403),
    "signature cut": ("PUT", lambda x: x.put[:-1], 403),
    "signature with more": ("PUT", lambda x: f"{x.put}0", 403),
    "signature twice": ("PUT", lambda x: f"{x.put}.{x.sign}", 403),
    "signature empty": ("PUT", lambda x: f"/media/{x.claim}.", 403),
    "signature missing": ("PUT", lambda x: f"/media/{x.claim}", 403),
    "signature not ASCII": ("PUT", lambda x: f"/media/{x.claim}.%C3%A9", 403),
    "signature of another link": ("PUT", lambda x: f"/media/{x.claim}.{x.mine.partition('.')[2]}", 403),
    "claim of another link": ("PUT", lambda x: f"{x.mine.partition('.')[0]}.{x.sign}", 403),
    "claim of a longer life": ("PUT", lambda x: x.claiming("^[0-9]+", "9999999999"), 403),
    "claim of another team": ("PUT", lambda x: x.claiming(":ada:", ":bob:"), 403),
    "claim of another key": ("PUT", lambda x: x.claiming("victim", "mine"), 403),
    "claim cut": ("PUT", lambda x: f"/media/{x.claim[:-1]}.{x.sign}", 403),
    "claim with padding": ("PUT", lambda x: f"/media/{x.claim}==.{x.sign}", 403),
    "claim with a line break": ("PUT", lambda x: f"/media/{x.claim}%0A.{x.sign}", 403),
    "claim with NUL": ("PUT", lambda x: f"/media/{x.claim}%00.{x.sign}", 403),
    "claim empty": ("PUT", lambda x: f"/media/.{x.sign}", 403),
    "claim missing": ("PUT", lambda x: f"/media/{x.sign}", 403),
    "not UTF-8": ("PUT", lambda x: "/media/%ff%fe.%ff", 403),
    "very long": ("PUT", lambda x: f"/media/{'x' * 60_000}.{x.sign}", 403),
    "empty": ("PUT", lambda x: "/media/", 404),
    "path separator": ("PUT", lambda x: x.put.replace(".", "/", 1), 404),
    "path separator encoded": ("PUT", lambda x: x.put.replace(".", "%2F.", 1), 404),
    "parents": ("PUT", lambda x: f"/media/%2e%2e%2f{x.claim}.{x.sign}", 404),
    "upload by a link for download": ("PUT", lambda x: x.get, 403),
    "download by a link for upload": ("GET", lambda x: x.put, 403),
    "look by a link for upload": ("HEAD", lambda x: x.put, 403),
    "delete": ("DELETE", lambda x: x.put, 405),
    "post": ("POST", lambda x: x.put, 405),
    "patch": ("PATCH", lambda x: x.put, 405),
    "upload too late": ("PUT", lambda x: x.late_put, 403),
    "download too late": ("GET", lambda x: x.late_get, 403),
}


@pytest.fixture(scope="module")
def links(service: Service) -> Links:
    service.upload("media://victim", b"the voice of a victim")
    service.late_s = -3601.0
    late_put, late_get = (service.link(way, "media://victim") for way in ("input", "output"))
    service.late_s = 0.0
    put, get = (service.link(way, "media://victim") for way in ("input", "output"))
    return Links(put, get, service.link("input", "media://mine"), late_put, late_get)


@pytest.mark.parametrize(("method", "change", "status"), LINKS.values(), ids=LINKS)
def test_a_link_is_good_for_one_method_and_key(
    service: Service, links: Links, method: str, change: Callable[[Links], str], status: int
) -> None:
    before = service.files()
    answer = service.call(method, change(links), content=b"the voice of somebody else")
    assert answer.status_code == status
    assert b"victim" not in answer.content
    assert service.files() == before
    assert service.call("GET", links.get).content == b"the voice of a victim"


# --- bodies ---------------------------------------------------------------------------------------------

JOB, INPUT = "/v1/voiceprint", "/v1/media/input"
UPLOAD = "upload"  # stands for a presigned link


async def _chunks(n_bytes: int) -> AsyncIterator[bytes]:
    for start in range(0, n_bytes, 65536):
        yield b" " * min(65536, n_bytes - start)


async def _never(n_bytes: int = 0) -> AsyncIterator[bytes]:
    yield b'{"url": '
    await asyncio.Event().wait()


Body = bytes | Callable[[], AsyncIterator[bytes]]
BODIES: dict[str, tuple[str, Body, dict[str, str], int]] = {
    "empty": (JOB, b"", {}, 400),
    "cut": (JOB, b'{"url": "media://a', {}, 400),
    "not UTF-8": (JOB, b'{"url": "media://\xff\xfe"}', {}, 400),
    "UTF-8 too long": (JOB, b'{"url": "media://\xc0\xae\xc0\xae/"}', {}, 400),
    "half of a pair": (JOB, b'{"url": "media://\\ud800"}', {}, 400),
    "half of a pair in a webhook": (JOB, b'{"url": "media://a", "webhook": "https://\\udfff"}', {}, 400),
    "nested lists": (JOB, b"[" * 60_000, {}, 400),
    "nested objects": (JOB, b'{"url":' * 9_000, {}, 400),
    "nested lists in a field": (JOB, b'{"url":' + b"[" * 900 + b"]" * 900 + b"}", {}, 400),
    "endless number": (JOB, b'{"url":' + b"9" * 60_000 + b"}", {}, 400),
    "infinite number": (INPUT, b'{"url": 1e999}', {}, 400),
    "not a number": (INPUT, b'{"url": NaN}', {}, 400),
    "text": (INPUT, b'"media://a"', {}, 400),
    "zeros": (INPUT, b"\0" * 1000, {}, 400),
    "form": (INPUT, b"url=media://a", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "several parts": (INPUT, b"--x--", {"Content-Type": "multipart/form-data; boundary=x"}, 415),
    "script": (INPUT, b"{}", {"Content-Type": "text/javascript"}, 415),
    "no type": (INPUT, b"{}", {"Content-Type": ""}, 415),
    "packed": (INPUT, b"\x1f\x8b\x08\0", {"Content-Encoding": "gzip"}, 400),
    "JSON too large": (JOB, b" " * (MAX_JSON_BYTES + 1), {}, 413),
    "JSON too large, in pieces": (JOB, partial(_chunks, MAX_JSON_BYTES + 1), {}, 413),
    "JSON said to be too large": (JOB, b"{}", {"Content-Length": str(MAX_JSON_BYTES + 1)}, 413),
    "JSON said to be endless": (JOB, b"{}", {"Content-Length": "9" * 5000}, 413),
    "JSON that never ends": (JOB, _never, {}, 408),
    "upload too large": (UPLOAD, b" " * (MAX_UPLOAD_BYTES + 1), {}, 413),
    "upload too large, in pieces": (UPLOAD, partial(_chunks, MAX_UPLOAD_BYTES + 1), {}, 413),
    "upload said to be too large": (UPLOAD, b"", {"Content-Length": str(MAX_UPLOAD_BYTES + 1)}, 413),
    "upload said to be endless": (UPLOAD, b"", {"Content-Length": "9" * 5000}, 413),
    "upload that never ends": (UPLOAD, _never, {}, 408),
}


@pytest.mark.parametrize("row", BODIES.values(), ids=BODIES)
def test_a_bad_body_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch, row: tuple[str, Body, dict[str, str], int]
) -> None:
    path, body, headers, status = row
    monkeypatch.setattr("voiceprint_nb.service.reading.BODY_QUIET_S", 0.02)
    before, counts = service.files(), service.desk.counts()
    method = "PUT" if path == UPLOAD else "POST"
    path = service.link("input", "media://big") if path == UPLOAD else path
    content = body if isinstance(body, bytes) else body()
    headers = {"Content-Type": "application/json", **headers}
    answer = service.call(method, path, content=content, headers=headers)
    assert answer.status_code == status
    assert answer.json()["message"]
    assert (service.files(), service.desk.counts()) == (before, counts)


# --- fields, headers, request lines ---------------------------------------------------------------------

INJECTION = "\r\nX-Injected: yes\r\n\r\n"
FIELDS: dict[str, dict[str, Any]] = {
    "line break in the address": {"url": "https://public.example/" + INJECTION},
    "line break in a media key": {"url": "media://a" + INJECTION},
    "bare line feed in the address": {"url": "https://public.example/\nx"},
    "NUL in the address": {"url": "https://public.example/\0"},
    "address not ASCII": {"url": "http://127\u30020\u30020\u30021/"},
    "address too long": {"url": "https://public.example/" + "x" * 5000},
    "file": {"url": "file:///etc/passwd"},
    "file on a host": {"url": "file://127.0.0.1/etc/passwd"},
    "ftp": {"url": "ftp://public.example/a.wav"},
    "data": {"url": "data:audio/wav;base64,UklGRg=="},
    "script": {"url": "javascript:alert(1)"},
    "path": {"url": "/etc/passwd"},
    "path of another system": {"url": "\\\\host\\share\\a.wav"},
    "line break in the webhook": {"url": "media://a", "webhook": "https://public.example/" + INJECTION},
    "space in the webhook": {"url": "media://a", "webhook": "https://public.example/ HTTP/1.1"},
    "file as webhook": {"url": "media://a", "webhook": "file:///etc/passwd"},
    "gopher as webhook": {"url": "media://a", "webhook": "gopher://127.0.0.1/"},
    "webhook too long": {"url": "media://a", "webhook": "https://public.example/" + "x" * 3000},
    "list as webhook": {"url": "media://a", "webhook": ["https://public.example/"]},
    "null as webhook": {"url": "media://a", "webhook": None},
    "line break in the model": {"url": "media://a", "model": "precision-2\r\n"},
    "path as model": {"url": "media://a", "model": "../../model.onnx"},
}

PATHS = {
    "line break in a job's id": (f"/v1/jobs/{UNKNOWN_ID}%0d%0aX-Injected:%20yes", 404),
    "SQL in a job's id": ("/v1/jobs/' OR '1'='1", 404),
    "wildcard as a job's id": ("/v1/jobs/%25", 404),
    "NUL in a job's id": (f"/v1/jobs/{UNKNOWN_ID}%00", 404),
    "not UTF-8 in a job's id": ("/v1/jobs/%ff%fe", 404),
    "very long job's id": ("/v1/jobs/" + "x" * 60_000, 404),
    "parents in a job's id": ("/v1/jobs/..%2f..%2fetc%2fpasswd", 404),
    "line break in a cursor": ("/v2/jobs?cursor=%0d%0aX-Injected:%20yes", 400),
    "SQL in a cursor": ("/v2/jobs?cursor=' OR '1'='1", 400),
    "very long cursor": ("/v2/jobs?cursor=" + "x" * 60_000, 400),
    "SQL in a status": ("/v2/jobs?status=failed' --", 400),
    "line break in a status": ("/v2/jobs?status=failed%0a", 400),
    "negative limit": ("/v2/jobs?limit=-1", 400),
    "huge limit": ("/v2/jobs?limit=" + "9" * 5000, 400),
    "huge skip": ("/v1/jobs?skip=" + "9" * 1000, 200),
    "endless skip": ("/v1/jobs?skip=" + "9" * 5000, 400),
    "limit not ASCII": ("/v2/jobs?limit=%D9%A1", 400),
}

_GET = b"GET /v1/test HTTP/1.1\r\nHost: voiceprint.example\r\nAuthorization: Bearer KEY\r\n"
_POST = b"POST /v1/voiceprint HTTP/1.1\r\nHost: voiceprint.example\r\nAuthorization: Bearer KEY\r\n"
_POST += b"Content-Type: application/json\r\n"
_PUT = b"PUT LINK HTTP/1.1\r\nHost: voiceprint.example\r\n"
RAW: dict[str, tuple[bytes, int]] = {
    "good": (_GET + b"\r\n", 200),
    "NUL in a header": (_GET + b"X: a\0b\r\n\r\n", 400),
    "carriage return in a header": (_GET + b"X: a\rX-Injected: yes\r\n\r\n", 400),
    "space before the colon": (_GET + b"X : a\r\n\r\n", 400),
    "no colon": (_GET + b"X\r\n\r\n", 400),
    "no host": (b"GET /v1/test HTTP/1.1\r\n\r\n", 400),
    "two hosts": (_GET + b"Host: other.example\r\n\r\n", 400),
    "key not ASCII": (b"GET /v1/test HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n", 401),
    "line break in the path": (_GET.replace(b"test", b"test\r\nX-Injected: yes") + b"\r\n", 400),
    "whole address": (_GET.replace(b"/v1/test", b"http://127.0.0.1/v1/test") + b"\r\n", 404),
    "tunnel": (_GET.replace(b"GET /v1/test", b"CONNECT 127.0.0.1:22") + b"\r\n", 404),
    "trace": (_GET.replace(b"GET", b"TRACE") + b"\r\n", 405),
    "unknown method": (_GET.replace(b"GET", b"EVIL") + b"\r\n", 405),
    "method in capitals only": (_GET.replace(b"GET", b"get") + b"\r\n", 405),
    "parents": (_GET.replace(b"test", b"../../etc/passwd") + b"\r\n", 404),
    "parents encoded": (_GET.replace(b"test", b"%2e%2e/%2e%2e/etc/passwd") + b"\r\n", 404),
    "dot as a link": (_PUT.replace(b"LINK", b"/media/.") + b"\r\n", 403),
    "parents in a link": (_PUT.replace(b"LINK", b"/media/..LINK") + b"\r\n", 404),
    "two slashes": (_GET.replace(b"/v1", b"//v1") + b"\r\n", 404),
    "another protocol": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n", 400),
    "the next protocol": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404),
    "negative length": (_POST + b"Content-Length: -1\r\n\r\n", 400),
    "length with a sign": (_POST + b"Content-Length: +2\r\n\r\n{}", 400),
    "length in hexadecimal": (_POST + b"Content-Length: 0x2\r\n\r\n{}", 400),
    "two lengths": (_POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "unknown coding": (_POST + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "more than announced": (_POST + b"Content-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n", 400),
    "bad size of a chunk": (_POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", 400),
    "negative size of a chunk": (_POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n", 400),
}
ENDLESS = {
    "header": _GET + b"X: " + b"x" * 100_000,
    "headers": _GET + b"X: x\r\n" * 20_000,
    "request line": b"GET /" + b"x" * 100_000,
    "size of a chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 100_000,
    "extension of a chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
}
CUT = {
    "in the request line": b"GET /v1/te",
    "in the headers": _GET,
    "in the body": _POST + b'Content-Length: 500\r\n\r\n{"url": "media://a"}',
    "in a chunk": _POST + b'Transfer-Encoding: chunked\r\n\r\n500\r\n{"url": "media://a"}',
    "before a chunk": _POST + b"Transfer-Encoding: chunked\r\n\r\n",
    "in an upload": _PUT + b"Content-Length: 500\r\n\r\nRIFF",
    "at once": b"",
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_a_job_with_a_bad_field_is_refused(service: Service, fields: dict[str, Any]) -> None:
    counts = service.desk.counts()
    answer = service.call("POST", "/v1/voiceprint", json=fields)
    assert answer.status_code == 400
    assert [error["field"] for error in answer.json()["errors"]] == [[*fields][-1]]
    assert "x-injected" not in answer.headers
    assert service.desk.counts() == counts


@pytest.mark.parametrize(("path", "status"), PATHS.values(), ids=PATHS)
def test_a_bad_id_or_query_is_answered(service: Service, path: str, status: int) -> None:
    answer = service.call("GET", path)
    assert answer.status_code == status
    assert "x-injected" not in answer.headers
    assert "x-injected" not in answer.text.lower()


@pytest.mark.parametrize(("request_", "status"), RAW.values(), ids=RAW)
def test_a_bad_request_is_answered(service: Service, request_: bytes, status: int) -> None:
    counts = service.desk.counts()
    answer = service.world.run(service.raw(request_))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"x-injected" not in answer.lower()
    assert service.desk.counts() == counts


@pytest.mark.parametrize("request_", ENDLESS.values(), ids=ENDLESS)
def test_a_request_without_end_is_ended(service: Service, request_: bytes) -> None:
    answer = service.world.run(service.raw(request_))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("request_", CUT.values(), ids=CUT)
def test_a_request_that_breaks_off_does_nothing(service: Service, request_: bytes) -> None:
    before, counts = service.files(), service.desk.counts()
    answer = service.world.run(service.raw(request_, cut=True))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert service.world.run(service.raw(_GET + b"\r\n")).startswith(b"HTTP/1.1 200 ")
    assert (service.files(), service.desk.counts()) == (before, counts)


# --- links and webhooks of jobs -------------------------------------------------------------------------

JOB_LINKS = ("plain", "decimal", "mapped", "loopback, v6", "public user", "name of loopback")


@pytest.mark.parametrize("name", JOB_LINKS)
@pytest.mark.parametrize("hop", ["", "http://stage.example:{}/to?"])
def test_a_job_cannot_make_the_service_visit_this_machine(
    service: Service, world: World, name: str, hop: str
) -> None:
    world.outside.reached.clear()
    url = REACHING[name].format(world.outside.canary_port)
    url = hop.format(world.outside.stage_port) + quote(url) if hop else url
    job = service.ended({"url": url})
    assert job["status"] == "failed"
    assert "upload the clip" in job["output"]["error"]
    assert world.outside.reached == []


@pytest.mark.parametrize("name", JOB_LINKS)
@pytest.mark.parametrize("hop", ["", "http://stage.example:{}/to?"])
def test_a_webhook_cannot_either(service: Service, world: World, name: str, hop: str) -> None:
    world.outside.reached.clear()
    url = REACHING[name].format(world.outside.canary_port)
    url = hop.format(world.outside.stage_port) + quote(url) if hop else url
    service.ended({"url": "media://never-uploaded", "webhook": url})
    for _ in ("first attempt", "second, at once"):
        outcome = world.run(asyncio.to_thread(service.attempts.get, timeout=10))
        assert outcome == "connection_failed"
    assert world.outside.reached == []


# --- keys and teams -------------------------------------------------------------------------------------

AUTHORIZATIONS: dict[str, Callable[[Service], str | bytes]] = {
    "nothing": lambda x: "",
    "no key": lambda x: "Bearer",
    "empty key": lambda x: "Bearer ",
    "wrong key": lambda x: "Bearer vpnb_" + "x" * 43,
    "revoked key": lambda x: x.key("gone")["Authorization"],
    "key cut": lambda x: x.key("ada")["Authorization"][:-1],
    "key with more": lambda x: x.key("ada")["Authorization"] + "x",
    "key in capitals": lambda x: "Bearer " + x.made["ada"].text.upper(),
    "key without a scheme": lambda x: x.made["ada"].text,
    "key in another scheme": lambda x: f"Basic {x.made['ada'].text}",
    "key with a name": lambda x: "Basic " + base64.b64encode(b"ada:" + x.made["ada"].text.encode()).decode(),
    "two keys": lambda x: f"Bearer {x.made['ada'].text}, Bearer {x.made['bob'].text}",
    "id of a key": lambda x: f"Bearer {x.made['ada'].id}",
    "name of a team": lambda x: "Bearer ada",
    "SQL": lambda x: "Bearer ' OR '1'='1",
    "wildcard": lambda x: "Bearer %",
    "not ASCII": lambda x: b"Bearer \xff\xfe",
    "over-long": lambda x: "Bearer " + "x" * 50_000,
    "over-long, after a good key": lambda x: f"Bearer {x.made['ada'].text}" + " " * 50_000,
}


@pytest.mark.parametrize("value", AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
def test_a_bad_key_opens_nothing(service: Service, value: Callable[[Service], str | bytes]) -> None:
    counts, headers = service.desk.counts(), {"Authorization": value(service)}
    answers = [
        service.call("GET", "/v1/test", headers=headers),
        service.call("GET", "/v2/jobs", headers=headers),
        service.call("GET", "/v1/jobs", headers=headers),
        service.call("POST", "/v1/voiceprint", headers=headers, json={"url": "media://a"}),
        service.call("POST", "/v1/media/input", headers=headers, json={"url": "media://a"}),
        service.call("POST", "/v1/media/output", headers=headers, json={"url": "media://victim"}),
    ]
    assert [answer.status_code for answer in answers] == [401] * 6
    assert {answer.json()["message"] for answer in answers} == {"Unauthorized"}
    assert service.desk.counts() == counts


@pytest.mark.parametrize("change", [str, str.upper, "{}%20".format], ids=["same", "capitals", "space"])
def test_a_job_of_another_team_is_like_none(service: Service, change: Callable[[str], str]) -> None:
    job_id = service.ended({"url": "media://never-uploaded"})["jobId"]
    theirs = service.call("GET", f"/v1/jobs/{change(job_id)}", team="bob")
    none = service.call("GET", f"/v1/jobs/{UNKNOWN_ID}", team="bob")
    assert theirs.status_code == none.status_code == 404
    assert theirs.json()["message"] == none.json()["message"]
    for path in ("/v2/jobs", f"/v2/jobs?cursor={job_id}", "/v1/jobs?take=100"):
        assert job_id not in service.call("GET", path, team="bob").text
    assert job_id in service.call("GET", "/v2/jobs").text


@pytest.mark.parametrize(
    ("key", "status"),
    [("media://victim", 404), ("media://ada:media://victim", 400), ("media://../ada/victim", 404)],
)
def test_an_upload_of_another_team_is_like_none(
    service: Service, links: Links, key: str, status: int
) -> None:
    answer = service.call("POST", "/v1/media/output", team="bob", json={"url": key})
    assert answer.status_code == status
    job = service.ended({"url": key}, team="bob")
    assert job["output"] == service.ended({"url": "media://never-uploaded"}, team="bob")["output"]


def test_an_upload_of_the_same_name_does_not_touch_that_of_another_team(
    service: Service, links: Links
) -> None:
    link = service.link("input", "media://victim", team="bob")
    assert service.call("PUT", link, team="bob", content=b"other").status_code == 200
    assert service.call("GET", links.get).content == b"the voice of a victim"


# --- and after all this ---------------------------------------------------------------------------------


def test_the_service_still_serves_a_good_clip(service: Service, clip: Any) -> None:
    service.upload("media://good", clip().read_bytes())
    assert service.ended({"url": "media://good"})["status"] == "succeeded"
    assert service.world.run(service.raw(_GET + b"\r\n")).startswith(b"HTTP/1.1 200 ")
    assert service.desk.is_alive
