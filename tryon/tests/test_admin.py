"""The operator's screens."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from tryon.models import ApiKey, CreditAccount, TryOn

from .shop import Shop

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

MODELS = ["apikey", "creditaccount", "creditentry", "tryon", "usagerecord"]


@pytest.fixture
def operator(admin_user: Any) -> Client:
    client = Client()
    client.force_login(admin_user)
    return client


@pytest.mark.parametrize("model", MODELS)
def test_lists_search_and_show_no_secret(shop: Shop, operator: Client, model: str) -> None:
    assert shop.post().status_code == 200
    hashed = ApiKey.objects.get().hashed_key
    for query in ("", "?q=ada", "?q=nobody"):
        page = operator.get(reverse(f"admin:tryon_{model}_changelist") + query)
        assert page.status_code == 200
        for secret in (shop.key, hashed):
            assert secret not in page.content.decode()


def test_a_runs_page_shows_its_picture(shop: Shop, operator: Client) -> None:
    shop.post()
    tryon = TryOn.objects.get()
    for url in (reverse("admin:tryon_tryon_changelist"), reverse("admin:tryon_tryon_change", args=[tryon.pk])):
        assert f'<img src="{tryon.image.url}"' in operator.get(url).content.decode()


@pytest.mark.parametrize("model", ["creditaccount", "creditentry", "tryon", "usagerecord"])
def test_money_and_runs_cannot_be_edited(shop: Shop, operator: Client, model: str) -> None:
    shop.post()
    assert operator.get(reverse(f"admin:tryon_{model}_add")).status_code == 403
    rows: dict[str, Any] = {"creditaccount": CreditAccount.objects.get(), "tryon": TryOn.objects.get()}
    if row := rows.get(model):
        page = reverse(f"admin:tryon_{model}_change", args=[row.pk])
        assert operator.post(page, {"balance": 99}).status_code == 403
        assert operator.post(reverse(f"admin:tryon_{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    assert shop.balance() == 2


def test_a_new_key_is_shown_once(shop: Shop, operator: Client) -> None:
    url = reverse("admin:tryon_apikey_add")
    page = operator.post(url, {"user": shop.user.pk, "name": "by hand"}, follow=True).content.decode()
    match = re.search(r"tryon_[\w-]{43}", page)
    assert match
    key = ApiKey.objects.get(name="by hand")
    assert key.matches(match[0])
    assert match[0] not in operator.get(reverse("admin:tryon_apikey_change", args=[key.pk])).content.decode()
    assert shop.post(shop.body | {"api_key": match[0]}).status_code == 200


def test_keys_are_revoked_by_an_action(shop: Shop, operator: Client) -> None:
    key = ApiKey.objects.get()
    operator.post(reverse("admin:tryon_apikey_changelist"), {"action": "revoke", "_selected_action": [key.pk]})
    assert shop.post().status_code == 401
    assert LogEntry.objects.get().get_change_message() == "Revoked."


def test_credits_are_granted_with_a_reason_that_is_logged(shop: Shop, operator: Client) -> None:
    url = reverse("admin:tryon_creditaccount_changelist")
    chosen = {"action": "grant", "_selected_action": [shop.user.credit_account.pk]}
    form = operator.post(url, chosen)
    assert 'name="reason"' in form.content.decode()
    assert operator.post(url, {**chosen, "apply": "1", "credits": 5}).status_code == 200, "a reason is required"
    assert shop.balance() == 3

    operator.post(url, {**chosen, "apply": "1", "credits": 5, "reason": "goodwill"})

    assert shop.balance() == 8
    assert shop.ledger()[-1] == ("grant", 5)
    assert LogEntry.objects.get().get_change_message() == "Granted 5 credits: goodwill"
