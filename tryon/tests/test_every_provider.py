"""Every provider through the HTTP API, against its vendor's double: the picture, and each way to fail."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from PIL import Image
from pytest_httpserver import HTTPServer

from providers.catalog import provider_classes
from providers.errors import ContentRefused, InvalidProviderResponse, ProviderTimeout
from providers.rest import JobProvider
from providers.tests.vendor import Answer, VendorServer
from providers.tests.vendors import KEY, Double, Trouble
from providers.tests.vendors.all import DOUBLES
from providers.tests.vendors.vertex import Vertex
from tryon.dispatch import LOOK_UPS, providers
from tryon.exceptions import STATUS
from tryon.models import CreditAccount, TryOn

from .shop import Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database"), pytest.mark.one_database]

each_double = pytest.mark.parametrize("double", [pytest.param(double, id=double.__name__) for double in DOUBLES])

Use = Callable[[Double], VendorServer]


@pytest.fixture
def use(tryon: Callable[..., None]) -> Iterator[Use]:
    """Have AI_PROVIDER name a double's provider, as this project's settings describe it, and the double serve it."""
    servers: list[VendorServer] = []

    def choose(double: Double) -> VendorServer:
        server = VendorServer(double).__enter__()
        servers.append(server)
        entry = settings.TRYON["PROVIDERS"][double.alias]
        assert entry["BACKEND"] == double.backend
        entry = {**entry, "OPTIONS": {**entry.get("OPTIONS", {}), **double.options(server)}}
        # Less than any vendor asks to wait.
        tryon(PROVIDER=double.alias, PROVIDERS={double.alias: entry}, RETRIES=0, DEADLINE=5)
        return server

    yield choose
    for server in servers:
        server.__exit__(None, None, None)


def test_each_provider_that_has_a_vendor_has_its_double() -> None:
    vendors = {f"{cls.__module__}.{cls.__name__}" for cls in provider_classes()}
    assert {double.backend for double in DOUBLES} == vendors - {
        "providers.fake.FakeProvider",
        "providers.local.LocalProvider",
    }


@each_double
def test_the_picture_is_stored_as_the_vendor_sent_it(
    double: type[Double], use: Use, shop: Shop, media: Path, client: Any
) -> None:
    vendor = double()
    server = use(vendor)
    response = shop.post()
    assert response.status_code == 200, response.content
    answer = response.json()
    run = TryOn.objects.get()
    with run.image.open() as file:
        assert file.read() == vendor.picture
    assert (answer["provider"], answer["model"]) == (double.alias, run.model)
    assert (run.width, run.height) == (96, 128)
    (attempt,) = run.attempts
    assert (attempt["provider"], attempt["model"], attempt["outcome"]) == (double.alias, run.model, "succeeded")
    assert [vendor.step(call) for call in server.calls].count(vendor.steps[0]) == 1
    if providers[double.alias].makes_video:
        with run.video.open() as clip:
            assert clip.read(12)[4:8] == b"ftyp"
        assert answer["video_url"].endswith(".mp4")
    else:
        assert answer["video_url"] is None
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("capture", 0)]


@each_double
def test_each_trouble_has_its_code_and_status_and_costs_nothing(
    double: type[Double], use: Use, shop: Shop, media: Path, log: pytest.LogCaptureFixture
) -> None:
    """One loop for all of them, for the sake of time; what is wrong is told all at once.

    Those that all vendors share come at the first step here; at every step they come in test_vendors.py.
    """
    log.set_level(logging.INFO)
    vendor = double()
    server = use(vendor)
    assert [
        f"{trouble.name} at {trouble.step}: {what}"
        for trouble in (*vendor.common_troubles(vendor.steps[0]), *vendor.own_troubles())
        for what in _what_is_wrong(vendor, server, trouble, shop)
    ] == []
    assert KEY not in log.text
    assert not media.exists() or not list(media.iterdir())
    assert CreditAccount.objects.get(user=shop.user).balance == 3


def _what_is_wrong(vendor: Double, server: VendorServer, trouble: Trouble, shop: Shop) -> Iterator[str]:
    server.calls.clear()
    vendor.trouble = trouble
    cache.clear()
    response = shop.post()
    answer = response.json()
    code = trouble.expected.code
    if (answer.get("code"), response.status_code) != (code, STATUS[code]):
        yield f"{response.status_code} {answer}, not {STATUS[code]} {code}"
    if (
        trouble.retry_after
        and STATUS[code] == 503
        and response.headers.get("Retry-After") != f"{trouble.retry_after:.0f}"
    ):
        yield f"Retry-After {response.headers.get('Retry-After')}"
    run = TryOn.objects.latest("created_at")
    if KEY in f"{response.content!r}{run.error_detail}{run.attempts}":
        yield "the key leaks"
    if issubclass(trouble.expected, ContentRefused) and trouble.category not in answer.get("detail", ""):
        yield f"the category is not in {answer.get('detail')!r}"
    steps = [vendor.step(call) for call in server.calls]
    if steps.count(vendor.steps[0]) != 1:
        yield f"{steps.count(vendor.steps[0])} calls that may be paid for"
    # A job that may still give its picture is asked for again, which is free.
    again = trouble.expected.retryable or issubclass(trouble.expected, InvalidProviderResponse)
    most = 1 + LOOK_UPS if providers[vendor.alias].keeps_jobs and trouble.step != vendor.steps[0] and again else 1
    if not 1 <= steps.count(trouble.step) <= most:
        yield f"{steps.count(trouble.step)} calls of the step"
    if [kind for kind, _ in shop.ledger()[-2:]] != ["hold", "release"]:
        yield f"the ledger ends with {shop.ledger()[-2:]}"


@pytest.mark.parametrize(
    ("double", "step"),
    [pytest.param(each, step, id=f"{each.__name__}: {step}") for each in DOUBLES for step in each.steps],
)
def test_a_vendor_that_hangs_is_left_at_the_deadline(
    double: type[Double],
    step: str,
    use: Use,
    shop: Shop,
    tryon: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(JobProvider, "patience", 0.05)
    vendor = double()
    vendor.trouble = Trouble("hang", step, Answer(end="hang"), ProviderTimeout)
    server = use(vendor)
    tryon(DEADLINE=0.7)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (504, "provider_timeout")
    assert server.hung_up.wait(10)
    assert shop.ledger() == [("grant", 3), ("hold", -1), ("release", 1)]


@each_double
def test_a_picture_that_is_none_is_not_stored(double: type[Double], use: Use, shop: Shop, media: Path) -> None:
    vendor = double()
    vendor.picture = b"\x89PNG\r\n\x1a\n that is all"
    use(vendor)
    response = shop.post()
    assert (response.status_code, response.json()["code"]) == (502, "provider_invalid_response")
    assert shop.balance() == 3
    assert not media.exists() or not list(media.iterdir())


def test_a_photo_of_a_type_that_a_vendor_does_not_read_reaches_it_as_jpeg(
    use: Use, shop: Shop, photos: HTTPServer
) -> None:
    out = io.BytesIO()
    Image.new("RGB", (300, 400), "navy").save(out, "WEBP")
    photos.expect_request("/garment.webp").respond_with_data(out.getvalue(), content_type="image/webp")
    server = use(Vertex())
    shop.body["catalog_image_url"] = photos.url_for("/garment.webp")
    assert shop.post().status_code == 200
    (instance,) = json.loads(server.calls[0].body)["instances"]
    garment = instance["productImages"][0]["image"]
    assert garment["mimeType"] == "image/jpeg"
    assert base64.b64decode(garment["bytesBase64Encoded"]).startswith(b"\xff\xd8")
