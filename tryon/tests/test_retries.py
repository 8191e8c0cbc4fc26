"""Retries: of which failures, after which pauses, and how many of them a broken vendor sees."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from providers.base import TryOnResult
from providers.fake import FakeProvider
from providers.tests.vendor import Answer, VendorServer, openai_answer, openai_error
from tryon import dispatch, pipeline
from tryon.dispatch import RetryBudget
from tryon.models import TryOn

from .dead import order_of
from .shop import CHARGED, RELEASED, Shop
from .test_disconnect import hang_up
from .vendors_in_use import DOWN, PICTURE, RESET, asked, attempts, fake_entry, openai_at, then

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


def wait_a(seconds: float | str, status: int = 429) -> Answer:
    return openai_error(status, headers={"retry-after": str(seconds)})


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (DOWN, "provider_unavailable"),
        (openai_error(500), "provider_unavailable"),
        (Answer(status=502, body=b"<html>bad gateway</html>"), "provider_unavailable"),
        (openai_error(408), "provider_unavailable"),
        (openai_error(429), "provider_rate_limited"),
        (RESET, "provider_unavailable"),
        (Answer(raw=b"", end="close"), "provider_unavailable"),
    ],
    ids=["503", "500", "502 html", "408", "429", "reset", "closed"],
)
def test_what_may_be_over_in_a_moment_is_tried_again_so_many_times(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None], answer: Answer, code: str
) -> None:
    """And a success after that is charged once."""
    tryon(RETRIES=3)
    vendor.answer = answer
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (503, code)
    assert int(response.headers["Retry-After"]) > 0
    assert len(vendor.calls) == 4
    assert attempts() == [("openai", code)] * 4
    assert shop.ledger() == [("grant", 3), *RELEASED]

    vendor.calls.clear()
    vendor.answer = then(answer, answer, answer)
    assert shop.post().status_code == 200
    assert len(vendor.calls) == 4
    assert attempts() == [("openai", code)] * 3 + [("openai", "succeeded")]
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_a_connection_that_is_refused_is_tried_again(shop: Shop, tryon: Callable[..., None]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        tryon(PROVIDER="openai", PROVIDERS={"openai": openai_at(url)}, RETRIES=2)
        assert shop.post().json()["code"] == "provider_unavailable"
    assert attempts() == [("openai", "provider_unavailable")] * 3
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (openai_error(400), 502, "provider_rejected_input"),
        (openai_error(401), 502, "provider_misconfigured"),
        (openai_error(403), 502, "provider_misconfigured"),
        (openai_error(404), 502, "provider_misconfigured"),
        (openai_error(422), 502, "provider_rejected_input"),
        (openai_error(400, "moderation_blocked"), 422, "content_refused"),
        (openai_error(429, "insufficient_quota"), 502, "provider_quota_exceeded"),
        (Answer(body=b"<html>"), 502, "provider_invalid_response"),
        (openai_answer(b""), 502, "provider_invalid_response"),
        (Answer(body=b'{"data": [', missing=99, end="reset"), 502, "provider_invalid_response"),
    ],
    ids=["400", "401", "403", "404", "422", "refusal", "quota", "html", "empty", "reset in the body"],
)
def test_what_will_not_change_is_never_tried_again(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], answer: Answer, status: int, code: str
) -> None:
    """Neither there nor at a fallback."""
    backed_up(backup=fake_entry())
    vendor.answer = answer
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert len(vendor.calls) == 1
    assert asked("backup") == 0
    assert attempts() == [("openai", code)]
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize("code", ["image_unusable", "unsupported_feature", "provider_error"])
def test_nor_are_errors_that_only_other_vendors_have(shop: Shop, tryon: Callable[..., None], code: str) -> None:
    tryon(PROVIDER="a", PROVIDERS={"a": fake_entry(code), "b": fake_entry()}, FALLBACK_PROVIDERS=["b"])
    assert shop.post().json()["code"] == code
    assert (asked("a"), asked("b")) == (1, 0)
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_without_retries_there_are_none(shop: Shop, vendor: VendorServer, tryon: Callable[..., None]) -> None:
    tryon(RETRIES=0)
    vendor.answer = DOWN
    assert shop.post().status_code == 503
    assert len(vendor.calls) == 1
    assert shop.balance() == 3


def test_a_client_that_goes_away_during_a_pause_is_not_retried_for(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(RETRY_PAUSE=0)
    vendor.answer = wait_a(60)
    hang_up(shop, vendor.called, threading.Event())
    assert len(vendor.calls) == 1
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), *RELEASED]


# Pauses


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asked_for", [0.5, 7, 30])
def test_a_retry_waits_as_long_as_the_vendor_asks(
    shop: Shop, vendor: VendorServer, pauses: list[float], status: int, asked_for: float
) -> None:
    vendor.answer = then(wait_a(asked_for, status))
    assert shop.post().status_code == 200
    assert pauses == [asked_for]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_and_a_random_part_more(
    shop: Shop, vendor: VendorServer, pauses: list[float], tryon: Callable[..., None]
) -> None:
    """So that not all who were asked to wait come back together."""
    tryon(RETRY_PAUSE=4, RETRIES=1)
    vendor.answer = then(*[wait_a(7)] * 1)
    shop.post()
    vendor.answer = then(wait_a(7))
    shop.post()
    assert all(7 <= pause <= 11 for pause in pauses)
    assert len(set(pauses)) == 2
    assert shop.balance() == 1


def test_pauses_grow_up_to_a_limit_and_are_random_below(
    shop: Shop, vendor: VendorServer, pauses: list[float], tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tryon(RETRY_PAUSE=1.5, RETRIES=6)
    vendor.answer = DOWN
    bounds = []

    def uniform(least: float, most: float) -> float:
        bounds.append((least, most))
        return most

    monkeypatch.setattr(dispatch, "random", types.SimpleNamespace(uniform=uniform))
    assert shop.post().status_code == 503
    assert bounds == [(0, 1.5), (0, 3), (0, 6), (0, 8), (0, 8), (0, 8)]
    assert pauses == [1.5, 3, 6, 8, 8, 8]
    assert shop.balance() == 3


@pytest.mark.parametrize(("asked_for", "told"), [(121, "121"), (86_400 * 30, "3600"), (1e300, "3600")])
def test_a_vendor_that_asks_for_more_time_than_there_is_is_told_to_the_client_at_once(
    shop: Shop, vendor: VendorServer, pauses: list[float], asked_for: float, told: str
) -> None:
    vendor.answer = wait_a(asked_for)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (503, "provider_rate_limited")
    assert response.headers["Retry-After"] == told
    assert (len(vendor.calls), pauses) == (1, [])
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize(("asked_for", "falls_back"), [(9, False), (11, True)])
def test_a_vendor_that_asks_for_patience_is_left_for_the_fallback(
    shop: Shop,
    vendor: VendorServer,
    backed_up: Callable[..., None],
    pauses: list[float],
    asked_for: float,
    falls_back: bool,
) -> None:
    backed_up(backup=fake_entry())
    vendor.answer = then(wait_a(asked_for))
    assert shop.post().status_code == 200
    assert pauses == ([] if falls_back else [asked_for])
    last = "backup" if falls_back else "openai"
    assert attempts() == [("openai", "provider_rate_limited"), (last, "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_without_another_fallback_left_the_last_one_is_waited_for(
    shop: Shop, tryon: Callable[..., None], vendor: VendorServer, pauses: list[float]
) -> None:
    tryon(
        PROVIDER="a",
        PROVIDERS={"a": fake_entry("provider_unavailable"), "openai": openai_at(vendor.base_url)},
        FALLBACK_PROVIDERS=["openai"],
        RETRIES=1,
    )
    vendor.answer = then(wait_a(30))
    assert shop.post().status_code == 200
    assert pauses == [0, 30]
    assert shop.balance() == 2


# The retry budget


class StandingClock:
    """Time stands still for the budgets."""

    @staticmethod
    def monotonic() -> float:
        return 1000.0

    @staticmethod
    def perf_counter() -> float:
        return 1000.0


@pytest.fixture
def standing_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatch.budgets.clear()
    monkeypatch.setattr(dispatch, "time", StandingClock)


@pytest.mark.one_database
@pytest.mark.usefixtures("standing_clock")
def test_a_broken_vendor_is_not_hammered(
    shop: Shop, tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred runs make a tenth more calls than they are, and those of the full bucket."""
    tryon(PROVIDER="a", PROVIDERS={"a": fake_entry("provider_unavailable")}, RETRIES=2)
    calls = itertools.count()
    generate = FakeProvider.generate_image

    async def count(self: FakeProvider, request: Any) -> TryOnResult:
        next(calls)
        return await generate(self, request)

    monkeypatch.setattr(FakeProvider, "generate_image", count)

    async def main() -> list[Any]:
        runs = [pipeline.execute(lambda: order_of(shop, user=None), lambda tryon: tryon) for _ in range(100)]
        return await asyncio.gather(*runs, return_exceptions=True)

    errors = asyncio.run(main())
    assert {type(error).__name__ for error in errors} == {"GenerationFailed"}
    made = next(calls)
    assert 100 + RetryBudget.MOST <= made <= 100 + 100 * RetryBudget.PER_RUN + RetryBudget.MOST
    assert shop.ledger() == [("grant", 3)]


