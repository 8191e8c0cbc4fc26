"""A user's own runs over HTTP: listed, looked at and erased by their user, and unseen by everybody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern
from django.utils import timezone

from providers.fake import FakeProvider
from tryon import erasing, runs, urls
from tryon.credits import get_credits
from tryon.dispatch import choose_provider
from tryon.exceptions import STATUS, sentence_for
from tryon.heartbeat import heartbeat
from tryon.models import ApiKey, TryOn
from tryon.recovery import recover

from .dead import order_of
from .shop import URL, Shop

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
]

TRYONS = "/api/v1/tryons"


def ask(key: str, path: str = TRYONS, method: str = "GET", **options: Any) -> Any:
    """Ask as the owner of a key does."""
    headers = {"X-API-Key": key} | options.pop("headers", {})
    return Client(raise_request_exception=False).generic(method, path, headers=headers, **options)


@pytest.fixture
def bob(shop: Shop) -> Shop:
    """Another shopper, with a key and credits."""
    user = get_user_model().objects.create_user("bob")
    get_credits().grant(user, 3, reason="test")
    _, key = ApiKey.create_key(user)
    return Shop(user, key, shop.body | {"user_id": "bob", "api_key": key})


def made(user: User, count: int, **fields: Any) -> list[TryOn]:
    """Failed runs, one a second."""
    now = timezone.now()
    defaults = {"status": "failed", "credits": 1, "lease_until": now, "finished_at": now, "announced_at": now}
    return TryOn.objects.bulk_create(
        TryOn(user=user, created_at=now - timedelta(seconds=n), **defaults | fields) for n in range(count)
    )


def pages(key: str, first: str) -> list[list[str]]:
    """The ids of all pages, followed by their links."""
    found, url = [], first
    while url:
        answer = ask(key, url).json()
        found.append([run["id"] for run in answer["results"]])
        url = (answer["next"] or "").removeprefix("http://testserver")
    return found


def test_a_run_is_told_as_its_answer_was(shop: Shop) -> None:
    answer = shop.post().json()
    listed = ask(shop.key)
    one = ask(shop.key, f"{TRYONS}/{answer['id']}")
    assert (listed.status_code, one.status_code) == (200, 200)
    assert listed.json() == {"results": [one.json()], "next": None}
    told = {name: value for name, value in answer.items() if not name.endswith("_base64")}
    assert told == {name: one.json().get(name) for name in told}
    assert one.json()["error"] is None
    assert one.json()["created_at"].startswith(f"{TryOn.objects.get().created_at:%Y-%m-%dT%H:%M:%S}")
    for response in (listed, one):
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert len(response.headers["X-Request-ID"]) == 32


def test_a_failure_is_told_in_words_for_the_client(shop: Shop, fake: Callable[..., FakeProvider]) -> None:
    fake(error="provider_timeout")
    assert shop.post().status_code == 504
    secret = TryOn.objects.get().error_detail
    assert secret.startswith("ProviderTimeout: ")
    response = ask(shop.key)
    [run] = response.json()["results"]
    assert (run["status"], run["credits"], run["image_url"], run["image_urls"]) == ("failed", 0, None, [])
    assert run["error"] == {"code": "provider_timeout", "detail": sentence_for("provider_timeout")}
    assert secret not in response.content.decode()


def test_a_run_that_is_being_made_is_told(shop: Shop) -> None:
    run = runs.admit(TryOn().pk, order_of(shop), choose_provider())
    told = ask(shop.key, f"{TRYONS}/{run.pk}").json()
    assert (told["status"], told["credits"], told["latency_ms"], told["error"]) == ("running", 0, None, None)


def test_a_picture_that_was_not_kept_has_no_address(shop: Shop) -> None:
    shop.post()
    TryOn.objects.update(no_store=True)
    [run] = ask(shop.key).json()["results"]
    assert (run["status"], run["image_url"], run["image_urls"]) == ("success", None, [])


@pytest.mark.one_database
def test_every_code_has_a_sentence() -> None:
    for code in [*STATUS, "abandoned", "cancelled", "no such code"]:
        assert sentence_for(code).endswith("."), code


# Pages


def test_pages_are_of_the_newest_first_and_hold_each_run_once(shop: Shop) -> None:
    expected = [str(run.pk) for run in made(shop.user, 7)]
    assert pages(shop.key, f"{TRYONS}?limit=3") == [expected[:3], expected[3:6], expected[6:]]
    assert pages(shop.key, f"{TRYONS}?limit=7") == [expected]


def test_runs_of_one_moment_are_each_on_one_page(shop: Shop) -> None:
    expected = {str(run.pk) for run in made(shop.user, 9)}
    TryOn.objects.update(created_at=timezone.now())
    found = pages(shop.key, f"{TRYONS}?limit=2")
    assert [len(page) for page in found] == [2, 2, 2, 2, 1]
    assert {run for page in found for run in page} == expected


def test_a_list_goes_on_where_the_run_at_its_end_was_erased(shop: Shop) -> None:
    expected = [str(run.pk) for run in made(shop.user, 4)]
    first = ask(shop.key, f"{TRYONS}?limit=2").json()
    TryOn.objects.filter(pk__in=expected[:2]).delete()
    assert pages(shop.key, first["next"].removeprefix("http://testserver")) == [expected[2:]]


@pytest.mark.one_database
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("before=x", "before"),
        ("before=%00", "before"),
        ("before=%ff", "before"),
        ("before=" + "x" * 400, "before"),
        ("before=WyIyMDI2LTExLTI2IiwiYSJd.x", "before"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_by_its_name(shop: Shop, query: str, field: str) -> None:
    response = ask(shop.key, f"{TRYONS}?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert list(response.json()["errors"]) == [field]


@pytest.mark.one_database
def test_a_thousand_parameters_are_refused_in_json(shop: Shop) -> None:
    for path in (TRYONS, URL):
        response = ask(shop.key, f"{path}?{'a&' * 1001}", headers={"Accept": "application/json"})
        assert (response.status_code, response.json()["code"]) == (400, "parse_error")


@pytest.mark.one_database
def test_the_queries_of_a_list_do_not_grow_with_it(shop: Shop) -> None:
    made(shop.user, 2)
    ask(shop.key)  # notes the use of the key

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ask(shop.key, f"{TRYONS}?limit=100").status_code == 200
        return len(captured)

    before = queries()
    made(shop.user, 50, status="succeeded", image="a.png", more_images=["b.png"])
    assert queries() == before == 2


# Erasing


def test_a_user_erases_one_run(shop: Shop, media: Path) -> None:
    first, second = shop.post().json()["id"], shop.post().json()["id"]
    heartbeat.beat()
    response = ask(shop.key, f"{TRYONS}/{first}", "DELETE")
    assert (response.status_code, response.json()) == (202, {"erasing": 1})
    assert [str(run.pk) for run in TryOn.objects.all()] == [second]
    assert len(list(media.iterdir())) == 1
    assert ask(shop.key, f"{TRYONS}/{first}").status_code == 404
    assert ask(shop.key, f"{TRYONS}/{first}", "DELETE").status_code == 404
    assert shop.balance() == 1


def test_a_user_erases_everything_of_theirs_and_nothing_else(shop: Shop, bob: Shop, media: Path) -> None:
    shop.post()
    his = bob.post().json()["id"]
    made(shop.user, 3)
    heartbeat.beat()
    response = ask(shop.key, TRYONS, "DELETE")
    assert (response.status_code, response.json()) == (202, {"erasing": 4})
    assert [str(run.pk) for run in TryOn.objects.all()] == [his]
    assert len(list(media.iterdir())) == 1
    assert ask(shop.key, TRYONS, "DELETE").json() == {"erasing": 0}


def test_a_run_that_is_being_made_is_unseen_at_once_and_erased_later(shop: Shop) -> None:
    run = runs.admit(TryOn().pk, order_of(shop), choose_provider())
    assert ask(shop.key, f"{TRYONS}/{run.pk}", "DELETE").json() == {"erasing": 1}
    assert ask(shop.key).json()["results"] == []
    assert ask(shop.key, f"{TRYONS}/{run.pk}").status_code == 404
    run.refresh_from_db()
    assert (run.status, run.to_erase) == ("running", True)


@pytest.mark.one_database
def test_more_runs_than_are_erased_at_once_are_gone_with_the_next_look(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "AT_ONCE", 3)
    made(shop.user, 10)
    assert ask(shop.key, TRYONS, "DELETE").json() == {"erasing": 10}
    assert ask(shop.key).json()["results"] == []
    assert TryOn.objects.count() == 7
    recover()
    assert not TryOn.objects.exists()


# Who may


NOBODYS = (str(uuid4()), "nonsense", "%00", "1", "..", "%F0%9F%91%97", "x" * 1000)


@pytest.mark.one_database
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_anothers_an_erased_and_a_nonsense_id_are_the_same_404(shop: Shop, bob: Shop, method: str) -> None:
    his, erased = bob.post().json()["id"], shop.post().json()["id"]
    TryOn.objects.filter(pk=erased).flag()
    answers = {
        (response.status_code, response.content, response.headers["Content-Type"])
        for response in (ask(shop.key, f"{TRYONS}/{id_}", method) for id_ in (his, erased, *NOBODYS))
    }
    [(status, content, _)] = answers
    assert status == 404
    assert content in (b"", b'{"detail":"Not found.","code":"not_found"}')
    assert not TryOn.objects.get(pk=his).to_erase


@pytest.mark.one_database
@pytest.mark.parametrize("path", [TRYONS, f"{TRYONS}/{uuid4()}"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_without_a_key_nobody_sees_or_erases_anything(shop: Shop, path: str, method: str) -> None:
    shop.post()
    for headers in ({}, {"X-API-Key": "tryon_wrong"}, {"Authorization": "Bearer tryon_wrong"}):
        response = Client().generic(method, path, headers=headers)
        assert response.status_code == 401
        assert "WWW-Authenticate" in response.headers
    assert not TryOn.objects.get().to_erase


@pytest.mark.one_database
def test_a_body_is_not_looked_at(shop: Shop) -> None:
    for body, kind in (("{", "application/json"), ("x" * 10**6, "text/plain"), ("a=b", "no type at all"), ("", "")):
        response = ask(shop.key, TRYONS, "GET", data=body, content_type=kind)
        assert response.status_code == 200, kind
    key_in_body = json.dumps({"user_id": "ada", "api_key": shop.key})
    response = Client().generic("DELETE", TRYONS, key_in_body, content_type="application/json")
    assert response.status_code == 401


@pytest.mark.one_database
@pytest.mark.parametrize("path", [TRYONS, f"{TRYONS}/{uuid4()}"])
def test_other_methods_and_types_are_refused_in_json(shop: Shop, path: str) -> None:
    for method in ("POST", "PUT", "PATCH"):
        response = ask("", path, method, headers={"Content-Type": "application/json"})
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
        assert response.headers["Allow"] == "GET, DELETE, HEAD, OPTIONS"
    refused = ask(shop.key, path, headers={"Accept": "image/png"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
    assert ask("", path, "OPTIONS").status_code == 200
    head = ask(shop.key, path, "HEAD")
    assert (head.status_code, head.content) == (ask(shop.key, path).status_code, b"")


@pytest.mark.one_database
@pytest.mark.usefixtures("stopped_clock")
def test_the_throttle_counts_these_as_well(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(THROTTLE_RPM=2)
    assert [ask(shop.key).status_code for _ in range(3)] == [200, 200, 429]
    assert "Retry-After" in ask(shop.key).headers
    assert [ask("tryon_wrong").status_code for _ in range(3)] == [401, 401, 429]


@pytest.mark.one_database
def test_a_browser_gets_a_page(shop: Shop) -> None:
    shop.post()
    response = ask(shop.key, TRYONS, headers={"Accept": "text/html"})
    assert response.status_code == 200
    assert str(TryOn.objects.get().pk) in response.content.decode()
    assert ask("tryon_wrong", TRYONS, headers={"Accept": "text/html"}).status_code == 401


@pytest.mark.one_database
def test_no_address_of_the_api_shows_another_users_runs_or_pictures(
    shop: Shop, bob: Shop, media: Path, tryon: Callable[..., None]
) -> None:
    """Bob asks at every address there is, in every way, with whatever Ada's runs are called."""
    tryon(SIGNED_URLS=60)
    answer = shop.post(headers={"Idempotency-Key": "order-7"}).json()
    run = TryOn.objects.get(pk=answer["id"])
    her_picture = Path(run.image.path).read_bytes()
    signed = answer["image_url"].rpartition("/")[2]
    forged = signed.replace(run.pk.hex, bob.post().json()["id"].replace("-", ""))
    hers = (str(run.pk), run.pk.hex, str(run.image.name), forged, signed[:-1])
    secrets = {str(run.pk), run.pk.hex, run.file_stem}
    walked = set()
    for pattern in urls.urlpatterns:
        assert isinstance(pattern, URLPattern)
        walked.add(pattern.name)
        route = str(pattern.pattern)
        for part in hers if "<" in route else ("",):
            path = "/" + route.replace("<str:id>", part).replace("<str:token>", part)
            for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"):
                body = json.dumps(bob.body | {"id": part}) if method == "POST" else ""
                for query in ("", f"?id={run.pk}&user_id=ada&user={shop.user.pk}"):
                    response = ask(
                        bob.key,
                        path + query,
                        method,
                        data=body,
                        content_type="application/json",
                        headers={"Idempotency-Key": "order-7"},
                    )
                    content = b"".join(response) if response.streaming else response.content
                    about = (method, path, content[:300])
                    assert her_picture not in content, about
                    assert not [secret for secret in secrets if secret.encode() in content], about
    assert walked == {"service", "health", "ready", "create-image", "tryons", "tryon", "picture"}
    run.refresh_from_db()
    assert not run.to_erase
    assert Path(run.image.path).read_bytes() == her_picture
    assert [found["id"] for found in ask(shop.key).json()["results"]] == [str(run.pk)]


@pytest.mark.one_database
def test_names_of_results_cannot_be_guessed(shop: Shop) -> None:
    """122 random bits, of which neither the id of another run nor the time tells anything."""
    names = [str(TryOn.objects.get(pk=shop.post().json()["id"]).image.name) for _ in range(2)]
    ids = [UUID(name.rpartition("_")[2].partition(".")[0]) for name in names]
    assert [found.version for found in ids] == [4, 4]
    assert ids[0] != ids[1]
