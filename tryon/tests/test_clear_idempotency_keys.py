"""The command that forgets old Idempotency-Keys, and only those."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from tryon import runs
from tryon.dispatch import choose_provider
from tryon.models import TryOn

from .shop import Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

HOUR = 3600


def clear() -> str:
    out = StringIO()
    call_command("clear_idempotency_keys", stdout=out)
    return out.getvalue().strip()


def post(shop: Shop, key: str, **changes: str) -> Any:
    return shop.post(shop.body | changes, headers={"Idempotency-Key": key})


def age(key: str, seconds: float) -> None:
    """Make the runs under ``key`` this old."""
    TryOn.objects.filter(idempotency_key=key).update(created_at=timezone.now() - timedelta(seconds=seconds))


@pytest.fixture(autouse=True)
def an_hour(tryon: Callable[..., None]) -> None:
    """For how long keys are remembered here."""
    tryon(IDEMPOTENCY_TTL=HOUR)


def test_an_old_key_can_be_used_again_for_something_else(shop: Shop, tryon: Callable[..., None]) -> None:
    first = post(shop, "k")
    assert post(shop, "k", catalog_id="hat-1").status_code == 422
    age("k", HOUR + 60)
    assert clear() == "1 Idempotency-Key(s) freed."

    tryon(IDEMPOTENCY_TTL=9 * HOUR)  # or the request itself would find that the key is old
    second = post(shop, "k", catalog_id="hat-1")

    assert second.status_code == 200
    assert "Idempotent-Replayed" not in second.headers
    assert second.json()["id"] != first.json()["id"]
    assert post(shop, "k", catalog_id="hat-1").json()["id"] == second.json()["id"]
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0), ("hold", -1), ("capture", 0)]


def test_only_the_key_of_a_run_is_forgotten(shop: Shop) -> None:
    post(shop, "k")
    age("k", HOUR + 60)
    [before] = TryOn.objects.values()
    clear()
    assert TryOn.objects.values().get() == before | {"idempotency_key": "", "fingerprint": ""}
    assert clear() == "0 Idempotency-Key(s) freed.", "there is nothing left to free"


def test_a_young_key_stays(shop: Shop) -> None:
    first = post(shop, "k")
    age("k", HOUR - 60)
    assert clear() == "0 Idempotency-Key(s) freed."
    again = post(shop, "k")
    assert (again.json()["id"], again.headers["Idempotent-Replayed"]) == (first.json()["id"], "true")
    assert post(shop, "k", catalog_id="hat-1").status_code == 422


def test_the_key_of_a_running_run_stays_however_old(shop: Shop) -> None:
    order = runs.Order(
        user=shop.user,
        person=shop.body["user_image_url"],
        garment=shop.body["catalog_image_url"],
        catalog_id=shop.body["catalog_id"],
        idempotency_key="k",
    )
    run = runs.admit(TryOn().pk, order, choose_provider())
    age("k", 9 * HOUR)
    assert clear() == "0 Idempotency-Key(s) freed."
    assert post(shop, "k").status_code == 409

    assert runs.fail(run, TryOn.Status.FAILED, "error", "")
    assert clear() == "1 Idempotency-Key(s) freed."


def test_runs_without_a_key_are_not_counted(shop: Shop) -> None:
    for key in ("a", "b"):
        post(shop, key)
        age(key, HOUR + 60)
    shop.post()
    TryOn.objects.update(created_at=timezone.now() - timedelta(days=2))
    assert clear() == "2 Idempotency-Key(s) freed."
    assert TryOn.objects.count() == 3