@pytest.mark.usefixtures("standing_clock")
def test_a_run_is_not_retried_on_another_providers_budget(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None]
) -> None:
    tryon(RETRIES=2)
    backed_up(backup=fake_entry("provider_unavailable"))
    vendor.answer = DOWN
    while dispatch.budgets.setdefault("openai", RetryBudget()).spend():
        pass
    assert shop.post().status_code == 503
    assert (len(vendor.calls), asked("backup")) == (1, 3)
    assert shop.balance() == 3


@pytest.mark.one_database
@pytest.mark.usefixtures("standing_clock")
def test_a_vendor_that_is_well_is_not_limited(shop: Shop, vendor: VendorServer, tryon: Callable[..., None]) -> None:
    """One failure in twenty is always retried, for as long as one likes."""
    tryon(RETRIES=1)
    answers = itertools.cycle([DOWN, *[PICTURE] * 20])
    vendor.answer = lambda call: next(answers)
    for _ in range(10):
        dispatch.budgets.setdefault("openai", RetryBudget()).spend()
    for _ in range(19):
        dispatch.budgets["openai"].deposit()
    assert shop.post().status_code == 200
    assert len(vendor.calls) == 2
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_budget_fills_with_runs_and_with_time_up_to_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(dispatch, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def spent(budget: RetryBudget) -> int:
        return sum(1 for _ in iter(budget.spend, False))

    budget = RetryBudget()
    assert spent(budget) == 10
    for _ in range(10):
        budget.deposit()
    assert spent(budget) in (0, 1), "0.1 ten times is a hair below 1"
    for _ in range(31):
        budget.deposit()
    assert spent(budget) in (3, 4)
    now[0] += 4.5 / RetryBudget.PER_SECOND
    assert spent(budget) in (4, 5)
    now[0] += 10_000
    assert spent(budget) == 10


def test_a_broken_vendor_of_a_small_shop_is_not_hammered_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour with a run every four seconds, each of which wants two retries."""
    now = [1000.0]
    monkeypatch.setattr(dispatch, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    budget, retries = RetryBudget(), 0
    for _ in range(900):
        now[0] += 4
        budget.deposit()
        retries += budget.spend() + budget.spend()
    assert 150 <= retries <= 160, "ten at first, a tenth of the runs, and one a minute"


def test_threads_cannot_spend_a_token_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "time", StandingClock)
    budget = RetryBudget()
    together = threading.Barrier(8)

    def spend(number: int) -> int:
        together.wait(10)
        return sum(budget.spend() for _ in range(500))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 10
