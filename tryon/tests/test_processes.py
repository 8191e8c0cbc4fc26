"""Money and state with real server processes, that are killed, left and asked for too much at once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from aiohttp import ClientSession
from django.utils import timezone

from tryon.credits import get_credits
from tryon.heartbeat import heartbeat
from tryon.models import CreditEntry, TryOn
from tryon.recovery import Recovered, recover

from .books import assert_books_balance
from .servers import Answer, Nursery, Request, Shopper, Street, Vendor, clients, picture, send

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database"), pytest.mark.stress]


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("nursery") / "log") as nursery:
        yield nursery


@pytest.fixture(scope="session")
def openai() -> Iterator[Vendor]:
    with Vendor() as vendor:
        yield vendor


@pytest.fixture
def vendor(openai: Vendor) -> Iterator[Vendor]:
    """Nobody has called it yet, and it answers at once."""
    openai.calls.clear()
    openai.delay = lambda: 0.0
    yield openai
    openai.let_go()


@pytest.fixture
def street(transactional_db: None, nursery: Nursery, vendor: Vendor, media: Path) -> Iterator[Street]:
    media.mkdir()
    street = Street(nursery, vendor, media)
    yield street
    street.close()


def dice(seed: int) -> random.Random:
    """Chance that is the same each time."""
    return random.Random(seed)  # noqa: S311 - no secret


def settle(street: Street, about: str = "") -> Recovered:
    """Recover as if every lease had run out, see that once was enough, and that the books balance."""
    later = timezone.now() + timedelta(hours=1)
    recovered = recover(later)
    heartbeat.beat()
    assert recover(later) == Recovered(), about
    assert_books_balance(street.media, picture(), about)
    return recovered


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
    settle(street)
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
    settle(street)
    assert get_credits().balance(shopper.user) == 800
    assert CreditEntry.objects.filter(kind="capture").count() == TryOn.objects.count() == 200
