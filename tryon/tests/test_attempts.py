"""The attempts of a run, as its row tells of them: whatever an adapter or its vendor says."""

from __future__ import annotations

import threading
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from providers.base import TryOnResult
from providers.errors import ContentRefused, InvalidProviderResponse
from providers.fake import FakeProvider
from providers.tests.vendor import Answer, VendorServer, openai_answer, openai_error
from tryon.models import TryOn

from .shop import CHARGED, RELEASED, Shop, png
from .test_disconnect import hang_up
from .vendors_in_use import DOWN, HANG, MODEL, RESET, attempts, then

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


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


def test_a_vendors_category_reaches_the_client_on_one_short_line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: FakeProvider, request: Any) -> Any:
        raise ContentRefused("Refused.", category="nudity\n" + "x" * 10_000)

    monkeypatch.setattr(FakeProvider, "generate_image", refuse)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (422, "content_refused")
    assert "(nudity xxx" in response.json()["detail"]
    assert "\n" not in response.json()["detail"]
    assert len(response.json()["detail"]) < 300
    assert shop.ledger() == [("grant", 3), *RELEASED]
