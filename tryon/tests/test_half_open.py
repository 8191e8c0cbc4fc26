"""A circuit whose pause is over: one run looks whether it can close, and who finds nothing out stops no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import pytest
from django.db import close_old_connections
from pytest_django import Settings

from providers.tests.vendor import Answer, VendorServer, openai_error
from tryon import circuit, pipeline
from tryon.credits import get_credits
from tryon.dispatch import providers
from tryon.models import TryOn

from .circuits import PAUSE, Clock, assert_open, circuits, clock, half_open_it, open_it, shared_cache, state
from .dead import order_of
from .shop import CHARGED, RELEASED, Shop, jpeg
from .test_disconnect import hang_up
from .vendors_in_use import DOWN, PICTURE, Gate, attempts, fake_entry, openai_at, then

__all__ = ["circuits", "clock", "shared_cache"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


def test_a_success_closes_it(shop: Shop, circuits: VendorServer, clock: Clock, shared_cache: str) -> None:
    half_open_it(clock)
    assert state() == "half-open"
    assert not circuit.note_failure("openai"), "of one who asked for it by name"
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert state() == "closed"
    circuits.answer = DOWN
    assert [shop.post().status_code for _ in range(2)] == [503, 503]
    assert state() == "closed", "failures are counted anew"
    assert shop.ledger() == [("grant", 3), *CHARGED, *RELEASED * 2]


def test_a_failure_opens_it_anew(
    shop: Shop, circuits: VendorServer, clock: Clock, shared_cache: str, tryon: Callable[..., None]
) -> None:
    """The first one, and without retries."""
    tryon(RETRIES=3)
    half_open_it(clock)
    assert shop.post().status_code == 503
    assert len(circuits.calls) == 1
    assert state() == "open"
    assert_open(shop.post(), 30)
    clock.now += PAUSE
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert state() == "closed"
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


@pytest.mark.parametrize(
    "answer",
    [openai_error(429), openai_error(401), openai_error(400, "moderation_blocked"), Answer(body=b"<html>")],
    ids=["rate limit", "bad key", "refusal", "invalid"],
)
def test_any_answer_of_the_vendors_own_closes_it(
    shop: Shop, circuits: VendorServer, clock: Clock, answer: Answer
) -> None:
    half_open_it(clock)
    circuits.answer = answer
    assert shop.post().status_code != 200
    assert state() == "closed"
    assert shop.balance() == 3


def test_one_of_many_looks_whether_it_can_close(
    shop: Shop, tryon: Callable[..., None], clock: Clock, gate: Gate, shared_cache: str
) -> None:
    """The others hear at once that it cannot be asked, and hold nothing then."""
    tryon(PROVIDER="fake", PROVIDERS={"fake": fake_entry()}, CIRCUIT_FAILURES=3, CIRCUIT_PAUSE=PAUSE)
    get_credits().grant(shop.user, 7, reason="test")
    open_it("fake")
    clock.now += PAUSE

    def post(number: int) -> tuple[int, str]:
        try:
            answer = shop.post()
        finally:
            close_old_connections()
        return answer.status_code, answer.json().get("code", "")

    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(post, number) for number in range(3)]
        assert gate.first.wait(30)
        answers += [pool.submit(post, number) for number in range(3)]
        done = as_completed(answers, timeout=30)
        for _ in range(5):
            next(done)
        gate.opened.set()
    codes = sorted(answer.result() for answer in answers)
    assert codes == [(200, ""), *[(503, "provider_unavailable")] * 5]
    assert gate.arrived.acquire(blocking=False)
    assert not gate.arrived.acquire(blocking=False), "it was asked once"
    assert state("fake") == "closed"
    assert shop.balance() == 9
    assert sorted(TryOn.objects.values_list("status", flat=True)) == [*["failed"] * 5, "succeeded"]


def test_those_who_do_not_look_go_to_the_fallback(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()}, FALLBACK_PROVIDERS=["backup"])
    half_open_it(clock)
    assert circuit.claim_probe("openai"), "another process looks"
    response = shop.post()
    assert (response.status_code, response.json()["provider"]) == (200, "backup")
    assert attempts() == [("openai", "circuit_open"), ("backup", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_who_looks_and_fails_goes_to_the_fallback(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()}, FALLBACK_PROVIDERS=["backup"])
    half_open_it(clock)
    assert shop.post().json()["provider"] == "backup"
    assert attempts() == [("openai", "provider_unavailable"), ("backup", "succeeded")]
    assert (state(), state("backup")) == ("open", "closed")
    assert shop.ledger() == [("grant", 3), *CHARGED]


class SlowPhoto:
    """The photo of one request that has entered and goes on when the test says so."""

    def __init__(self, shop: Shop, server: VendorServer) -> None:
        self._shop, self._server = shop, server
        self.entered = server.called
        self.go_on = threading.Event()
        server.answer = self._answer

    def _answer(self, call: Any) -> Answer:
        assert self.go_on.wait(30)
        return Answer(body=jpeg(), headers={"content-type": "image/jpeg"})

    def post(self) -> Any:
        try:
            return self._shop.post(self._shop.body | {"user_image_url": f"{self._server.base_url}/slow.jpg"})
        finally:
            close_old_connections()


@pytest.fixture
def slow_photo(shop: Shop, tryon: Callable[..., None], settings: Settings) -> Iterator[SlowPhoto]:
    with VendorServer(Answer()) as server:
        tryon(FETCH_ALLOWED_HOSTS=[*settings.TRYON["FETCH_ALLOWED_HOSTS"], f"127.0.0.1:{server.port}"])
        photo = SlowPhoto(shop, server)
        yield photo
        photo.go_on.set()


def test_who_entered_while_it_was_half_open_does_not_ask_when_it_has_opened_anew(
    shop: Shop, circuits: VendorServer, clock: Clock, slow_photo: SlowPhoto
) -> None:
    half_open_it(clock)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow_photo.post)
        assert slow_photo.entered.wait(30)
        assert shop.post().status_code == 503
        assert state() == "open"
        slow_photo.go_on.set()
        assert late.result().json()["code"] == "provider_unavailable"
    assert len(circuits.calls) == 1
    assert state() == "open"
    assert shop.balance() == 3


def test_who_entered_while_it_was_half_open_asks_as_all_do_when_it_has_closed(
    shop: Shop, circuits: VendorServer, clock: Clock, slow_photo: SlowPhoto
) -> None:
    """So that one failure then is one failure, and opens nothing."""
    half_open_it(clock)
    circuits.answer = then(PICTURE, last=DOWN)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow_photo.post)
        assert slow_photo.entered.wait(30)
        assert shop.post().status_code == 200
        slow_photo.go_on.set()
        assert late.result().json()["code"] == "provider_unavailable"
    assert len(circuits.calls) == 2
    assert state() == "closed"
    assert shop.balance() == 2


# Looking, and not finding out


def test_a_client_that_goes_away_keeps_nobody_from_looking(
    shop: Shop, tryon: Callable[..., None], clock: Clock, gate: Gate, shared_cache: str
) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": fake_entry()}, CIRCUIT_FAILURES=3, CIRCUIT_PAUSE=PAUSE)
    open_it("fake")
    clock.now += PAUSE
    hang_up(shop, gate.first, threading.Event())
    assert state("fake") == "half-open"
    gate.opened.set()
    assert shop.post().status_code == 200
    assert state("fake") == "closed"
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_a_client_that_goes_away_before_the_cache_has_answered_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that asks the cache goes on when the request is gone."""
    half_open_it(clock)
    asking, gone = threading.Event(), threading.Event()
    claim = circuit.claim_probe

    def slow(alias: str) -> bool:
        asking.set()
        assert gone.wait(30)
        return claim(alias)

    with monkeypatch.context() as patch:
        patch.setattr(circuit, "claim_probe", slow)

        async def main() -> None:
            task = asyncio.create_task(pipeline.execute(lambda: order_of(shop), lambda tryon: tryon))
            assert await asyncio.to_thread(asking.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while pipeline.is_busy():
                await asyncio.sleep(0.001)
            gone.set()

        asyncio.run(main())  # waits for its threads
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_want_of_credits_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    half_open_it(clock)
    circuits.answer = PICTURE
    tryon(PRICE=4)
    assert shop.post().json()["code"] == "insufficient_credits"
    tryon(PRICE=1)
    assert shop.post().status_code == 200
    assert state() == "closed"
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_photo_that_cannot_be_had_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, clock: Clock
) -> None:
    half_open_it(clock)
    circuits.answer = PICTURE
    gone = shop.body["user_image_url"].replace("person", "nobody")
    assert shop.post(shop.body | {"user_image_url": gone}).json()["code"] == "image_unreachable"
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_what_was_never_sent_tells_nothing_about_the_vendor(shop: Shop, circuits: VendorServer, clock: Clock) -> None:
    half_open_it(clock)
    assert shop.post({**shop.body, "seed": 7}).json()["code"] == "unsupported_feature"
    assert not circuits.calls
    assert state() == "half-open"
    assert shop.post().status_code == 503, "and the next one looks"
    assert len(circuits.calls) == 1
    assert state() == "open"
    assert shop.balance() == 3


