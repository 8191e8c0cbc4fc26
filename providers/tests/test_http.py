"""The client for strangers' URLs: which addresses it dials and which it refuses."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpcore
import pytest

from providers import http

from .vendor import Answer, VendorServer

PAGE = Answer(body=b"hello", headers={"set-cookie": "a=b"})

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:80b::200e",
    "3ffe::1",
    "192.31.195.255",
    "192.52.194.0",
    "192.175.47.255",
    "2620:4f:7fff::1",
]

NOT_PUBLIC = [
    # IPv4
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",  # metadata, Alibaba
    "100.127.255.255",
    "127.0.0.1",
    "127.1.2.3",
    "127.255.255.255",
    "168.63.129.16",  # host agent, Azure
    "169.254.0.1",
    "169.254.169.254",  # metadata, most clouds
    "169.254.170.2",  # credentials, AWS containers
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.255",
    "192.88.99.1",
    "192.175.48.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    # IPv6
    "::",
    "::1",
    "::2",
    "100::1",
    "100:0:0:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2620:4f:8000::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # metadata, AWS
    "fd20:ce::254",  # metadata, Google
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    # IPv4 inside IPv6
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b::808:808",  # NAT64 of 8.8.8.8, public as that is
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a83f:8110",  # 168.63.129.16
    "64:ff9b:1::808:808",  # a translator of one's own may put it anywhere behind that
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:808:7f:0:100:0",
    "64:ff9b:1:0:a9fe:a9fe::",
    "64:ff9b:1:a9fe:a9:fe00:808:808",
    "64:ff9b:2::808:808",
    "2002:808:808::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:1::1",
    "2001:0:808:808::f7f7:f7f7",  # Teredo between 8.8.8.8 and 8.8.8.8
    "2001:0:7f00:1::f7f7:f7f7",
    "2001:0:808:808::80ff:fffe",  # Teredo with the client at 127.0.0.1
    "2606:4700::5efe:808:808",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:a9fe:a9fe",
    "fe80::5efe:808:808",
    # Not addresses
    "",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "8.8.8.8 ",
    "8.8.8.8/32",
    "fe80::1%eth0",
    "2606:4700::1%1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_address(address: str) -> None:
    assert http.is_public_address(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public_address(address: str) -> None:
    assert not http.is_public_address(address)


class Network:
    """DNS as the test wants it, and a dial that only notes where it would have gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> None:
        self.asked: list[str] = []
        self.dialled: list[tuple[str, int]] = []
        self.dead: set[str] = set()
        self._names = names
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)
        monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", self._connect)

    def _getaddrinfo(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked.append(host)
        answers = self._names.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answer
        ]

    async def _connect(self, host: str, port: int, **kwargs: Any) -> Any:
        self.dialled.append((host, port))
        if host in self.dead:
            raise httpcore.ConnectError("refused")
        raise ArrivedError


class ArrivedError(Exception):
    """The dial was allowed."""


def get(
    url: str, *, allowed_hosts: Collection[str] = (), allowed_ports: Collection[int] = (80, 443), times: int = 1
) -> http.Response:
    async def main() -> http.Response:
        client = http.guarded_client(allowed_hosts=allowed_hosts, allowed_ports=allowed_ports, timeout=10)
        async with client:
            for _ in range(times):
                response = await client.get(url)
        return response

    return asyncio.run(main())


