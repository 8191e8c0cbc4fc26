"""The table of hostile URLs through POST /api/v1/create-image: no answer tells them apart, and nothing is charged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from providers.tests.hostile_urls import HOSTILE, SECRET, Hostile, Internet, internet
from tryon import room
from tryon.exceptions import ImageUnreachable
from tryon.models import TryOn

from .shop import Shop, jpeg

__all__ = ["internet"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.one_database,
    pytest.mark.usefixtures("database"),
]

VAGUE = {
    "code": "image_unreachable",
    "detail": f"user_image_url: {ImageUnreachable.default_detail}",
}


def complaint(shop: Shop, internet: Internet, row: Hostile, log: pytest.LogCaptureFixture) -> str:
    """What is wrong with how this URL is answered; empty if nothing is."""
    log.clear()
    response = shop.post({**shop.body, "user_image_url": internet.meet(row)})
    answer: dict[str, Any] = response.json()
    lines = [record for record in log.records if record.name.startswith(("tryon", "providers"))]
    if internet.touched():
        return "the listener was touched"
    if response.status_code == 400:
        return "" if list(answer["errors"]) == ["user_image_url"] else f"400 without the field: {answer}"
    if (response.status_code, answer["code"]) == (413, "body_too_large"):
        return ""  # no URL is that long
    if response.status_code != 422 or {name: answer.get(name) for name in VAGUE} != VAGUE:
        return f"{response.status_code} {answer}"
    if not any(record.name == "tryon.fetching" for record in lines):
        return "the log does not say why"
    for record in lines:
        if SECRET in str(vars(record)) or not record.getMessage().isprintable():
            return f"the log says {record.getMessage()!r}"
    return ""


def test_no_hostile_url_reaches_anything_costs_anything_or_is_told_apart(
    shop: Shop, internet: Internet, log: pytest.LogCaptureFixture
) -> None:
    complaints = {row.name: wrong for row in HOSTILE if (wrong := complaint(shop, internet, row, log))}

    assert complaints == {}
    assert shop.balance() == 3
    assert not TryOn.objects.exclude(status=TryOn.Status.FAILED).exists()
    assert TryOn.objects.count() > 120


def test_what_is_not_hostile_arrives(shop: Shop, internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all of the above could be refused for another reason."""
    monkeypatch.setattr("providers.tests.hostile_urls.PHOTO", jpeg())
    response = shop.post({**shop.body, "user_image_url": "http://stranger.test/photo"})
    assert response.status_code == 200, response.content
    assert shop.balance() == 2


def test_who_waits_too_long_for_a_turn_hears_503(
    shop: Shop, tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The photo is not to blame."""
    monkeypatch.setattr("tryon.room.PATIENCE", 0.01)
    tryon(MAX_DOWNLOADS=3)
    with asyncio.run(room.downloads.enter(2)):
        response = shop.post()
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert response.headers["Retry-After"]
        assert shop.balance() == 3
    assert shop.post().status_code == 200


def test_without_urls_the_field_is_named_and_the_way_out(
    shop: Shop, internet: Internet, tryon: Callable[..., None]
) -> None:
    tryon(FETCH_URLS=False)
    response = shop.post()
    assert response.status_code == 400
    assert response.json()["errors"] == {
        f"{name}_url": [f"This server takes no URLs of photos. Send the photo itself as {name}."]
        for name in ("user_image", "catalog_image")
    }
    assert not TryOn.objects.exists()
    assert internet.dialled == []
