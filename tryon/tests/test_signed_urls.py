"""Addresses of pictures that are signed and expire, and the view behind them."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.core import signing
from django.core.files.base import File
from django.core.files.storage import FileSystemStorage
from django.db import OperationalError, connection
from django.http import HttpResponseBase
from django.test import AsyncClient, Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import ResolverMatch, include, path
from pytest_django import Settings

from providers.fake import FakeProvider
from tryon import checks, results, signed_urls
from tryon.models import TryOn
from tryon.signals import try_on_succeeded
from tryon.signed_urls import Claim, sign

from .services import s3_server
from .shop import Shop, content, jpeg, png
from .test_checks import ids

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

HOUR = 3600


@pytest.fixture(autouse=True)
def signed(tryon: Callable[..., None]) -> None:
    tryon(SIGNED_URLS=HOUR)


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path, tryon: Callable[..., None]) -> Path:
    """A folder that no web server serves, as the results' storage."""
    options = {"location": tmp_path / "private", "base_url": None}
    backend = "django.core.files.storage.FileSystemStorage"
    settings.STORAGES = {**settings.STORAGES, "private": {"BACKEND": backend, "OPTIONS": options}}
    settings.MEDIA_URL = ""
    tryon(STORAGE="private")
    return tmp_path / "private"


def body(response: Any) -> bytes:
    """What it brings, once."""
    try:
        return b"".join(response) if response.streaming else bytes(response.content)
    finally:
        response.close()


def status(address: str) -> int:
    response = Client().get(address)
    body(response)
    return int(response.status_code)


def claim(run: TryOn, which: str = "1", seconds: int = HOUR) -> str:
    """The address of a file."""
    return f"/api/v1/pictures/{sign(Claim(run.pk, which, int(time.time()) + seconds))}"


@pytest.fixture
def run(shop: Shop) -> TryOn:
    """A run with its picture."""
    return TryOn.objects.get(pk=shop.post().json()["id"])


def test_the_answer_has_a_signed_address_that_shows_the_picture(shop: Shop, elsewhere: Path) -> None:
    answer = shop.post().json()
    assert answer["image_url"].startswith("http://testserver/api/v1/pictures/")
    assert answer["image_urls"][0].startswith("http://testserver/api/v1/pictures/")
    [file] = elsewhere.iterdir()
    assert file.name not in str(answer), "the name in the storage is nobody's business"
    response = Client().get(answer["image_url"])
    assert response.status_code == 200
    assert body(response) == file.read_bytes()
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["Content-Length"] == str(file.stat().st_size)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == "inline"
    assert "sandbox" in response.headers["Content-Security-Policy"]
    private, age = response.headers["Cache-Control"].split(", max-age=")
    assert private == "private"
    assert HOUR - 60 < int(age) <= HOUR
    assert len(response.headers["X-Request-ID"]) == 32


def test_all_pictures_and_the_clip_have_addresses_by_what_they_are(run: TryOn, media: Path) -> None:
    (media / "second.png").write_bytes(jpeg())
    (media / "clip.html").write_bytes(b"\0\0\0\x18ftypmp42")
    (media / "sent.png").write_bytes(b"<script>alert(1)</script>")
    TryOn.objects.update(more_images=["second.png"], video="clip.html", inputs=["sent.png"])
    for which, kind, data in (
        ("2", "image/jpeg", jpeg()),
        ("video", "video/mp4", b"\0\0\0\x18ftypmp42"),
        ("photo1", "application/octet-stream", b"<script>alert(1)</script>"),
    ):
        response = Client().get(claim(run, which))
        assert (response.status_code, response.headers["Content-Type"], body(response)) == (200, kind, data)


