"""The room that the photos of all runs of a process share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from tryon import room as rooms
from tryon.exceptions import Overloaded
from tryon.room import Room

SIZE = 100


@pytest.fixture
def room(tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Room:
    """A room of 100 bytes."""
    tryon(PHOTO_MEMORY=SIZE)
    room = Room("PHOTO_MEMORY")
    monkeypatch.setattr(rooms, "memory", room)
    return room


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_who_finds_too_little_waits_until_somebody_leaves(room: Room) -> None:
    async def main() -> None:
        first, second = await room.enter(60), await room.enter(40)
        third = asyncio.create_task(room.enter(50))
        await settle()
        assert not third.done()
        second.leave()
        await settle()
        assert not third.done()
        first.leave()
        (await third).leave()
        assert room._taken == 0

    asyncio.run(main())


def test_a_large_one_is_not_overtaken_for_ever(room: Room) -> None:
    async def main() -> None:
        first = await room.enter(60)
        large = asyncio.create_task(room.enter(90))
        await settle()
        small = asyncio.create_task(room.enter(10))
        await settle()
        assert not small.done(), "it came later"
        first.leave()
        assert await large
        assert await small

    asyncio.run(main())


def test_when_the_first_in_the_queue_gives_up_those_behind_may_fit(room: Room) -> None:
    async def main() -> None:
        await room.enter(60)
        large, small = asyncio.create_task(room.enter(90)), asyncio.create_task(room.enter(10))
        await settle()
        large.cancel()
        await settle()
        assert small.done()
        assert room._taken == 70

    asyncio.run(main())


def test_more_than_there_is_gets_all_of_it(room: Room) -> None:
    async def main() -> None:
        place = await room.enter(10 * SIZE)
        assert room._taken == SIZE
        place.shrink(30)
        assert room._taken == 30
        place.shrink(50)
        assert room._taken == 30, "nobody takes more while he is inside"
        place.leave()
        place.leave()
        assert room._taken == 0

    asyncio.run(main())


def test_who_waits_too_long_hears_that_the_server_is_overloaded(
    room: Room, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rooms, "PATIENCE", 0.01)

    async def main() -> None:
        place = await room.enter(SIZE)
        with pytest.raises(Overloaded):
            await room.enter(1)
        place.leave()
        await room.enter(1)

    asyncio.run(main())
    assert "PHOTO_MEMORY is 100" in log.text


def test_a_place_that_comes_as_its_run_is_cancelled_is_given_back(room: Room) -> None:
    async def main() -> None:
        place = await room.enter(SIZE)
        waiting = asyncio.create_task(room.enter(SIZE))
        await settle()
        place.leave()  # it is the other's now, who has not heard of it
        waiting.cancel()
        await settle()
        assert waiting.cancelled()
        assert room._taken == 0

    asyncio.run(main())


def test_nothing_is_lost_over_many_runs_that_are_cancelled_at_any_moment(room: Room) -> None:
    dice = random.Random(5)  # noqa: S311 - it decides nothing

    async def run() -> None:
        place = await room.enter(dice.randint(1, 2 * SIZE))
        assert room._taken <= SIZE
        try:
            for _ in range(dice.randint(0, 5)):
                await asyncio.sleep(0)
        finally:
            place.leave()

    async def main() -> None:
        tasks = [asyncio.create_task(run()) for _ in range(500)]
        for task in dice.sample(tasks, 200):
            await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
        assert room._taken == 0
        assert not room._waiting

    asyncio.run(main())


def test_event_loops_share_one_room(room: Room) -> None:
    """Under WSGI every request has a loop of its own."""

    async def stay(inside: asyncio.Event, leave: asyncio.Event) -> None:
        place = await room.enter(SIZE)
        inside.set()
        await leave.wait()
        place.leave()

    async def main() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(stay(inside, leave))
        await inside.wait()
        other = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(room.enter(SIZE))))
        while not room._waiting:
            await asyncio.sleep(0)
        assert not other.done()
        leave.set()
        await first
        assert await other

    asyncio.run(main())


def test_at_most_max_downloads_photos_are_fetched_at_once(tryon: Callable[..., None]) -> None:
    """A run takes both its places together, so that no two wait for each other's second photo."""
    tryon(MAX_DOWNLOADS=5)
    inside: list[int] = []
    most = 0

    async def fetch(place: int) -> None:
        nonlocal most
        with await rooms.downloads.enter(2):
            inside.append(place)
            most = max(most, 2 * len(inside))
            await asyncio.sleep(0)
            inside.remove(place)

    async def main() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(*map(fetch, range(50)))

    asyncio.run(main())
    assert most == 4


def test_nothing_is_taken_by_who_needs_nothing(room: Room) -> None:
    async def main() -> None:
        with await room.enter(SIZE):
            (await room.enter(0)).leave()
        assert room._taken == 0

    asyncio.run(main())
