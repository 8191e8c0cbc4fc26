"""What adapters share."""

from __future__ import annotations

import asyncio
import threading

import pytest
from asgiref.sync import async_to_sync

from providers.utils import PerLoop, data_uri, decode_base64, image_type, one_line

from .vendor import photo
from .vendors import picture


class Client:
    """For the tests: counts how often it is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = 0

    async def aclose(self) -> None:
        assert self.loop is asyncio.get_running_loop()
        self.closed += 1


def test_one_client_per_loop() -> None:
    clients = PerLoop(Client)

    async def main() -> Client:
        first, second = await asyncio.gather(clients.get(), clients.get())
        assert first is second
        assert first.loop is asyncio.get_running_loop()
        return first

    assert asyncio.run(main()) is not asyncio.run(main())


def test_a_client_is_closed_with_its_loop() -> None:
    """Before the loop is: the client may still talk to it."""
    clients = PerLoop(Client)

    client = asyncio.run(clients.get())

    assert client.closed == 1
    assert not clients._keepers


def test_a_client_is_closed_with_the_loop_of_a_sync_view() -> None:
    clients = PerLoop(Client)

    client = async_to_sync(clients.get)()

    assert client.closed == 1
    assert not clients._keepers


def test_clients_of_loops_that_were_just_dropped_are_forgotten() -> None:
    clients = PerLoop(Client)

    async def kept() -> int:
        await clients.get()
        return len(clients._keepers)

    for _ in range(3):
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(kept()) == 1
        loop.close()


def test_aclose_closes_only_the_running_loops_client() -> None:
    clients = PerLoop(Client)

    async def main() -> None:
        mine = await clients.get()
        other: list[Client] = []
        ready, done = threading.Event(), threading.Event()

        async def elsewhere() -> None:
            other.append(await clients.get())
            ready.set()
            done.wait(10)

        thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
        thread.start()
        ready.wait(10)
        await clients.aclose()
        await clients.aclose()
        assert (mine.closed, other[0].closed) == (1, 0)
        assert await clients.get() is not mine
        done.set()
        thread.join(10)

    asyncio.run(main())


def test_outside_of_a_loop() -> None:
    coroutine = PerLoop(Client).get()
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("a\r\nb\tc\x1b[31m\u2028d", "a b c [31m d"),
        ("x" * 500, "x" * 100),
        (None, ""),
        (5, ""),
        (["a"], ""),
        ("", ""),
    ],
)
def test_one_line(value: object, line: str) -> None:
    assert one_line(value) == line


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (picture("PNG"), "image/png"),
        (picture("JPEG"), "image/jpeg"),
        (picture("WEBP"), "image/webp"),
        (picture("GIF"), ""),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", ""),
        (b"<html>", ""),
        (b"", ""),
    ],
)
def test_image_type_is_told_by_the_bytes(data: bytes, expected: str) -> None:
    assert image_type(data) == expected


def test_data_uri_is_read_back() -> None:
    uri = data_uri(photo(b"\xff\xd8\xff" * 1000, "image/jpeg"))
    assert uri.startswith("data:image/jpeg;base64,/9j/")
    assert decode_base64(uri) == b"\xff\xd8\xff" * 1000