def test_an_address_that_is_not_good_any_more_is_the_same_404_without_a_query(run: TryOn, settings: Settings) -> None:
    good = claim(run).rpartition("/")[2]
    other_salt = signing.Signer(salt="other", sep=".").sign(good.rpartition(".")[0])
    with CaptureQueriesContext(connection) as queries:
        answers = {
            (response.status_code, body(response), response.headers["Content-Type"])
            for response in (
                Client().get(f"/api/v1/pictures/{token}")
                for token in (
                    good[:-1],
                    good.replace(".1.", ".2.", 1),
                    good.replace(run.pk.hex, uuid4().hex),
                    other_salt,
                    claim(run, seconds=0).rpartition("/")[2],
                    claim(run, seconds=-1).rpartition("/")[2],
                    run.pk.hex,
                    str(run.image.name),
                    "x",
                    "a.b.c.d",
                    "%00",
                    "%F0%9F%91%97",
                    "x" * 3000,
                )
            )
        }
    assert [status for status, *_ in answers] == [404]
    assert len(queries) == 0
    assert status(f"/api/v1/pictures/{good}") == 200


def test_a_signed_address_expires(run: TryOn) -> None:
    address = claim(run)
    now = time.time()
    with mock.patch("tryon.signed_urls.time.time", return_value=now + HOUR + 1):
        assert status(address) == 404
    assert status(address) == 200


def test_what_is_no_more_is_the_same_404_with_one_query(run: TryOn, media: Path) -> None:
    forged = Client().get("/api/v1/pictures/x")

    def is_gone(address: str) -> bool:
        with CaptureQueriesContext(connection) as queries:
            response = Client().get(address)
        assert len(queries) == 1
        return (response.status_code, response.content) == (404, forged.content)

    assert is_gone(claim(run, "2"))
    assert is_gone(claim(run, "video"))
    assert is_gone(claim(TryOn(pk=uuid4())))
    TryOn.objects.update(no_store=True)
    assert is_gone(claim(run))
    TryOn.objects.update(no_store=False, to_erase=True)
    assert is_gone(claim(run))
    TryOn.objects.update(to_erase=False)
    next(media.iterdir()).unlink()
    assert is_gone(claim(run))


def test_head_has_the_headers_and_closes_the_file(run: TryOn) -> None:
    response, get = Client().head(claim(run)), Client().get(claim(run))
    assert (body(response), bool(body(get))) == (b"", True)
    for name in ("Content-Type", "Content-Length", "Content-Security-Policy"):
        assert response.headers[name] == get.headers[name]


def test_other_methods_are_refused_in_json(run: TryOn) -> None:
    response = Client().post(claim(run))
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")


class Counting(io.FileIO):
    """A file that notes how much is read at once."""

    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size) or b""
        self.largest = max(self.largest, len(piece))
        return piece


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_large_file_is_sent_in_pieces(run: TryOn, media: Path, client: type) -> None:
    """Whatever the server speaks: Django would read it all at once, and warn."""
    data = png() * 200
    Path(run.image.path).write_bytes(data)
    files: list[Counting] = []

    def opened(self: FileSystemStorage, name: str, mode: str = "rb") -> Any:
        files.append(Counting(self.path(name)))
        return File(files[-1])

    async def get() -> bytes:
        response: HttpResponseBase = await AsyncClient().get(claim(run))
        found = b"".join([piece async for piece in response])  # type: ignore[attr-defined]
        await asyncio.to_thread(response.close)
        return found

    with mock.patch.object(FileSystemStorage, "open", opened):
        if client is AsyncClient:
            assert asyncio.run(get()) == data
        else:
            assert body(Client().get(claim(run))) == data
    assert 0 < files[0].largest <= results.CHUNK < len(data)
    assert files[0].closed


