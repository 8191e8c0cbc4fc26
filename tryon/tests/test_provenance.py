"""Where a picture comes from, and that people can tell: vendors' C2PA manifests, our own mark, ``ai_generated``."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from providers.base import AIProvider, TryOnRequest, TryOnResult
from providers.catalog import provider_classes
from providers.fake import FakeProvider
from providers.tests.marks import COMPOSITE, manifest_store, said, with_manifest
from providers.tests.vendor import VendorServer, openai_answer
from providers.tests.vendors import Double, picture
from providers.tests.vendors.fal import Fal
from providers.tests.vendors.fashn import Fashn
from providers.tests.vendors.vertex import Vertex
from tryon import samples, signals
from tryon.models import TryOn
from tryon.recovery import recover

from .dead import dead_run, leave_file
from .queue_provider import Queue
from .shop import Shop, content, png
from .test_every_provider import Use, each_double, use
from .test_jobs import queue
from .vendors_in_use import DOWN, fake_entry

__all__ = ["queue", "use"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

FORMATS = ("JPEG", "PNG", "WEBP")
COLORS = ("red", "green", "blue")
each_format = pytest.mark.parametrize("file_format", FORMATS)


def signed(file_format: str, *, color: str = "#b07d62") -> bytes:
    """A picture with a manifest as long as real ones are: two segments of a JPEG."""
    return with_manifest(picture(file_format, color), manifest_store(padding=100_000))


def stored(name: str) -> bytes:
    with TryOn.image.field.storage.open(name) as file:
        data: bytes = file.read()
        return data


# C2PA


@each_double
@each_format
def test_a_vendors_manifest_is_stored_byte_for_byte(
    double: type[Double], file_format: str, use: Use, shop: Shop, media: Path
) -> None:
    vendor = double()
    vendor.picture = signed(file_format)
    use(vendor)
    response = shop.post()
    assert response.status_code == 200, response.content
    run = TryOn.objects.get()
    assert stored(str(run.image.name)) == vendor.picture
    assert run.content_type == f"image/{file_format.lower()}"
    assert (response.json()["ai_generated"], run.ai_generated) == (True, True)


@pytest.mark.parametrize("double", [Fal, Fashn, Vertex])
def test_so_are_those_of_several_pictures(
    double: type[Double], use: Use, shop: Shop, media: Path, tryon: Callable[..., None]
) -> None:
    vendor = double()
    vendor.picture = signed("PNG")
    use(vendor)
    tryon(MAX_PICTURES=2)
    assert shop.post({**shop.body, "pictures": 2}).status_code == 200
    run = TryOn.objects.get()
    assert [stored(name) for name in (str(run.image.name), *run.more_images)] == [vendor.picture] * 2


def test_each_of_several_pictures_keeps_its_own_manifest(
    shop: Shop, vendor: VendorServer, media: Path, tryon: Callable[..., None]
) -> None:
    sent = [signed(file_format, color=color) for file_format, color in zip(FORMATS, COLORS, strict=True)]
    vendor.answer = openai_answer(b"", data=[{"b64_json": b64encode(data).decode()} for data in sent])
    tryon(MAX_PICTURES=3)
    assert shop.post({**shop.body, "pictures": 3}).status_code == 200
    run = TryOn.objects.get()
    names = [str(run.image.name), *run.more_images]
    assert [stored(name) for name in names] == sent
    assert [Path(name).suffix for name in names] == [".jpg", ".png", ".webp"]


@each_format
def test_the_admins_thumbnail_leaves_the_stored_file_alone(
    file_format: str, shop: Shop, vendor: VendorServer, operator: Client, media: Path
) -> None:
    vendor.answer = openai_answer(signed(file_format))
    assert shop.post().status_code == 200
    (file,) = media.iterdir()
    before = file.stat()
    run = TryOn.objects.get()
    small = operator.get(reverse("admin:tryon_tryon_thumbnail", args=[run.pk]))
    assert small.status_code == 200
    assert b"c2pa" not in small.content, "a manifest would be about another file"
    assert operator.get(reverse("admin:tryon_tryon_change", args=[run.pk])).status_code == 200
    assert list(media.iterdir()) == [file]
    assert file.read_bytes() == signed(file_format)
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_a_manifest_that_recovery_finds_stays_as_it_is(shop: Shop, media: Path) -> None:
    file = leave_file(dead := dead_run(shop), media, "jpg", signed("JPEG"))
    assert recover().captured == [dead]
    assert file.read_bytes() == signed("JPEG")


# Our own pictures


def test_the_picture_of_the_readme_says_that_it_is_a_composite() -> None:
    assert said(Path(samples.__file__).with_name("result.jpg").read_bytes()) == COMPOSITE


def test_only_local_and_fake_make_pictures_without_a_generative_model() -> None:
    without = {cls.__name__ for cls in provider_classes() if not cls.ai_generated}
    assert without == {"LocalProvider", "FakeProvider"}


# ai_generated


class Mirror(AIProvider):
    """Somebody's own provider, which says nothing of how it makes its pictures."""

    name: ClassVar[str] = "Mirror"

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        return TryOnResult(data=png(96, 128), content_type="image/png", model="mirror-1")


class HonestMirror(Mirror):
    ai_generated = False


@pytest.mark.parametrize(("cls", "expected"), [(Mirror, True), (HonestMirror, False), (FakeProvider, False)])
def test_the_answer_says_what_the_providers_class_says(
    cls: type[AIProvider], expected: bool, shop: Shop, tryon: Callable[..., None]
) -> None:
    """True unless it says otherwise."""
    tryon(PROVIDER="own", PROVIDERS={"own": {"BACKEND": f"{cls.__module__}.{cls.__name__}"}})
    assert shop.post().json()["ai_generated"] is expected
    assert TryOn.objects.get().ai_generated is expected


