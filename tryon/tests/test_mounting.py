"""The app in a project that is not ours: made by startproject, with the packages ``tryon`` and ``providers`` only."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings
from pytest_httpserver import HTTPServer

HOST_SETTINGS = """
INSTALLED_APPS += ["rest_framework", "tryon"]
ROOT_URLCONF = "urls"
MEDIA_ROOT = BASE_DIR / "media"
MEDIA_URL = "/media/"
DATABASES["default"]["ATOMIC_REQUESTS"] = True
ALLOWED_HOSTS = ["testserver"]
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}
TRYON = {
    "PROVIDER": "fake",
    "PROVIDERS": {"fake": {"BACKEND": "providers.fake.FakeProvider"}},
    "AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "tryon.authentication.ApiKeyAuthentication",
    ],
    "FETCH_ALLOWED_HOSTS": [AUTHORITY],
}
"""

HOST_URLS = """
from django.urls import include, path
urlpatterns = [path("shop/", include("tryon.urls"))]
"""

HOST_STORY = """
import json, sys
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
from tryon.credits import get_credits
from tryon.models import ApiKey

user = User.objects.create_user("ada", password="secret")
get_credits().grant(user, 2, reason="trial")
_, key = ApiKey.create_key(user)
photos = {"catalog_id": "c", "user_image_url": sys.argv[1], "catalog_image_url": sys.argv[1]}
by_key = Client().post("/shop/api/v1/create-image", {**photos, "user_id": "ada", "api_key": key})
browser = Client(enforce_csrf_checks=True)
browser.force_login(user)
without_token = browser.post("/shop/api/v1/create-image", photos)
browser = Client()
browser.force_login(user)
by_session = browser.post("/shop/api/v1/create-image", photos)
told = Client().get("/shop/").json()["endpoints"]["create_image"]
for path in ("", "health", "health/ready"):
    response = Client().get(f"/shop/{path}")
    assert (response.status_code, len(response.headers["X-Request-ID"])) == (200, 32), path
print(json.dumps([by_key.json(), without_token.status_code, by_session.json(), get_credits().balance(user), told]))
"""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A fresh project whose Python path holds the two packages, and nothing else of this repository."""
    library = tmp_path / "library"
    library.mkdir()
    for package in ("tryon", "providers"):
        (library / package).symlink_to(settings.BASE_DIR / package)
    project = tmp_path / "shop"
    project.mkdir()
    subprocess.run([sys.executable, "-m", "django", "startproject", "shop", project], check=True)
    (project / "urls.py").write_text(HOST_URLS)
    return project


@pytest.fixture
def url(host: Path, photos: HTTPServer) -> str:
    """A photo that the host's settings allow to be fetched."""
    with (host / "shop" / "settings.py").open("a") as file:
        file.write(HOST_SETTINGS.replace("AUTHORITY", repr(f"{photos.host}:{photos.port}")))
    return photos.url_for("/person.jpg")


