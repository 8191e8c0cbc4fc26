"""Results through Django's Storage API, to a folder or to a server that speaks S3."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from settings.base import result_storage
from tryon.models import TryOn

from .services import s3_server
from .shop import RELEASED, Shop

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


@pytest.fixture
def s3(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket called ``tryons``, as the results' storage; the server's URL."""
    with s3_server(settings, monkeypatch) as endpoint:
        yield endpoint


def test_s3_keeps_the_picture_and_hands_out_a_signed_url(
    shop: Shop, s3: str, tryon: Callable[..., None], media: Path
) -> None:
    shop.post()  # to the folder
    tryon(STORAGE="s3")
    answer = shop.post().json()
    run = TryOn.objects.get(pk=answer["id"])
    assert answer["image_url"].startswith(f"{s3}/tryons/ada_dress-7_")
    assert "Signature=" in answer["image_url"]
    with urllib.request.urlopen(answer["image_url"]) as response:
        assert response.read() == next(media.iterdir()).read_bytes()
    assert len(list(media.iterdir())) == 1
    run.image.delete(save=False)
    assert not run.image.storage.exists(answer["image_url"].rpartition("/")[2].partition("?")[0])


def test_the_storage_is_looked_up_when_it_is_used(shop: Shop, settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "elsewhere"
    shop.post()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_a_storage_that_takes_nothing_costs_nothing(
    shop: Shop, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings.MEDIA_ROOT = tmp_path / "file"
    settings.MEDIA_ROOT.write_text("no folder")
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
    assert response.headers["Retry-After"]
    assert shop.ledger()[1:] == RELEASED
    [record] = [record for record in caplog.records if "Could not store" in record.getMessage()]
    assert record.exc_info


def test_an_unknown_kind_of_storage_is_refused_by_name() -> None:
    from django.core.exceptions import ImproperlyConfigured

    with pytest.raises(ImproperlyConfigured, match=r"STORAGE_URL is 'ftp://x'"):
        result_storage("ftp://x")
