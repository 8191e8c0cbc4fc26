"""The same request twice: one picture, one charge, two answers."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, close_old_connections
from django.utils import timezone

from providers.fake import FakeProvider
from tryon import pipeline, runs
from tryon.conf import conf
from tryon.credits import get_credits
from tryon.dispatch import choose_provider
from tryon.models import ApiKey, TryOn, UsageRecord

from .shop import Shop, jpeg

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

KEY = {"Idempotency-Key": "0f5a2c1e-order-7"}


def test_the_same_request_again_gets_the_same_answer_and_is_paid_once(
    shop: Shop, fake: Callable[..., FakeProvider]
) -> None:
    provider = fake()
    first = shop.post(headers=KEY)
    again = shop.post(headers=KEY)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json() == first.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert len(provider.calls) == 1
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]
    assert UsageRecord.objects.count() == 1


def test_an_answer_can_be_had_again_without_a_credit_left(shop: Shop) -> None:
    get_credits().grant(shop.user, -2, reason="test")
    first = shop.post(headers=KEY)
    assert shop.balance() == 0
    again = shop.post(headers=KEY)
    assert (again.status_code, again.json()) == (200, first.json())
    assert shop.post(headers={"Idempotency-Key": "another"}).json()["code"] == "insufficient_credits"


def test_it_is_the_same_request_wherever_its_api_key_is(shop: Shop) -> None:
    shop.post(headers=KEY)
    body = {name: value for name, value in shop.body.items() if name not in ("api_key", "user_id")}
    again = shop.post(body | {"unknown": "field"}, headers=KEY | {"Authorization": f"Bearer {shop.key}"})
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    "change",
    [{"catalog_id": "dress-8"}, {"category": "tops"}, {"user_image_url": "http://other.example/person.jpg"}],
    ids=lambda change: next(iter(change)),
)
def test_another_body_under_the_same_key_is_refused(shop: Shop, change: dict[str, str]) -> None:
    shop.post(headers=KEY)
    response = shop.post(shop.body | change, headers=KEY)
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_key_reused")
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


def test_swapped_photos_are_another_body(shop: Shop) -> None:
    shop.post(headers=KEY)
    person, garment = shop.body["user_image_url"], shop.body["catalog_image_url"]
    swapped = shop.post(shop.body | {"user_image_url": garment, "catalog_image_url": person}, headers=KEY)
    assert swapped.status_code == 422


def _order(shop: Shop) -> runs.Order:
    """What the view makes of the shop's body."""
    return runs.Order(
        user=shop.user,
        person=shop.body["user_image_url"],
        garment=shop.body["catalog_image_url"],
        catalog_id=shop.body["catalog_id"],
        idempotency_key=KEY["Idempotency-Key"],
    )


def test_a_request_that_is_under_way_is_not_begun_again(shop: Shop) -> None:
    running = runs.admit(uuid.uuid4(), _order(shop), choose_provider())
    response = shop.post(headers=KEY)
    assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_in_use")
    assert int(response.headers["Retry-After"]) > 0
    assert [tryon.pk for tryon in TryOn.objects.all()] == [running.pk]
    assert shop.balance() == 2


def test_of_two_that_pass_the_look_up_together_the_database_lets_one_in(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the other is told that it is under way, although there is no credit left for it."""
    get_credits().grant(shop.user, -2, reason="test")
    find, looked = runs.find_earlier, threading.Barrier(2)

    def find_together(order: runs.Order) -> TryOn | None:
        found = find(order)
        if found is None:
            looked.wait(10)
        return found

    answered = threading.Event()
    generate = FakeProvider.generate_image

    async def slow(self: FakeProvider, request: Any) -> Any:
        assert answered.wait(10)
        return await generate(self, request)

    def post(number: int) -> tuple[int, str]:
        try:
            response = shop.post(headers=KEY)
        finally:
            close_old_connections()
        answered.set()
        return response.status_code, response.json().get("code", "")

    monkeypatch.setattr(runs, "find_earlier", find_together)
    monkeypatch.setattr(FakeProvider, "generate_image", slow)
    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(post, range(2)))
    assert answers == [(200, ""), (409, "idempotency_key_in_use")]
    assert shop.ledger() == [("grant", 3), ("grant", -2), ("hold", -1), ("capture", 0)]


def test_a_failed_request_may_be_tried_again_under_its_key(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    fake(error="provider_unavailable")
    assert [shop.post(headers=KEY).status_code for _ in range(2)] == [503, 503]
    other = shop.post(shop.body | {"catalog_id": "dress-8"}, headers=KEY)
    assert other.json()["code"] == "idempotency_key_reused", "but it stays the key of this body"
    fake()
    assert shop.post(headers=KEY).status_code == 200
    assert shop.post(headers=KEY).headers["Idempotent-Replayed"] == "true"
    assert shop.balance() == 2


def test_a_key_is_free_again_when_the_request_that_was_faster_has_failed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row keeps the second request out, and is of no use when that looks what is there."""
    admit = runs.admit

    def admit_beside_another(run_id: uuid.UUID, *args: Any) -> TryOn:
        monkeypatch.setattr(runs, "admit", admit)
        faster = admit(uuid.uuid4(), *args)
        try:
            return admit(run_id, *args)
        finally:
            assert runs.fail(faster, TryOn.Status.FAILED, "error", "")

    monkeypatch.setattr(runs, "admit", admit_beside_another)
    assert shop.post(headers=KEY).status_code == 200
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1), ("hold", -1), ("capture", 0)]