def test_checked_address_is_the_one_that_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer never matters: nobody asks for it."""
    network = Network(monkeypatch, {"rebind.example": [["8.8.8.8"], ["127.0.0.1"]]})

    with pytest.raises(ArrivedError):
        get("http://rebind.example/a.jpg")

    assert network.asked == ["rebind.example"]
    assert network.dialled == [("8.8.8.8", 80)]


def test_every_request_is_resolved_and_checked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, {"rebind.example": [["8.8.8.8"], ["127.0.0.1"]]})

    with pytest.raises(ArrivedError):
        get("http://rebind.example/")
    with pytest.raises(http.BlockedAddress, match=r"rebind\.example is 127\.0\.0\.1"):
        get("http://rebind.example/")

    assert network.dialled == [("8.8.8.8", 80)]


@pytest.mark.parametrize(
    "answer",
    [["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"], ["2606:4700::1", "fe80::1%eth0"], ["64:ff9b::7f00:1"]],
)
def test_one_private_answer_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch, answer: list[str]) -> None:
    network = Network(monkeypatch, {"mixed.example": [answer]})

    with pytest.raises(http.BlockedAddress):
        get("https://mixed.example/")

    assert not network.dialled


def test_next_address_when_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, {"two.example": [["2606:4700::1", "8.8.8.8", "8.8.8.8"]]})
    network.dead = {"2606:4700::1"}

    with pytest.raises(ArrivedError):
        get("https://two.example/")

    assert network.dialled == [("2606:4700::1", 443), ("8.8.8.8", 443)]


def test_only_a_few_addresses_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [f"8.8.8.{number}" for number in range(100)]
    network = Network(monkeypatch, {"many.example": [addresses]})
    network.dead = set(addresses)

    with pytest.raises(http.HTTPError, match="refused"):
        get("https://many.example/")

    assert len(network.dialled) == http.MAX_ADDRESSES


@pytest.mark.parametrize("url", ["http://nowhere.example/", "http://empty.example/", f"http://{'a' * 70}.example/"])
def test_names_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    if "a" * 70 not in url:
        Network(monkeypatch, {"empty.example": [[]]})
    with pytest.raises((http.HTTPError, http.InvalidURL)):
        get(url)


def test_slow_dns_counts_against_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answered.wait(30))

    async def main() -> None:
        async with http.guarded_client(allowed_hosts=[], timeout=0.05) as client:
            await client.get("http://slow.example/")

    try:
        with pytest.raises(http.TimeoutException):
            asyncio.run(main())
    finally:
        answered.set()


def test_names_with_slow_servers_do_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than the event loop has threads of its own."""
    slow, answered, asked = 40, threading.Event(), 0
    resolve = socket.getaddrinfo

    async def main(server: VendorServer) -> int:
        loop, all_asked = asyncio.get_running_loop(), asyncio.Event()

        def count() -> None:
            nonlocal asked
            asked += 1
            if asked == slow:
                all_asked.set()

        def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
            if host != "slow.example":
                return resolve(host, *args, **kwargs)
            loop.call_soon_threadsafe(count)
            answered.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        async with http.guarded_client(allowed_hosts=[f"127.0.0.1:{server.port}"], timeout=30) as client:
            waiting = [asyncio.create_task(client.get("http://slow.example/")) for _ in range(slow)]
            try:
                await asyncio.wait_for(all_asked.wait(), 10)
                status: int = (await client.get(server.base_url)).status_code
            finally:
                answered.set()
                await asyncio.gather(*waiting, return_exceptions=True)
            return status

    with VendorServer(PAGE) as server:
        assert asyncio.run(main(server)) == 200


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://8.8.8.8:22/",
        "http://8.8.8.8:8080/",
        "https://8.8.8.8:6379/",
        "http://[fe80::1%25lo]/",
    ],
)
def test_blocked(url: str) -> None:
    with pytest.raises((http.BlockedAddress, http.InvalidURL)):
        get(url)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://8.8.8.8/", "gopher://8.8.8.8/", "/a.jpg", "", "http://"])
def test_other_schemes(url: str) -> None:
    with pytest.raises((http.HTTPError, http.InvalidURL)):
        get(url)


def test_unix_sockets_are_blocked() -> None:
    with pytest.raises(http.BlockedAddress):
        asyncio.run(http._GuardedBackend([], [80]).connect_unix_socket("/run/docker.sock"))


# Hosts of our own


def test_allowed_host_is_reached_by_name_and_port() -> None:
    with VendorServer(PAGE) as server:
        response = get(f"http://localhost:{server.port}/a.jpg", allowed_hosts=[f"LocalHost:{server.port}"])

    assert response.content == b"hello"
    assert server.calls[0].path == "/a.jpg"


