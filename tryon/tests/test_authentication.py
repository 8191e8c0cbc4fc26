"""Who may have a picture made: keys, a host's own ways to sign in, and what everybody else hears."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from providers.base import AIProvider
from tryon.dispatch import Dispatch
from tryon.models import ApiKey, CreditEntry, TryOn

from .shop import URL, Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


@pytest.mark.one_database
@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_the_key_may_come_in_a_header_without_user_id(shop: Shop, header: str) -> None:
    body = {name: value for name, value in shop.body.items() if name not in ("user_id", "api_key")}
    value = f"Bearer {shop.key}" if header == "Authorization" else shop.key
    assert shop.post(body, headers={header: value}).status_code == 200


@pytest.mark.one_database
def test_a_hosts_own_authentication_class_needs_no_key(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(AUTHENTICATION_CLASSES=["rest_framework.authentication.BasicAuthentication"])
    body = {name: value for name, value in shop.body.items() if name not in ("user_id", "api_key")}
    response = shop.post(body, headers={"Authorization": "Basic YWRhOnNlY3JldA=="})  # ada:secret
    assert response.status_code == 200
    assert shop.balance() == 2
    assert shop.post(body, headers={"Authorization": "Basic YWRhOndyb25n"}).status_code == 401


def _revoke(key: ApiKey) -> None:
    key.revoked_at = timezone.now()


def _expire(key: ApiKey) -> None:
    key.expires_at = timezone.now() - timedelta(seconds=1)


def _deactivate(key: ApiKey) -> None:
    key.user.is_active = False
    key.user.save()


@pytest.mark.one_database
@pytest.mark.parametrize("spoil", [_revoke, _expire, _deactivate])
def test_a_key_that_no_longer_counts_says_the_same_as_an_unknown_one(
    shop: Shop, spoil: Callable[[ApiKey], None]
) -> None:
    unknown = shop.post(shop.body | {"api_key": "tryon_unknown"})
    key = ApiKey.objects.get()
    spoil(key)
    key.save()
    response = shop.post()
    assert response.status_code == unknown.status_code == 401
    assert response.json() == unknown.json()
    assert response.json()["code"] == "authentication_failed"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.one_database
@pytest.mark.parametrize("in_header", [True, False])
@pytest.mark.parametrize("user_id", ["eve", "Ada", "ada ", 0, False, [], {}])
def test_a_key_never_works_for_another_user_id(
    shop: Shop, user_id: Any, in_header: bool, django_user_model: Any
) -> None:
    django_user_model.objects.create_user("eve")
    body = shop.body | {"user_id": user_id}
    headers = {"X-API-Key": body.pop("api_key")} if in_header else {}
    assert shop.post(body, headers=headers).status_code == 401
    assert shop.balance() == 3


@pytest.mark.one_database
def test_the_right_prefix_is_not_the_key(shop: Shop) -> None:
    assert shop.post(shop.body | {"api_key": shop.key[:-1]}).status_code == 401
    assert shop.post(shop.body | {"api_key": shop.key[:16] + "x" * (len(shop.key) - 16)}).status_code == 401
    assert shop.balance() == 3


@pytest.mark.one_database
def test_two_keys_in_one_request_must_be_the_same(shop: Shop) -> None:
    same = {"Authorization": f"Bearer {shop.key}", "X-API-Key": shop.key}
    assert shop.post(headers=same).status_code == 200
    for headers in ({"X-API-Key": "tryon_other"}, {"Authorization": "Bearer tryon_other"}):
        response = shop.post(headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "authentication_failed")
        assert "more than one API key" in response.json()["detail"]


@pytest.mark.one_database
def test_a_hosts_own_user_cannot_name_another(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(AUTHENTICATION_CLASSES=["rest_framework.authentication.BasicAuthentication"])
    as_ada = {"Authorization": "Basic YWRhOnNlY3JldA=="}  # ada:secret
    body = {name: value for name, value in shop.body.items() if name != "api_key"}
    assert shop.post(body | {"user_id": "eve"}, headers=as_ada).status_code == 401
    assert shop.post(body, headers=as_ada).status_code == 200


@pytest.mark.one_database
def test_a_hosts_sessions_reach_the_api_of_this_project(shop: Shop, tryon: Callable[..., None]) -> None:
    session = "rest_framework.authentication.SessionAuthentication"
    tryon(AUTHENTICATION_CLASSES=[session, "tryon.authentication.ApiKeyAuthentication"])
    body = {name: value for name, value in shop.body.items() if name not in ("user_id", "api_key")}
    browser = Client()
    browser.force_login(shop.user)
    assert browser.post(URL, body).status_code == 200
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(shop.user)
    assert strict.post(URL, body).status_code == 403


@pytest.mark.one_database
def test_last_used_is_written_at_most_once_a_minute(shop: Shop) -> None:
    shop.post()
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    shop.post()
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(minutes=1))
    shop.post()
    latest = ApiKey.objects.get().last_used_at
    assert latest is not None
    assert latest > first


@pytest.mark.one_database
def test_no_credentials_at_all_is_401(shop: Shop) -> None:
    body = {name: value for name, value in shop.body.items() if name not in ("user_id", "api_key")}
    response = shop.post(body)
    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "dress-7"}])
def test_a_user_deleted_a_moment_after_signing_in_is_unknown(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    def delete_first(dispatch: Dispatch, begin: Callable[[Dispatch], AIProvider] = Dispatch.begin) -> AIProvider:
        get_user_model().objects.all().delete()
        return begin(dispatch)

    monkeypatch.setattr(Dispatch, "begin", delete_first)

    response = shop.post(headers=headers)

    assert (response.status_code, response.json()["code"]) == (401, "authentication_failed")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="try-on"'
    assert not TryOn.objects.exists()
    assert [entry.kind for entry in CreditEntry.objects.all()] == ["grant"]


@pytest.mark.one_database
@pytest.mark.usefixtures("stopped_clock")
def test_wrong_keys_are_throttled_by_address(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(THROTTLE_RPM=2)
    wrong = shop.body | {"api_key": "tryon_wrong"}
    assert [shop.post(wrong).status_code for _ in range(3)] == [401, 401, 429]
    assert shop.post().status_code == 200, "another's wrong keys do not lock the user out"


@pytest.mark.one_database
@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("body", ["no JSON", f'{{"catalog_id": "{"x" * 70_000}"}}', '{"api_key": "x"}'])
def test_bodies_of_which_nobody_knows_the_sender_are_throttled_by_address(
    shop: Shop, tryon: Callable[..., None], body: str
) -> None:
    tryon(THROTTLE_RPM=2)
    refusals = [shop.post(body).status_code for _ in range(3)]
    assert set(refusals[:2]) <= {400, 413}
    assert refusals[2] == 429


@pytest.mark.one_database
def test_wrong_credentials_are_401_although_the_hosts_first_class_is_for_sessions(
    shop: Shop, tryon: Callable[..., None]
) -> None:
    session = "rest_framework.authentication.SessionAuthentication"
    tryon(AUTHENTICATION_CLASSES=[session, "tryon.authentication.ApiKeyAuthentication"])
    assert shop.post(shop.body | {"api_key": "tryon_wrong"}).status_code == 401
    assert shop.post({}).status_code == 401
    assert shop.post().status_code == 200
