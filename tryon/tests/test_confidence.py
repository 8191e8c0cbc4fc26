"""How sure a provider is of its picture: told at every door of the app, and believed only where it can be true."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from providers.base import TryOnRequest, TryOnResult
from providers.fake import FakeProvider
from providers.tests.vendor import VendorServer
from tryon import signals
from tryon.models import TryOn
from tryon.recovery import recover

from .dead import dead_run, leave_file
from .queue_provider import Queue, QueueProvider
from .shop import CHARGED, URL, Shop, content, png
from .test_browsable import HTML
from .test_results import TRYONS, ask

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

one_database = pytest.mark.one_database
KEY = {"Idempotency-Key": "order-7"}


class Says(FakeProvider):
    """Says of its pictures whatever it is told to, in the place of a confidence."""

    def __init__(self, alias: str, *, says: Any) -> None:
        super().__init__(alias)
        self._says = says

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        return replace(await super().generate_image(request), confidence=self._says)


class SureQueue(QueueProvider):
    """Is as sure of a job's picture as it can be."""

    async def resume(self, job: str) -> TryOnResult:
        return replace(await super().resume(job), confidence=1.0)


@pytest.fixture
def saying(tryon: Callable[..., None]) -> Callable[[Any], None]:
    """Have the provider in use say this in the place of a confidence."""

    def configure(says: Any) -> None:
        backend = {"BACKEND": f"{__name__}.Says", "OPTIONS": {"says": says}}
        tryon(PROVIDER="says", PROVIDERS={"says": backend})

    return configure


@pytest.fixture
def sure(fake: Callable[..., FakeProvider]) -> FakeProvider:
    """The provider in use is fairly sure."""
    return fake(confidence=0.84)


def generate(shop: Shop, *options: str) -> str:
    """What the command prints."""
    out = StringIO()
    urls = (f"--user-image={shop.body['user_image_url']}", f"--catalog-image={shop.body['catalog_image_url']}")
    call_command("generate_tryon", *urls, *options, stdout=out)
    return out.getvalue()


# The API


@pytest.mark.parametrize("said", [0.84, 0.0, 1.0, None])
def test_the_answer_and_the_run_have_what_the_provider_says(
    shop: Shop, fake: Callable[..., FakeProvider], said: float | None
) -> None:
    fake(confidence=said)
    answer = shop.post().json()
    assert (answer["status"], answer["confidence"]) == ("success", said)
    assert TryOn.objects.get().confidence == said


@pytest.mark.parametrize(
    "lie", [math.nan, math.inf, -math.inf, 2.0, -0.01, 84, 10**400, True, False, "0.84", b"1", [0.84], Decimal("0.84")]
)
def test_what_can_be_no_confidence_is_none_and_the_picture_is_kept(
    shop: Shop, saying: Callable[[Any], None], lie: Any
) -> None:
    saying(lie)
    response = shop.post()
    assert response.status_code == 200, response.content
    assert response.json()["confidence"] is None
    assert TryOn.objects.get().confidence is None
    assert shop.ledger() == [("grant", 3), *CHARGED]


@one_database
def test_a_whole_number_is_told_as_the_replay_tells_it(shop: Shop, saying: Callable[[Any], None]) -> None:
    saying(1)
    first, again = shop.post(headers=KEY), shop.post(headers=KEY)
    assert first.content == again.content
    assert b'"confidence":1.0' in first.content
    assert '"confidence": 1.0' in generate(shop, "--json")


@one_database
def test_an_answer_whose_picture_is_not_kept_has_it(shop: Shop, sure: FakeProvider) -> None:
    assert shop.post(shop.body | {"no_store": True}).json()["confidence"] == 0.84