def test_allowed_host_does_not_open_its_address() -> None:
    with VendorServer(PAGE) as server:
        for name in ("127.0.0.1", "127.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(http.BlockedAddress):
                get(
                    f"http://{name}:{server.port}/",
                    allowed_hosts=[f"localhost:{server.port}"],
                    allowed_ports=[server.port],
                )
    assert not server.calls


@pytest.mark.parametrize(
    ("entry", "opened", "closed"),
    [
        ("media.internal", ["media.internal", "MEDIA.internal:443"], ["media.internal:8000", "a.media.internal"]),
        ("media.internal:8000", ["media.internal:8000"], ["media.internal", "media.internal:8001"]),
        ("10.0.0.5", ["10.0.0.5"], ["10.0.0.6", "10.0.0.5:81"]),
        ("10.0.0.5:81", ["10.0.0.5:81"], ["10.0.0.5"]),
        ("::1", ["[::1]"], ["[::1]:8000", "[::2]"]),
        ("[::1]", ["[::1]"], ["[::1]:8000"]),
        ("[::1]:8000", ["[::1]:8000"], ["[::1]"]),
        ("fd00:1:2:3:4:5:6:7", ["[fd00:1:2:3:4:5:6:7]"], ["[fd00:1:2:3:4:5:6:8]"]),
    ],
)
def test_allowed_hosts(monkeypatch: pytest.MonkeyPatch, entry: str, opened: list[str], closed: list[str]) -> None:
    inside = ["10.0.0.5"]
    names = ("media.internal", "a.media.internal", "10.0.0.5", "10.0.0.6", "::1", "::2")
    more = ("fd00:1:2:3:4:5:6:7", "fd00:1:2:3:4:5:6:8")
    Network(monkeypatch, {name: [inside] for name in names + more})

    for host in opened:
        with pytest.raises(ArrivedError):
            get(f"http://{host}/", allowed_hosts=[entry])
    for host in closed:
        with pytest.raises(http.BlockedAddress):
            get(f"http://{host}/", allowed_hosts=[entry])


@pytest.mark.parametrize("entry", ["localhost:", ":80", "localhost:http", "localhost:0", "localhost:70000", ""])
def test_allowed_host_that_is_none(entry: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        http.guarded_client(allowed_hosts=[entry], timeout=1)


def test_one_text_for_allowed_hosts() -> None:
    with pytest.raises(TypeError, match="allowed_hosts"):
        http.guarded_client(allowed_hosts="localhost", timeout=1)


# What is sent and what is kept


def test_nothing_is_sent_or_kept_but_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with VendorServer(PAGE) as server:
        get(f"http://localhost:{server.port}/", allowed_hosts=[f"localhost:{server.port}"], times=2)

    first, second = server.calls
    assert first.headers["accept-encoding"] == "identity"
    assert "httpx" not in str(first.headers)
    assert "cookie" not in second.headers
    assert server.connections == 2


def test_redirects_are_not_followed() -> None:
    with VendorServer(Answer(status=302, headers={"location": "http://169.254.169.254/"})) as server:
        response = get(f"http://localhost:{server.port}/", allowed_hosts=[f"localhost:{server.port}"])

    assert response.status_code == 302
    assert len(server.calls) == 1


def test_silent_server_times_out() -> None:
    async def main(port: int) -> None:
        async with http.guarded_client(allowed_hosts=[f"localhost:{port}"], timeout=0.1) as client:
            await client.get(f"http://localhost:{port}/")

    with VendorServer(Answer(end="hang")) as server, pytest.raises(http.TimeoutException):
        asyncio.run(main(server.port))


def test_vendor_client_lets_all_wait_and_follows_nothing() -> None:
    many = 130

    async def main(url: str) -> list[http.Response]:
        async with http.vendor_client() as client:
            return await asyncio.gather(*(client.get(url) for _ in range(many)))

    with VendorServer(Answer(status=302, headers={"location": "http://127.0.0.1:1/"}), together=many) as server:
        responses = asyncio.run(main(server.base_url))

    assert [response.status_code for response in responses] == [302] * many


def test_works_with_httpx2_as_well() -> None:
    """The move is a change of two import lines; here the same two names are swapped in a fresh interpreter."""
    code = (
        "import sys, httpx2, httpcore2, pytest;"
        "sys.modules['httpx'] = httpx2; sys.modules['httpcore'] = httpcore2;"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    options = ["-q", "-p", "no:cacheprovider", "-k", "not httpx2 and not public_address"]
    warnings = ["-W", "error", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    table = str(Path(__file__).with_name("test_hostile_urls.py"))
    done = subprocess.run(
        [sys.executable, "-c", code, *options, *warnings, __file__, table], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_what_a_server_sends_besides_its_body_is_bounded_under_tls_as_well() -> None:
    class Endless(httpcore.AsyncNetworkStream):
        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return bytes(max_bytes)

        async def start_tls(self, *args: Any) -> httpcore.AsyncNetworkStream:
            return self

    async def read() -> int:
        stream = await http._GuardedStream(Endless()).start_tls(http._tls(), "localhost")
        size = 0
        while size < 10 * http.MAX_AROUND_BODY:
            size += len(await stream.read(1000))
        return size

    with pytest.raises(httpcore.RemoteProtocolError, match="that are no body"):
        asyncio.run(read())


def test_a_strangers_server_fills_a_small_buffer() -> None:
    async def kept(server: VendorServer) -> int:
        host = f"127.0.0.1:{server.port}"
        async with (
            http.guarded_client(allowed_hosts=[host], timeout=60) as client,
            client.stream("GET", f"http://{host}/a") as response,
        ):
            connection = response.extensions["network_stream"].get_extra_info("socket")
            return int(connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))

    with VendorServer(Answer(body=b"x")) as server, socket.socket() as other:
        # What a system makes of the number is its own affair; left alone, it would let the buffer grow.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, http.RECEIVE_BUFFER)
        assert asyncio.run(kept(server)) == other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
