"""The guard of requests for callers, over real connections on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from tests.service.parts import self_signed
from voiceprint_nb.service.addresses import ForbiddenAddress, Resolve, guarded_client, is_public

Connections = list[str]  # where a client has connected, or would have

PUBLIC = [
    "1.1.1.1", "9.9.9.9", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.31.196.1",
    "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::200e", "::ffff:9.9.9.9", "64:ff9b::9.9.9.9",
]  # fmt: skip
NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104 - judged, not bound
    "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
    "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::7f00:1", "::9.9.9.9", "::ffff:127.0.0.1", "::ffff:a00:1",
    "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b:1::9.9.9.9",
    "64:ff9b:1:7f00:0:100::", "100::1", "2001::1", "2001:0:909:909::f5ff:fffe", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::", "2002:909:909::1", "3fff::1", "5f00::1", "4000::1", "fc00::1", "fd00:ec2::254",
    "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
    "", "localhost", "127.1", "2130706433", "9.9.9.9 ", "09.9.9.9", "9.9.9.9/32", "[::1]",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_all_other_addresses_are_not(address: str) -> None:
    assert not is_public(address)


# --- a server that says what it was asked ---------------------------------------------------------------


@contextlib.asynccontextmanager
async def listening(
    answer: bytes = b"", *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Port of a server on 127.0.0.1, and the requests that it gets, one list entry per connection."""
    requests: list[bytes] = []
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())  # type: ignore[arg-type]
        number = len(requests)
        requests.append(b"")
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                requests[number] += await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + answer + b"\r\nok")
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], requests
        await asyncio.gather(*served)


