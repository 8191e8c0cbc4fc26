"""Fixtures: a shop with a shopper, a key, credits, a web server that serves its photos, and people in its admin."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission, User
from django.core.cache import cache
from django.test import Client
from PIL import Image
from pytest_django import Settings
from pytest_httpserver import HTTPServer

from providers.fake import FakeProvider
from tryon.credits import get_credits
from tryon.dispatch import providers
from tryon.models import ApiKey, CreditEntry

URL = "/api/v1/create-image"

NOW = 1_800_000_000
"""When the throttle's tests happen: all in one second, so that no window ends in the middle of one."""

CHARGED = [("hold", -1), ("capture", 0)]
RELEASED = [("hold", -1), ("release", 1)]
"""What a run of one credit leaves in the ledger, with a picture and without."""


def jpeg(width: int = 300, height: int = 400, color: str = "teal", **save: Any) -> bytes:
    """A photo of the given size in pixels."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), color).save(out, "JPEG", **save)
    return out.getvalue()


def png(width: int = 1024, height: int = 1536) -> bytes:
    """A picture as a vendor sends it."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(out, "PNG")
    return out.getvalue()


@dataclass
class Shop:
    """Everything a request needs."""

    user: User
    key: str
    body: dict[str, str]

    def post(self, body: dict[str, Any] | str | None = None, **options: Any) -> Any:
        """POST to create-image as the shopper does."""
        options.setdefault("content_type", "application/json")
        return Client(raise_request_exception=False).post(URL, self.body if body is None else body, **options)

    def balance(self) -> int:
        return get_credits().balance(self.user)

    def ledger(self) -> list[tuple[str, int]]:
        return list(CreditEntry.objects.filter(account__user=self.user).order_by("pk").values_list("kind", "amount"))


@pytest.fixture
def tryon(settings: Settings) -> Callable[..., None]:
    """Change keys of the TRYON setting for one test."""

    def change(**keys: Any) -> None:
        settings.TRYON = {**django_settings.TRYON, **keys}

    return change


@pytest.fixture
def fake(tryon: Callable[..., None]) -> Callable[..., FakeProvider]:
    """Give the fake provider options, and get it to look at its calls."""

    def configure(**options: Any) -> FakeProvider:
        tryon(PROVIDER="fake", PROVIDERS={"fake": {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": options}})
        provider = providers["fake"]
        assert isinstance(provider, FakeProvider)
        return provider

    return configure


@pytest.fixture
def stopped_clock() -> Iterator[None]:
    """The throttle's clock stands still."""
    with mock.patch("django_ratelimit.core.time.time", return_value=NOW):
        yield


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the app logs; its loggers do not propagate to where caplog looks."""
    logging.getLogger("tryon").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("tryon").removeHandler(caplog.handler)


@pytest.fixture
def media(settings: Settings, tmp_path: Path) -> Path:
    """An empty folder for results."""
    settings.MEDIA_ROOT = tmp_path / "media"
    return tmp_path / "media"


@pytest.fixture
def photos(httpserver: HTTPServer, tryon: Callable[..., None]) -> HTTPServer:
    """A web server with /person.jpg and /garment.jpg, which may be fetched."""
    httpserver.expect_request("/person.jpg").respond_with_data(jpeg(color="peru"), content_type="image/jpeg")
    httpserver.expect_request("/garment.jpg").respond_with_data(jpeg(color="navy"), content_type="image/jpeg")
    tryon(FETCH_ALLOWED_HOSTS=[f"{httpserver.host}:{httpserver.port}"])
    return httpserver


@pytest.fixture
def shop(transactional_db: None, photos: HTTPServer, media: Path) -> Shop:
    """A shopper with a key and 3 credits. Committed, as signals and other threads need it."""
    cache.clear()
    user = get_user_model().objects.create_user("ada", password="secret")
    get_credits().grant(user, 3, reason="test")
    _, key = ApiKey.create_key(user)
    body = {
        "user_id": "ada",
        "api_key": key,
        "catalog_id": "dress-7",
        "user_image_url": photos.url_for("/person.jpg"),
        "catalog_image_url": photos.url_for("/garment.jpg"),
    }
    return Shop(user, key, body)


@pytest.fixture
def operator(admin_user: Any) -> Client:
    client = Client()
    client.force_login(admin_user)
    return client


@pytest.fixture
def staff() -> Callable[..., Client]:
    """Log somebody in who has just these permissions."""

    def login(*codenames: str) -> Client:
        user = get_user_model().objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(content_type__app_label="tryon", codename__in=codenames))
        client = Client()
        client.force_login(user)
        return client

    return login


def content(client: Client, url: str, data: dict[str, Any] | None = None) -> str:
    """The page that a click, or a form with ``data``, ends on."""
    page = client.get(url) if data is None else client.post(url, data, follow=True)
    return page.content.decode()
