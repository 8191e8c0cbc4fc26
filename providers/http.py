"""Our own HTTP, and the only module that imports httpx.

httpx is frozen upstream. To move to its successor change the two imports below to ``import httpcore2 as httpcore`` and
``import httpx2 as httpx``; nothing else here or elsewhere depends on which one it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
import ssl
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpcore
import httpx

from .utils import PerLoop

__all__ = [
    "AsyncClient",
    "BlockedAddress",
    "ConnectError",
    "HTTPError",
    "InvalidURL",
    "PerLoop",
    "Response",
    "TimeoutException",
    "guarded_client",
    "is_public_address",
    "vendor_client",
]

AsyncClient = httpx.AsyncClient
ConnectError = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
HTTPError = httpx.HTTPError
InvalidURL = httpx.InvalidURL
Response = httpx.Response
TimeoutException = httpx.TimeoutException

MAX_CONNECTIONS: Final = 100
"""Downloads at the same time, for one client; more wait for their turn."""

MAX_RESOLVING: Final = 64
"""Names that are looked up at the same time in this process."""

MAX_ADDRESSES: Final = 4
"""Addresses of one host that are tried before giving up."""

# Written out, because the tables of the ipaddress module depend on the Python version and call multicast,
# NAT64 and others global.
_PRIVATE_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; a cloud keeps its metadata at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent, in the middle of public space
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
_PRIVATE_V6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocols: benchmarking, ORCHID and the like
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_6TO4: Final = ipaddress.IPv6Network("2002::/16")
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_ISATAP: Final = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")


class BlockedAddress(Exception):
    """A URL leads to a place that is not on the public internet, or to a port that is not the web's."""


def is_public_address(ip: str) -> bool:
    """Whether ``ip``, a numeric IPv4 or IPv6 address, is an ordinary address of the public internet.

    An IPv6 address that carries an IPv4 address is only as public as that one; the old form ``::1.2.3.4`` never
    is. Anything that is not an address, a zone id included, is not public.
    """
    if "%" in ip:
        return False
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return _is_public_v4(address)
    if not all(_is_public_v4(inner) for inner in _embedded(address)):
        return False
    if any(address in network for network in (_MAPPED, _NAT64, _LOCAL_NAT64, _TEREDO)):
        return True
    return address in _GLOBAL_V6 and not any(address in network for network in _PRIVATE_V6)


def _is_public_v4(address: ipaddress.IPv4Address) -> bool:
    return not any(address in network for network in _PRIVATE_V4)


