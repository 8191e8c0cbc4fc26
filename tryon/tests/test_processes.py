"""Money and state with real server processes, that are killed, left and asked for too much at once."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Final, TypeAlias
from uuid import UUID

import pytest
from aiohttp import ClientSession
from django.db.models import F
from django.utils import timezone

from tryon.credits import get_credits
from tryon.models import CreditEntry, TryOn, UsageRecord
from tryon.pipeline import _pseudonym as pseudonym

from .servers import (
    Answer,
    Request,
    Server,
    Shopper,
    Street,
    Vendor,
    clients,
    dice,
    look,
    nursery,
    openai,
    picture,
    send,
    street,
    vendor,
    wait_until,
)

__all__ = ["nursery", "openai", "street", "vendor"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database"), pytest.mark.stress]


# Many at once


def test_nobody_gets_more_pictures_than_credits(street: Street, vendor: Vendor) -> None:
    """400 requests at once to 4 processes, and credits for 50."""
    shopper = Shopper.create("ada", 50, vendor)
    servers = [street.serve() for _ in range(4)]

    answers = send(*((Request(shopper), servers[number % 4]) for number in range(400)))

    assert Counter((answer.status, answer.code) for answer in answers) == {
        (200, ""): 50,
        (403, "insufficient_credits"): 350,
    }
    assert len({answer.body["image_url"] for answer in answers if answer.status == 200}) == 50
    assert len(vendor.calls) == 50
    street.settle()
    assert get_credits().balance(shopper.user) == 0
    assert CreditEntry.objects.filter(kind="capture").count() == TryOn.objects.count() == 50


def test_a_key_makes_one_picture_whichever_process_is_asked(street: Street, vendor: Vendor) -> None:
    """200 pairs of equal requests; the two of a pair at once to two processes, 8 pairs at a time."""
    shopper = Shopper.create("ada", 1000, vendor)
    vendor.delay = partial(dice(4).uniform, 0, 0.05)
    servers = street.serve(), street.serve()

    async def ask(number: int, session: ClientSession, few: asyncio.Semaphore) -> list[Answer]:
        request = Request(shopper, key=f"order-{number}")
        async with few:
            return await asyncio.gather(*(request.send(session, server) for server in servers))

    async def main() -> list[list[Answer]]:
        few = asyncio.Semaphore(8)
        async with clients() as session:
            return await asyncio.gather(*(ask(number, session, few) for number in range(200)))

    for pair in asyncio.run(main()):
        made, other = sorted(pair, key=lambda answer: (answer.status, answer.is_replayed))
        assert (made.status, made.is_replayed) == (200, False)
        if other.status == 200:
            assert (other.is_replayed, other.body) == (True, made.body)
        else:
            assert (other.status, other.code) == (409, "idempotency_key_in_use")
            assert int(other.headers["Retry-After"]) > 0
    assert len(vendor.calls) == 200
    street.settle()
    assert get_credits().balance(shopper.user) == 800
    assert CreditEntry.objects.filter(kind="capture").count() == TryOn.objects.count() == 200


# kill -9

SEED: Final = 4
KILLS: Final = 60
AT_A_TIME: Final = 5

Trace: TypeAlias = tuple[str, str, str]

TRACES: Final[dict[str, Trace]] = {
    "held": ("running", "no file", "no record"),
    "answered": ("running", "no file", "no record"),
    "writing": ("running", "half a file", "no record"),
    "written": ("running", "a file", "no record"),
    "charging": ("running", "a file", "no record"),
    "committing": ("running", "a file", "no record"),
    "charged": ("succeeded", "a file", "no record"),
    "announced": ("succeeded", "a file", "a record"),
    "releasing": ("running", "no file", "no record"),
    "released": ("failed", "no file", "no record"),
}
"""What a run looks like whose process died at a point of crashes.py; of "holding" nothing is left."""


FAILING: Final = {"releasing": 2, "released": 2, "": 1}
"""How many of a server's four runs fail: none where one of four dies as it succeeds."""


@dataclass(frozen=True)
class Kill:
    """How a server dies."""

    number: int
    point: str
    """Where the server kills itself (crashes.py), the ``nth`` time that it comes there; empty if we kill it."""
    nth: int
    after: float = 0.0
    """When we kill it, in seconds."""

    def __str__(self) -> str:
        return f"{self.number}: {f'{self.nth} x {self.point}' if self.point else f'{self.after:.3f} s'}"


def kills() -> list[Kill]:
    """At each point a few times, and the others at any moment of the time that four requests take."""
    chance = dice(SEED)
    points = [point for point in ("holding", *TRACES) for _ in range(4)]
    points += [""] * (KILLS - len(points))
    chance.shuffle(points)
    return [
        Kill(number, point, nth=chance.randint(1, FAILING.get(point, 4)), after=chance.uniform(0.05, 0.4))
        for number, point in enumerate(points)
    ]


