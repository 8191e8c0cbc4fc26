"""Security headers on every answer, by whichever view and whatever went wrong; and the switches of admin and docs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import re
import uuid
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import clear_url_caches, get_resolver, include, path
from pytest_django import Settings

from tryon import headers
from tryon.models import TryOn

from .shop import URL, Shop, jpeg

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
HTML = {"Accept": "text/html"}
EXAMPLES = {"app_label": "tryon", "content_type_id": "1", "object_id": "1", "uuid": str(uuid.UUID(int=1))}


@pytest.fixture
def urls() -> Iterator[Callable[..., None]]:
    """Have the project's addresses as they are under other settings."""
    with contextlib.ExitStack() as stack:

        def change(**changes: Any) -> None:
            stack.enter_context(override_settings(**changes))
            importlib.reload(importlib.import_module("sakura_inference.urls"))
            clear_url_caches()

        yield change
    importlib.reload(importlib.import_module("sakura_inference.urls"))
    clear_url_caches()


def addresses(patterns: Any, start: str = "/") -> Iterator[str]:
    """An address for each pattern; one that no pattern of ours fits where it cannot be made up."""
    for pattern in patterns:
        route = str(pattern.pattern)
        part = re.sub(r"<(?:(\w+):)?(\w+)>", lambda found: EXAMPLES.get(found[1] or found[2], "1"), route)
        part = re.sub(r"\(\?P<app_label>[^)]*\)", "tryon", part)
        part = re.sub(r"\(\?P<url>[^)]*\)|\(\?!admin\$\)", "nowhere", part).strip("^$")
        if hasattr(pattern, "url_patterns"):
            yield from addresses(pattern.url_patterns, start + part)
        else:
            yield start + part


def lacks(answer: Any) -> list[str]:
    """What is missing on an answer, or is not as strict as it should be."""
    told = answer.headers
    missing = [name for name, value in headers.COMMON.items() if told.get(name) != value]
    policy = told.get("Content-Security-Policy", "")
    if not policy.startswith("default-src 'none'; ") or "frame-ancestors 'none'" not in policy:
        missing.append(f"policy {policy!r}")
    if "unsafe" in policy.partition("script-src")[2].partition(";")[0]:
        missing.append("scripts")
    return missing


@pytest.mark.parametrize("who", ["nobody", "operator"])
def test_every_address_and_method_of_the_project_has_them(
    urls: Callable[..., None], admin_user: Any, who: str, media: Any
) -> None:
    urls(DEBUG=True)  # then it also serves samples and media
    default_storage.save("1", ContentFile(jpeg()))
    client = Client(raise_request_exception=False)
    if who == "operator":
        client.force_login(admin_user)
    found = {}
    seen = set()
    for address in [
        *dict.fromkeys(addresses(get_resolver().url_patterns)),
        "/admin",
        "/nowhere/at/all",
        "/media/../x",
    ]:
        for method in METHODS:
            for accept in ("application/json", "text/html"):
                answer = client.generic(method, address, headers={"Accept": accept})
                seen.add((urlsplit(address).path.split("/")[1], answer.status_code))
                missing = lacks(answer)
                # Django's own page for developers, about "/admin" without its slash, has scripts in it.
                if missing and not (answer.status_code == 500 and missing == ["scripts"]):
                    found[method, address, accept, answer.status_code] = missing
    assert found == {}
    assert {first for first, _ in seen} >= {"", "admin", "api", "docs", "redoc", "health", "samples", "media"}
    assert {status for _, status in seen} >= {200, 301, 302, 404, 405}


def test_a_success_has_them_and_so_has_its_picture(shop: Shop, urls: Callable[..., None]) -> None:
    urls(DEBUG=True)
    answer = shop.post()
    assert (answer.status_code, lacks(answer)) == (200, [])
    assert answer.headers["Content-Security-Policy"] == headers.DATA
    picture = Client().get(urlsplit(answer.json()["image_url"]).path)
    assert (picture.status_code, lacks(picture)) == (200, [])
    assert picture.headers["Content-Security-Policy"] == headers.MEDIA
    sample = Client().get("/samples/person.jpg")
    assert (sample.status_code, sample.headers["Content-Security-Policy"]) == (200, headers.MEDIA)


