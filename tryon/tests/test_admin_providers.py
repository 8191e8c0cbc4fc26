"""What the operator sees of providers: the circuits above the list of runs, the attempts and files of each run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from html import unescape
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.core.files.base import ContentFile
from django.core.files.storage import Storage
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tryon import circuit
from tryon.models import TryOn

from .shop import NOW, Shop, content

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

RUNS = reverse("admin:tryon_tryon_changelist")
FAKE = {"BACKEND": "providers.fake.FakeProvider"}
HOSTILE = '"><script>alert(1)</script>'


class CountingCache(LocMemCache):
    """Writes down what it is asked for."""

    questions: ClassVar[list[list[str]]] = []

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        self.questions.append(list(keys))
        return {key: value for key in keys if (value := super(CountingCache, self).get(key)) is not None}

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        self.questions.append([key])
        return super().get(key, default, version)


class SilentStorage(Storage):
    """A storage that gives no addresses."""

    def url(self, name: str | None) -> str:
        raise OSError("no credentials")


@pytest.fixture(autouse=True)
def three_providers(tryon: Callable[..., None]) -> None:
    """Two of them in use, with circuits that open at the first failure."""
    cache.clear()
    providers = {"first": FAKE, HOSTILE: FAKE, "idle": FAKE}
    tryon(
        PROVIDERS=providers,
        PROVIDER="first",
        FALLBACK_PROVIDERS=[HOSTILE],
        CIRCUIT_FAILURES=1,
        CIRCUIT_PAUSE=30,
    )


def text(html: str) -> str:
    """What a reader sees of it, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).split())


def circuits(page: str) -> str:
    line = re.search(r"<p>(Circuits:.*?)</p>", page, re.DOTALL)
    return line[1] if line else ""


def run(**fields: Any) -> TryOn:
    return TryOn.objects.create(credits=1, lease_until=timezone.now(), **fields)


def run_page(client: Client, tryon: TryOn) -> str:
    return content(client, reverse("admin:tryon_tryon_change", args=[tryon.pk]))


def field(page: str, name: str) -> str:
    """A field's part of a run's page."""
    found = re.search(
        rf'<div class="form-row field-{name}">(.*?)(?=<div class="form-row|</fieldset>)', page, re.DOTALL
    )
    assert found, name
    return found[1]