@pytest.mark.parametrize("is_down", [True, False])
def test_with_a_fallback_it_is_about_who_made_the_picture(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None], is_down: bool
) -> None:
    tryon(RETRIES=0)
    backed_up(stripes=fake_entry())
    if is_down:
        vendor.answer = DOWN
    answer = shop.post().json()
    assert (answer["provider"], answer["ai_generated"]) == (("stripes", False) if is_down else ("openai", True))


def test_a_generative_fallback_of_one_that_is_not(
    shop: Shop, vendor: VendorServer, backed_up: Callable[..., None], tryon: Callable[..., None]
) -> None:
    backed_up(stripes=fake_entry("provider_unavailable"))
    tryon(RETRIES=0, PROVIDER="stripes", FALLBACK_PROVIDERS=["openai"])
    answer = shop.post().json()
    assert (answer["provider"], answer["ai_generated"]) == ("openai", True)


def test_a_replay_says_what_was_true_of_the_picture(
    shop: Shop, vendor: VendorServer, tryon: Callable[..., None]
) -> None:
    """Whatever provider is in use since."""
    key = {"Idempotency-Key": "order-7"}
    assert shop.post(headers=key).json()["ai_generated"] is True
    tryon(PROVIDER="stripes", PROVIDERS={"stripes": fake_entry()})
    again = shop.post(headers=key)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json()["ai_generated"] is True


def test_of_a_run_from_before_nobody_knows(shop: Shop) -> None:
    key = {"Idempotency-Key": "order-7"}
    shop.post(headers=key)
    TryOn.objects.update(ai_generated=None)
    assert shop.post(headers=key).json()["ai_generated"] is None


@pytest.fixture
def announced() -> Iterator[list[tuple[str, object]]]:
    """Status and ``ai_generated`` of each announcement."""
    heard: list[tuple[str, object]] = []

    def listen(*, status: str, ai_generated: object, **payload: Any) -> None:
        heard.append((status, ai_generated))

    all_signals = (signals.try_on_started, signals.try_on_succeeded, signals.try_on_failed)
    for signal in all_signals:
        signal.connect(listen)
    yield heard
    for signal in all_signals:
        signal.disconnect(listen)


def test_signals_carry_it_once_there_is_a_picture(
    shop: Shop, vendor: VendorServer, announced: list[tuple[str, object]], tryon: Callable[..., None]
) -> None:
    tryon(RETRIES=0)
    shop.post()
    vendor.answer = DOWN
    shop.post()
    assert announced == [("running", None), ("succeeded", True), ("running", None), ("failed", None)]


def test_generate_tryon_prints_it(shop: Shop, vendor: VendorServer) -> None:
    out = StringIO()
    urls = (f"--user-image={shop.body['user_image_url']}", f"--catalog-image={shop.body['catalog_image_url']}")
    call_command("generate_tryon", *urls, "--json", stdout=out)
    assert json.loads(out.getvalue())["ai_generated"] is True


@pytest.mark.parametrize(("value", "icon"), [(True, "icon-yes"), (False, "icon-no"), (None, "-")])
def test_the_admin_shows_it(shop: Shop, operator: Client, value: bool | None, icon: str) -> None:
    shop.post()
    TryOn.objects.update(ai_generated=value)
    page = content(operator, reverse("admin:tryon_tryon_change", args=[TryOn.objects.get().pk]))
    row = page.partition("field-ai_generated")[2].partition('<div class="form-row')[0]
    assert "AI-generated:" in row
    assert icon in row


# Recovery


def test_it_is_known_of_a_job_whose_picture_recovery_fetches(shop: Shop, queue: Queue) -> None:
    dead = dead_run(shop)
    dead.note_job("job-1")
    queue.pictures["job-1"] = png()
    assert recover().captured == [dead]
    assert TryOn.objects.get().ai_generated is True


@pytest.mark.parametrize(
    ("primary", "fallbacks", "expected"),
    [
        (FakeProvider, [], False),
        (Mirror, [], True),
        (Mirror, [Mirror], True),
        (Mirror, [FakeProvider], None),
        (FakeProvider, [Mirror], None),
    ],
)
def test_of_a_picture_that_recovery_finds_it_is_said_only_if_all_who_may_have_made_it_agree(
    primary: type[AIProvider],
    fallbacks: list[type[AIProvider]],
    expected: bool | None,
    shop: Shop,
    media: Path,
    tryon: Callable[..., None],
) -> None:
    entries = {
        f"p{number}": {"BACKEND": f"{cls.__module__}.{cls.__name__}"}
        for number, cls in enumerate((primary, *fallbacks))
    }
    tryon(PROVIDER="p0", PROVIDERS=entries, FALLBACK_PROVIDERS=list(entries)[1:])
    leave_file(dead_run(shop), media, "png", png())
    assert len(recover().captured) == 1
    assert TryOn.objects.get().ai_generated is expected


def test_nor_is_it_known_when_its_provider_has_left_the_settings(
    shop: Shop, media: Path, tryon: Callable[..., None]
) -> None:
    leave_file(dead_run(shop), media, "png", png())
    tryon(PROVIDER="p", PROVIDERS={"p": {"BACKEND": f"{__name__}.Mirror"}})
    assert len(recover().captured) == 1
    assert TryOn.objects.get().ai_generated is None