def test_a_replay_has_it_whatever_the_provider_says_since(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    fake(confidence=0.8437219321)
    first = shop.post(headers=KEY)
    fake(confidence=0.1)
    again = shop.post(headers=KEY)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert again.json()["confidence"] == 0.8437219321


def test_ones_own_runs_have_it(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    """None of a run without a picture."""
    for options in ({"confidence": 0.84}, {}, {"confidence": 0.84, "error": "image_unusable"}):
        fake(**options)
        shop.post()
    listed = ask(shop.key).json()["results"]
    assert [(run["status"], run["confidence"]) for run in listed] == [
        ("failed", None),
        ("success", None),
        ("success", 0.84),
    ]
    assert [ask(shop.key, f"{TRYONS}/{run['id']}").json() for run in listed] == listed


@one_database
def test_the_schema_says_what_it_may_be(client: Client) -> None:
    schemas = client.get("/api/schema").json()["components"]["schemas"]
    for name in ("Result", "Run"):
        field = dict(schemas[name]["properties"]["confidence"])
        assert field.pop("description").startswith("How sure the provider is that the picture is right, 0 to 1;")
        assert field == {"type": "number", "format": "double", "minimum": 0, "maximum": 1, "nullable": True}
        assert "confidence" in schemas[name]["required"]


@one_database
def test_the_browsable_api_shows_it(shop: Shop, sure: FakeProvider) -> None:
    posted = Client().post(URL, shop.body, headers=HTML).content.decode()
    listed = ask(shop.key, headers=HTML).content.decode()
    for page in (posted, listed):
        assert "&quot;confidence&quot;: 0.84" in page


# The command, the admin, the signals


@one_database
def test_generate_tryon_prints_it(shop: Shop, sure: FakeProvider) -> None:
    assert "Confidence: 0.84" in generate(shop).splitlines()
    assert json.loads(generate(shop, "--json"))["confidence"] == 0.84


@one_database
def test_generate_tryon_prints_nothing_of_it_where_the_provider_does_not_say(shop: Shop) -> None:
    assert "Confidence" not in generate(shop)
    assert json.loads(generate(shop, "--json"))["confidence"] is None


@one_database
@pytest.mark.parametrize(("said", "shown"), [(0.8437219321, "0.84"), (0.0, "0.00"), (None, "-")])
def test_the_admin_shows_it(shop: Shop, operator: Client, said: float | None, shown: str) -> None:
    shop.post()
    TryOn.objects.update(confidence=said)
    listed = content(operator, reverse("admin:tryon_tryon_changelist"))
    assert f'<td class="field-sureness">{shown}</td>' in listed
    page = content(operator, reverse("admin:tryon_tryon_change", args=[TryOn.objects.get().pk]))
    row = page.partition("field-confidence")[2].partition('<div class="form-row')[0]
    assert "Confidence:" in row
    assert f'<div class="readonly">{"-" if said is None else said}</div>' in row
    assert "<input" not in row


@one_database
def test_signals_carry_it_once_there_is_a_picture(
    shop: Shop, sure: FakeProvider, fake: Callable[..., FakeProvider]
) -> None:
    heard: list[tuple[str, object]] = []

    def listen(*, status: str, confidence: object, **payload: Any) -> None:
        heard.append((status, confidence))

    all_signals = (signals.try_on_started, signals.try_on_succeeded, signals.try_on_failed)
    for signal in all_signals:
        signal.connect(listen)
    try:
        shop.post()
        fake(error="image_unusable", confidence=0.84)
        shop.post()
    finally:
        for signal in all_signals:
            signal.disconnect(listen)
    assert heard == [("running", None), ("succeeded", 0.84), ("running", None), ("failed", None)]


@one_database
def test_a_picture_that_cannot_be_charged_has_none(
    shop: Shop, sure: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the failed run nor its announcement."""
    heard: list[object] = []

    def listen(*, confidence: object, **payload: Any) -> None:
        heard.append(confidence)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no address")

    monkeypatch.setattr(FileSystemStorage, "url", refuse)
    signals.try_on_failed.connect(listen)
    try:
        assert shop.post().status_code == 500
    finally:
        signals.try_on_failed.disconnect(listen)
    assert heard == [None]
    assert TryOn.objects.get().confidence is None


# Recovery


@one_database
def test_recovery_knows_it_of_a_job_whose_picture_it_fetches(shop: Shop, tryon: Callable[..., None]) -> None:
    queue = Queue()
    queue.pictures["job-1"] = png()
    with VendorServer(queue) as vendor:
        backend = {"BACKEND": f"{__name__}.SureQueue", "OPTIONS": {"url": vendor.base_url}}
        tryon(PROVIDER="queue", PROVIDERS={"queue": backend})
        dead = dead_run(shop)
        dead.note_job("job-1")
        assert recover().captured == [dead]
    assert TryOn.objects.get().confidence == 1.0


@one_database
def test_recovery_does_not_know_it_of_a_picture_that_it_finds(shop: Shop, sure: FakeProvider, media: Path) -> None:
    leave_file(dead_run(shop), media, "png", png())
    assert len(recover().captured) == 1
    assert TryOn.objects.get().confidence is None


# The database


@pytest.mark.parametrize("value", [-0.01, 1.01, math.inf])
def test_the_database_takes_nothing_else(shop: Shop, value: float) -> None:
    shop.post()
    with pytest.raises(DatabaseError, match="tryon_confidence_from_0_to_1"), transaction.atomic():
        TryOn.objects.update(confidence=value)


def test_processes_of_the_version_before_go_on_beside_it(shop: Shop) -> None:
    """They know nothing of the column."""
    models = MigrationLoader(connection).project_state(("tryon", "0006_privacy")).apps
    now = timezone.now()
    models.get_model("tryon", "TryOn").objects.create(status="failed", credits=1, lease_until=now, finished_at=now)
    assert TryOn.objects.get().confidence is None
