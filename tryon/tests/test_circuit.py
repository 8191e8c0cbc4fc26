"""The circuit of a provider: what opens it, and what an open one means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from providers.tests.vendor import Answer, VendorServer, openai_error
from providers.tests.vendors.fashn import Fashn
from tryon import circuit
from tryon.dispatch import providers
from tryon.models import TryOn

from .circuits import PAUSE, Clock, assert_open, circuits, clock, open_it, shared_cache, state
from .dead import order_of
from .shop import CHARGED, RELEASED, Shop
from .vendors_in_use import DOWN, PICTURE, Gate, assert_overloaded, attempts, execute, fake_entry, openai_at

__all__ = ["circuits", "clock", "shared_cache"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


def test_it_opens_at_the_last_of_so_many_failures_and_not_before(
    shop: Shop, circuits: VendorServer, clock: Clock, shared_cache: str, log: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert shop.post().json()["code"] == "provider_unavailable"
        assert state() == "closed"
    shop.post()
    assert state() == "open"
    assert "The circuit of provider 'openai' is open for 30 s." in log.text
    rows, ledger = TryOn.objects.count(), shop.ledger()
    assert_open(shop.post(), 30)
    clock.now += 12
    assert_open(shop.post(), 18)
    assert len(circuits.calls) == 3
    assert (TryOn.objects.count(), shop.ledger()) == (rows, ledger) == (3, [("grant", 3), *RELEASED * 3])


def test_a_run_counts_once_however_often_it_was_retried(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    """One shopper's trouble does not keep the provider from all others."""
    tryon(RETRIES=5)
    assert [shop.post().status_code for _ in range(2)] == [503, 503]
    assert state() == "closed"
    assert len(circuits.calls) == 12
    assert shop.post().status_code == 503
    assert state() == "open"
    assert shop.ledger() == [("grant", 3), *RELEASED * 3]


