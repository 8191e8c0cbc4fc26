"""What a run tells: its signals, its usage record, its log line."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.files.storage import FileSystemStorage
from django.db import connection
from pytest_django import Settings

from providers.fake import FakeProvider
from tryon import pipeline, runs, signals
from tryon.models import TryOn, UsageRecord

from .shop import Shop, jpeg

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


def test_signals_carry_what_the_webhook_carried(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    heard: list[dict[str, Any]] = []

    def listen(**kwargs: Any) -> None:
        # After the commit: another connection would see the run as it is announced.
        assert not connection.in_atomic_block
        heard.append(kwargs | {"stored_status": TryOn.objects.get(pk=kwargs["tryon_id"]).status})

    all_signals = (signals.try_on_started, signals.try_on_succeeded, signals.try_on_failed)
    for signal in all_signals:
        signal.connect(listen)
    try:
        shop.post(headers={"X-Request-ID": "r-1"})
        fake(error="content_refused")
        shop.post()
    finally:
        for signal in all_signals:
            signal.disconnect(listen)

    started, succeeded, _, failed = heard
    assert started["signal"] is signals.try_on_started
    assert started["stored_status"] == "running"
    assert succeeded["signal"] is signals.try_on_succeeded
    expected = {
        "user": "ada",
        "user_id": shop.user.pk,
        "catalog_id": "dress-7",
        "request_id": "r-1",
        "status": "succeeded",
        "stored_status": "succeeded",
        "provider": "fake",
        "model": "fake",
        "credits": 1,
        "error_code": "",
    }
    assert expected.items() <= succeeded.items()
    assert isinstance(succeeded["tryon_id"], uuid.UUID)
    assert succeeded["image_url"] == f"/media/{succeeded['image']}"
    assert succeeded["latency_ms"] >= 0
    assert {"signal": signals.try_on_failed, "error_code": "content_refused", "credits": 0}.items() <= failed.items()
    assert shop.key not in repr(heard)


def test_each_run_has_one_usage_record(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    shop.post()
    fake(error="provider_unavailable")
    shop.post()
    records = UsageRecord.objects.order_by("pk").values_list("status", "credits", "error_code", "user__username")
    assert list(records) == [
        ("succeeded", 1, "", "ada"),
        ("failed", 0, "provider_unavailable", "ada"),
    ]


@pytest.mark.one_database
def test_a_run_that_is_announced_twice_has_one_usage_record(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.post()
    runs.announce(signals.try_on_succeeded, TryOn.objects.get())
    assert UsageRecord.objects.count() == 1
    assert not [record for record in caplog.records if record.name == "django.dispatch"]


def test_a_run_whose_user_is_deleted_meanwhile_fails_and_leaves_a_usage_record(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = FakeProvider.generate_image

    async def meanwhile(self: FakeProvider, request: Any) -> Any:
        await sync_to_async(shop.user.delete)()
        return await generate(self, request)

    monkeypatch.setattr(FakeProvider, "generate_image", meanwhile)
    answer = shop.post()
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    record = UsageRecord.objects.get()
    assert (record.status, record.error_code, record.credits, record.user) == ("failed", "deadline_exceeded", 0, None)


@pytest.mark.one_database
def test_a_receiver_that_fails_hurts_nobody_and_is_logged_by_name(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    def broken_receiver(**kwargs: Any) -> None:
        raise RuntimeError("broken")

    def later_receiver(**kwargs: Any) -> None:
        heard.append(kwargs["tryon_id"])

    heard: list[Any] = []
    signals.try_on_succeeded.connect(broken_receiver)
    signals.try_on_succeeded.connect(later_receiver)
    try:
        assert shop.post().status_code == 200
    finally:
        signals.try_on_succeeded.disconnect(broken_receiver)
        signals.try_on_succeeded.disconnect(later_receiver)
    assert heard == [TryOn.objects.get().pk], "those after it are told all the same"
    assert "broken_receiver" in caplog.text
    assert UsageRecord.objects.count() == 1


@pytest.mark.one_database
def test_a_run_writes_one_log_line_that_tells_no_secret_and_cannot_be_forged(shop: Shop, settings: Settings) -> None:
    log = Path(settings.LOGGING["handlers"]["file"]["filename"])
    shop.post(shop.body | {"catalog_id": 'x\n{"status": "forged"}'}, headers={"X-Request-ID": "r-forged"})
    lines = [line for line in log.read_text().splitlines() if '"r-forged"' in line]
    assert len(lines) == 1
    line = json.loads(lines[0])
    expected = {
        "request_id": "r-forged",
        "user": "ada",
        "catalog_id": 'x\n{"status": "forged"}',
        "status": "succeeded",
        "provider": "fake",
        "model": "fake",
    }
    assert expected.items() <= line.items()
    assert isinstance(line["latency_ms"], int)
    assert shop.key not in lines[0]


@pytest.mark.one_database
def test_a_run_that_failed_has_a_log_line_with_its_error(
    shop: Shop, fake: Callable[..., FakeProvider], settings: Settings
) -> None:
    log = Path(settings.LOGGING["handlers"]["file"]["filename"])
    fake(error="provider_unavailable")
    shop.post(headers={"X-Request-ID": "r-failed"})
    [line] = [json.loads(line) for line in log.read_text().splitlines() if '"r-failed"' in line]
    assert (line["level"], line["status"], line["error_code"]) == ("WARNING", "failed", "provider_unavailable")
    assert line["error"] == "ProviderUnavailable: Fake was told to fail with provider_unavailable."


@pytest.mark.one_database
def test_a_storage_without_addresses_keeps_nobody_from_hearing_of_a_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> str:
        raise ValueError("This storage has no addresses.")

    monkeypatch.setattr(FileSystemStorage, "url", refuse)
    order = runs.Order(user=shop.user, person=jpeg(), garment=jpeg())
    asyncio.run(pipeline.execute(lambda: order, lambda tryon: None))
    assert UsageRecord.objects.get().status == "succeeded"