@pytest.fixture
def run(host: Path) -> Callable[..., str]:
    """Run Python in the host project, with warnings as errors; what it prints."""

    def run(*arguments: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{host.parent / 'library'}{os.pathsep}{host}",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
        }
        result = subprocess.run(
            [sys.executable, "-W", "error", *arguments],
            cwd=host,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_the_app_mounts_in_an_empty_project(host: Path, url: str, run: Callable[..., str]) -> None:
    run("manage.py", "check", "--fail-level", "WARNING")
    run("manage.py", "migrate", "-v0")
    assert "No changes detected" in run("manage.py", "makemigrations", "--check")
    by_key, without_token, by_session, balance, told = json.loads(run("-c", HOST_STORY, url).splitlines()[-1])

    assert by_key["status"] == by_session["status"] == "success"
    assert by_key["image_url"].startswith("http://testserver/media/ada_c_")
    assert without_token == 403, "a session needs its CSRF token"
    assert balance == 0
    assert told == "/shop/api/v1/create-image"
    assert len(list((host / "media").iterdir())) == 2


WALLET_SETTINGS = """
INSTALLED_APPS += ["shop"]
TRYON["CREDITS_BACKEND"] = "shop.credits.WalletCredits"
"""

WALLET_MODELS = """
from django.conf import settings
from django.db import models

class Wallet(models.Model):
    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE)
    coins = models.IntegerField(default=0)

class Hold(models.Model):
    key = models.UUIDField(unique=True)
    wallet = models.ForeignKey(Wallet, models.CASCADE)
    amount = models.IntegerField()
    state = models.CharField(max_length=10)
"""

WALLET_STORY = """
import json, sys
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
from shop.models import Hold
from tryon.credits import get_credits
from tryon.exceptions import InsufficientCredits
from tryon.models import ApiKey, CreditEntry

user = User.objects.create_user("ada")
_, key = ApiKey.create_key(user)
photo, gone = sys.argv[1], sys.argv[1] + ".gone"

def post(url):
    body = {"user_id": "ada", "api_key": key, "catalog_id": "c", "user_image_url": url, "catalog_image_url": url}
    return Client().post("/shop/api/v1/create-image", body).status_code

wallet = get_credits()
story = [wallet.balance(user), post(photo), wallet.grant(user, 2), post(gone), wallet.balance(user), post(photo)]
try:
    wallet.grant(user, -2)
except InsufficientCredits:
    story += ["refused", wallet.balance(user)]
story.append([hold.state for hold in Hold.objects.order_by("pk")])
story.append(CreditEntry.objects.count())
print(json.dumps(story))
"""


def test_the_credits_backend_of_the_readme_pays(host: Path, url: str, run: Callable[..., str]) -> None:
    code = re.search(r"```python\n# shop/credits\.py\n(.+?)```", (settings.BASE_DIR / "README.md").read_text(), re.S)
    assert code
    (host / "shop" / "credits.py").write_text(code[1])
    (host / "shop" / "models.py").write_text(WALLET_MODELS)
    with (host / "shop" / "settings.py").open("a") as file:
        file.write(WALLET_SETTINGS)
    run("manage.py", "migrate", "-v0", "--run-syncdb")

    story = json.loads(run("-c", WALLET_STORY, url).splitlines()[-1])

    assert story == [0, 403, 2, 422, 2, 200, "refused", 1, ["released", "captured"], 0]


ROUTER = """
class Router:
    def db_for_read(self, model, **hints):
        return "second"
    db_for_write = db_for_read
"""

ROUTER_SETTINGS = """
DATABASES = {"default": {}, "second": {**DATABASES["default"], "ATOMIC_REQUESTS": True}}
DATABASE_ROUTERS = ["shop.routers.Router"]
TRYON["CREDITS_BACKEND"] = "shop.credits.Broken"
"""

ROUTER_CREDITS = """
from tryon.credits import LedgerCredits

class Broken(LedgerCredits):
    def capture(self, key, user, amount):
        super().capture(key, user, amount)
        raise RuntimeError("after the capture")
"""

ROUTER_STORY = """
import json, sys
import django
django.setup()
from django.contrib.auth.models import User
from django.test import Client
from tryon.credits import get_credits
from tryon.models import ApiKey, CreditEntry, TryOn, UsageRecord

user = User.objects.create_user("ada")
get_credits().grant(user, 2)
_, key = ApiKey.create_key(user)
photo = sys.argv[1]
body = {"user_id": "ada", "api_key": key, "catalog_id": "c", "user_image_url": photo, "catalog_image_url": photo}
status = Client(raise_request_exception=False).post("/shop/api/v1/create-image", body).status_code
kinds = list(CreditEntry.objects.order_by("pk").values_list("kind", flat=True))
run = TryOn.objects.get()
print(json.dumps([status, run.status, get_credits().balance(user), kinds, UsageRecord.objects.count()]))
"""


def test_money_and_state_stay_together_in_whichever_database_a_router_puts_them(
    host: Path, url: str, run: Callable[..., str]
) -> None:
    (host / "shop" / "routers.py").write_text(ROUTER)
    (host / "shop" / "credits.py").write_text(ROUTER_CREDITS)
    with (host / "shop" / "settings.py").open("a") as file:
        file.write(ROUTER_SETTINGS)
    run("manage.py", "migrate", "-v0", "--database", "second")

    story = json.loads(run("-c", ROUTER_STORY, url).splitlines()[-1])

    assert story == [500, "failed", 2, ["grant", "hold", "release"], 1]
    assert list((host / "media").iterdir()) == []
