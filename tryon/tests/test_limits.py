"""Runs at once, in a process and at a provider: the one too many hears so at once, and costs and holds nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext

from providers.fake import FakeProvider
from tryon import pipeline, runs
from tryon.dispatch import providers
from tryon.exceptions import Overloaded
from tryon.models import TryOn

from .dead import order_of
from .shop import CHARGED, Shop
from .test_disconnect import hang_up
from .vendors_in_use import Gate, assert_overloaded

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

KEY = {"Idempotency-Key": "order-7"}
FAKE = {"BACKEND": "providers.fake.FakeProvider"}


def test_the_run_too_many_for_the_process_hears_so_at_once(shop: Shop, tryon: Callable[..., None], gate: Gate) -> None:
    tryon(MAX_RUNS=2)
    with gate.holding(shop, 2) as held:
        rows, ledger = TryOn.objects.count(), shop.ledger()
        assert_overloaded(shop.post())
        assert (
            (TryOn.objects.count(), shop.ledger()) == (rows, ledger) == (2, [("grant", 3), ("hold", -1), ("hold", -1)])
        )
    assert [answer.result().status_code for answer in held] == [200, 200]
    assert shop.post().status_code == 200, "the places were given back"
    assert shop.balance() == 0


def test_the_run_too_many_for_its_only_provider_hears_so_at_once(
    shop: Shop, tryon: Callable[..., None], gate: Gate
) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 1}})
    with gate.holding(shop) as held:
        assert_overloaded(shop.post())
        assert TryOn.objects.count() == 1
        assert shop.ledger() == [("grant", 3), ("hold", -1)]
    assert [answer.result().status_code for answer in held] == [200]
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *CHARGED, *CHARGED]


def test_the_run_too_many_for_one_provider_goes_to_the_next(
    shop: Shop, tryon: Callable[..., None], gate: Gate
) -> None:
    """At the price of the first; and when the next has no place either, that is said."""
    limited = FAKE | {"MAX_RUNS": 1}
    tryon(PROVIDER="a", PROVIDERS={"a": limited, "b": limited}, FALLBACK_PROVIDERS=["b"], PRICES={"b": 3})
    with gate.holding(shop):
        pass
    gate.opened.clear()
    with gate.holding(shop, 2) as held:
        assert_overloaded(shop.post())
    assert [answer.result().status_code for answer in held] == [200, 200]
    assert sorted(TryOn.objects.values_list("provider", "credits")) == [("a", 1), ("a", 1), ("b", 1)]
    second = TryOn.objects.get(provider="b")
    assert [(one["provider"], one["outcome"]) for one in second.attempts] == [("a", "busy"), ("b", "succeeded")]
    assert shop.balance() == 0


def test_a_place_is_given_back_when_a_run_fails(shop: Shop, tryon: Callable[..., None]) -> None:
    failing = FAKE | {"MAX_RUNS": 1, "OPTIONS": {"error": "content_refused"}}
    tryon(PROVIDER="fake", PROVIDERS={"fake": failing}, MAX_RUNS=1)
    assert [shop.post().json()["code"] for _ in range(3)] == ["content_refused"] * 3
    assert shop.balance() == 3


def test_a_place_is_given_back_when_there_is_no_credit_for_the_run(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 1}}, MAX_RUNS=1, PRICE=4)
    assert [shop.post().json()["code"] for _ in range(3)] == ["insufficient_credits"] * 3
    tryon(PRICE=1)
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


def test_a_place_is_given_back_when_a_client_goes_away(shop: Shop, tryon: Callable[..., None], gate: Gate) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 1}}, MAX_RUNS=1)
    hang_up(shop, gate.first, threading.Event())
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    gate.opened.set()
    assert shop.post().status_code == 200
    assert shop.balance() == 2


def test_a_place_is_given_back_by_the_thread_of_a_client_that_went_away_while_it_entered(
    shop: Shop, tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not before: until then the run is as good as at its provider."""
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 1}}, MAX_RUNS=1)
    entering, gone = threading.Event(), threading.Event()
    admit = runs.admit

    def be_slow(*args: Any) -> TryOn:
        entering.set()
        assert gone.wait(30)
        return admit(*args)

    async def main() -> None:
        task = asyncio.create_task(pipeline.execute(lambda: order_of(shop), lambda tryon: tryon))
        assert await asyncio.to_thread(entering.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pipeline._load("fake") == 1
        gone.set()
        while pipeline.is_busy():
            await asyncio.sleep(0.001)
        assert pipeline._load("fake") == 0

    with monkeypatch.context() as patch:
        patch.setattr(runs, "admit", be_slow)
        asyncio.run(main())
    assert TryOn.objects.get().status == "cancelled"
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1), ("hold", -1), ("capture", 0)]