class DyingServer:
    """A server that dies while it serves four requests, two of which have a key."""

    def __init__(self, kill: Kill, street: Street) -> None:
        self.kill = kill
        self.shopper = Shopper.create(f"kill-{kill.number}", 10, street.vendor)
        self.server = street.serve(crash=(kill.point, kill.nth, SIGKILL) if kill.point else None)
        failing = FAILING.get(kill.point, 0)
        missing = {"catalog_image_url": self.shopper.body["catalog_image_url"] + ".missing"}
        self.requests = [
            Request(self.shopper, key=f"order-{n}" if n % 2 else "", changes=missing if n < failing else {})
            for n in range(4)
        ]

    async def die(self, session: ClientSession) -> list[Answer | None]:
        """What the clients get of it."""
        answers = asyncio.gather(*(request.send_to_mortal(session, self.server) for request in self.requests))
        if not self.kill.point:
            await asyncio.sleep(self.kill.after)
            self.server.kill()
        return await answers

    def traces(self, media: Path) -> dict[UUID, Trace]:
        """What each of its runs looks like."""
        return {
            run.pk: (
                str(run.status),
                _size([file.read_bytes() for file in media.glob(f"{run.file_stem}*")]),
                "a record" if UsageRecord.objects.filter(tryon=run).exists() else "no record",
            )
            for run in TryOn.objects.filter(user=self.shopper.user)
        }


def _size(files: list[bytes]) -> str:
    if not files:
        return "no file"
    return "a file" if files == [picture()] else "half a file"


def test_whatever_a_process_dies_of_nothing_is_lost_or_charged_twice(street: Street, vendor: Vendor) -> None:
    """60 kill -9, five at a time, each of a server with four requests. Then they are sent to a server that lives."""
    vendor.delay = partial(dice(SEED).uniform, 0, 0.1)
    survivor = street.serve()
    planned = kills()
    for start in range(0, KILLS, AT_A_TIME):
        batch = planned[start : start + AT_A_TIME]
        about = f"Seed {SEED}, kills {', '.join(map(str, batch))}."
        dying = [DyingServer(kill, street) for kill in batch]
        answers = let_die(dying)
        left = [died_as_planned(server, street.media, about) for server in dying]
        street.settle(about)
        stored = {run for traces in left for run, trace in traces.items() if trace[1] == "a file"}
        succeeded = TryOn.objects.filter(user__in=[server.shopper.user for server in dying], status="succeeded")
        assert set(succeeded.values_list("pk", flat=True)) == stored, about
        assert {answer.status for answer in answers} <= {200, 422}, about
        assert {UUID(answer.body["id"]) for answer in answers if answer.status == 200} <= stored, about
        ask_again(survivor, dying, about)
    street.settle(f"Seed {SEED}, the end.")


def died_as_planned(server: DyingServer, media: Path, about: str) -> dict[UUID, Trace]:
    """What the server has left of its runs."""
    left = server.traces(media)
    if server.kill.point == "holding":
        assert len(left) < len(server.requests), about
    elif server.kill.point:
        assert TRACES[server.kill.point] in left.values(), f"{about} {server.kill} left {left}"
    return left


def let_die(dying: list[DyingServer]) -> list[Answer]:
    """Have them die all at once; the answers that their clients got before."""

    async def main() -> list[list[Answer | None]]:
        async with clients() as session:
            return await asyncio.gather(*(server.die(session) for server in dying))

    answers = asyncio.run(main())
    for server in dying:
        server.server.wait()
    return [answer for each in answers for answer in each if answer]


def ask_again(survivor: Server, dying: list[DyingServer], about: str) -> None:
    """A picture that was stored is the answer to its key; where none was, it is made now."""
    again = [request for server in dying for request in server.requests if request.key]
    succeeded = TryOn.objects.filter(status="succeeded")
    wanted = [
        (422, False)
        if request.changes
        else (200, succeeded.filter(user=request.shopper.user, idempotency_key=request.key).exists())
        for request in again
    ]
    answers = send(*((request, survivor) for request in again))
    assert [(answer.status, answer.is_replayed) for answer in answers] == wanted, about


# Clients that hang up


