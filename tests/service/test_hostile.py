"""Hostile input, one line each; nothing of it gets where it wants to, and the service goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpcore
import httpx
import pytest

from voiceprint_nb.errors import RowError
from voiceprint_nb.fetching import download
from voiceprint_nb.service.addresses import guarded_client

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
        self.guarded = self._client(["stage.example"])
        hosts = [httpx.URL(url.format(1)).host for url in REACHING.values()]
        self.allowing = self._client(hosts)

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

    def _client(self, allowed: list[str]) -> httpx.AsyncClient:
        client = guarded_client(allowed_hosts=allowed, resolve=self.resolve)
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
