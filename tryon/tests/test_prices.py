"""What a picture costs: by provider, model and size, the most particular price first."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable

import pytest

from providers.base import AIProvider
from tryon import checks, runs
from tryon.credits import LedgerCredits, price_of
from tryon.dispatch import choose_provider
from tryon.models import CreditEntry, TryOn

from .shop import Shop, jpeg

FAKE = "providers.fake.FakeProvider"


class Vendor(AIProvider):
    """A provider that calls its model and its size whatever the test says."""

    def __init__(self, alias: str, model: str = "", size: str = "") -> None:
        super().__init__(alias)
        self._model, self._size = model, size

    @property
    def model(self) -> str:
        return self._model

    @property
    def size(self) -> str:
        return self._size


# Of the most particular to the least.
FORMS = ["acme/org/sharp/1K", "acme//1K", "acme/org/sharp", "acme"]
OTHERS = {"acm": 90, "acme2": 91, "acme/org": 92, "acme/org/sharp/2K": 93, "acme//2K": 94, "other": 95}


@pytest.mark.parametrize("count", range(len(FORMS) + 1))
def test_the_most_particular_price_counts(tryon: Callable[..., None], count: int) -> None:
    vendor = Vendor("acme", "org/sharp", "1K")
    for forms in itertools.combinations(FORMS, count):
        tryon(PRICE=7, PRICES={**OTHERS, **{form: 10 + FORMS.index(form) for form in forms}})
        expected = 10 + FORMS.index(forms[0]) if forms else 7
        assert price_of(vendor) == expected, f"of {forms}"


@pytest.mark.parametrize(
    ("vendor", "price"),
    [
        (Vendor("acme"), 1),
        (Vendor("acme", "sharp"), 2),
        (Vendor("acme", "", "1K"), 3),
        (Vendor("acme", "sharp", "1K"), 4),
        (Vendor("acme", "blurred", "1K"), 3),
        (Vendor("acme", "sharp", "2K"), 2),
        (Vendor("acme", "blurred", "2K"), 1),
        (Vendor("another", "sharp", "1K"), 9),
    ],
)
def test_what_has_no_price_of_its_own_has_the_next_wider_one(
    tryon: Callable[..., None], vendor: Vendor, price: int
) -> None:
    tryon(PRICE=9, PRICES={"acme": 1, "acme/sharp": 2, "acme//1K": 3, "acme/sharp/1K": 4})
    assert price_of(vendor) == price


def test_a_price_may_be_nothing(tryon: Callable[..., None]) -> None:
    tryon(PRICE=9, PRICES={"acme": 5, "acme/sharp": 0})
    assert price_of(Vendor("acme", "sharp")) == 0


# Over HTTP, with money

FAKES = {
    "fake": {"BACKEND": FAKE, "OPTIONS": {"size": "64x96"}},
    "large": {"BACKEND": FAKE, "OPTIONS": {"size": "128x192"}},
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    ("provider", "prices", "price"),
    [
        ("fake", {"fake": 2, "large": 3}, 2),
        ("large", {"fake": 2, "large": 3}, 3),
        ("large", {"large": 3, "large/fake": 2}, 2),
        ("large", {"large/fake": 3, "large//128x192": 2}, 2),
        ("large", {"large//128x192": 3, "large/fake/128x192": 2, "large/fake/64x96": 1}, 2),
        ("fake", {"fake": 0}, 0),
        ("fake", {"large": 3}, 1),
    ],
)
def test_answer_run_and_ledger_agree_on_the_price(
    shop: Shop, tryon: Callable[..., None], provider: str, prices: dict[str, int], price: int
) -> None:
    tryon(PROVIDER=provider, PROVIDERS=FAKES, PRICES=prices)
    response = shop.post()
    assert (response.status_code, response.json()["credits"]) == (200, price)
    assert TryOn.objects.get().credits == price
    assert shop.ledger() == [("grant", 3), ("hold", -price), ("capture", 0)]
    assert shop.balance() == 3 - price


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
def test_a_price_above_the_balance_is_refused_and_leaves_no_trace(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(PRICE=1, PRICES={"fake": 4})
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (403, "insufficient_credits")
    assert response.json()["detail"] == "This picture costs 4 credit(s); your balance is 3."
    assert shop.ledger() == [("grant", 3)]
    assert not TryOn.objects.exists()

    LedgerCredits().grant(shop.user, 1)
    assert shop.post().status_code == 200
    assert shop.balance() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
def test_the_price_is_that_of_the_provider_that_was_asked_for(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(PROVIDER="fake", PROVIDERS=FAKES, PRICES={"large": 3})
    order = runs.Order(user=shop.user, person=jpeg(), garment=jpeg(), provider="large")
    run = runs.admit(uuid.uuid4(), order, choose_provider("large"))
    assert CreditEntry.objects.get(key=run.pk).amount == -3


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
def test_a_failure_gives_back_what_was_held_and_not_what_it_costs_by_then(
    shop: Shop, tryon: Callable[..., None]
) -> None:
    tryon(PRICES={"fake": 2})
    order = runs.Order(user=shop.user, person=jpeg(), garment=jpeg())
    run = runs.admit(uuid.uuid4(), order, choose_provider())
    tryon(PRICES={"fake": 3})
    assert runs.fail(run, TryOn.Status.FAILED, "error", "")
    assert shop.ledger() == [("grant", 3), ("hold", -2), ("release", 2)]


def test_w007_a_price_that_no_picture_will_have(tryon: Callable[..., None]) -> None:
    fake = {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"size": "64x96"}}
    right = {"fake": 1, "fake/fake": 2, "fake//64x96": 3, "fake/fake/64x96": 4}
    tryon(PROVIDER="fake", PROVIDERS={"fake": fake}, PRICES=right | {"fake/fak": 5, "fake/fake/9x9": 6})
    messages = checks.check_prices(None)
    assert [message.id for message in messages] == ["tryon.W007"] * 2
    assert "'fake/fak'" in messages[0].msg
    assert str(messages[1].hint) == "Use one of: 'fake/fake/64x96', 'fake//64x96', 'fake/fake', 'fake'."