def test_a_place_is_given_back_when_the_picture_cannot_be_stored(
    shop: Shop, tryon: Callable[..., None], media: Any
) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 1}}, MAX_RUNS=1)
    media.parent.mkdir(exist_ok=True)
    media.write_text("a file where the folder should be")
    assert shop.post().status_code == 503
    media.unlink()
    assert shop.post().status_code == 200
    assert shop.balance() == 2


def test_of_many_that_come_together_a_provider_gets_as_many_as_it_has_places(
    shop: Shop, tryon: Callable[..., None], gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each looks at the load before the others have taken their places."""
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 2}})
    together = threading.Barrier(6)
    load = pipeline._load

    def look_slowly(alias: str) -> int:
        found = load(alias)
        time.sleep(0.01)  # long enough for the others, if they did not wait for their turn
        return found

    monkeypatch.setattr(pipeline, "_load", look_slowly)

    def prepare() -> Any:
        together.wait(30)
        return order_of(shop)

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(run()) for _ in range(6)]
        arrived = 0
        while arrived + sum(task.done() for task in tasks) < 6:
            arrived += gate.arrived.acquire(blocking=False)
            await asyncio.sleep(0.001)
        gate.opened.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def run() -> Any:
        async with ThreadSensitiveContext():  # a thread for each, as requests have
            return await pipeline.execute(prepare, lambda tryon: "made")

    outcomes = asyncio.run(main())
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 4
    assert outcomes.count("made") == 2
    assert shop.balance() == 1
    assert TryOn.objects.count() == 2


@pytest.mark.parametrize("outlives", [False, True])
def test_a_run_keeps_its_place_between_entering_and_waiting(
    shop: Shop, tryon: Callable[..., None], gate: Gate, monkeypatch: pytest.MonkeyPatch, outlives: bool
) -> None:
    tryon(MAX_RUNS=1, ON_DISCONNECT="finish" if outlives else "cancel")
    loads = []
    work = pipeline._Run.work

    def look(self: Any) -> Any:
        loads.append((len(pipeline._under_way), pipeline._load("fake")))
        return work(self)

    monkeypatch.setattr(pipeline._Run, "work", look)
    gate.opened.set()
    assert shop.post(headers=KEY).status_code == 200
    assert loads == [(1, 1)]


def test_an_answer_is_given_again_although_no_place_is_left_at_the_provider(
    shop: Shop, tryon: Callable[..., None], gate: Gate
) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 1}})
    gate.opened.set()
    first = shop.post(headers=KEY)
    gate.arrived.acquire()
    gate.opened.clear()
    with gate.holding(shop):
        again = shop.post(headers=KEY)
        assert_overloaded(shop.post())
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"
    assert shop.ledger() == [("grant", 3), *CHARGED, *CHARGED]


def test_an_answer_is_given_again_although_the_provider_is_no_longer_there(
    shop: Shop, tryon: Callable[..., None]
) -> None:
    first = shop.post(headers=KEY)
    tryon(PROVIDER="gone")
    assert shop.post(headers=KEY).json() == first.json()
    assert shop.balance() == 2


def test_a_request_that_was_refused_for_want_of_a_place_may_come_again_under_its_key(
    shop: Shop, tryon: Callable[..., None], gate: Gate
) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": FAKE | {"MAX_RUNS": 1}})
    with gate.holding(shop):
        assert_overloaded(shop.post(headers=KEY))
    assert shop.post(headers=KEY).status_code == 200
    assert shop.balance() == 1


def test_a_full_process_asks_nobody_and_reads_no_body(shop: Shop, tryon: Callable[..., None], gate: Gate) -> None:
    tryon(MAX_RUNS=1)
    with gate.holding(shop):
        assert_overloaded(shop.post("{no json"))
        provider = providers["fake"]
        assert isinstance(provider, FakeProvider)
        assert not provider.calls, "the held one has not gone on yet"
    assert shop.balance() == 2
