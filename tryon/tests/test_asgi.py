"""As a server runs it: the whole application over ASGI, its threads, its connections, clients that go away."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.db.backends.signals import connection_created

from providers.fake import FakeProvider
from tryon import pipeline

from .shop import URL, Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


class Visit:
    """One POST to create-image over ASGI, in the running event loop."""

    def __init__(self, *chunks: bytes, headers: dict[str, str] | None = None) -> None:
        headers = {"host": "testserver", "content-type": "application/json"} | (headers or {})
        if "transfer-encoding" not in headers:
            headers["content-length"] = str(sum(map(len, chunks)))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": URL,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("198.51.100.7", 5000),
        }
        self._chunks = chunks
        self._connection: Any = ApplicationCommunicator(get_asgi_application(), scope)  # type: ignore[no-untyped-call]

    async def send(self) -> None:
        for number, chunk in enumerate(self._chunks, 1):
            more = number < len(self._chunks)
            await self._connection.send_input({"type": "http.request", "body": chunk, "more_body": more})

    async def answer(self) -> tuple[int, Any]:
        """Status and parsed body."""
        start = await self._connection.receive_output(timeout=30)
        body = await self._connection.receive_output(timeout=30)
        await self._connection.wait()
        return start["status"], json.loads(body["body"])

    async def leave(self) -> None:
        """Close the connection as a client does that waits no longer, and see the application end."""
        await self._connection.send_input({"type": "http.disconnect"})
        await self._connection.wait(timeout=30)
        while pipeline._detached:  # a clean-up that outlives the request
            await asyncio.sleep(0)


def visit(*chunks: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    async def main() -> tuple[int, Any]:
        client = Visit(*chunks, headers=headers)
        await client.send()
        return await client.answer()

    return asyncio.run(main())


def test_a_request_changes_threads_twice_for_us(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And twice for Django: to tell that a request begins, and that it ended."""
    hops: list[str] = []
    threads: list[Any] = []
    call, run = SyncToAsync.__call__, asyncio.BaseEventLoop.run_in_executor

    async def call_and_tell(self: Any, *args: Any, **kwargs: Any) -> Any:
        hops.append(self.func.__qualname__)
        return await call(self, *args, **kwargs)

    def run_and_tell(self: Any, executor: Any, function: Any, *args: Any) -> Any:
        if not (isinstance(function, functools.partial) and function.func is socket.getaddrinfo):
            threads.append(function)
        return run(self, executor, function, *args)

    body = json.dumps(shop.body).encode()
    assert visit(body)[0] == 200  # the first request of a process imports and builds what the others find
    monkeypatch.setattr(SyncToAsync, "__call__", call_and_tell)
    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", run_and_tell)

    status, answer = visit(body)

    assert (status, answer["status"]) == (200, "success")
    hop = "in_thread.<locals>.hop"
    assert hops == ["Signal.asend.<locals>.sync_send", hop, hop, "HttpResponseBase.close"]
    assert len(threads) == 4, "and nothing else goes to a thread by another way"


def test_no_connection_is_held_while_the_provider_works(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    held: list[Any] = []
    generate = FakeProvider.generate_image

    def note(*, connection: Any, **kwargs: Any) -> None:
        opened.append(connection)

    async def look(self: FakeProvider, request: Any) -> Any:
        held.extend(connection for connection in opened if connection.connection is not None)
        return await generate(self, request)

    monkeypatch.setattr(FakeProvider, "generate_image", look)
    connection_created.connect(note)
    try:
        assert visit(json.dumps(shop.body).encode())[0] == 200
    finally:
        connection_created.disconnect(note)
    assert opened, "the entering hop asked the database"
    assert held == []


@pytest.mark.one_database
def test_a_body_in_chunks_works_like_any_other(shop: Shop) -> None:
    body = json.dumps(shop.body).encode()
    assert visit(body[:40], body[40:], headers={"transfer-encoding": "chunked"})[0] == 200


@pytest.mark.one_database
def test_a_body_in_chunks_has_the_same_limit(shop: Shop) -> None:
    body = json.dumps(shop.body | {"padding": "x" * 100_000}).encode()
    status, answer = visit(body[:40], body[40:], headers={"transfer-encoding": "chunked"})
    assert (status, answer["code"]) == (413, "body_too_large")
    assert shop.ledger() == [("grant", 3)]
