"""Clients that go away: before the provider was asked, after, and with a key to come back by."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import File
from pytest_django import Settings

from providers.errors import ProviderUnavailable
from providers.fake import FakeProvider
from tryon import pipeline, runs
from tryon.models import TryOn

from .shop import Shop, jpeg
from .test_asgi import Visit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

KEY = {"idempotency-key": "order-7"}


def synchronous_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """As many hosts have: Django then runs the request's view for it from a thread."""
    return lambda request: get_response(request)


MIDDLEWARE = pytest.mark.parametrize(
    "middleware", [[], [f"{__name__}.synchronous_middleware"]], ids=["lean", "synchronous"]
)


class Slow:
    """A provider that waits for the test, which learns when it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()
        generate = FakeProvider.generate_image

        async def wait(provider: FakeProvider, request: Any) -> Any:
            self.asked.set()
            while not self.go_on.is_set():
                await asyncio.sleep(0.001)
            return await generate(provider, request)

        monkeypatch.setattr(FakeProvider, "generate_image", wait)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(monkeypatch)


def hang_up(shop: Shop, when: threading.Event, then: threading.Event, **headers: str) -> None:
    """Send a request, close the connection when one event has come, and set the other; wait for all that goes on."""

    async def main() -> None:
        client = Visit(json.dumps(shop.body).encode(), headers=headers)
        await client.send()
        assert await asyncio.to_thread(when.wait, 30)
        gone = asyncio.create_task(client.leave())
        await asyncio.sleep(0)
        then.set()
        await gone

    asyncio.run(main())


@MIDDLEWARE
@pytest.mark.parametrize("mode", ["cancel", "finish"])
def test_a_client_that_leaves_without_a_key_gets_its_credit_back(
    shop: Shop, settings: Settings, tryon: Callable[..., None], slow: Slow, middleware: list[str], mode: str
) -> None:
    """In either mode: nobody could ask for the picture."""
    tryon(ON_DISCONNECT=mode)
    settings.MIDDLEWARE = [*middleware, *settings.MIDDLEWARE]
    hang_up(shop, slow.asked, threading.Event())
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]


def test_by_default_a_key_changes_nothing_about_it(shop: Shop, slow: Slow) -> None:
    hang_up(shop, slow.asked, threading.Event(), **KEY)
    assert TryOn.objects.get().status == "cancelled"
    slow.go_on.set()
    assert shop.post(headers=KEY).status_code == 200
    assert shop.balance() == 2


@MIDDLEWARE
def test_a_picture_is_finished_for_a_client_that_can_come_back(
    shop: Shop, settings: Settings, tryon: Callable[..., None], slow: Slow, media: Path, middleware: list[str]
) -> None:
    tryon(ON_DISCONNECT="finish")
    settings.MIDDLEWARE = [*middleware, *settings.MIDDLEWARE]
    hang_up(shop, slow.asked, slow.go_on, **KEY)
    finished = TryOn.objects.get()
    assert finished.status == "succeeded"
    assert [path.name for path in media.iterdir()] == [finished.image.name]

    again = shop.post(headers=KEY)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["id"] == str(finished.pk)
    assert again.json()["image_url"] == f"http://testserver{finished.image.url}"
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


def test_a_client_that_leaves_before_the_provider_was_asked_gets_its_credit_back(
    shop: Shop, tryon: Callable[..., None], fake: Callable[..., FakeProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = fake()
    tryon(ON_DISCONNECT="finish")
    fetching = threading.Event()

    async def never(url: str, *, field: str) -> File[bytes]:
        fetching.set()
        await asyncio.Event().wait()
        return File(None)

    monkeypatch.setattr(pipeline, "fetch", never)
    hang_up(shop, fetching, threading.Event(), **KEY)
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    assert not provider.calls


def test_a_picture_that_fails_after_its_client_left_costs_nothing(
    shop: Shop,
    tryon: Callable[..., None],
    slow: Slow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tryon(ON_DISCONNECT="finish")
    wait = FakeProvider.generate_image

    async def fail(self: FakeProvider, request: Any) -> Any:
        await wait(self, request)
        raise ProviderUnavailable("gone")

    monkeypatch.setattr(FakeProvider, "generate_image", fail)
    with caplog.at_level(logging.INFO):
        hang_up(shop, slow.asked, slow.go_on, **KEY)
    failed = TryOn.objects.get()
    assert (failed.status, failed.error_code) == ("failed", "provider_unavailable")
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    assert "never retrieved" not in caplog.text


def test_an_error_that_nobody_waits_for_is_logged(
    shop: Shop, tryon: Callable[..., None], slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("unforeseen")

    logged: list[object] = []

    def log(message: str, *, exc_info: Exception) -> None:
        logged.append(str(exc_info))

    tryon(ON_DISCONNECT="finish")
    monkeypatch.setattr(runs, "inspect", refuse)
    monkeypatch.setattr(pipeline.logger, "error", log)  # Visit sets Django up anew, which takes caplog's handler away
    hang_up(shop, slow.asked, slow.go_on, **KEY)
    assert TryOn.objects.get().status == "failed"
    assert logged == ["unforeseen"]


def test_a_client_that_waits_is_answered_as_ever(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(ON_DISCONNECT="finish")
    response = shop.post(headers=KEY | {"X-Request-ID": "r-1"})
    assert response.status_code == 200
    assert TryOn.objects.get().request_id == "r-1"
    shop.body["user_image_url"] += ".gone"
    refused = shop.post(headers={"Idempotency-Key": "other"})
    assert (refused.status_code, refused.json()["code"]) == (422, "image_unreachable")


@pytest.mark.one_database
def test_a_clean_up_is_not_stopped_by_a_second_cancellation(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    give_up, cleaning, go_on = pipeline._Run.give_up, threading.Event(), threading.Event()
    asked = asyncio.Event()

    def slow(self: Any, *args: Any) -> None:
        cleaning.set()
        assert go_on.wait(30)
        give_up(self, *args)

    async def never(self: FakeProvider, request: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(pipeline._Run, "give_up", slow)
    monkeypatch.setattr(FakeProvider, "generate_image", never)
    order = runs.Order(user=shop.user, person=jpeg(), garment=jpeg())

    async def main() -> None:
        task = asyncio.create_task(pipeline.execute(lambda: order, lambda tryon: tryon))
        await asyncio.wait_for(asked.wait(), 30)
        task.cancel()
        await asyncio.to_thread(cleaning.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        while pipeline._detached:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
