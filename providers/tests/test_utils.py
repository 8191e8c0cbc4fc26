"""What adapters share."""

from __future__ import annotations

import asyncio
import threading

import pytest

from providers.utils import PerLoop, one_line


class Client:
    """For the tests: counts how often it is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1
        if self.loop.is_closed():
            raise RuntimeError("Event loop is closed")


def test_one_client_per_loop() -> None:
    clients = PerLoop(Client)

    async def main() -> Client:
        first, second = await asyncio.gather(clients.get(), clients.get())
        assert first is second
        assert first.loop is asyncio.get_running_loop()
        return first

    assert asyncio.run(main()) is not asyncio.run(main())


def test_clients_of_ended_loops_are_closed_and_forgotten() -> None:
    clients = PerLoop(Client)
    orphans = [asyncio.run(clients.get()) for _ in range(3)]

    assert [orphan.closed for orphan in orphans] == [1, 1, 0]
    assert len(clients._values) == 1


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