def table(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", field(page, "attempts_table"), re.DOTALL)
    return [[text(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


# The circuits


def test_the_circuits_of_the_providers_in_use_are_above_the_list(operator: Client) -> None:
    assert text(circuits(content(operator, RUNS))) == f"Circuits: first: closed · {HOSTILE}: closed"
    with mock.patch("tryon.circuit.time.time", return_value=NOW) as clock:
        circuit.note_failure("first")
        clock.return_value = NOW + 17.5
        line = circuits(content(operator, RUNS))
        assert text(line) == f"Circuits: first: open for 13 s · {HOSTILE}: closed"
        assert re.findall(r"icon-\w+", line) == ["icon-no", "icon-yes"], "colours and shapes, beside the words"
        clock.return_value = NOW + 31
        line = circuits(content(operator, RUNS))
        assert text(line) == f"Circuits: first: half-open · {HOSTILE}: closed"
        assert re.findall(r"icon-\w+", line) == ["icon-alert", "icon-yes"]


def test_an_alias_is_escaped(operator: Client) -> None:
    page = content(operator, RUNS)
    assert "&lt;script&gt;alert(1)" in circuits(page)
    assert HOSTILE not in page


def test_the_cache_is_asked_once_for_all_circuits(
    operator: Client, tryon: Callable[..., None], settings: Settings
) -> None:
    settings.CACHES = {**settings.CACHES, "counting": {"BACKEND": f"{__name__}.CountingCache"}}
    tryon(CIRCUIT_CACHE="counting")
    CountingCache.questions.clear()
    assert circuits(content(operator, RUNS))
    assert [len(keys) for keys in CountingCache.questions] == [2]


def test_the_list_opens_while_the_cache_of_the_circuits_is_away(
    operator: Client, tryon: Callable[..., None], settings: Settings, log: pytest.LogCaptureFixture
) -> None:
    dead = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1"}
    settings.CACHES = {**settings.CACHES, "dead": dead}
    tryon(CIRCUIT_CACHE="dead")
    shown = run()
    page = content(operator, RUNS)
    assert str(shown.pk) in page
    assert text(circuits(page)) == f"Circuits: first: closed · {HOSTILE}: closed", "as good as closed"
    assert [record.name for record in log.records if record.exc_info] == ["tryon.circuit"]


def test_the_list_opens_while_no_provider_is_in_use(operator: Client, tryon: Callable[..., None]) -> None:
    tryon(FALLBACK_PROVIDERS="first")  # tryon.E001
    page = content(operator, RUNS)
    assert "Select try-on" in page
    assert not circuits(page)


def test_where_a_run_is_chosen_for_a_form_there_are_no_circuits(operator: Client) -> None:
    assert not circuits(content(operator, f"{RUNS}?_popup=1"))


# The attempts


def test_a_runs_page_shows_its_attempts(shop: Shop, operator: Client) -> None:
    circuit.note_failure("first")
    assert shop.post().status_code == 200
    heads, passed_over, made = table(run_page(operator, TryOn.objects.get()))
    assert heads == ["No.", "provider", "model", "started", "ms", "outcome", "vendor's request id", "US dollars"]
    assert passed_over[:3] + passed_over[4:] == ["1", "first", "fake", "0", "circuit_open", "", ""]
    assert made[:3] == ["2", HOSTILE, "fake"]
    assert int(made[4]) >= 0
    assert made[5:] == ["succeeded", TryOn.objects.get().provider_request_id, "0"]


def test_attempts_are_told_to_the_second_in_the_pages_time_zone(operator: Client, settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    attempts = [{"started": "2026-11-25T20:04:05.678901+00:00"}, {"started": "one day"}, {}]
    rows = table(run_page(operator, run(attempts=attempts)))
    assert [row[3] for row in rows[1:]] == ["2026-11-26 05:04:05", "one day", ""]


@pytest.mark.parametrize("name", ["provider", "model", "started", "outcome", "request_id", "cost_usd"])
def test_what_a_vendor_said_is_escaped(operator: Client, name: str) -> None:
    page = run_page(operator, run(attempts=[{"provider": "x", name: HOSTILE}]))
    assert "<script>alert" not in page.replace("<wbr>", "")
    column = ["", "provider", "model", "started", "", "outcome", "request_id", "cost_usd"].index(name)
    assert table(page)[1][column] == HOSTILE


def test_a_long_request_id_may_take_several_lines_and_is_whole(operator: Client) -> None:
    request_id = "req_" + "0123456789" * 10 + "&<>"
    page = run_page(operator, run(attempts=[{"request_id": request_id}]))
    assert "req_01234567<wbr>" in page
    assert table(page)[1][6] == request_id


def test_runs_of_older_versions_have_no_attempts_and_one_picture(operator: Client) -> None:
    page = run_page(operator, run())
    for name in ("attempts_table", "other_pictures", "clip"):
        assert re.search(r'<div class="readonly">-</div>', field(page, name)), name
    assert re.search(r'<div class="readonly">1</div>', field(page, "pictures"))


# The files


def test_a_runs_page_leads_to_all_its_files(shop: Shop, operator: Client) -> None:
    storage = TryOn.image.field.storage
    names = [storage.save(name, ContentFile(b"x")) for name in ("a b-2.png", "a&b-3.png", "a.mp4")]
    page = run_page(operator, run(pictures=3, more_images=names[:2], video=names[2]))
    assert re.search(r'<div class="readonly">3</div>', field(page, "pictures"))
    pictures = re.findall(r'<a href="([^"]+)">([^<]+)</a>', field(page, "other_pictures"))
    assert [(unescape(url), unescape(name)) for url, name in pictures] == [
        (storage.url(name), name) for name in names[:2]
    ]
    assert f'<a href="{storage.url(names[2])}">{names[2]}</a>' in field(page, "clip")


def test_file_names_are_escaped(operator: Client) -> None:
    page = run_page(operator, run(more_images=[f"{HOSTILE}.png"], video=f"{HOSTILE}.mp4"))
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)") == 2


def test_files_of_a_storage_that_gives_no_address_are_named(
    operator: Client, settings: Settings, tryon: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    settings.STORAGES = {**settings.STORAGES, "silent": {"BACKEND": f"{__name__}.SilentStorage"}}
    tryon(STORAGE="silent")
    page = run_page(operator, run(more_images=[f"{HOSTILE}-2.png"], video="a.mp4"))
    assert text(field(page, "other_pictures")) == f"Other pictures: {HOSTILE}-2.png"
    assert text(field(page, "clip")) == "Clip: a.mp4"
    assert len([record for record in log.records if record.name == "tryon.admin"]) == 2