def _embedded(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses a packet to ``address`` could end up at."""
    packed = address.packed
    if any(address in network for network in (_MAPPED, _NAT64, _LOCAL_NAT64)):
        yield ipaddress.IPv4Address(packed[12:])
    if address in _LOCAL_NAT64:
        # RFC 6052 puts the address around bits 64 to 71 when the prefix is a whole /48.
        spread = packed[6:8] + packed[9:11]
        if any(spread):
            yield ipaddress.IPv4Address(spread)
    if address in _6TO4:
        yield ipaddress.IPv4Address(packed[2:6])
    if address in _TEREDO:
        yield ipaddress.IPv4Address(packed[4:8])
        yield ipaddress.IPv4Address(bytes(byte ^ 0xFF for byte in packed[12:]))
    if packed[8:12] in _ISATAP:
        yield ipaddress.IPv4Address(packed[12:])


def vendor_client(*, timeout: float = 600.0) -> AsyncClient:
    """A client for a vendor's API, at an address the operator chose. ``timeout`` is in seconds of silence.

    Any number of requests may wait for their pictures at the same time. Redirects are not followed, so that photos
    and keys go where they were meant to go.
    """
    return httpx.AsyncClient(
        verify=_tls(),
        timeout=httpx.Timeout(timeout, connect=10.0),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        follow_redirects=False,
    )


def guarded_client(
    *, allowed_hosts: Collection[str], allowed_ports: Collection[int] = (80, 443), timeout: float
) -> AsyncClient:
    """A client for URLs that strangers typed: it dials public addresses on ``allowed_ports`` only.

    A name is resolved once, refused with ``BlockedAddress`` if any of its addresses is not public, and the
    checked address is the one that is dialled, so DNS cannot change its mind in between. TLS still verifies the
    name.

    ``allowed_hosts`` opens a host of our own that is not public: ``"media.internal"`` on ``allowed_ports``, or
    ``"localhost:8000"`` on that port alone. What counts is the name in the URL, so a stranger's name for the
    same address stays closed.

    ``timeout`` is in seconds and applies to connecting and to each read; a slow sender can stretch it for ever, so
    put ``asyncio.timeout()`` around the whole. Redirects are not followed: look at the target, then ask again.
    Nothing outlives a request, no cookie and no connection; proxies and .netrc of the environment are ignored.
    """
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(verify=_tls(), trust_env=False, limits=limits)
    # The transport has no argument for the network backend, so it gets a pool that has one.
    transport._pool = httpcore.AsyncConnectionPool(
        ssl_context=_tls(),
        max_connections=limits.max_connections,
        max_keepalive_connections=limits.max_keepalive_connections,
        network_backend=_GuardedBackend(allowed_hosts, allowed_ports),
    )
    return httpx.AsyncClient(
        transport=transport,
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"Accept-Encoding": "identity", "User-Agent": "sakura-tryon"},
    )


@functools.cache
def _resolvers() -> ThreadPoolExecutor:
    """Threads of their own: the event loop has a handful, which a few names with slow servers would keep busy."""
    return ThreadPoolExecutor(MAX_RESOLVING, thread_name_prefix="tryon-dns")


@functools.cache
def _tls() -> ssl.SSLContext:
    """Shared: reading the trusted certificates takes longer than a download."""
    return httpx.create_ssl_context(trust_env=False)


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    def __init__(self, allowed_hosts: Collection[str], allowed_ports: Collection[int]) -> None:
        if isinstance(allowed_hosts, str):
            raise TypeError("allowed_hosts must be a list of hosts, not one text.")
        self._backend = httpcore.AnyIOBackend()
        self._ports = frozenset(allowed_ports)
        self._open = frozenset(
            (host, port)
            for entry in allowed_hosts
            for host, ports in [_split_host(entry)]
            for port in (ports or self._ports)
        )

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        ours = (host.lower(), port) in self._open
        if not ours and port not in self._ports:
            raise BlockedAddress(f"port {port} is not allowed")
        if "%" in host:
            raise BlockedAddress("an address with a zone id is not allowed")
        addresses = await self._resolve(host, port, timeout)
        if not ours:
            for address in addresses:
                if not is_public_address(address):
                    raise BlockedAddress(f"{host} is {address}, which is not a public address")
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses[:MAX_ADDRESSES]:
            try:
                return await self._backend.connect_tcp(
                    address,
                    port,
                    timeout=timeout,
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise BlockedAddress("a local socket is not allowed")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @staticmethod
    async def _resolve(host: str, port: int, timeout: float | None) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host))]  # nothing to look up
        loop = asyncio.get_running_loop()
        look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        try:
            async with asyncio.timeout(timeout):
                answers = await loop.run_in_executor(_resolvers(), look_up)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} was not resolved in time") from None
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            raise httpcore.ConnectError(f"{host} was not resolved: {error}") from None
        return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def _split_host(entry: str) -> tuple[str, tuple[int, ...]]:
    """``"host"``, ``"host:port"``, ``"[::1]:port"`` or ``"::1"`` as host and ports; no port is ``()``."""
    entry = entry.strip().lower()
    host, colon, port = entry.rpartition(":")
    if not colon or host.endswith(":") or (":" in host and not host.endswith("]")):
        host, port = entry, ""  # a name alone, or an IPv6 address alone
    elif not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        host = ""
    if not host:
        raise ValueError(f"{entry!r} is not a host. Write it as host or host:port.")
    return host.strip("[]"), (int(port),) if port else ()
