"""A photo that the provider cannot use: whoever sent it is told which one and what to change, and pays nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils.html import escape

from providers.base import AIProvider, TryOnRequest, TryOnResult
from providers.errors import ImageUnusable
from tryon.dispatch import providers
from tryon.models import TryOn

from .shop import RELEASED, URL, Shop
from .test_browsable import HTML
from .vendors_in_use import asked, attempts, fake_entry

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database", "picky"),
    pytest.mark.one_database,
]

SENTENCES = {
    "person": "Person photo: the face isn't visible. Use a photo that shows the person from the front.",
    "garment": "Garment photo: it shows a person. Use a photo of the garment alone, laid flat.",
}
each_photo = pytest.mark.parametrize("which", SENTENCES)


class Picky(AIProvider):
    """Finds fault with one of the photos."""

    name: ClassVar[str] = "Picky"

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        self.which = "person"
        self.calls = 0

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        self.calls += 1
        raise ImageUnusable(SENTENCES[self.which])


@pytest.fixture
def picky(shop: Shop, tryon: Callable[..., None]) -> Picky:
    """The provider in use, with a fallback that would take the photos."""
    entries = {"picky": {"BACKEND": f"{__name__}.Picky"}, "backup": fake_entry()}
    tryon(PROVIDER="picky", PROVIDERS=entries, FALLBACK_PROVIDERS=["backup"])
    provider = providers["picky"]
    assert isinstance(provider, Picky)
    return provider


def assert_refused_once(picky: Picky, which: str) -> None:
    """By the one provider and no other; what the run's row says."""
    assert (picky.calls, asked("backup")) == (1, 0)
    run = TryOn.objects.get()
    assert attempts(run) == [("picky", "image_unusable")]
    assert (run.status, run.error_code, run.confidence) == ("failed", "image_unusable", None)
    assert run.error_detail == f"ImageUnusable: {SENTENCES[which]}"


@each_photo
def test_the_api_says_which_photo_and_charges_nothing(shop: Shop, picky: Picky, which: str) -> None:
    picky.which = which
    response = shop.post()
    assert (response.status_code, response.headers["Content-Type"]) == (422, "application/json")
    assert response.json() == {"detail": SENTENCES[which], "code": "image_unusable"}
    assert_refused_once(picky, which)
    assert shop.ledger() == [("grant", 3), *RELEASED]


@each_photo
def test_so_does_the_browsable_api(shop: Shop, picky: Picky, which: str) -> None:
    picky.which = which
    response = Client().post(URL, shop.body, headers=HTML)
    assert response.status_code == 422
    assert escape(SENTENCES[which]) in response.content.decode()
    assert_refused_once(picky, which)
    assert shop.ledger() == [("grant", 3), *RELEASED]


@each_photo
def test_so_does_the_command(shop: Shop, picky: Picky, which: str) -> None:
    picky.which = which
    urls = (f"--user-image={shop.body['user_image_url']}", f"--catalog-image={shop.body['catalog_image_url']}")
    with pytest.raises(CommandError) as caught:
        call_command("generate_tryon", *urls, "--user=ada")
    assert str(caught.value) == SENTENCES[which]
    assert_refused_once(picky, which)
    assert shop.ledger() == [("grant", 3), *RELEASED]