def test_errors_of_every_kind_have_them(shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("unexpected")

    client = Client(raise_request_exception=False)
    answers = {
        400: client.get("/", headers={"Host": "evil.example.com"}),
        401: shop.post({}),
        403: Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "x"}),
        404: client.get("/nowhere"),
        405: client.delete(URL),
        406: client.get("/docs", headers={"Accept": "image/png"}),
        413: shop.post("x", CONTENT_LENGTH=str(10**9)),
        415: shop.post("x", content_type="application/xml"),
    }
    monkeypatch.setattr("tryon.views.service_information", fail)
    monkeypatch.setattr("sakura_inference.urls.Docs.get", fail)
    answers[500] = client.get("/docs")
    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    assert {status: lacks(answer) for status, answer in answers.items() if lacks(answer)} == {}


def test_the_redirect_to_https_has_them(settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    answer = Client().get("/")
    assert (answer.status_code, lacks(answer)) == (301, [])


# In a host without any middleware


def strict(get_response: Any) -> Any:
    """A host's middleware that has a policy of its own for what has none, and one that is stricter."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        response.headers.setdefault("Content-Security-Policy", "default-src 'self'")
        return response

    return middleware


urlpatterns = [path("shop/", include("tryon.urls")), path("samples/", include("tryon.samples.urls"))]


@pytest.mark.parametrize("middleware", [[], [f"{__name__}.strict"]])
def test_the_apps_own_views_bring_them_along(shop: Shop, settings: Settings, middleware: list[str]) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = middleware
    client = Client(raise_request_exception=False)
    for address in (
        "/shop/",
        "/shop/health",
        "/shop/health/ready",
        "/samples/person.jpg",
        "/shop/api/v1/create-image",
    ):
        for method in METHODS:
            for accept in ("application/json", "text/html"):
                answer = client.generic(method, address, headers={"Accept": accept})
                assert lacks(answer) == [], (method, address, accept)
    success = client.post("/shop/api/v1/create-image", shop.body, content_type="application/json")
    assert (success.status_code, lacks(success)) == (200, [])


def test_the_browsable_page_may_load_static_files_from_where_the_host_has_them(settings: Settings) -> None:
    assert "script-src 'self';" in headers.page()
    settings.STATIC_URL = "https://cdn.example.com/static/"
    assert "script-src 'self' https://cdn.example.com;" in headers.page()
    settings.STATIC_URL = "//cdn.example.com/static/"
    assert "script-src 'self' https://cdn.example.com;" in headers.page()


# What is in the pages


class Page(HTMLParser):
    """What a page has that its policy must allow."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        """Texts of scripts inside of it, and of attributes such as onclick."""
        self.styles: list[str] = []
        self.attributes: list[str] = []
        """Of the name style."""
        self.loaded: list[tuple[str, str]] = []
        """What kind of file, from where."""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.scripts += [value for name, value in given.items() if name.startswith("on")]
        self.scripts += [value for value in given.values() if value.strip().lower().startswith("javascript:")]
        self.attributes += [value for name, value in given.items() if name == "style"]
        is_script = tag == "script" and given.get("type", "text/javascript") in ("text/javascript", "module")
        if is_script and "src" in given:
            self.loaded.append(("script-src", given["src"]))
        elif tag == "style" or is_script:
            self._inside = tag
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon"):
            self.loaded.append(("style-src" if given["rel"] == "stylesheet" else "img-src", given["href"]))
        elif tag == "img":
            self.loaded.append(("img-src", given.get("src", "")))
        elif tag == "form":
            self.loaded.append(("form-action", given.get("action", "")))
        elif tag in ("iframe", "object", "embed", "base"):
            self.loaded.append(("default-src", tag))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside == "style":
            self.styles.append(data)


def blocked(answer: Any) -> list[str]:
    """What the browser would not do although the page wants it."""
    policy = dict(one.split(" ", 1) for one in answer.headers["Content-Security-Policy"].split("; "))
    page = Page(answer.content.decode())
    found = [f"script: {text}" for text in page.scripts if "'unsafe-inline'" not in policy["script-src"]]
    for text in page.styles:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        if "'unsafe-inline'" not in policy["style-src"] and f"'sha256-{digest}'" not in policy["style-src"]:
            found.append(f"style: {text}")
    found += [f"style=: {text}" for text in page.attributes if "'unsafe-inline'" not in policy["style-src"]]
    for kind, address in page.loaded:
        origin = urlsplit(address)
        source = f"{origin.scheme}:" if origin.scheme == "data" or origin.netloc else "'self'"
        allowed: str = policy.get(kind) or policy["default-src"]
        if source not in allowed.split():
            found.append(f"{kind}: {address}")
    return found


def test_the_pages_work_under_their_policies(shop: Shop, operator: Client) -> None:
    assert shop.post().status_code == 200
    run = TryOn.objects.get()
    pages = {
        "docs": Client().get("/docs"),
        "redoc": Client().get("/redoc"),
        "form": Client().get(URL, headers=HTML),
        "form with errors": Client().post(URL, {}, headers=HTML),
        "login": Client().get("/admin/login/"),
        "admin": operator.get("/admin/"),
        "runs": operator.get("/admin/tryon/tryon/"),
        "run": operator.get(f"/admin/tryon/tryon/{run.pk}/change/"),
        "keys": operator.get("/admin/tryon/apikey/"),
        "new key": operator.get("/admin/tryon/apikey/add/"),
        "accounts": operator.get("/admin/tryon/creditaccount/"),
        "new account": operator.get("/admin/tryon/creditaccount/add/"),
        "ledger": operator.get("/admin/tryon/creditentry/"),
        "users": operator.get("/admin/auth/user/"),
        "user": operator.get(f"/admin/auth/user/{shop.user.pk}/change/"),
        "password": operator.get(f"/admin/auth/user/{shop.user.pk}/password/"),
        "deletion": operator.get(f"/admin/auth/user/{shop.user.pk}/delete/"),
        "history": operator.get(f"/admin/tryon/tryon/{run.pk}/history/"),
    }
    for name, answer in pages.items():
        assert answer.headers["Content-Type"].startswith("text/html"), name
        assert lacks(answer) == [], name
        assert "https:" not in answer.headers["Content-Security-Policy"], name
        assert blocked(answer) == [], name
    assert pages["form with errors"].status_code == 401
    assert Page(pages["docs"].content.decode()).loaded, "the parser finds what is there"
    assert Page(pages["run"].content.decode()).styles


def test_the_script_of_the_docs_is_a_file_of_its_own(client: Client) -> None:
    [script] = [at for kind, at in Page(client.get("/docs").content.decode()).loaded if at.startswith("/docs?")]
    answer = client.get(script)
    assert answer.headers["Content-Type"].startswith("application/javascript")
    assert "SwaggerUIBundle({" in answer.content.decode()
    assert "/api/schema" in answer.content.decode()


def test_pictures_in_the_admin_may_come_from_another_storage(operator: Client, settings: Settings) -> None:
    settings.MEDIA_URL = "https://pictures.example.com/"
    assert "img-src 'self' data: https:;" in operator.get("/admin/").headers["Content-Security-Policy"]


# The switches


@pytest.mark.parametrize("debug", [False, True])
def test_the_admin_can_be_switched_off(urls: Callable[..., None], operator: Client, debug: bool) -> None:
    urls(ADMIN_ENABLED=False, DEBUG=debug)
    for address in ("/admin", "/admin/", "/admin/login/", "/admin/tryon/tryon/", "/admin/jsi18n/"):
        answer = operator.get(address)
        assert (answer.status_code, answer.json()["code"], lacks(answer)) == (404, "not_found", []), address
    assert [operator.get(address).status_code for address in ("/", "/health", "/docs", "/api/schema")] == [200] * 4


def test_the_docs_can_be_switched_off(urls: Callable[..., None], operator: Client) -> None:
    urls(DOCS_ENABLED=False)
    for address in ("/docs", "/docs?script", "/redoc", "/api/schema"):
        answer = operator.get(address)
        assert (answer.status_code, answer.json()["code"], lacks(answer)) == (404, "not_found", []), address
    assert [operator.get(address).status_code for address in ("/", "/health", "/admin/")] == [200] * 3