def resolving(**names: Sequence[str]) -> Resolve:
    """A resolver that knows hosts ``NAME.example``; each name's addresses, in order."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        return names[host.rstrip(".").removesuffix(".example")]

    return resolve


def tap(client: httpx.AsyncClient) -> Connections:
    """Tell where the client connects; what is not on loopback stays unconnected."""
    hosts: Connections = []

    async def trace(event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            hosts.append(info["host"])
            if not info["host"].startswith("127."):
                raise httpcore.ConnectError

    async def add_trace(request: httpx.Request) -> None:
        request.extensions["trace"] = trace

    client.event_hooks = {"request": [add_trace]}
    return hosts


def run(session: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(session())  # type: ignore[arg-type]


# --- where requests go ----------------------------------------------------------------------------------


def test_an_allowed_host_is_asked_by_its_own_name() -> None:
    async def session() -> None:
        resolve = resolving(clips=["127.0.0.1"])
        async with (
            listening() as (port, requests),
            guarded_client(allowed_hosts=["Clips.Example."], resolve=resolve) as client,
        ):
            path = "/a%20b%2Fc/%zz?sig=a+b%3D&x=%C3%A9"
            for host in ("clips.example", "CLIPS.example."):
                answer = await client.get(f"http://{host}:{port}{path}")
                assert (answer.status_code, answer.text) == (200, "ok")
                assert str(answer.request.url.host) == host.lower()
            path = httpx.URL(f"http://h{path}").raw_path.decode()
            for request, host in zip(requests, ("clips.example", "clips.example."), strict=True):
                head = request.decode()
                assert head.startswith(f"GET {path} HTTP/1.1\r\n")
                assert f"Host: {host}:{port}\r\n" in head

    run(session)


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0x7f000001", "127.1"),
        ("127.0.0.1", "2130706433"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::FFFF:7f00:1]", "127.0.0.1"),
        ("LocalHost.", "localhost"),
    ],
)
def test_an_allowed_address_may_be_spelled_in_any_way(allowed: str, asked: str) -> None:
    async def session() -> None:
        async with listening() as (port, _), guarded_client(allowed_hosts=[allowed]) as client:
            assert (await client.get(f"http://{asked}:{port}/")).text == "ok"

    run(session)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/", "http://localhost:{}/", "http://0x7f.1:{}/"])
def test_without_permission_the_system_resolver_leads_nowhere_private(url: str) -> None:
    async def session() -> None:
        async with listening() as (port, requests), guarded_client(allowed_hosts=["other"]) as client:
            hosts = tap(client)
            with pytest.raises(ForbiddenAddress) as caught:
                await client.get(url.format(port))
            assert caught.value.code == "url_refused"
            assert "--allow-host" in str(caught.value)
            assert (hosts, requests) == ([], [])

    run(session)


def test_the_refusal_names_the_host_and_not_its_address() -> None:
    async def session() -> None:
        async with guarded_client(resolve=resolving(inside=["10.1.2.3"])) as client:
            with pytest.raises(ForbiddenAddress, match=r"^inside\.example is not") as caught:
                await client.get("http://user:secret@inside.example/path?token=1")
        assert not any(part in str(caught.value) for part in ("10.1", "secret", "path", "token"))

    run(session)


@pytest.mark.parametrize(
    "addresses", [["9.9.9.9", "127.0.0.1"], ["127.0.0.1", "9.9.9.9"], ["9.9.9.9", "not an address"]]
)
def test_one_bad_address_among_several_refuses_the_host(addresses: list[str]) -> None:
    async def session() -> None:
        async with guarded_client(resolve=resolving(mixed=addresses)) as client:
            hosts = tap(client)
            with pytest.raises(ForbiddenAddress):
                await client.get("http://mixed.example/")
            assert hosts == []

    run(session)


def test_a_name_is_resolved_once_per_request_and_the_checked_address_is_used() -> None:
    asked: list[tuple[str, int]] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["9.9.9.9" if len(asked) == 1 else "127.0.0.1"]

    async def session() -> None:
        async with guarded_client(resolve=rebinding) as client:
            hosts = tap(client)
            with pytest.raises(httpx.ConnectError):
                await client.get("https://rebind.example/")
            with pytest.raises(ForbiddenAddress):
                await client.get("http://rebind.example:81/")
            assert hosts == ["9.9.9.9"]
        assert asked == [("rebind.example", 443), ("rebind.example", 81)]

    run(session)


def test_the_next_address_is_tried_but_not_every_one() -> None:
    async def session() -> None:
        far = [f"9.9.9.{n}" for n in range(9)]
        resolve = resolving(two=["127.0.0.2", "127.0.0.1"], many=far, twice=["9.9.9.9"] * 3)
        async with (
            listening() as (port, _),
            guarded_client(allowed_hosts=["two.example"], resolve=resolve) as client,
        ):
            hosts = tap(client)
            answer = await client.post(f"http://two.example:{port}/", content=b"body\r\n\r\n")
            assert answer.text == "ok"
            assert hosts == ["127.0.0.2", "127.0.0.1"]
            hosts.clear()
            for host in ("many", "twice"):
                with pytest.raises(httpx.ConnectError):
                    await client.get(f"http://{host}.example/")
            assert hosts == [*far[:4], "9.9.9.9"]

    run(session)


@pytest.mark.parametrize(
    "url",
    ["ftp://clips.example/", "file://clips.example/etc/passwd", "ws://clips.example/", "file:///etc/passwd",
     "http:///path", "http://[fe80::1%25eth0]/", "http://clips%2eexample/"],
)  # fmt: skip
def test_other_schemes_and_odd_hosts_are_refused(url: str) -> None:
    async def session() -> None:
        async with guarded_client(allowed_hosts=["clips.example", ""], resolve=resolving()) as client:
            with pytest.raises(ForbiddenAddress):
                await client.send(httpx.Request("GET", url))

    run(session)


@pytest.mark.parametrize("failure", [OSError("no such name"), UnicodeError("label too long")])
def test_a_name_that_does_not_resolve_is_a_failed_connection(failure: Exception) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        raise failure

    async def session() -> None:
        async with guarded_client(resolve=resolve) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://clips.example/")

    run(session)


def test_a_name_without_addresses_is_a_failed_connection() -> None:
    async def session() -> None:
        async with guarded_client(resolve=resolving(none=[])) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://none.example/")

    run(session)


def test_resolving_is_part_of_the_time_to_connect() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async def session() -> None:
        async with guarded_client(resolve=resolve) as client:
            with pytest.raises(httpx.ConnectTimeout):
                await client.get("http://slow.example/", timeout=0.01)

    run(session)


# --- what is not kept, not followed, not asked ----------------------------------------------------------


def test_names_at_one_address_share_no_connection_and_no_cookie() -> None:
    async def session() -> None:
        resolve = resolving(a=["127.0.0.1"], b=["127.0.0.1"])
        async with (
            listening(b"Set-Cookie: id=secret; Path=/\r\n") as (port, requests),
            guarded_client(allowed_hosts=["a.example", "b.example"], resolve=resolve) as client,
        ):
            for host in ("a", "b", "a"):
                answer = await client.get(f"http://{host}.example:{port}/")
                assert "set-cookie" in answer.headers
            await asyncio.gather(*(client.get(f"http://{host}.example:{port}/") for host in "abab"))
            assert len(requests) == 7  # connections
            assert not any(b"cookie" in request.lower() for request in requests)

    run(session)


def test_a_redirect_is_an_answer() -> None:
    async def session() -> None:
        async with (
            listening(b"Location: /next\r\n") as (port, requests),
            guarded_client(allowed_hosts=["127.0.0.1"]) as client,
        ):
            assert (await client.get(f"http://127.0.0.1:{port}/first")).headers["location"] == "/next"
            assert len(requests) == 1
            assert not client.follow_redirects

    run(session)


def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def session() -> None:
        async with listening() as (port, requests):
            for name in ("http_proxy", "https_proxy", "all_proxy"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            monkeypatch.delenv("no_proxy", raising=False)
            async with guarded_client(resolve=resolving(far=["9.9.9.9"])) as client:
                hosts = tap(client)
                with pytest.raises(httpx.ConnectError):
                    await client.get("http://far.example/")
                assert (hosts, requests) == (["9.9.9.9"], [])

    run(session)


# --- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for clips.example and 127.0.0.1 that clients trust."""
    certificate, key = self_signed(tmp_path, "DNS:clips.example", "IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize(
    ("host", "named"),
    [("clips.example", "clips.example"), ("clips.example.", "clips.example"), ("127.0.0.1", None)],
)
def test_the_certificate_of_the_right_name_is_accepted(
    trusted: ssl.SSLContext, host: str, named: str | None
) -> None:
    names: list[str | None] = []
    trusted.sni_callback = lambda _connection, name, _context: names.append(name)

    async def session() -> None:
        async with (
            listening(tls=trusted) as (port, requests),
            guarded_client(allowed_hosts=[host], resolve=_loopback) as client,
        ):
            assert (await client.get(f"https://{host}:{port}/")).text == "ok"
            assert f"Host: {host}:{port}".encode() in requests[0]

    run(session)
    assert names == [named]


@pytest.mark.parametrize("host", ["other.example", "127.0.0.2", "clips.example.evil.example"])
def test_the_certificate_of_another_name_is_refused(trusted: ssl.SSLContext, host: str) -> None:
    async def session() -> None:
        async with (
            listening(tls=trusted) as (port, requests),
            guarded_client(allowed_hosts=[host], resolve=_loopback) as client,
        ):
            with pytest.raises(httpx.ConnectError) as caught:
                await client.get(f"https://{host}:{port}/secret")
            assert "certificate" in str(caught.value)
            assert not any(requests)

    run(session)


async def _loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]
