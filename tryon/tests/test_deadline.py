"""The deadline of a run, and the time that it leaves to each provider."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from providers.fake import FakeProvider
from providers.tests.vendor import Answer, VendorServer
from tryon import images
from tryon.models import TryOn

from .shop import CHARGED, RELEASED, Shop
from .vendors_in_use import HANG, PICTURE, SHORT, asked, attempts, fake_entry, openai_at, then

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


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


def test_photos_that_cannot_be_fitted_in_time_leave_nothing_to_ask_with(
    shop: Shop, fake: Callable[..., FakeProvider], tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many of them may wait for the few threads that decode."""
    go_on = threading.Event()
    monkeypatch.setattr(FakeProvider, "photo_types", ("image/png",))
    monkeypatch.setattr(images, "fit", lambda photo, **kwargs: go_on.wait(60) and photo)
    provider = fake()
    tryon(DEADLINE=0.3)
    try:
        response = shop.post()
    finally:
        go_on.set()
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert not provider.calls
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
