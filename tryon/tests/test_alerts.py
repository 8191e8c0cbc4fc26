"""Alerts: what the operator hears of, and what only the log says."""

from __future__ import annotations

import asyncio
import json
import types
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from providers.base import TryOnResult
from providers.fake import FakeProvider
from providers.tests.vendor import Answer, VendorServer, openai_error
from tryon.models import TryOn
from tryon.signals import provider_alert

from .shop import CHARGED, RELEASED, Shop
from .test_asgi import Visit
from .vendors_in_use import DOWN, MODEL, VENDORS_KEY, fake_entry, then

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


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
