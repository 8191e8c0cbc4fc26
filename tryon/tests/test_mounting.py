"""The app in a project that is not ours: made by startproject, with the packages ``tryon`` and ``providers`` only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

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
assert [Client().get(f"/shop/{path}").status_code for path in ("health", "health/ready")] == [200, 200]
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


def test_the_app_mounts_in_an_empty_project(host: Path, photos: object) -> None:
    url = photos.url_for("/person.jpg")  # type: ignore[attr-defined]
    authority = url.removeprefix("http://").partition("/")[0]
    with (host / "shop" / "settings.py").open("a") as file:
        file.write(HOST_SETTINGS.replace("AUTHORITY", repr(authority)))

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