def test_a_database_or_storage_that_is_away_is_503(
    run: TryOn, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("no route to the storage")

    with monkeypatch.context() as patch:
        patch.setattr(FileSystemStorage, "open", refuse)
        response = Client().get(claim(run))
        assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
        assert "Retry-After" in response.headers
    assert "no route to the storage" in log.text

    def away() -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(results, "connect", away)
    response = Client().get(claim(run))
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")


# Who hands them out


def test_signals_and_the_admin_hand_out_signed_addresses(
    shop: Shop, elsewhere: Path, operator: Client, fake: Callable[..., FakeProvider], tryon: Callable[..., None]
) -> None:
    heard: list[str] = []

    def listen(*, image_url: str, **payload: Any) -> None:
        heard.append(image_url)

    fake()
    tryon(MAX_PICTURES=2)
    try_on_succeeded.connect(listen)
    try:
        run = TryOn.objects.get(pk=shop.post(shop.body | {"pictures": 2}).json()["id"])
    finally:
        try_on_succeeded.disconnect(listen)
    assert heard[0].startswith("/api/v1/pictures/")
    assert status(heard[0]) == 200
    page = content(operator, f"/admin/tryon/tryon/{run.pk}/change/")
    assert page.count('href="/api/v1/pictures/') == 2


def test_the_replay_of_a_key_has_an_address_of_its_own(shop: Shop) -> None:
    key = {"Idempotency-Key": "order-7"}
    shop.post(headers=key)
    with mock.patch("tryon.signed_urls.time.time", return_value=time.time() + HOUR + 1):
        again = shop.post(headers=key).json()["image_url"]
        assert status(again) == 200


def test_without_the_setting_it_is_the_storages_own_address(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(SIGNED_URLS=0)
    assert "/media/" in shop.post().json()["image_url"]


def test_w005_does_not_ask_for_an_address_where_ours_are_handed_out(
    elsewhere: Path, settings: Settings, tryon: Callable[..., None]
) -> None:
    assert ids(checks.check_settings(None)) == []
    tryon(SIGNED_URLS=0)
    assert ids(checks.check_settings(None)) == ["tryon.W005"]


NESTED = [path("deep/", include(([path("shop/", include("tryon.urls", namespace="fitting"))], "outer")))]


class Urls:
    """Where a host may have mounted the app."""

    urlpatterns = [path("eu/", include("tryon.urls")), path("us/", include("tryon.urls", namespace="us")), *NESTED]


class Deep:
    urlpatterns = NESTED


@pytest.mark.parametrize(
    ("urls", "app_names", "namespaces", "begins"),
    [
        (Urls, ["tryon"], ["us"], "/us/api/v1/pictures/"),
        (Urls, ["outer", "tryon"], ["outer", "fitting"], "/deep/shop/api/v1/pictures/"),
        (Urls, ["admin"], ["admin"], "/eu/api/v1/pictures/"),
        (Urls, None, None, "/eu/api/v1/pictures/"),
        (Deep, None, None, "/deep/shop/api/v1/pictures/"),
    ],
)
def test_addresses_lead_to_where_the_host_has_mounted_the_app(
    settings: Settings,
    urls: type,
    app_names: list[str | None] | None,
    namespaces: list[str | None] | None,
    begins: str,
) -> None:
    settings.ROOT_URLCONF = urls
    request = None
    if app_names is not None:
        request = RequestFactory().get("/")
        request.resolver_match = ResolverMatch(
            lambda request: None, (), {}, app_names=app_names, namespaces=namespaces
        )
    run = TryOn(pk=uuid4(), image="a.png")
    assert signed_urls.address(run, "a.png", request).startswith(begins)


# S3


def test_pictures_in_s3_are_served_at_signed_addresses_and_erased(
    shop: Shop, tryon: Callable[..., None], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(settings, monkeypatch):
        tryon(STORAGE="s3")
        answer = shop.post().json()
        assert "/api/v1/pictures/" in answer["image_url"]
        response = Client().get(answer["image_url"])
        assert (response.status_code, response.headers["Content-Type"]) == (200, "image/png")
        assert len(body(response)) == int(response.headers["Content-Length"])
        run = TryOn.objects.get(pk=answer["id"])
        Client().delete(f"/api/v1/tryons/{run.pk}", headers={"X-API-Key": shop.key})
        assert not run.image.storage.exists(str(run.image.name))
        assert status(answer["image_url"]) == 404
        TryOn.objects.update(to_erase=False)  # as if the address had been asked for a moment before
        assert status(answer["image_url"]) == 404