def test_a_failure_with_a_clock_that_runs_ahead_does_not_hide_the_picture(shop: Shop) -> None:
    shop.post(headers=KEY)
    failed = TryOn.objects.get()
    failed.pk, failed.status, failed.image = uuid.uuid4(), TryOn.Status.FAILED, ""
    failed.created_at = timezone.now() + timedelta(minutes=5)
    failed.save(force_insert=True)
    assert shop.post(headers=KEY).headers["Idempotent-Replayed"] == "true"


def test_a_key_is_its_users_own(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    provider = fake()
    eve = get_user_model().objects.create_user("eve")
    get_credits().grant(eve, 1, reason="test")
    _, key = ApiKey.create_key(eve)
    shop.post(headers=KEY)
    response = shop.post(shop.body | {"user_id": "eve", "api_key": key}, headers=KEY)
    assert response.status_code == 200
    assert "Idempotent-Replayed" not in response.headers
    assert len(provider.calls) == 2


def test_a_key_is_forgotten_in_time(shop: Shop) -> None:
    shop.post(headers=KEY)
    old = timezone.now() - timedelta(seconds=conf.IDEMPOTENCY_TTL + 1)
    TryOn.objects.update(created_at=old)
    response = shop.post(shop.body | {"catalog_id": "dress-8"}, headers=KEY)
    assert response.status_code == 200
    assert "Idempotent-Replayed" not in response.headers
    assert sorted(TryOn.objects.values_list("idempotency_key", flat=True)) == ["", KEY["Idempotency-Key"]]


def test_a_key_is_not_forgotten_while_its_picture_is_made(shop: Shop) -> None:
    runs.admit(uuid.uuid4(), _order(shop), choose_provider())
    TryOn.objects.update(created_at=timezone.now() - timedelta(seconds=conf.IDEMPOTENCY_TTL + 1))
    assert shop.post(headers=KEY).status_code == 409


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("x" * 256, "It has 256 characters."),
        ("a\tb", "It is 'a\\tb'."),
        ("schlüssel", "It is 'schl\\xfcssel'."),
        ("", "It is ''."),
        ("   ", "It is ''."),
    ],
)
def test_an_odd_key_is_refused_by_name(shop: Shop, key: str, says: str) -> None:
    """An empty one as well: whoever sends it believes to be safe."""
    response = shop.post(headers={"Idempotency-Key": key})
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    [(name, [sentence])] = response.json()["errors"].items()
    assert name == "Idempotency-Key"
    assert sentence.startswith(says)
    assert not TryOn.objects.exists()


def test_another_constraint_than_the_keys_is_not_tried_for_ever(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refuse(run_id: uuid.UUID, *args: Any) -> TryOn:
        tries.append(run_id)
        raise IntegrityError("of something else")

    monkeypatch.setattr(runs, "admit", refuse)
    assert shop.post(headers=KEY).status_code == 500
    assert len(tries) == pipeline.TRIES


def test_a_key_costs_one_query_more(shop: Shop, django_assert_max_num_queries: Any) -> None:
    shop.post()
    with django_assert_max_num_queries(12):
        assert shop.post(headers=KEY).status_code == 200
    with django_assert_max_num_queries(2):  # the API key and the run
        assert shop.post(headers=KEY).status_code == 200


def test_what_is_asked_for_has_a_fingerprint_without_whom_and_when() -> None:
    order = runs.Order(user=None, person=jpeg(), garment="http://a.example/", request_id="1")
    assert order.fingerprint() == runs.Order(user=None, person=jpeg(), garment="http://a.example/").fingerprint()
    others = [
        runs.Order(user=None, person=jpeg(color="red"), garment="http://a.example/"),
        runs.Order(user=None, person=jpeg(), garment="http://b.example/"),
        runs.Order(user=None, person=jpeg(), garment="http://a.example/", prompt="in the rain"),
        runs.Order(user=None, person=jpeg(), garment="http://a.example/", provider="fake"),
    ]
    assert len({order.fingerprint(), *(other.fingerprint() for other in others)}) == 5
