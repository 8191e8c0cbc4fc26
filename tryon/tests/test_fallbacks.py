"""Fallbacks: who makes the picture when the provider of the settings cannot, and at whose price."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from providers.fake import FakeProvider
from providers.openai import OpenAIProvider
from providers.tests.vendor import Answer, VendorServer, openai_error
from tryon import circuit, pipeline
from tryon.exceptions import GenerationFailed
from tryon.models import TryOn

from .dead import order_of
from .shop import CHARGED, RELEASED, Shop
from .vendors_in_use import DOWN, MODEL, asked, attempts, execute, fake_entry, openai_at

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


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
        execute(order_of(shop, provider="openai"))
    assert attempts() == [("openai", "provider_unavailable")] * 3
    assert shop.ledger() == [("grant", 3), *RELEASED]
    assert execute(order_of(shop, provider="backup")).provider == "backup"
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
