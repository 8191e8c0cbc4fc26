"""Retries, the deadline, fallbacks, jobs and alerts: what a run does when its provider does not do its part."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from providers import openai
from providers.base import TryOnResult
from providers.errors import InvalidProviderResponse, ProviderUnavailable
from providers.fake import FakeProvider
from providers.openai import OpenAIProvider
from providers.tests.vendor import Answer, Call, VendorServer, json_answer, openai_answer, openai_error
from tryon import circuit, dispatch, pipeline, recovery, request_id
from tryon.dispatch import RetryBudget, providers
from tryon.exceptions import GenerationFailed, ShuttingDown
from tryon.models import TryOn
from tryon.recovery import Recovered, recover
from tryon.runs import Order
from tryon.signals import provider_alert

from .dead import dead_run, later
from .queue_provider import Queue, QueueProvider
from .shop import Shop, jpeg, png
from .test_asgi import Visit
from .test_disconnect import hang_up

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

VENDORS_KEY = "sk-of-the-vendor-1234567890"
MODEL = "gpt-image-2.6-sunburst"
PICTURE = openai_answer(png())
DOWN = openai_error(503)
RESET = Answer(raw=b"", end="reset")
HANG = Answer(end="hang")
SHORT = 0.6
"""Seconds, in which even a busy machine has fetched two photos."""
CHARGED = [("hold", -1), ("capture", 0)]
RELEASED = [("hold", -1), ("release", 1)]


def then(*answers: Answer, last: Answer = PICTURE) -> Callable[[Call], Answer]:
    """A vendor's answers, one for each call, and what it answers from then on."""
    remaining = iter(answers)
    return lambda call: next(remaining, last)


def wait_a(seconds: float | str, status: int = 429) -> Answer:
    return openai_error(status, headers={"retry-after": str(seconds)})


def openai_at(url: str, **entry: Any) -> dict[str, Any]:
    """An entry of PROVIDERS: a provider whose vendor is there."""
    options = {"api_key": VENDORS_KEY, "base_url": url}
    return {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": options, **entry}


def fake_entry(error: str = "", **entry: Any) -> dict[str, Any]:
    return {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"error": error}, **entry}


@pytest.fixture
def vendor(tryon: Callable[..., None]) -> Iterator[VendorServer]:
    """The vendor of the provider in use, "openai", which makes every picture at once."""
    openai._import()  # takes a second, which the tests with little time do not have
    with VendorServer(PICTURE) as vendor:
        tryon(PROVIDER="openai", PROVIDERS={"openai": openai_at(vendor.base_url)})
        yield vendor


@pytest.fixture
def backed_up(vendor: VendorServer, tryon: Callable[..., None]) -> Callable[..., None]:
    """Give the provider in use fallbacks, by alias."""

    def configure(*, primary: dict[str, Any] | None = None, **fallbacks: dict[str, Any]) -> None:
        entries = {"openai": openai_at(vendor.base_url, **(primary or {})), **fallbacks}
        tryon(PROVIDERS=entries, FALLBACK_PROVIDERS=list(fallbacks))

    return configure


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the dispatcher makes, which take no time."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(dispatch, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return made


@pytest.fixture
def alerts() -> Iterator[list[dict[str, Any]]]:
    """What the operator was told."""
    told: list[dict[str, Any]] = []

    def hear(**kwargs: Any) -> None:
        told.append(kwargs)

    provider_alert.connect(hear)
    yield told
    provider_alert.disconnect(hear)


def attempts(run: TryOn | None = None) -> list[tuple[str, str]]:
    """Providers and outcomes of a run's attempts, by default of the latest run's."""
    run = run or TryOn.objects.latest("created_at")
    return [(attempt["provider"], attempt["outcome"]) for attempt in run.attempts]


def asked(alias: str) -> int:
    """How often a fake provider was asked."""
    provider = providers[alias]
    assert isinstance(provider, FakeProvider)
    return len(provider.calls)


def order(shop: Shop, **changes: Any) -> Order:
    return Order(**{"user": shop.user, "person": jpeg(), "garment": jpeg(color="navy"), **changes})


def execute(order: Order) -> TryOn:
    return asyncio.run(pipeline.execute(lambda: order, lambda tryon: tryon))


# Retries


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


def test_each_attempt_is_on_the_row(shop: Shop, vendor: VendorServer) -> None:
    vendor.answer = then(openai_error(503, headers={"x_request_id": "req_1"}), RESET)
    before = timezone.now()
    assert shop.post().status_code == 200
    run = TryOn.objects.get()
    first, second, third = run.attempts
    assert (first["provider"], first["model"], first["outcome"]) == ("openai", MODEL, "provider_unavailable")
    assert [attempt["request_id"] for attempt in run.attempts] == ["req_1", "", "req_123"]
    assert [attempt["cost_usd"] for attempt in run.attempts[:2]] == [None, None]
    assert third["outcome"] == "succeeded"
    assert Decimal(third["cost_usd"]) == run.cost_usd == Decimal("0.0685")
    started = [datetime.fromisoformat(attempt["started"]) for attempt in run.attempts]
    assert before <= started[0] <= started[1] <= started[2] <= timezone.now()
    durations = [attempt["duration_ms"] for attempt in (first, second, third)]
    assert all(isinstance(duration, int) and duration >= 0 for duration in durations)
    assert run.latency_ms is not None
    assert sum(durations) <= run.latency_ms + len(durations)
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_an_attempt_lasts_as_long_as_the_vendor_takes(shop: Shop, vendor: VendorServer) -> None:
    vendor.answer = Answer(status=400, delay=0.1)
    shop.post()
    [attempt] = TryOn.objects.get().attempts
    assert attempt["duration_ms"] >= 100
    assert shop.balance() == 3


