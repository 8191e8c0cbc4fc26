"""POST /api/v1/create-image, through the door its clients come in by."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import SuspiciousOperation
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.test import Client
from pytest_django import Settings
from pytest_httpserver import HTTPServer
from rest_framework.renderers import JSONRenderer

from providers.errors import ProviderRateLimited
from providers.fake import FakeProvider
from tryon.exceptions import STATUS
from tryon.models import TryOn

from .shop import URL, Shop, jpeg, png

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


def test_a_picture_costs_its_price_and_is_stored_as_the_provider_sent_it(shop: Shop, media: Path) -> None:
    response = shop.post()

    assert response.status_code == 200, response.content
    answer = response.json()
    tryon = TryOn.objects.get()
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert answer["status"] == "success"
    assert answer["image_url"] == f"http://testserver/media/{tryon.image.name}"
    assert isinstance(answer["latency_ms"], int)
    assert {"id": str(tryon.pk), "catalog_id": "dress-7", "provider": "fake", "credits": 1}.items() <= answer.items()
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]
    assert shop.balance() == 2
    assert (tryon.status, tryon.width, tryon.height, tryon.content_type) == ("succeeded", 512, 768, "image/png")
    assert [path.name for path in media.iterdir()] == [tryon.image.name]
    assert tryon.image.name == f"ada_dress-7_{int(tryon.created_at.timestamp())}_{tryon.pk.hex}.png"


def test_the_stored_file_has_the_very_bytes_of_the_provider(shop: Shop, media: Path) -> None:
    from asgiref.sync import async_to_sync

    from tryon.dispatch import providers

    shop.post()
    fake = providers["fake"]
    assert isinstance(fake, FakeProvider)
    again = async_to_sync(fake.generate_image)(fake.calls[0])
    assert next(media.iterdir()).read_bytes() == again.data


@pytest.mark.one_database
def test_a_form_body_works_like_json(shop: Shop) -> None:
    response = Client().post(URL, shop.body)
    assert response.status_code == 200


def test_without_credits_nothing_is_made(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    for _ in range(3):
        assert shop.post().status_code == 200
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_credits")
    assert "balance is 0" in response.json()["detail"]
    assert len(provider.calls) == 3
    assert TryOn.objects.count() == 3


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_image_url": ""}, "user_image_url"),
        ({"user_image_url": "ftp://example.com/a.jpg"}, "user_image_url"),
        ({"user_image_url": "not a url"}, "user_image_url"),
        ({"catalog_image_url": None}, "catalog_image_url"),
        ({"catalog_image_url": ["http://example.com/"]}, "catalog_image_url"),
        ({"catalog_image_url": "http://[::1"}, "catalog_image_url"),
        ({"catalog_id": "x" * 10_000}, "catalog_id"),
        ({"catalog_id": "a\0b"}, "catalog_id"),
        ({"catalog_id": "\ud800"}, "catalog_id"),
        ({"category": "hats"}, "category"),
        ({"category": "\ud800"}, "category"),
        ({"user_id": ""}, "user_id"),
    ],
)
def test_an_invalid_body_names_the_field_and_costs_nothing(shop: Shop, change: dict[str, Any], field: str) -> None:
    response = shop.post(json.dumps(shop.body | change))
    answer = response.json()
    assert (response.status_code, answer["code"]) == (400, "invalid")
    assert list(answer["errors"]) == [field]
    assert field in answer["detail"]
    assert not TryOn.objects.exists()
    assert shop.balance() == 3


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ("{", "application/json", 400, "parse_error"),
        ("[]", "application/json", 401, "not_authenticated"),
        ("null", "application/json", 401, "not_authenticated"),
        ("", "application/json", 401, "not_authenticated"),
        ('{"a": NaN}', "application/json", 400, "parse_error"),
        ("[" * 30_000, "application/json", 400, "parse_error"),
        ("1" * 5000, "application/json", 400, "parse_error"),
        (b"\xff\xfe", "application/json", 400, "parse_error"),
        (b"x", "multipart/form-data; boundary=", 400, "parse_error"),
        ("<a/>", "application/xml", 415, "unsupported_media_type"),
        ("x" * 100_000, "application/json", 413, "body_too_large"),
        ("a=&" * 1001, "application/x-www-form-urlencoded", 400, "parse_error"),
    ],
)
def test_a_body_that_cannot_be_read_gets_a_clear_4xx(
    shop: Shop, body: str | bytes, content_type: str, status: int, code: str
) -> None:
    response = Client(raise_request_exception=False).generic("POST", URL, body, content_type=content_type)
    assert (response.status_code, response.json()["code"]) == (status, code)


@pytest.mark.one_database
def test_404_405_and_406_are_json(shop: Shop) -> None:
    client = Client()
    wrong_method = client.put(URL)
    assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "method_not_allowed")
    assert wrong_method.headers["Allow"] == "POST, OPTIONS"
    not_acceptable = client.post(URL, shop.body, headers={"Accept": "image/png"})
    assert (not_acceptable.status_code, not_acceptable.json()["code"]) == (406, "not_acceptable")
    browser = Client(enforce_csrf_checks=True)
    for nowhere in (client.get("/api/v2/nothing"), browser.post("/nothing")):
        assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")
    for path in ("/", "/health", "/health/ready"):
        told_something = browser.post(path)
        assert (told_something.status_code, told_something.json()["code"]) == (405, "method_not_allowed")
        assert told_something.headers["Allow"] == "GET, HEAD"


@pytest.mark.one_database
def test_an_unexpected_error_is_json_logged_with_the_request_id_and_costs_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode(*args: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(FakeProvider, "generate_image", explode)
    logging.getLogger("tryon").addHandler(caplog.handler)
    response = shop.post(headers={"X-Request-ID": "abc-1"})
    logging.getLogger("tryon").removeHandler(caplog.handler)
    assert (response.status_code, response.json()["code"]) == (500, "error")
    assert "secret" not in response.content.decode()
    assert "Traceback" not in response.content.decode()
    assert response.headers["X-Request-ID"] == "abc-1"
    record = next(record for record in caplog.records if record.name == "tryon.views")
    assert record.exc_info is not None
    assert shop.balance() == 3
    assert TryOn.objects.get().status == "failed"


@pytest.mark.one_database
@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), SuspiciousOperation("odd")])
def test_an_error_of_our_own_is_not_the_clients(shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def explode(*args: Any) -> None:
        raise error

    monkeypatch.setattr(FakeProvider, "generate_image", explode)
    assert shop.post().status_code == 500
    assert TryOn.objects.get().error_detail == type(error).__name__, "its text may hold anything"


@pytest.mark.one_database
@pytest.mark.parametrize(
    "change",
    [
        {"PROVIDER": "nobody"},
        {"PROVIDERS": {"fake": {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"size": "huge"}}}},
    ],
)
def test_a_provider_the_settings_got_wrong_is_the_operators_concern(
    shop: Shop, tryon: Callable[..., None], change: dict[str, Any]
) -> None:
    tryon(**change)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (502, "provider_misconfigured")
    assert "huge" not in response.content.decode()
    assert "nobody" not in response.content.decode()
    assert shop.ledger() == [("grant", 3)]


@pytest.mark.one_database
def test_a_vendors_absurd_wait_is_not_passed_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*args: Any) -> None:
        raise ProviderRateLimited("in a hundred years", retry_after=3e9)

    monkeypatch.setattr(FakeProvider, "generate_image", busy)
    assert shop.post().headers["Retry-After"] == "3600"


FAILURES = [code for code in STATUS if code.startswith("provider_")] + ["content_refused", "image_unusable"]


@pytest.mark.parametrize("code", FAILURES)
def test_a_provider_that_fails_costs_nothing(shop: Shop, fake: Callable[..., FakeProvider], code: str) -> None:
    fake(error=code)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (STATUS[code], code)
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    assert shop.balance() == 3
    tryon = TryOn.objects.get()
    assert (tryon.status, tryon.error_code, tryon.image.name) == ("failed", code, "")
    assert ("Retry-After" in response.headers) == (STATUS[code] == 503)


@pytest.mark.one_database
def test_a_run_ends_at_its_deadline(shop: Shop, fake: Callable[..., FakeProvider], tryon: Callable[..., None]) -> None:
    fake(delay=60)
    tryon(DEADLINE=0.3)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (504, "provider_timeout")
    assert shop.balance() == 3


@pytest.mark.one_database
def test_the_deadline_covers_the_downloads(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tryon: Callable[..., None]
) -> None:
    async def never(url: str, *, field: str) -> File[bytes]:
        await asyncio.Event().wait()
        return File(None)

    monkeypatch.setattr("tryon.pipeline.fetch", never)
    tryon(DEADLINE=0.05)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
    assert shop.balance() == 3


@pytest.mark.one_database
def test_the_provider_gets_what_the_downloads_left_of_the_deadline(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tryon: Callable[..., None]
) -> None:
    left = []
    try_on = FakeProvider.try_on

    async def note(self: FakeProvider, request: Any, *, timeout: float) -> Any:
        left.append(timeout)
        return await try_on(self, request, timeout=timeout)

    monkeypatch.setattr(FakeProvider, "try_on", note)
    tryon(DEADLINE=50)
    assert shop.post().status_code == 200
    assert 0 < left[0] < 50


def test_what_no_database_takes_does_not_cost_a_picture(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = FakeProvider.generate_image

    async def odd(self: FakeProvider, request: Any) -> Any:
        result = await generate(self, request)
        return replace(
            result,
            provider_id="a\0b\ud800" * 100,
            warnings=("nul \0",),
            usage={"tokens": 10**30, "less": -1, "good": 7},
            cost_usd=Decimal("1e9"),
        )

    monkeypatch.setattr(FakeProvider, "generate_image", odd)
    response = shop.post()
    assert response.status_code == 200, response.content
    run = TryOn.objects.get()
    assert (run.warnings, run.usage, run.cost_usd) == (["nul "], {"good": 7}, None)
    assert run.provider_request_id.startswith("ab?ab?")
    assert response.headers["Content-Length"] == str(len(response.content))


@pytest.mark.one_database
@pytest.mark.parametrize("data", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 100])
def test_a_provider_that_sends_no_picture_is_502(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, media: Path, data: bytes
) -> None:
    import providers.fake

    monkeypatch.setattr(providers.fake, "_png", lambda *args: data)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (502, "provider_invalid_response")
    assert shop.balance() == 3
    assert not media.exists() or not list(media.iterdir())


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("path", "data", "status", "code"),
    [
        ("/missing", None, 422, "image_unreachable"),
        ("/page", b"<html></html>", 415, "not_an_image"),
        ("/empty", b"", 415, "not_an_image"),
        ("/tiny", jpeg(10, 10), 422, "image_unusable"),
        ("/cut", jpeg()[:-10], 422, "image_unusable"),
        ("/cut.png", png()[:-40], 422, "image_unusable"),
        ("/huge", b"\xff" * 2_000_000, 413, "image_too_large"),
    ],
)
def test_a_photo_that_cannot_be_used_names_its_field_and_costs_nothing(
    shop: Shop,
    photos: HTTPServer,
    tryon: Callable[..., None],
    path: str,
    data: bytes | None,
    status: int,
    code: str,
) -> None:
    tryon(MAX_IMAGE_BYTES=1_000_000)
    if data is not None:
        photos.expect_request(path).respond_with_data(data)
    response = shop.post(shop.body | {"catalog_image_url": photos.url_for(path)})
    answer = response.json()
    assert (response.status_code, answer["code"]) == (status, code)
    assert list(answer["errors"]) == ["catalog_image_url"]
    assert shop.balance() == 3
    assert TryOn.objects.get().error_code == code


@pytest.mark.one_database
def test_a_private_address_is_refused_like_an_unreachable_one(shop: Shop, photos: HTTPServer, tryon: Any) -> None:
    tryon(FETCH_ALLOWED_HOSTS=[])
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (422, "image_unreachable")
    assert photos.log == []


@pytest.mark.one_database
def test_a_redirect_is_checked_anew(shop: Shop, photos: HTTPServer) -> None:
    photos.expect_request("/ok").respond_with_data("", 302, {"Location": "/person.jpg"})
    photos.expect_request("/evil").respond_with_data("", 302, {"Location": "http://127.0.0.1:1/x.jpg"})
    assert shop.post(shop.body | {"user_image_url": photos.url_for("/ok")}).status_code == 200
    assert shop.post(shop.body | {"user_image_url": photos.url_for("/evil")}).status_code == 422


def test_one_request_takes_at_most_twelve_queries(shop: Shop, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(12):  # BEGIN and COMMIT included, and the key's last use
        assert shop.post().status_code == 200


@pytest.mark.one_database
@pytest.mark.usefixtures("stopped_clock")
def test_the_throttle_answers_429_with_all_its_headers(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(THROTTLE_RPM=2)
    first, second, third = shop.post(), shop.post(), shop.post()
    assert [first.status_code, second.status_code] == [200, 200]
    assert first.headers["RateLimit-Policy"] == '"default";q=2;w=60'
    assert first.headers["RateLimit"].startswith('"default";r=1;t=')
    assert first.headers["X-RateLimit-Remaining"] == "1"
    assert (third.status_code, third.json()["code"]) == (429, "throttled")
    assert 1 <= int(third.headers["Retry-After"]) <= 60
    assert third.headers["RateLimit"].startswith('"default";r=0;t=')
    assert {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} <= set(third.headers)
    assert shop.balance() == 1


@pytest.mark.one_database
def test_every_response_carries_a_request_id(shop: Shop) -> None:
    harmless = shop.post(headers={"X-Request-ID": "mine.1"})
    assert harmless.headers["X-Request-ID"] == "mine.1"
    assert TryOn.objects.get().request_id == "mine.1"
    for path in ("/", "/health", "/nowhere", URL):
        assert len(Client().get(path, headers={"X-Request-ID": "bad\x01id"}).headers["X-Request-ID"]) == 32


@pytest.mark.one_database
def test_a_host_that_is_not_served_is_refused_before_anything_is_charged(shop: Shop) -> None:
    for host in ("evil.example", "under_score:8001"):
        response = shop.post(headers={"Host": host})
        assert (response.status_code, response.json()["code"]) == (400, "parse_error")
        assert "Host header" in response.json()["detail"]
    assert shop.ledger() == [("grant", 3)]


@pytest.mark.parametrize("fails", ["url", "render"])
def test_an_answer_that_cannot_be_given_is_not_charged(
    shop: Shop, media: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def explode(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no answer")

    if fails == "url":
        monkeypatch.setattr(FileSystemStorage, "url", explode)
    else:
        render = JSONRenderer.render
        monkeypatch.setattr(
            JSONRenderer,
            "render",
            lambda self, data, *args: render(self, data, *args) if "code" in data else explode(),
        )
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (500, "error")
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]
    assert list(media.iterdir()) == []


@pytest.mark.one_database
def test_it_works_in_a_host_with_atomic_requests(shop: Shop, settings: Settings) -> None:
    from django.db import connection

    settings_dict = connection.settings_dict
    settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert shop.post().status_code == 200
    finally:
        settings_dict["ATOMIC_REQUESTS"] = False
