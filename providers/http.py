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
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpcore
import httpx

from .utils import PerLoop

__all__ = [
    "URL",
    "AsyncClient",
    "BlockedAddress",
    "ConnectError",
    "HTTPError",
    "InvalidURL",
    "PerLoop",
    "Response",
    "TimeoutException",
    "count_as_body",
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
URL = httpx.URL

MAX_RESOLVING: Final = 64
"""Names that are looked up at the same time in this process."""

MAX_ADDRESSES: Final = 4
"""Addresses of one host that are tried before giving up."""

MAX_AROUND_BODY: Final = 64 * 1024
"""Bytes that a stranger's server may send besides the body: interim answers, headers, the framing of chunks.

Parsing them takes a hundred times as long as a body's bytes, and the event loop does nothing else meanwhile. Less than
httpcore reads at once would make every download slower.
"""

RECEIVE_BUFFER: Final = 256 * 1024
"""Bytes that wait in the kernel of what a server sends. uvloop takes all that is there, up to 8 MB, into memory at
once, and Linux keeps 6 MB and more; this is still 10 MB a second from a server that is 25 ms away."""

# Written out, because the tables of the ipaddress module depend on the Python version and call multicast,
# NAT64 and others global. From IANA's registries of special-purpose addresses, and what clouds add of their own.
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
        "192.31.196.0/24",  # AS112, which a network may serve by itself; so may those two below
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",
        "192.175.48.0/24",  # AS112
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
        "2001::/23",  # IETF protocols: Teredo, benchmarking, ORCHID and the like
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_ISATAP: Final = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")


class BlockedAddress(Exception):
    """A URL leads to a place that is not on the public internet, or to a port that is not the web's."""


def is_public_address(ip: str) -> bool:
    """Whether ``ip``, a numeric IPv4 or IPv6 address, is an ordinary address of the public internet.

    An IPv6 address that carries an IPv4 address never is, that of NAT64 included: on a machine that has no IPv4 and
    resolves every name to such, hosts without IPv6 cannot be reached. Anything that is not an address, a zone id
    included, is not public.
    """
    if "%" in ip:
        return False
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _PRIVATE_V4)
    if address.packed[8:12] in _ISATAP:
        return False
    return address in _GLOBAL_V6 and not any(address in network for network in _PRIVATE_V6)


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
    same address stays closed. A redirect may lead there: the stranger could have given that URL at once.

    ``timeout`` is in seconds and applies to connecting and to each read; a slow sender can stretch it for ever, so
    put ``asyncio.timeout()`` around the whole. Redirects are not followed: look at the target, then ask again.
    Nothing outlives a request, no cookie and no connection; proxies and .netrc of the environment are ignored.

    A server that sends more than ``MAX_AROUND_BODY`` besides its body fails. ``count_as_body()`` tells what was body.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
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


def count_as_body(response: Response, count: int) -> None:
    """``count`` bytes that were read from a response of a guarded client were its body."""
    response.extensions["network_stream"].count_as_body(count)


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
                stream = await self._backend.connect_tcp(
                    address,
                    port,
                    timeout=timeout,
                    local_address=local_address,
                    socket_options=[*(socket_options or ()), (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)],
                )
                return _GuardedStream(stream)
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


class _GuardedStream(httpcore.AsyncNetworkStream):
    """Fails when a server sends too much besides its body."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_AROUND_BODY

    def count_as_body(self, count: int) -> None:
        """Bytes of the body do not count, and pay for what a few kilobytes of it need around them."""
        self._left = min(MAX_AROUND_BODY, self._left + count + count // 32)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left <= 0:
            raise httpcore.RemoteProtocolError(f"more than {MAX_AROUND_BODY:,} bytes that are no body")
        received = await self._stream.read(min(max_bytes, self._left), timeout)
        self._left -= len(received)
        return received

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        return _GuardedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


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
