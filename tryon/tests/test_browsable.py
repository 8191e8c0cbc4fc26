"""The form at the API's own address, as people see it in a browser."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import Client

from tryon.models import TryOn

from .shop import URL, Shop

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM_FIELDS = ("user_id", "api_key", "catalog_id", "user_image_url", "catalog_image_url")


def browse(method: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """Status and page that a browser gets."""
    response = Client().generic(
        method, URL, urlencode(body or {}), content_type="application/x-www-form-urlencoded", headers=HTML
    )
    return response.status_code, response.content.decode()


def test_the_browsable_api_greets_with_a_form(shop: Shop) -> None:
    status, page = browse("GET")
    assert status == 200
    assert ">HTTP 405 " not in page
    assert "&quot;category&quot;: &quot;auto&quot;" in page, "the raw form is filled in with what works"
    for name in FORM_FIELDS:
        assert f'name="{name}"' in page


def test_the_raw_form_works_with_a_key_in_a_header_and_its_key_fields_left_empty(shop: Shop) -> None:
    body = shop.body | {"user_id": "", "api_key": "", "category": "auto"}
    assert shop.post(body, headers={"X-API-Key": shop.key}).status_code == 200


def test_the_browsable_api_shows_the_pictures_address_and_the_form_again(shop: Shop) -> None:
    status, page = browse("POST", shop.body)
    assert status == 200
    assert str(TryOn.objects.get().image.name) in page
    for name in FORM_FIELDS:
        assert f'name="{name}"' in page
    assert 'value="dress-7"' in page, "what was typed is kept"
    assert shop.key not in page, "but not the key"
    assert 'name="latency_ms"' not in page


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"user_image_url": "nowhere"}, 400, "Give an http:// or https:// URL"),
        ({"catalog_image_url": "http://127.0.0.1:1/"}, 422, "could not be fetched"),
        ({"api_key": "tryon_wrong"}, 401, "Wrong API key"),
    ],
)
def test_the_browsable_api_keeps_what_was_typed_when_it_fails(
    shop: Shop, change: dict[str, str], status: int, says: str
) -> None:
    answer, page = browse("POST", shop.body | change)
    assert (answer, says in page, 'value="dress-7"' in page) == (status, True, True)
    if status == 400:
        assert page.count(says) == 3, "in the answer's detail and errors, and beside the field"
    assert shop.key not in page


@pytest.mark.parametrize("odd", ["\ud800", "a\0b", ["\ud800"], {"a": "\ud800"}, 7, None])
@pytest.mark.parametrize("field", ["user_id", "api_key", "catalog_id", "user_image_url", "category", "unknown"])
def test_the_browsable_api_shows_errors_of_values_it_cannot_show(shop: Shop, field: str, odd: Any) -> None:
    body = json.dumps({field: odd})
    response = Client().generic("POST", URL, body, content_type="application/json", headers=HTML)
    assert 400 <= response.status_code < 500
    assert 'name="catalog_id"' in response.content.decode()


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize("headers", [{"X-API-Key": "garbage"}, {"Authorization": "Bearer tryon_garbage"}])
def test_a_wrong_key_does_not_keep_anybody_from_looking(shop: Shop, method: str, headers: dict[str, str]) -> None:
    response = Client(raise_request_exception=False).generic(method, URL, headers=HTML | headers)
    assert response.status_code == 200
    assert 'name="catalog_id"' in response.content.decode()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [("{", "application/json", 400), ("<a/>", "application/xml", 415)],
)
def test_the_browsable_api_shows_errors_of_bodies_it_cannot_read(
    shop: Shop, body: str, content_type: str, status: int
) -> None:
    response = Client().generic("POST", URL, body, content_type=content_type, headers=HTML)
    assert response.status_code == status
    assert 'name="catalog_id"' in response.content.decode()
