"""Bodies that are too large, at a real server: refused in words, before they are on the disk."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

from tryon.body_limit import BodyLimit
from tryon.headers import COMMON
from tryon.lifespan import Lifespan

from .shop import URL, Shop
from .uvicorn_process import SECONDS, Server, serve

__all__ = ["serve"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

LIMIT = 1_000_000


@pytest.fixture
def server(serve: Callable[..., Server], tryon: Callable[..., None]) -> Server:
    tryon(MAX_BODY_BYTES=LIMIT)
    return serve()


class Wire:
    """One connection, on which a client says what it likes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self._file = self._socket.makefile("rb")

    def say(self, *headers: str) -> None:
        head = [f"POST {URL} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
        self.send(("\r\n".join(head) + "\r\n\r\n").encode())

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def answer(self) -> tuple[int, dict[str, str], Any]:
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, json.loads(self._file.read(int(headers["content-length"])))

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    wire = Wire(server.port)
    yield wire
    wire.close()


def assert_refused(wire: Wire) -> None:
    status, headers, body = wire.answer()
    assert (status, body["code"]) == (413, "body_too_large")
    assert f"{LIMIT:,} bytes" in body["detail"]
    assert headers["content-type"] == "application/json"
    assert len(headers["x-request-id"]) == 32
    assert {name.lower(): value for name, value in COMMON.items()}.items() <= headers.items()


def test_what_is_announced_as_far_too_large_is_refused_before_it_is_sent(wire: Wire) -> None:
    wire.say(f"Content-Length: {100 * LIMIT}")
    assert_refused(wire)


def test_who_sends_somewhat_too_much_is_heard_out_and_told(wire: Wire) -> None:
    """Cut off in the middle, a client would see a broken connection and no reason."""
    wire.say(f"Content-Length: {LIMIT + 1}")
    wire.send(b"x" * (LIMIT + 1))
    assert_refused(wire)


def test_a_body_in_chunks_is_counted_as_it_comes(wire: Wire) -> None:
    wire.say("Transfer-Encoding: chunked")
    for _ in range(30):
        wire.send_chunk(b"x" * 50_000)
    wire.send_chunk(b"")
    assert_refused(wire)


def test_a_body_without_end_is_answered(wire: Wire) -> None:
    wire.say("Transfer-Encoding: chunked")
    for _ in range(41):
        wire.send_chunk(b"x" * 50_000)
    assert_refused(wire)


def test_nothing_of_it_reaches_the_disk(server: Server, wire: Wire, tmp_path: Path) -> None:
    wire.say(f"Content-Length: {2 * LIMIT}")
    wire.send(b"x" * (2 * LIMIT - 1))
    temporary = [path for path in tmp_path.rglob("tmp*") if path.is_file()]
    wire.send(b"x")
    assert_refused(wire)
    assert temporary == []


def test_a_body_within_the_limit_passes_in_chunks_as_well(shop: Shop, wire: Wire) -> None:
    body = json.dumps(shop.body).encode()
    wire.say("Transfer-Encoding: chunked")
    for start in range(0, len(body), 50):
        wire.send_chunk(body[start : start + 50])
    wire.send_chunk(b"")
    status, _, answer = wire.answer()
    assert (status, answer["status"]) == (200, "success")


def test_a_client_that_goes_away_while_it_sends_leaves_the_server_working(
    shop: Shop, server: Server, wire: Wire
) -> None:
    wire.say(f"Content-Length: {LIMIT + 5}")
    wire.send(b"x" * 1000)
    wire.close()
    assert server.order(shop).answer().status == 200
    assert "Traceback" not in server.output


def knock(application: Any) -> Any:
    """What the application answers to the handshake of a WebSocket."""

    async def main() -> Any:
        headers = [(b"host", b"localhost"), (b"upgrade", b"websocket")]
        scope = {"type": "websocket", "path": "/", "query_string": b"", "headers": headers}
        visit: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]
        await visit.send_input({"type": "websocket.connect"})
        answer = await visit.receive_output(timeout=10)
        await visit.wait(timeout=10)
        return answer

    return asyncio.run(main())


@pytest.mark.parametrize("application", [get_asgi_application, lambda: ASGIStaticFilesHandler(get_asgi_application())])
def test_a_websocket_is_refused_where_django_would_fail(application: Callable[[], Any]) -> None:
    assert knock(Lifespan(BodyLimit(application()))) == {"type": "websocket.close"}


def test_a_websocket_is_passed_on_to_a_hosts_own_application() -> None:
    async def consumer(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})

    assert knock(Lifespan(BodyLimit(consumer))) == {"type": "websocket.accept"}