def test_an_attempt_of_an_adapter_with_a_bug_is_on_the_row(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stumble(self: FakeProvider, request: Any) -> Any:
        raise KeyError("picture")

    monkeypatch.setattr(FakeProvider, "generate_image", stumble)
    assert shop.post().status_code == 500
    assert attempts() == [("fake", "error")]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_an_attempt_that_gave_no_picture_did_not_succeed_though_it_cost(shop: Shop, vendor: VendorServer) -> None:
    vendor.answer = then(DOWN, openai_answer(b"<html>no picture</html>"))
    assert shop.post().json()["code"] == "provider_invalid_response"
    assert attempts() == [("openai", "provider_unavailable"), ("openai", "provider_invalid_response")]
    assert TryOn.objects.get().attempts[-1]["cost_usd"] == "0.0685"
    assert TryOn.objects.get().cost_usd == Decimal("0.0685"), "the vendor bills it all the same"
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize("cost", [0.04, Decimal("NaN"), Decimal(-1), "0.04", Decimal(10**9)])
def test_a_cost_that_is_none_costs_no_picture(shop: Shop, monkeypatch: pytest.MonkeyPatch, cost: Any) -> None:
    async def answer(self: FakeProvider, request: Any) -> TryOnResult:
        return TryOnResult(
            data=png(), content_type="image/png", model="m", cost_usd=cost, seed=cost, usage={"a": cost}
        )

    monkeypatch.setattr(FakeProvider, "generate_image", answer)
    assert shop.post().status_code == 200
    run = TryOn.objects.get()
    assert (run.cost_usd, run.attempts[0]["cost_usd"], run.seed, run.usage) == (None, None, None, {})
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


@pytest.mark.parametrize("fails", [True, False])
def test_an_adapter_that_gives_ids_of_another_type_keeps_no_credit(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Not even until recovery looks: what cannot be told of an attempt must not keep the run from ending."""
    odd: Any = 12345

    async def answer(self: FakeProvider, request: Any) -> TryOnResult:
        if fails:
            raise InvalidProviderResponse("Odd.", request_id=odd)
        return TryOnResult(data=png(), content_type="image/png", model=odd, provider_id=odd)

    monkeypatch.setattr(FakeProvider, "generate_image", answer)
    assert shop.post().status_code == (502 if fails else 500)
    [attempt] = TryOn.objects.get().attempts
    assert attempt["request_id"] == "12345"
    assert TryOn.objects.get().status == "failed"
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_an_attempt_that_a_client_does_not_wait_for_is_on_the_row(shop: Shop, vendor: VendorServer) -> None:
    vendor.answer = HANG
    hang_up(shop, vendor.called, threading.Event())
    assert vendor.hung_up.wait(10)
    assert attempts() == [("openai", "cancelled")]
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_what_a_vendor_says_of_itself_fits_the_row(shop: Shop, vendor: VendorServer) -> None:
    """However long, and whatever characters: PostgreSQL refuses some."""
    vendor.answer = openai_error(503, headers={"x_request_id": "r" * 500})
    assert shop.post().status_code == 503
    assert all(len(attempt["request_id"]) <= 200 for attempt in TryOn.objects.get().attempts)
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
        runs = [pipeline.execute(lambda: order(shop, user=None), lambda tryon: tryon) for _ in range(100)]
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


def test_threads_cannot_spend_a_token_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "time", StandingClock)
    budget = RetryBudget()
    together = threading.Barrier(8)

    def spend(number: int) -> int:
        together.wait(10)
        return sum(budget.spend() for _ in range(500))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(8))) == 10


# The deadline


def test_a_vendor_that_hangs_costs_nothing_but_the_deadline(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(DEADLINE=SHORT)
    vendor.answer = HANG
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (504, "provider_timeout")
    assert vendor.hung_up.wait(10), "its connection is closed"
    assert len(vendor.calls) == 1
    assert attempts() == [("openai", "provider_timeout")]
    run = TryOn.objects.get()
    assert run.latency_ms is not None
    assert run.latency_ms >= SHORT * 1000
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_an_attempt_has_the_time_of_its_providers_entry_and_the_next_one_the_rest(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(PROVIDERS={"openai": openai_at(vendor.base_url, TIMEOUT=0.4)}, DEADLINE=30)
    vendor.answer = then(HANG)
    assert shop.post().status_code == 200
    assert vendor.hung_up.wait(10)
    assert attempts() == [("openai", "provider_timeout"), ("openai", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_fallback_has_the_rest_of_the_time(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None]
) -> None:
    tryon(RETRIES=0)
    backed_up(primary={"TIMEOUT": 0.4}, backup=fake_entry())
    vendor.answer = HANG
    assert shop.post().json()["provider"] == "backup"
    assert vendor.hung_up.wait(10)
    assert attempts() == [("openai", "provider_timeout"), ("backup", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_nobody_is_asked_after_the_deadline(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None]
) -> None:
    tryon(DEADLINE=SHORT, RETRIES=10)
    backed_up(primary={"TIMEOUT": 60}, backup=fake_entry())
    vendor.answer = HANG
    assert shop.post().status_code == 504
    assert attempts() == [("openai", "provider_timeout")]
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_first_that_hangs_leaves_time_for_its_fallback(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None]
) -> None:
    """Without any TIMEOUT in the settings."""
    tryon(DEADLINE=1.2, RETRIES=0)
    backed_up(backup=fake_entry())
    vendor.answer = HANG
    response = shop.post()
    assert (response.status_code, response.json()["provider"]) == (200, "backup")
    assert attempts() == [("openai", "provider_timeout"), ("backup", "succeeded")]
    assert 0.5 < TryOn.objects.get().attempts[0]["duration_ms"] / 1000 < 1


def test_a_timeout_longer_than_the_deadline_does_not_extend_it(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(PROVIDERS={"openai": openai_at(vendor.base_url, TIMEOUT=60)}, DEADLINE=SHORT)
    vendor.answer = HANG
    assert shop.post().status_code == 504
    assert attempts() == [("openai", "provider_timeout")]
    assert shop.balance() == 3


def test_photos_that_take_the_whole_time_leave_nothing_to_ask_with(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None], settings: Any
) -> None:
    with VendorServer(HANG) as photos:
        hosts = [*settings.TRYON["FETCH_ALLOWED_HOSTS"], f"127.0.0.1:{photos.port}"]
        tryon(FETCH_ALLOWED_HOSTS=hosts, DEADLINE=0.2)
        response = shop.post(shop.body | {"user_image_url": f"{photos.base_url}/slow.jpg"})
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert not vendor.calls
    assert attempts() == []
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_vendor_that_drips_is_stopped_at_the_deadline(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None]
) -> None:
    """Each byte comes soon, and the last one too late."""
    tryon(DEADLINE=SHORT)
    vendor.answer = Answer(body=PICTURE.body, headers=PICTURE.headers, drip=0.01)
    assert shop.post().status_code == 504
    assert vendor.hung_up.wait(10)
    assert shop.ledger() == [("grant", 3), *RELEASED]


# Fallbacks


@pytest.mark.parametrize(
    ("answer", "code"), [(DOWN, "provider_unavailable"), (openai_error(429), "provider_rate_limited")]
)
def test_a_fallback_makes_the_picture_when_the_first_cannot(
    shop: Shop,
    vendor: VendorServer,
    backed_up: Callable[..., None],
    tryon: Callable[..., None],
    answer: Answer,
    code: str,
) -> None:
    """At the price of the first; the run tells who made it."""
    tryon(RETRIES=1, PRICES={"openai": 2, "backup": 3})
    backed_up(backup=fake_entry())
    vendor.answer = answer
    response = shop.post()
    assert response.status_code == 200
    assert {key: response.json()[key] for key in ("provider", "model", "credits")} == {
        "provider": "backup",
        "model": "fake",
        "credits": 2,
    }
    run = TryOn.objects.get()
    assert (run.provider, run.model, run.cost_usd) == ("backup", "fake", Decimal(0))
    assert attempts() == [("openai", code)] * 2 + [("backup", "succeeded")]
    assert [attempt["model"] for attempt in run.attempts] == [MODEL, MODEL, "fake"]
    assert shop.ledger() == [("grant", 3), ("hold", -2), ("capture", 0)]


def test_fallbacks_are_asked_in_their_order_until_one_can(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None]
) -> None:
    tryon(RETRIES=0)
    backed_up(z=fake_entry("provider_unavailable"), a=fake_entry("provider_timeout"), m=fake_entry(), b=fake_entry())
    vendor.answer = DOWN
    assert shop.post().json()["provider"] == "m"
    assert attempts() == [
        ("openai", "provider_unavailable"),
        ("z", "provider_unavailable"),
        ("a", "provider_timeout"),
        ("m", "succeeded"),
    ]
    assert asked("b") == 0
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_the_last_ones_error_is_told_when_all_fail(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None]
) -> None:
    tryon(RETRIES=0)
    backed_up(a=fake_entry("provider_unavailable"), b=fake_entry("content_refused"), c=fake_entry())
    vendor.answer = DOWN
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (422, "content_refused")
    assert attempts() == [
        ("openai", "provider_unavailable"),
        ("a", "provider_unavailable"),
        ("b", "content_refused"),
    ]
    run = TryOn.objects.get()
    assert (run.status, run.error_code, run.provider, run.model) == ("failed", "content_refused", "b", "fake")
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize("body", [{"seed": 7}, {"size": "2k"}, {"pictures": 3}], ids=["seed", "size", "pictures"])
@pytest.mark.parametrize("is_open", [False, True], ids=["it failed", "its circuit is open"])
def test_a_fallback_that_cannot_do_what_is_asked_is_passed_over(
    shop: Shop,
    vendor: VendorServer,
    tryon: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    body: dict[str, Any],
    is_open: bool,
) -> None:
    """And the next one is asked."""
    tryon(
        PROVIDER="a",
        PROVIDERS={"a": fake_entry("provider_unavailable"), "openai": openai_at(vendor.base_url), "b": fake_entry()},
        FALLBACK_PROVIDERS=["openai", "b"],
        MAX_PICTURES=3,
        SIZES=["2k"],
        RETRIES=0,
        CIRCUIT_FAILURES=1 if is_open else 0,
    )
    if is_open:
        assert circuit.note_failure("a")
    monkeypatch.setattr(FakeProvider, "sizes", ("2k",))
    monkeypatch.setattr(OpenAIProvider, "sizes", ())
    monkeypatch.setattr(OpenAIProvider, "max_pictures", 1)
    response = shop.post({**shop.body, **body})
    assert (response.status_code, response.json().get("provider")) == (200, "b")
    first = "circuit_open" if is_open else "provider_unavailable"
    assert attempts() == [("a", first), ("openai", "unsupported_feature"), ("b", "succeeded")]
    assert not vendor.calls
    assert shop.balance() == 3 - body.get("pictures", 1)


@pytest.mark.parametrize("is_open", [False, True], ids=["it failed", "its circuit is open"])
def test_where_no_fallback_can_do_what_is_asked_the_first_ones_trouble_is_told(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None], is_open: bool
) -> None:
    """It could do it, and may again; the client is not told to ask for less."""
    tryon(
        PROVIDER="a",
        PROVIDERS={"a": fake_entry("provider_unavailable"), "openai": openai_at(vendor.base_url)},
        FALLBACK_PROVIDERS=["openai"],
        RETRIES=0,
        CIRCUIT_FAILURES=1,
        CIRCUIT_PAUSE=30,
    )
    if is_open:
        assert circuit.note_failure("a")
    response = shop.post({**shop.body, "seed": 7})
    assert (response.status_code, response.json()["code"]) == (503, "provider_unavailable")
    assert int(response.headers["Retry-After"]) >= (29 if is_open else 1)
    assert not vendor.calls
    run = TryOn.objects.get()
    assert (run.status, run.provider) == ("failed", "openai" if is_open else "a"), "who had a place for it"
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_what_the_first_cannot_do_is_refused_and_not_asked_of_another(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None]
) -> None:
    """Whether it is possible does not depend on who is up."""
    backed_up(backup=fake_entry())
    assert shop.post({**shop.body, "seed": 7}).json()["code"] == "unsupported_feature"
    assert (vendor.calls, asked("backup")) == ([], 0)
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize(
    "broken",
    [
        {"BACKEND": "no.such.Provider"},
        {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"delay": -1}},
        {"BACKEND": "providers.fake.FakeProvider", "TIMEOUT": 0},
    ],
    ids=["backend", "option", "timeout"],
)
def test_a_fallback_that_is_misconfigured_is_passed_over(
    shop: Shop,
    vendor: VendorServer,
    backed_up: Callable[..., None],
    log: pytest.LogCaptureFixture,
    broken: dict[str, Any],
) -> None:
    backed_up(broken=broken, backup=fake_entry())
    vendor.answer = DOWN
    assert shop.post().json()["provider"] == "backup"
    assert "The fallback cannot be used" in log.text
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_fallback_that_is_not_there_leaves_the_first_ones_error(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(FALLBACK_PROVIDERS=["nobody", "openai"])
    vendor.answer = DOWN
    assert shop.post().json()["code"] == "provider_unavailable"
    assert len(vendor.calls) == 3
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_fallback_that_is_full_is_passed_over(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(full=fake_entry(MAX_RUNS=1), backup=fake_entry())
    vendor.answer = DOWN
    monkeypatch.setattr(pipeline, "_load", lambda alias: 1)
    assert shop.post().json()["provider"] == "backup"
    assert attempts()[-2:] == [("full", "busy"), ("backup", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_provider_that_is_named_has_no_fallback(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None]
) -> None:
    backed_up(backup=fake_entry())
    vendor.answer = DOWN
    with pytest.raises(GenerationFailed):
        execute(order(shop, provider="openai"))
    assert attempts() == [("openai", "provider_unavailable")] * 3
    assert shop.ledger() == [("grant", 3), *RELEASED]
    assert execute(order(shop, provider="backup")).provider == "backup"
    assert attempts() == [("backup", "succeeded")]
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_a_provider_that_is_named_on_the_command_line_has_no_fallback(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None]
) -> None:
    backed_up(backup=fake_entry())
    vendor.answer = DOWN
    with pytest.raises(CommandError, match="OpenAI answered 503"):
        call_command("generate_tryon", "--demo", "--provider", "openai", "--user", "ada", "--json")
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_key_that_was_used_with_a_fallback_gets_the_same_answer(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None]
) -> None:
    backed_up(backup=fake_entry())
    vendor.answer = DOWN
    first, again = (shop.post(headers={"Idempotency-Key": "a"}) for _ in range(2))
    assert again.json() == first.json()
    assert asked("backup") == 1
    assert shop.ledger() == [("grant", 3), *CHARGED]


# Jobs


class JobProvider(QueueProvider):
    """As the queue's, and it can be told that a job is not wanted; jobs may fail; and not all answers are JSON."""

    async def resume(self, job: str) -> TryOnResult:
        while not (answer := await self._call("GET", f"/jobs/{job}")).get("picture"):
            if "failed" in answer:
                raise ProviderUnavailable("The job failed.", job_is_over=True)
            await asyncio.sleep(0.001)
        return await super().resume(job)

    async def cancel(self, job: str) -> None:
        await self._call("DELETE", f"/jobs/{job}")

    async def _call(self, method: str, path: str) -> Any:
        try:
            return await super()._call(method, path)
        except ValueError as error:
            raise InvalidProviderResponse("The queue did not answer in JSON.") from error

    @property
    def model(self) -> str:
        return "queue-1"


class JobVendor(VendorServer):
    """A queue whose first polls of a job, and first orders, can go wrong."""

    def __init__(self) -> None:
        super().__init__(self._answer_one)
        self.queue = Queue()
        self.orders: Iterator[Answer] = iter(())
        """In place of the first new jobs."""
        self.polls: Iterator[Answer] = iter(())
        """In place of what is true of a job."""
        self.cancelling: Answer | None = None
        self.is_quick = True
        """A job is done when it is first asked for."""

    def _answer_one(self, call: Call) -> Answer:
        if call.method == "DELETE":
            return self.cancelling or Answer(body=b"{}")
        answer = next(self.orders if call.method == "POST" else self.polls, None)
        if answer is not None:
            self.queue.polled.set()
            return answer
        if self.is_quick and call.method == "GET":
            self.queue.pictures[call.path.rpartition("/")[2]] = png()
        return self.queue(call)

    def methods(self) -> list[str]:
        """Of the calls, without the polls that found the job under way."""
        return [call.method for call in self.calls]

    def cancelled(self) -> list[str]:
        return [call.path.rpartition("/")[2] for call in self.calls if call.method == "DELETE"]


def jobs_at(vendor: VendorServer, **entry: Any) -> dict[str, Any]:
    return {"BACKEND": f"{__name__}.JobProvider", "OPTIONS": {"url": vendor.base_url}, **entry}


@pytest.fixture
def jobs(tryon: Callable[..., None]) -> Iterator[JobVendor]:
    """The vendor of the provider in use, "jobs"; "backup" stands in for it."""
    with JobVendor() as vendor:
        tryon(
            PROVIDER="jobs",
            PROVIDERS={"jobs": jobs_at(vendor), "backup": fake_entry()},
            FALLBACK_PROVIDERS=["backup"],
        )
        yield vendor


FAILED_JOB = json_answer({"failed": True, "picture": ""})
TROUBLE = {
    "500": Answer(status=500),
    "reset": RESET,
    "closed": Answer(raw=b"", end="close"),
    "html": Answer(body=b"<html>working</html>"),
    "truncated": Answer(body=b'{"picture": "iVBOR', missing=100, end="close"),
    "reset in the body": Answer(body=b'{"picture": "iVBOR', missing=100, end="reset"),
    "empty": Answer(),
}


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
def test_trouble_while_a_job_is_under_way_never_makes_a_second_one(
    shop: Shop, jobs: JobVendor, trouble: Answer
) -> None:
    """It is asked for again, more often than a call that costs is made, until its picture is there."""
    jobs.polls = iter([trouble] * 5)
    response = shop.post()
    assert (response.status_code, response.json()["provider"]) == (200, "jobs")
    assert jobs.methods() == ["POST", *["GET"] * (5 + 2)]
    assert {call.path for call in jobs.calls if call.method == "GET"} == {"/v1/jobs/job-1"}
    assert [attempt["request_id"] for attempt in TryOn.objects.get().attempts] == ["job-1"] * 6
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *CHARGED]


@pytest.mark.parametrize("trouble", ["500", "html", "reset"])
def test_a_job_that_cannot_be_asked_for_is_neither_made_anew_nor_elsewhere_and_is_cancelled(
    shop: Shop, jobs: JobVendor, trouble: str
) -> None:
    jobs.polls = itertools.repeat(TROUBLE[trouble])
    response = shop.post()
    code = "provider_invalid_response" if trouble == "html" else "provider_unavailable"
    assert response.json()["code"] == code
    assert jobs.methods() == ["POST", *["GET"] * (1 + dispatch.LOOK_UPS), "DELETE"]
    assert jobs.cancelled() == ["job-1"]
    assert asked("backup") == 0
    run = TryOn.objects.get()
    assert (run.status, run.provider, run.model, run.provider_job) == ("failed", "jobs", "queue-1", "job-1")
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_an_order_that_was_not_taken_is_given_again(shop: Shop, jobs: JobVendor) -> None:
    jobs.orders = iter([Answer(status=500), RESET])
    assert shop.post().status_code == 200
    assert jobs.methods() == ["POST", "POST", "POST", "GET", "GET"]
    assert attempts() == [("jobs", "provider_unavailable")] * 2 + [("jobs", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_an_order_that_is_never_taken_goes_to_the_fallback(shop: Shop, jobs: JobVendor) -> None:
    jobs.orders = itertools.repeat(Answer(status=500))
    assert shop.post().json()["provider"] == "backup"
    assert jobs.methods() == ["POST"] * 3
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_job_that_failed_by_itself_is_ordered_again(shop: Shop, jobs: JobVendor) -> None:
    jobs.polls = iter([FAILED_JOB])
    assert shop.post().status_code == 200
    assert [call.path.rpartition("/")[2] for call in jobs.calls] == ["jobs", "job-1", "jobs", "job-2", "job-2"]
    run = TryOn.objects.get()
    assert (run.provider_job, run.provider_request_id) == ("job-2", "job-2")
    assert [attempt["request_id"] for attempt in run.attempts] == ["job-1", "job-2"]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_jobs_that_all_fail_by_themselves_lead_to_the_fallback(shop: Shop, jobs: JobVendor) -> None:
    jobs.polls = itertools.repeat(FAILED_JOB)
    assert shop.post().json()["provider"] == "backup"
    assert jobs.methods() == ["POST", "GET"] * 3, "and there is none left to cancel"
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_job_that_its_vendor_does_not_know_is_an_end(shop: Shop, jobs: JobVendor) -> None:
    jobs.polls = iter([Answer(status=404)])
    assert shop.post().json()["code"] == "provider_rejected_input"
    assert jobs.methods() == ["POST", "GET"]
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_job_takes_longer_than_an_attempt_and_is_looked_up(
    shop: Shop, jobs: JobVendor, tryon: Callable[..., None]
) -> None:
    tryon(PROVIDERS={"jobs": jobs_at(jobs, TIMEOUT=0.4), "backup": fake_entry()})
    jobs.polls = iter([HANG])
    assert shop.post().status_code == 200
    assert jobs.methods() == ["POST", "GET", "GET", "GET"]
    assert attempts() == [("jobs", "provider_timeout"), ("jobs", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_job_that_is_looked_up_costs_no_retry_of_the_budget(shop: Shop, jobs: JobVendor) -> None:
    while dispatch.budgets.setdefault("jobs", RetryBudget()).spend():
        pass
    jobs.polls = iter([Answer(status=500)] * 5)
    assert shop.post().status_code == 200
    assert shop.balance() == 2


def test_a_client_that_goes_away_cancels_the_job_once(shop: Shop, jobs: JobVendor) -> None:
    jobs.is_quick = False
    hang_up(shop, jobs.queue.polled, threading.Event())
    assert jobs.cancelled() == ["job-1"]
    assert jobs.methods()[-1] == "DELETE", "and nobody asks for it any more"
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_the_deadline_cancels_the_job_once(shop: Shop, jobs: JobVendor, tryon: Callable[..., None]) -> None:
    tryon(DEADLINE=SHORT)
    jobs.is_quick = False
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (504, "provider_timeout")
    assert jobs.cancelled() == ["job-1"]
    assert jobs.methods().count("POST") == 1
    assert asked("backup") == 0
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_job_that_is_done_is_not_cancelled(shop: Shop, jobs: JobVendor) -> None:
    assert shop.post().status_code == 200
    assert jobs.cancelled() == []
    assert shop.balance() == 2


def test_a_row_that_cannot_be_written_cancels_the_job(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could ask for it after a crash."""

    def refuse(self: TryOn, job: str, **whose: str) -> bool:
        raise RuntimeError("no rows today")

    monkeypatch.setattr(TryOn, "note_job", refuse)
    assert shop.post().status_code == 500
    assert jobs.methods() == ["POST", "DELETE"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_client_that_goes_away_while_the_job_is_written_down_cancels_it(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    noting, gone = threading.Event(), threading.Event()
    note = TryOn.note_job

    def be_slow(self: TryOn, job: str, **whose: str) -> bool:
        noting.set()
        assert gone.wait(10)
        return note(self, job, **whose)

    monkeypatch.setattr(TryOn, "note_job", be_slow)
    hang_up(shop, noting, gone)
    assert jobs.methods() == ["POST", "DELETE"]
    assert TryOn.objects.get().status == "cancelled"
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_run_that_recovery_gave_up_cancels_its_job(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for dead before it had written the job down."""
    note = TryOn.note_job

    def recover_first(self: TryOn, job: str, **whose: str) -> bool:
        assert len(recover(later()).released) == 1
        return note(self, job, **whose)

    monkeypatch.setattr(TryOn, "note_job", recover_first)
    assert shop.post().json()["code"] == "deadline_exceeded"
    assert jobs.methods() == ["POST", "DELETE"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_server_that_shuts_down_cancels_the_job(shop: Shop, jobs: JobVendor) -> None:
    jobs.is_quick = False

    async def main() -> None:
        run = asyncio.create_task(pipeline.execute(lambda: order(shop), lambda tryon: tryon))
        assert await asyncio.to_thread(jobs.queue.polled.wait, 10)
        pipeline.stop()
        with pytest.raises(ShuttingDown):
            await run

    asyncio.run(main())
    assert jobs.cancelled() == ["job-1"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_job_is_cancelled_under_the_id_of_its_request(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By which the log's lines about it are found."""
    ids = []

    async def look(self: JobProvider, job: str) -> None:
        ids.append(request_id.current.get())

    monkeypatch.setattr(JobProvider, "cancel", look)
    jobs.polls = itertools.repeat(Answer(status=500))
    response = shop.post()
    assert ids == [TryOn.objects.get().request_id] == [response.headers["X-Request-ID"]]
    assert shop.balance() == 3


class Oops(Exception):
    """Of an adapter with a bug."""


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (Oops("bug"), "deadline"),
        (Oops("bug"), "trouble"),
        (KeyError("job"), "trouble"),
        (TimeoutError(), "trouble"),
        (asyncio.CancelledError(), "trouble"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_cancel_that_fails_changes_nothing(
    shop: Shop,
    jobs: JobVendor,
    tryon: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    ends: str,
) -> None:
    tried = []

    async def fail(self: JobProvider, job: str) -> None:
        tried.append(job)
        raise error

    monkeypatch.setattr(JobProvider, "cancel", fail)
    if ends == "deadline":
        tryon(DEADLINE=SHORT)
        jobs.is_quick = False
    else:
        jobs.polls = itertools.repeat(Answer(status=500))
    response = shop.post()
    code = "provider_timeout" if ends == "deadline" else "provider_unavailable"
    assert response.json()["code"] == code
    assert tried == ["job-1"]
    run = TryOn.objects.get()
    assert (run.status, run.error_code) == ("failed", code)
    assert shop.ledger() == [("grant", 3), *RELEASED]


@pytest.mark.parametrize(
    "answer",
    [Answer(status=500), RESET, Answer(status=404), Answer(body=b"<html>")],
    ids=["500", "reset", "404", "html"],
)
def test_a_vendor_that_does_not_cancel_changes_nothing(
    shop: Shop, jobs: JobVendor, log: pytest.LogCaptureFixture, answer: Answer
) -> None:
    jobs.polls = itertools.repeat(Answer(status=500))
    jobs.cancelling = answer
    assert shop.post().json()["code"] == "provider_unavailable"
    assert jobs.cancelled() == ["job-1"]
    assert "Job job-1 of 'jobs' could not be cancelled" in log.text
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_vendor_whose_cancel_hangs_holds_nobody_up_for_long(
    shop: Shop, jobs: JobVendor, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CANCEL_TIMEOUT", 0.1)
    jobs.polls = itertools.repeat(Answer(status=500))
    jobs.cancelling = HANG
    assert shop.post().json()["code"] == "provider_unavailable"
    assert jobs.hung_up.wait(10)
    assert "Job job-1 of 'jobs' could not be cancelled: no answer" in log.text
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_client_that_goes_away_while_the_job_is_cancelled_changes_little(
    shop: Shop, jobs: JobVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CANCEL_TIMEOUT", 0.2)
    cancelling = threading.Event()
    cancel = JobProvider.cancel

    async def tell(self: JobProvider, job: str) -> None:
        cancelling.set()
        await cancel(self, job)

    monkeypatch.setattr(JobProvider, "cancel", tell)
    jobs.polls = itertools.repeat(Answer(status=500))
    jobs.cancelling = HANG
    hang_up(shop, cancelling, threading.Event())
    assert jobs.cancelled() == ["job-1"]
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_fallbacks_job_stands_on_the_row_as_its_own_before_it_is_waited_for(
    shop: Shop,
    vendor: VendorServer,
    jobs: JobVendor,
    tryon: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = {"openai": openai_at(vendor.base_url), "jobs": jobs_at(jobs)}
    tryon(PROVIDER="openai", PROVIDERS=entries, FALLBACK_PROVIDERS=["jobs"])
    vendor.answer = DOWN
    rows = []
    resume = JobProvider.resume

    async def look(self: JobProvider, job: str) -> TryOnResult:
        rows.append(await TryOn.objects.aget())
        return await resume(self, job)

    monkeypatch.setattr(JobProvider, "resume", look)
    assert shop.post().status_code == 200
    assert [(row.status, row.provider, row.model, row.provider_job) for row in rows] == [
        ("running", "jobs", "queue-1", "job-1")
    ]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_of_a_process_that_was_killed_the_fallback_is_asked_for_its_job(
    shop: Shop, vendor: VendorServer, jobs: JobVendor, tryon: Callable[..., None]
) -> None:
    entries = {"openai": openai_at(vendor.base_url), "jobs": jobs_at(jobs)}
    tryon(PROVIDER="openai", PROVIDERS=entries, FALLBACK_PROVIDERS=["jobs"])
    dead = dead_run(shop)
    assert dead.note_job("job-1", provider="jobs", model="queue-1")
    jobs.queue.pictures["job-1"] = png()
    assert recover() == Recovered(captured=[dead])
    dead.refresh_from_db()
    assert (dead.provider, dead.provider_request_id) == ("jobs", "job-1")
    assert not vendor.calls
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_dead_processs_job_that_failed_by_itself_gives_the_credit_back_at_once(shop: Shop, jobs: JobVendor) -> None:
    """There is nothing to wait for, however retryable it is."""
    dead = dead_run(shop)
    assert dead.note_job("job-1")
    jobs.polls = iter([FAILED_JOB])
    assert recover() == Recovered(released=[dead])
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_a_dead_processs_job_is_asked_for_again_after_any_trouble(shop: Shop, jobs: JobVendor) -> None:
    dead = dead_run(shop)
    assert dead.note_job("job-1")
    jobs.polls = iter([Answer(status=500)])
    assert recover() == Recovered()
    assert recover(later() + recovery.LOOK_UP_TIMEOUT) == Recovered(captured=[dead])
    assert shop.ledger() == [("grant", 3), *CHARGED]


# Alerts


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (openai_error(401, "invalid_api_key", message=f"Incorrect API key provided: {VENDORS_KEY}."), "misconfigured"),
        (openai_error(429, "insufficient_quota"), "quota_exceeded"),
    ],
    ids=["bad key", "no quota"],
)
def test_the_operator_hears_of_what_only_he_can_mend(
    shop: Shop,
    vendor: VendorServer,
    alerts: list[dict[str, Any]],
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
    code: str,
) -> None:
    """By a signal every five minutes and a line in the log each time; the client hears no detail, nobody the key."""
    from django.core.cache.backends import base, locmem

    now = [1_800_000_000.0]
    for module in (base, locmem):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(time=lambda: now[0]))
    vendor.answer = answer
    responses = [shop.post() for _ in range(3)]
    [alert] = alerts
    assert (alert["provider"], alert["model"], alert["code"]) == ("openai", MODEL, f"provider_{code}")
    assert (alert["status"], alert["request_id"]) == ([401, 429][code == "quota_exceeded"], "req_123")
    assert {response.status_code for response in responses} == {502}
    assert {response.json()["detail"] for response in responses} == {
        "The try-on could not be made. Nothing was charged."
    }
    lines = [record for record in log.records if record.levelname == "CRITICAL"]
    assert len(lines) == 3
    assert all("'openai' needs its operator" in line.getMessage() for line in lines)
    now[0] += 301
    shop.post()
    assert len(alerts) == 2
    told = [str(alerts), log.text, *(str(response.json()) for response in responses)]
    assert VENDORS_KEY not in "".join(told)
    assert VENDORS_KEY not in "".join(TryOn.objects.values_list("error_detail", flat=True))
    assert shop.ledger() == [("grant", 3), *RELEASED * 4]


def test_a_bad_key_and_an_empty_account_are_two_alerts(
    shop: Shop, vendor: VendorServer, alerts: list[dict[str, Any]]
) -> None:
    vendor.answer = then(openai_error(401), last=openai_error(402))
    for _ in range(3):
        shop.post()
    assert [alert["code"] for alert in alerts] == ["provider_misconfigured", "provider_quota_exceeded"]
    assert shop.balance() == 3


def test_an_entry_that_cannot_be_used_alerts_and_holds_nothing(
    shop: Shop, tryon: Callable[..., None], alerts: list[dict[str, Any]]
) -> None:
    tryon(PROVIDER="a", PROVIDERS={"a": {"BACKEND": "no.such.Provider"}})
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (502, "provider_misconfigured")
    assert "no.such" not in response.json()["detail"]
    assert [(alert["provider"], alert["code"]) for alert in alerts] == [("a", "provider_misconfigured")]
    assert not TryOn.objects.exists()
    assert shop.ledger() == [("grant", 3)]


def test_receivers_that_fail_hurt_nobody(
    shop: Shop, vendor: VendorServer, alerts: list[dict[str, Any]], log: pytest.LogCaptureFixture
) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("the pager is broken")

    provider_alert.connect(fail)
    try:
        vendor.answer = openai_error(401)
        assert shop.post().json()["code"] == "provider_misconfigured"
    finally:
        provider_alert.disconnect(fail)
    assert len(alerts) == 1
    assert shop.ledger() == [("grant", 3), *RELEASED]


def test_no_connection_is_held_for_a_receiver_that_has_used_the_database(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None], monkeypatch: Any
) -> None:
    """The next provider may take a minute."""
    backed_up(backup=fake_entry())
    tryon(CIRCUIT_FAILURES=1, RETRIES=0)
    heard, held = [], []

    def hear(**kwargs: Any) -> None:
        heard.append(TryOn.objects.count())

    generate = FakeProvider.generate_image

    async def look(self: FakeProvider, request: Any) -> TryOnResult:
        held.append(await sync_to_async(lambda: connection.connection)())
        return await generate(self, request)

    monkeypatch.setattr(FakeProvider, "generate_image", look)
    vendor.answer = DOWN
    provider_alert.connect(hear)
    try:
        assert asyncio.run(_visit(shop)) == 200
    finally:
        provider_alert.disconnect(hear)
    assert (heard, held) == ([1], [None])
    assert shop.ledger() == [("grant", 3), *CHARGED]


async def _visit(shop: Shop) -> int:
    """Over ASGI: Django's test client keeps the connections of its thread."""
    visit = Visit(json.dumps(shop.body).encode())
    await visit.send()
    status, _ = await visit.answer()
    return status


def test_trouble_that_passes_alerts_nobody(shop: Shop, vendor: VendorServer, alerts: list[dict[str, Any]]) -> None:
    vendor.answer = then(DOWN, openai_error(429), openai_error(400, "moderation_blocked"))
    shop.post()
    assert alerts == []
    assert shop.balance() == 3
