"""A provider from outside of this repository: one file, and the settings. Nothing here knows of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from providers.tests.readme import project
from providers.tests.vendor import VendorServer
from tryon.models import TryOn

from .shop import Shop, jpeg

__all__ = ["project"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database", "project"),
    pytest.mark.one_database,
]


def use(tryon: Callable[..., None], alias: str, backend: str, **options: Any) -> None:
    tryon(PROVIDER=alias, PROVIDERS={alias: {"BACKEND": backend, "OPTIONS": options}})


@pytest.mark.parametrize("name", ["Acme", "Tailor"])
def test_a_file_and_the_settings_make_a_provider(
    shop: Shop, media: Path, tryon: Callable[..., None], project: Path, name: str
) -> None:
    vendor = getattr(import_module("shop.doubles"), name)()
    with VendorServer(vendor) as server:
        use(tryon, vendor.alias, vendor.backend, **vendor.options(server))
        assert not [message for message in run_checks() if message.is_serious()]
        response = shop.post()

    assert response.status_code == 200, response.content
    assert [file.read_bytes() for file in media.iterdir()] == [vendor.picture]
    run = TryOn.objects.get()
    assert (run.provider, run.model) == (vendor.alias, response.json()["model"])
    assert (run.width, run.height, run.content_type) == (96, 128, "image/png")
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]
    assert {vendor.step(call) for call in server.calls} == set(vendor.steps)
    module = sys.modules[vendor.backend.rpartition(".")[0]]
    assert Path(str(module.__file__)).is_relative_to(project)


def test_a_class_with_generate_image_and_nothing_else_is_enough(
    shop: Shop, media: Path, tryon: Callable[..., None]
) -> None:
    use(tryon, "mine", "shop.mine.MyProvider")
    response = shop.post()
    assert response.status_code == 200, response.content
    assert [file.read_bytes() for file in media.iterdir()] == [jpeg(color="navy")]
    assert TryOn.objects.get().provider == "mine"


def test_its_options_are_checked_by_name(shop: Shop, tryon: Callable[..., None]) -> None:
    use(tryon, "acme", "shop.acme.AcmeProvider", api_key="key", qualty="final")
    [message] = [message for message in run_checks() if message.id == "tryon.E002"]
    assert "unknown option 'qualty'" in message.msg
    assert shop.post().status_code >= 500
    assert shop.balance() == 3