def test_an_adapter_with_a_bug_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_open_it(clock)
    circuits.answer = PICTURE
    with monkeypatch.context() as patch:
        patch.setattr(type(providers["openai"]), "generate_image", lambda self, request: asyncio.sleep(0, None))
        assert shop.post().status_code == 500
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_a_process_that_was_killed_keeps_others_from_looking_for_as_long_as_a_run_takes(
    shop: Shop, circuits: VendorServer, clock: Clock, tryon: Callable[..., None]
) -> None:
    tryon(DEADLINE=120)
    half_open_it(clock)
    assert circuit.claim_probe("openai")
    circuits.answer = PICTURE
    clock.now += 119
    assert shop.post().status_code == 503
    clock.now += 10
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_late_failures_neither_prolong_the_pause_nor_take_the_probe_away(
    circuits: VendorServer, clock: Clock, shared_cache: str
) -> None:
    """Of runs that began before the circuit opened, of which there may be many."""
    open_it()
    clock.now += 10
    assert not any(circuit.note_failure("openai") for _ in range(10))
    assert circuit.states(["openai"])["openai"].wait == PAUSE - 10
    clock.now += PAUSE - 10
    assert circuit.claim_probe("openai")
    assert not any(circuit.note_failure("openai") for _ in range(10))
    assert state() == "half-open"
    assert not circuit.claim_probe("openai"), "another run is at it"