@pytest.mark.parametrize("mode", ["cancel", "finish"])
def test_clients_that_hang_up_lose_nothing(street: Street, vendor: Vendor, mode: str) -> None:
    """100 of them, at any moment, half of them with a key by which they come back; without any recovery."""
    chance = dice(SEED)
    vendor.delay = partial(dice(SEED).uniform, 0, 0.2)
    one, other = street.serve(ON_DISCONNECT=mode), street.serve(ON_DISCONNECT=mode)
    requests = [
        Request(Shopper.create(f"client-{number}", 2, vendor), key="order" if number % 2 else "")
        for number in range(100)
    ]
    patience = [chance.uniform(0, 0.3) for _ in requests]

    async def visit(request: Request, seconds: float, session: ClientSession, few: asyncio.Semaphore) -> Answer | None:
        async with few:
            try:
                async with asyncio.timeout(seconds):
                    return await request.send(session, one)
            except TimeoutError:
                return None

    async def main() -> list[Answer | None]:
        few = asyncio.Semaphore(10)
        async with clients() as session:
            return await asyncio.gather(
                *(visit(request, seconds, session, few) for request, seconds in zip(requests, patience, strict=True))
            )

    answers = asyncio.run(main())
    wait_until(one.is_idle, "the end of what was under way")

    assert not TryOn.objects.unfinished().exists()
    asked = set(vendor.calls)
    status = dict(TryOn.objects.values_list("user", "status"))
    too_late = 0
    for request, answer in zip(requests, answers, strict=True):
        found = status.get(request.shopper.user.pk)
        if answer is not None:
            assert (answer.status, found) == (200, "succeeded")
        elif mode == "finish" and request.key and pseudonym(request.shopper.user) in asked:
            assert found == "succeeded"
        else:
            assert found in (None, "cancelled", "succeeded")
            too_late += found == "succeeded"
    # Their answers were on the way. Whoever hangs up while the picture is made, as most of them do, pays nothing.
    assert too_late <= 15
    recovered = street.settle()
    assert (recovered.captured, recovered.released) == ([], [])

    back = [request for request in requests if request.key]
    for request, answer in zip(back, send(*((request, other) for request in back)), strict=True):
        was_made = status.get(request.shopper.user.pk) == "succeeded"
        assert (answer.status, answer.is_replayed) == (200, was_made)
    street.settle()


# Recovery beside the living, and beside itself

LEASE: Final = 5
"""Seconds, the shortest there is."""


def test_recovery_leaves_the_living_alone(street: Street, vendor: Vendor, tryon: Callable[..., None]) -> None:
    """For longer than a lease, in two threads of ours and in another server, while pictures are being made."""
    tryon(LEASE=LEASE)
    shopper = Shopper.create("ada", 10, vendor)
    busy = street.serve(LEASE=LEASE)
    looking = street.serve(LEASE=LEASE, RECOVER_EVERY=0.05)
    vendor.hold()
    done = threading.Event()

    def look_until_done() -> list[TryOn]:
        found: list[TryOn] = []
        while not done.is_set():
            recovered = look()
            found += recovered.captured + recovered.released
            looking.get("/health/ready")
            done.wait(0.02)
        return found

    with ThreadPoolExecutor(3) as pool:
        pending = pool.submit(send, *[(Request(shopper), busy)] * 6)
        looks = [pool.submit(look_until_done) for _ in range(2)]
        try:
            wait_until(lambda: len(vendor.calls) == 6, "the vendor is asked for six pictures")
            first = dict(TryOn.objects.values_list("pk", "lease_until"))
            wait_until(lambda: timezone.now() > max(first.values()), "the first leases run out")
            renewed = dict(TryOn.objects.filter(status="running").values_list("pk", "lease_until"))
        finally:
            done.set()
            vendor.let_go()
        answers = pending.result()
        ended = [look.result() for look in looks]

    assert renewed.keys() == first.keys()
    assert all(renewed[run] > first[run] for run in first)
    assert [answer.status for answer in answers] == [200] * 6
    assert ended == [[], []]
    recovered = street.settle()
    assert (recovered.captured, recovered.released) == ([], [])


def test_a_recovery_that_is_killed_is_made_up_for(street: Street) -> None:
    """Servers die as they recover what other servers left that died: runs with a picture, and runs with none."""
    left = ["held", "answered", "written", "written", "charged", "charged", "released"]
    let_die([DyingServer(Kill(number, point, nth=2), street) for number, point in enumerate(left)])
    for point in ("charging", "charged", "announced", "releasing", "released"):
        time_passes()
        street.serve(crash=(point, 1, SIGKILL), RECOVER_EVERY=3600).wait()  # it looks when it starts
    recovered = street.settle()
    assert recovered.captured
    assert recovered.released


def time_passes() -> None:
    """Enough for any lease to run out."""
    hour = timedelta(hours=1)
    TryOn.objects.update(lease_until=F("lease_until") - hour, finished_at=F("finished_at") - hour)


def test_a_process_that_was_taken_for_dead_spoils_nothing_when_it_wakes_up(street: Street, vendor: Vendor) -> None:
    """Stopped for longer than a lease, as a machine may be. Its client gets a picture if one was charged."""
    points = {
        "held": (504, "deadline_exceeded"),
        "answered": (504, "deadline_exceeded"),
        "writing": (503, "storage_unavailable"),  # it cannot set the permissions of a file that was deleted
        "written": (200, ""),
        "charged": (200, ""),
        "announced": (200, ""),
    }
    requests = [
        (Request(Shopper.create(point, 10, vendor)), street.serve(crash=(point, 1, SIGSTOP))) for point in points
    ]
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(send, *requests)
        try:
            for _, server in requests:
                wait_until(server.is_stopped, f"{server} stops")
            recovered = street.settle()
        finally:
            for _, server in requests:
                server.send(SIGCONT)
        answers = pending.result()
    assert [(answer.status, answer.code) for answer in answers] == list(points.values())
    assert len(recovered.released) == 3
    for _, server in requests:
        wait_until(server.is_idle, "the end of what was under way")
    street.settle()