def test_a_run_that_a_retry_saved_does_not_count(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(RETRIES=1, CIRCUIT_FAILURES=1)
    circuits.answer = lambda call: DOWN if len(circuits.calls) == 1 else PICTURE
    assert shop.post().status_code == 200
    assert state() == "closed"


def test_a_fallback_that_had_only_a_moment_is_not_blamed(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(
        PROVIDER="hanging",
        PROVIDERS={"hanging": openai_at(circuits.base_url, TIMEOUT=0.8), "openai": openai_at(circuits.base_url)},
        FALLBACK_PROVIDERS=["openai"],
        DEADLINE=1,
        CIRCUIT_FAILURES=1,
        RETRIES=0,
    )
    circuits.answer = Answer(end="hang")
    assert shop.post().status_code == 504
    assert (state("hanging"), state()) == ("open", "closed")


def test_a_job_that_the_vendor_could_not_do_does_not_count(shop: Shop, tryon: Callable[..., None]) -> None:
    """It may be the photos."""
    double = Fashn()
    double.trouble = next(trouble for trouble in double.troubles() if trouble.name == "PipelineError")
    with VendorServer(double) as server:
        entry = {"BACKEND": double.backend, "OPTIONS": double.options(server)}
        tryon(PROVIDER="fashn", PROVIDERS={"fashn": entry}, CIRCUIT_FAILURES=1, RETRIES=0)
        assert shop.post().status_code == 503
    assert state("fashn") == "closed"


def test_a_provider_that_takes_too_long_counts_as_failing(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    circuits.answer = Answer(end="hang")
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url, TIMEOUT=0.05)}, CIRCUIT_FAILURES=1)
    assert shop.post().status_code == 504
    assert state() == "open"
    assert shop.balance() == 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (openai_error(429), "provider_rate_limited"),
        (openai_error(429, "insufficient_quota"), "provider_quota_exceeded"),
        (openai_error(401), "provider_misconfigured"),
        (openai_error(400), "provider_rejected_input"),
        (openai_error(400, "moderation_blocked"), "content_refused"),
        (Answer(body=b"<html>"), "provider_invalid_response"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_no_failure_of_the_vendors_does_not_count(
    shop: Shop, circuits: VendorServer, answer: Answer, code: str
) -> None:
    circuits.answer = answer
    assert [shop.post().json()["code"] for _ in range(4)] == [code] * 4
    assert state() == "closed"
    assert shop.balance() == 3


def test_failures_of_different_windows_do_not_count_together(shop: Shop, circuits: VendorServer, clock: Clock) -> None:
    for _ in range(2):
        shop.post()
    clock.now += 61
    for _ in range(2):
        shop.post()
    assert state() == "closed"
    clock.now += 59
    shop.post()
    assert state() == "open"
    assert shop.balance() == 3


def test_it_stays_closed_where_the_settings_say_so(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(CIRCUIT_FAILURES=0)
    for _ in range(4):
        shop.post()
    assert len(circuits.calls) == 4
    assert state() == "closed"
    assert shop.balance() == 3


def test_one_provider_does_not_open_anothers(shop: Shop, circuits: VendorServer) -> None:
    for alias in ("a", "ä ö/%\n", "x" * 60):
        assert [circuit.note_failure(alias) for _ in range(3)] == [False, False, True]
        assert state(alias) == "open"
    assert state() == "closed"
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert shop.balance() == 2


def test_the_operator_hears_that_it_opened(
    shop: Shop, circuits: VendorServer, alerts: list[dict[str, Any]], tryon: Callable[..., None]
) -> None:
    tryon(CIRCUIT_FAILURES=1)
    shop.post()
    shop.post()
    [alert] = alerts
    assert (alert["provider"], alert["code"], alert["status"]) == ("openai", "circuit_open", 503)
    assert alert["model"] == providers["openai"].model
    assert shop.balance() == 3


# Open


def test_an_open_one_leads_to_the_fallback_at_once(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    """At the price of the provider of the settings."""
    tryon(
        PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()},
        FALLBACK_PROVIDERS=["backup"],
        PRICES={"openai": 2},
    )
    open_it()
    response = shop.post()
    assert (response.status_code, response.json()["provider"], response.json()["credits"]) == (200, "backup", 2)
    assert not circuits.calls
    assert attempts() == [("openai", "circuit_open"), ("backup", "succeeded")]
    assert shop.ledger() == [("grant", 3), ("hold", -2), ("capture", 0)]


def test_where_all_are_open_the_first_that_may_be_asked_again_says_when(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    tryon(
        PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()},
        FALLBACK_PROVIDERS=["backup"],
    )
    open_it("backup")
    clock.now += 10
    open_it()
    assert_open(shop.post(), 20)
    assert not TryOn.objects.exists()
    assert shop.ledger() == [("grant", 3)]


def test_a_fallback_that_cannot_be_used_does_not_say_when(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    broken = {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"no": "such option"}}
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "broken": broken}, FALLBACK_PROVIDERS=["broken"])
    open_it()
    assert_open(shop.post(), 30)
    assert shop.ledger() == [("grant", 3)]


def test_where_one_is_open_and_the_other_is_full_that_is_overload(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], gate: Gate
) -> None:
    backup = fake_entry(MAX_RUNS=1)
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "backup": backup}, FALLBACK_PROVIDERS=["backup"])
    open_it()
    with gate.holding(shop):
        assert_overloaded(shop.post())
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_provider_that_is_asked_for_by_name_is_asked_all_the_same(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    """Whoever names it wants to know how it is."""
    circuits.answer = PICTURE
    open_it()
    assert execute(order_of(shop, provider="openai")).status == "succeeded"
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_an_answer_is_given_again_although_the_circuit_is_open(shop: Shop, circuits: VendorServer) -> None:
    circuits.answer = PICTURE
    key = {"Idempotency-Key": "order-7"}
    first = shop.post(headers=key)
    open_it()
    again = shop.post(headers=key)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert_open(shop.post(headers={"Idempotency-Key": "order-8"}), 30)
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_an_older_setting_keeps_nobody_waiting(shop: Shop, circuits: VendorServer, tryon: Callable[..., None]) -> None:
    tryon(CIRCUIT_PAUSE=86_000)
    open_it()
    tryon(CIRCUIT_PAUSE=PAUSE)
    assert_open(shop.post(), 30)
    assert shop.ledger() == [("grant", 3)]
