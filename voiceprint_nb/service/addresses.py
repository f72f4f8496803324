"""Requests that a served service makes for its callers go to public addresses, and nowhere else.

Whoever may name a link or a webhook could else use the service to reach what only it can reach: other
programs on its machine, its private network, its cloud's metadata. Only served services import this module.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from voiceprint_nb.errors import RowError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Name or literal and port -> addresses as text; an `OSError` if there are none."""

_MAX_TRIED = 4  # a name with hundreds of addresses does not make this service knock at all of them
_MAX_CONNECTIONS = 100

_NOT_PUBLIC = [
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",  # this network: 0.0.0.0 connects to loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers, and where one cloud keeps its metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # public by number, yet a cloud's internal platform address
        "169.254.0.0/16",  # link-local, with the metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments, and where one cloud keeps its metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "2001::/23",  # protocol assignments, with Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: obsolete, leads to any IPv4 address
        "3fff::/20",  # documentation
    )
]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # how networks without IPv4 reach all of it


class ForbiddenAddress(RowError):
    """A request would not have gone to a public address; code ``url_refused``."""


def is_public(address: str) -> bool:
    """Whether this is the address of a single host that anybody on the internet may reach.

    An IPv6 address that stands for an IPv4 address (mapped, NAT64) is as public as that one; obsolete ways
    to wrap one (compatible, 6to4, Teredo) and addresses with a scope are not public. The blocks are listed
    here because those of `ipaddress` differ between versions of Python.

    >>> [is_public(text) for text in ("9.9.9.9", "2620:fe::fe", "::ffff:9.9.9.9", "64:ff9b::909:909")]
    [True, True, True, True]
    >>> [is_public(text) for text in ("127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fe80::1%1")]
    [False, False, False, False, False]
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.scope_id is not None:
            return False
        if parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
        elif parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed not in _GLOBAL_UNICAST:
            return False
    return not any(parsed in block for block in _NOT_PUBLIC)


async def system_resolve(host: str, port: int) -> list[str]:
    """The addresses that the machine's resolver gives, in its order of preference."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for _, _, _, _, sockaddr in found]


def guarded_client(
    *, allowed_hosts: Collection[str] = (), resolve: Resolve = system_resolve
) -> httpx.AsyncClient:
    """Client for requests on behalf of callers: each goes to a checked address or raises `ForbiddenAddress`.

    Parameters
    ----------
    allowed_hosts : collection of str
        Hosts that the operator vouches for, whatever their addresses: exact names, or IP addresses.
    resolve : callable
        Turns a host and port into addresses; asked once per request.

    Returns
    -------
    httpx.AsyncClient
        Follows no redirects, so that each hop is a request of its own; keeps no cookies, since its callers
        do not belong together; uses no proxy, since a proxy would resolve names on its own.
    """
    return httpx.AsyncClient(
        transport=_GuardedTransport(frozenset(map(_canonical, allowed_hosts)), resolve),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        trust_env=False,
    )


class _GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves a request's host once, and connects to what it has checked: a second answer counts nothing."""

    def __init__(self, allowed: frozenset[str], resolve: Resolve) -> None:
        self._allowed, self._resolve = allowed, resolve
        # The pool knows connections by address. None is kept alive, so that one made, and its certificate
        # checked, for one name never serves another name at the same address.
        limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=0)
        self._inner = httpx.AsyncHTTPTransport(limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.raw_host.decode("ascii")
        if request.url.scheme not in ("http", "https") or not host or "%" in host:
            raise _refusal(host)
        failure: httpx.TransportError = httpx.ConnectError("the host has no address")
        for address in (await self._addresses(request, host))[:_MAX_TRIED]:
            try:
                return await self._inner.handle_async_request(_addressed(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:  # nothing was sent yet
                failure = error
        raise failure

    async def _addresses(self, request: httpx.Request, host: str) -> list[str]:
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("connect")):
                addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except TimeoutError:
            raise httpx.ConnectTimeout("the host's name was not resolved in time") from None
        except (OSError, UnicodeError):  # UnicodeError: no name that a resolver takes
            raise httpx.ConnectError("the host's name cannot be resolved") from None
        if _canonical(host) not in self._allowed and not all(map(is_public, addresses)):
            raise _refusal(host)
        return addresses

    async def aclose(self) -> None:
        await self._inner.aclose()


def _addressed(request: httpx.Request, host: str, address: str) -> httpx.Request:
    """The same request, on its way to this address; TLS still asks for and checks the name."""
    headers = request.headers.copy()
    headers.setdefault("Host", request.url.netloc.decode("ascii"))
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host.rstrip(".")},
    )


def _refusal(host: str) -> ForbiddenAddress:
    return ForbiddenAddress(
        "url_refused",
        f"{host or 'The link'} is not at a public http or https address: upload the clip, or let the "
        "operator name the host with --allow-host.",
    )


def _canonical(host: str) -> str:
    """One spelling per host: names in lower case, addresses as `ipaddress` writes them.

    >>> [_canonical(host) for host in ("Clips.Example.", "[::1]", "0x7f.1", "::ffff:7f00:1")]
    ['clips.example', '::1', '127.0.0.1', '127.0.0.1']
    """
    name = host.strip("[]").rstrip(".").lower()
    try:
        parsed = ipaddress.ip_address(name)
    except ValueError:
        try:
            parsed = ipaddress.IPv4Address(socket.inet_aton(name))  # reads 127.1 as resolvers do
        except (OSError, ValueError):
            return name
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
