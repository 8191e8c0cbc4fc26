"""System checks: each fault has an id, and each id a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from pytest_django import Settings

from tryon import checks, health


def ids(messages: list[Any]) -> list[str]:
    for message in messages:
        assert message.hint, f"{message.id} tells no fix"
    return [message.id for message in messages]


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"PROVIDR": "local"},
        {"PRICE": "1"},
        {"PRICE": True},
        {"PROVIDERS": []},
        {"DEADLINE": None},
        {"FETCH_ALLOWED_HOSTS": "localhost"},
        {"PRICE": -1},
        {"DEADLINE": float("nan")},
        {"MAX_IMAGE_BYTES": 0},
        {"LEASE": float("inf")},
        {"IDEMPOTENCY_TTL": 1e300},
        {"PRICE": 10**12},
        {"DRAIN": -1},
        {"ON_DISCONNECT": "carry on"},
    ],
)
def test_e001_a_wrong_key_or_value(settings: Settings, value: Any) -> None:
    settings.TRYON = value
    assert ids(checks.check_settings(None)) == ["tryon.E001"]


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        ({"PROVIDER": "nobody"}, "no provider 'nobody'"),
        ({"PROVIDERS": {"fake": {"BACKEND": "no.such.Class"}}}, "cannot be imported"),
        ({"PROVIDERS": {"fake": {"BACKEND": "tryon.models.TryOn"}}}, "not a subclass"),
        (
            {"PROVIDERS": {"fake": {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"dely": 1}}}},
            "unknown option 'dely'",
        ),
    ],
)
def test_e002_a_provider_that_cannot_be_used(tryon: Callable[..., None], provider: Any, says: str) -> None:
    tryon(**{"PROVIDER": "fake", **provider})
    messages = checks.check_providers(None)
    assert ids(messages) == ["tryon.E002"]
    assert says in messages[0].msg


def test_e002_a_missing_key_is_named(tryon: Callable[..., None]) -> None:
    tryon(PROVIDER="openai", PROVIDERS={"openai": {"BACKEND": "providers.openai.OpenAIProvider"}})
    messages = checks.check_providers(None)
    assert ids(messages) == ["tryon.E002"]
    assert "api_key" in messages[0].msg
    assert "OPENAI_API_KEY" in str(messages[0].hint)


def test_w006_model_files_that_are_missing_are_no_reason_to_stop_other_commands(
    tryon: Callable[..., None], tmp_path: Path
) -> None:
    local = {"BACKEND": "providers.local.LocalProvider", "OPTIONS": {"models_dir": str(tmp_path)}}
    tryon(PROVIDER="local", PROVIDERS={"local": local})
    [message] = checks.check_providers(None)
    assert ids([message]) == ["tryon.W006"]
    assert not message.is_serious()
    assert "fetch_local_models" in str(message.hint)
    assert health.report()["provider"]["ok"] is False


def test_providers_that_are_not_in_use_need_no_key(tryon: Callable[..., None]) -> None:
    tryon(
        PROVIDER="fake",
        PROVIDERS={
            "fake": {"BACKEND": "providers.fake.FakeProvider"},
            "openai": {"BACKEND": "providers.openai.OpenAIProvider"},
        },
    )
    assert checks.check_providers(None) == []


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("django.core.cache.backends.db.DatabaseCache", ["tryon.E003"]),
        ("django.core.cache.backends.filebased.FileBasedCache", ["tryon.E003"]),
        ("django.core.cache.backends.dummy.DummyCache", ["tryon.E003"]),
        ("django.core.cache.backends.locmem.LocMemCache", ["tryon.W001"]),
        ("django.core.cache.backends.redis.RedisCache", []),
    ],
)
def test_e003_and_w001_a_cache_that_cannot_count(
    settings: Settings, tryon: Callable[..., None], backend: str, expected: list[str]
) -> None:
    tryon(THROTTLE_RPM=10)
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1"}}
    settings.DEBUG = False
    assert ids(checks.check_throttle(None)) == expected
    tryon(THROTTLE_RPM=0)
    assert ids(checks.check_throttle(None)) == expected, "wrong keys are counted there as well"
    tryon(THROTTLE_RPM=0, KEY_GUESSES=0)
    assert checks.check_throttle(None) == []


@pytest.mark.parametrize(
    ("backend", "debug", "expected"),
    [
        ("django.core.cache.backends.dummy.DummyCache", True, ["tryon.W009"]),
        ("django.core.cache.backends.locmem.LocMemCache", True, []),
        ("django.core.cache.backends.locmem.LocMemCache", False, ["tryon.W009"]),
        ("django.core.cache.backends.redis.RedisCache", False, []),
    ],
)
def test_w009_a_cache_that_cannot_hold_circuits_for_all_processes(
    settings: Settings, tryon: Callable[..., None], backend: str, debug: bool, expected: list[str]
) -> None:
    settings.CACHES = {"circuits": {"BACKEND": backend, "LOCATION": "redis://127.0.0.1:1"}}
    settings.DEBUG = debug
    tryon(CIRCUIT_CACHE="circuits", CIRCUIT_FAILURES=5)
    assert ids(checks.check_circuits(None)) == expected
    tryon(CIRCUIT_CACHE="circuits", CIRCUIT_FAILURES=0)
    assert checks.check_circuits(None) == []


def test_w010_what_requests_may_ask_for_and_nobody_can_make(tryon: Callable[..., None]) -> None:
    entry = {"BACKEND": "providers.fake.FakeProvider"}
    tryon(PROVIDER="fake", PROVIDERS={"fake": entry}, MAX_PICTURES=5, SIZES=["4k"])
    messages = checks.check_offers(None)
    assert ids(messages) == ["tryon.W010", "tryon.W010"]
    assert "4k" in messages[0].msg
    assert "5 pictures" in messages[1].msg
    tryon(PROVIDER="fake", PROVIDERS={"fake": entry}, MAX_PICTURES=4, SIZES=[])
    assert checks.check_offers(None) == []


class AsyncAuthentication:
    async def authenticate(self, request: Any) -> None:
        return None


@pytest.mark.parametrize("path", ["tryon.tests.test_checks.AsyncAuthentication", "no.such.Class"])
def test_e004_an_authentication_class_that_cannot_be_used(tryon: Callable[..., None], path: str) -> None:
    tryon(AUTHENTICATION_CLASSES=[path])
    assert ids(checks.check_settings(None)) == ["tryon.E004"]


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        ({"opnai": 3}, "has the price 3 for 'opnai'"),
        ({"fakery": 3}, "has the price 3 for 'fakery'"),
        ({"": 3}, "has the price 3 for ''"),
        ({"/fake": 3}, "has the price 3 for '/fake'"),
        ({"fake/": 3}, "has the price 3 for 'fake/'"),
        ({"fake//": 3}, "has the price 3 for 'fake//'"),
        ({"fake/model/": 3}, "has the price 3 for 'fake/model/'"),
        ({7: 3}, "has the price 3 for 7"),
        ({("fake", "model"): 3}, "has the price 3 for ('fake', 'model')"),
        ({"fake": -1}, "TRYON[\"PRICES\"]['fake'] is -1."),
        ({"fake": 1.5}, "TRYON[\"PRICES\"]['fake'] is 1.5."),
        ({"fake/model": "2"}, "TRYON[\"PRICES\"]['fake/model'] is '2'."),
        ({"fake": True}, "TRYON[\"PRICES\"]['fake'] is True."),
        ({"fake": None}, "TRYON[\"PRICES\"]['fake'] is None."),
        ({"fake": 1, "local": 2, "openai//512x512": -2}, "['openai//512x512'] is -2."),
    ],
)
def test_e005_a_price_that_is_none_or_of_nothing(tryon: Callable[..., None], prices: Any, says: str) -> None:
    tryon(PRICES=prices)
    [message] = checks.check_settings(None)
    assert ids([message]) == ["tryon.E005"]
    assert says in message.msg


def test_e005_says_what_can_have_a_price(tryon: Callable[..., None]) -> None:
    fake = {"BACKEND": "providers.fake.FakeProvider"}
    tryon(PROVIDERS={"one": fake, "two": fake}, PRICES={"three": -1})
    messages = checks.check_settings(None)
    assert ids(messages) == ["tryon.E005", "tryon.E005"], "both of its faults at once"
    assert str(messages[0].hint).startswith("Use one of one, two, alone or as in")
    assert messages[1].hint == "Give whole credits, 0 to 1,000,000,000."


def test_prices_of_all_forms_are_fine(tryon: Callable[..., None]) -> None:
    names = ["fake", "fake/model", "fake/model/512x768", "fake//512x768", "fake/org/model", "fake/org/model/1K"]
    tryon(PRICES=dict.fromkeys(names, 0))
    assert checks.check_settings(None) == []


@pytest.mark.parametrize(
    "change",
    [
        {"CREDITS_BACKEND": "no.such.Class"},
        {"CREDITS_BACKEND": "os.path"},
        {"CREDITS_BACKEND": "tryon.models.TryOn"},
        {"STORAGE": "nowhere"},
    ],
)
def test_e006_credits_or_storage_that_cannot_be_used(tryon: Callable[..., None], change: Any) -> None:
    tryon(**change)
    assert ids(checks.check_settings(None)) == ["tryon.E006"]


def test_e007_a_user_id_field_that_is_not_there(tryon: Callable[..., None]) -> None:
    tryon(USER_ID_FIELD="nickname")
    assert ids(checks.check_settings(None)) == ["tryon.E007"]
    tryon(USER_ID_FIELD="email")
    assert checks.check_settings(None) == []


def test_e008_the_framework_is_not_installed(settings: Settings) -> None:
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "rest_framework"]
    assert ids(checks.check_settings(None)) == ["tryon.E008"]


@pytest.mark.parametrize("change", [{"MEDIA_ROOT": ""}, {"MEDIA_URL": ""}])
def test_w005_pictures_without_a_folder_or_an_address(settings: Settings, change: dict[str, str]) -> None:
    for name, value in change.items():
        setattr(settings, name, value)
    assert ids(checks.check_settings(None)) == ["tryon.W005"]


def test_w002_and_w003_database_options(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import connections

    class Connection:
        vendor = "sqlite"
        settings_dict = {"OPTIONS": {}, "CONN_MAX_AGE": 60}

    monkeypatch.setattr(checks, "connections", {"default": Connection})
    assert ids(checks.check_database(None, ["default"])) == ["tryon.W002", "tryon.W003"]
    monkeypatch.setattr(checks, "connections", connections)
    assert checks.check_database(None, ["default"]) == []


def test_w004_hosts_that_are_open_in_production(settings: Settings, tryon: Callable[..., None]) -> None:
    tryon(FETCH_ALLOWED_HOSTS=["localhost:8001"])
    assert ids(checks.check_settings(None)) == ["tryon.W004"]
    settings.DEBUG = True
    assert checks.check_settings(None) == []


def test_the_checks_are_wired_to_manage_py(tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=0)  # which count in one process only here
    assert not [message for message in run_checks() if str(message.id).startswith("tryon.")]
    tryon(PROVIDR="local")
    with pytest.raises(SystemCheckError, match=r"tryon\.E001"):
        call_command("check")


@pytest.mark.parametrize(
    "broken",
    [
        [],
        None,
        {"PROVIDERS": ["fake"]},
        {"PROVIDERS": {"fake": None}},
        {"PROVIDERS": {"fake": {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": None}}},
        {"PROVIDERS": {3: {"BACKEND": "providers.fake.FakeProvider"}}},
        {"FALLBACK_PROVIDERS": [["fake"]]},
        {"AUTHENTICATION_CLASSES": [3]},
        {"SIZES": [2]},
        {"PRICES": 3},
        {"CIRCUIT_CACHE": ["default"]},
    ],
    ids=repr,
)
def test_e001_whatever_stands_in_the_settings_no_check_stumbles(settings: Settings, broken: Any) -> None:
    settings.TRYON = broken
    found = ids([message for message in run_checks() if str(message.id).startswith("tryon.")])
    assert found
    assert set(found) == {"tryon.E001"}


KEY_FILES = {
    "shop/settings/__init__.py": "",
    "shop/settings/keys.py": "\nKEY = 'the-key-of-a-vendor'  # in the middle of a line\n",
    "shop/settings/base.py": """
import os
from providers.base import Secret
from .keys import KEY
SECRET_KEY = "a-session-key-that-stands-here"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "rest_framework", "tryon"]
FAL = {"BACKEND": "providers.fal.FalProvider", "OPTIONS": {"api_key": Secret("another-key-of-a-vendor"), "model": ""}}
FASHN = {"BACKEND": "providers.fashn.FashnProvider", "OPTIONS": {"api_key": os.environ["FASHN_API_KEY"]}}
BFL = {"BACKEND": "providers.bfl.BFLProvider", "OPTIONS": {"api_key": KEY}}
SORA = {"BACKEND": "providers.sora.SoraProvider", "OPTIONS": {"api_key": "short"}}
OPENAI = {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": {"api_key": (
    "a-key-in-pieces-"
    "of-a-vendor"
)}}
GEMINI = {"BACKEND": "providers.gemini.GeminiProvider", "OPTIONS": {"api_key": "a-key-in-a-sum-" +
    f"of-a-" "vendor"}}
TRYON = {"PROVIDERS": {"fal": FAL, "fashn": FASHN, "bfl": BFL, "sora": SORA, "openai": OPENAI, "gemini": GEMINI}}
""",
    "shop/settings/comment.py": "# The old one was 'the-key-of-a-vendor'.",
    "shop/settings/odd.py": "KEY = 'the-key-of-a-vendor'; this is no Python",
    "shop/other.py": "KEY = 'the-key-of-a-vendor'",
}
KEY_STORY = """
import django
django.setup()
import shop.other, shop.settings.comment, sys, types
odd = sys.modules["shop.settings.odd"] = types.ModuleType("shop.settings.odd")
odd.__file__ = shop.settings.comment.__file__.replace("comment", "odd")
from django.core.checks import run_checks
for message in run_checks(include_deployment_checks=True):
    if message.id == "tryon.W011":
        print(message.msg, "|", message.hint)
"""


def test_w011_a_key_in_a_settings_file_is_named_by_file_and_line_and_never_shown(tmp_path: Path) -> None:
    for name, text in KEY_FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    result = subprocess.run(
        [sys.executable, "-c", KEY_STORY],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(django_settings.BASE_DIR)]),
            "DJANGO_SETTINGS_MODULE": "shop.settings.base",
            "FASHN_API_KEY": "a-key-of-the-environment",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "shop" / "settings"
    assert [line.partition(" | ")[0] for line in result.stdout.splitlines()] == [
        f'TRYON["PROVIDERS"]["fal"]["OPTIONS"]["api_key"] stands in {folder / "base.py"}, line 8.',
        f'TRYON["PROVIDERS"]["bfl"]["OPTIONS"]["api_key"] stands in {folder / "comment.py"}, line 1.',
        f'TRYON["PROVIDERS"]["bfl"]["OPTIONS"]["api_key"] stands in {folder / "keys.py"}, line 2.',
        f'TRYON["PROVIDERS"]["bfl"]["OPTIONS"]["api_key"] stands in {folder / "odd.py"}, line 1.',
        f'TRYON["PROVIDERS"]["openai"]["OPTIONS"]["api_key"] stands in {folder / "base.py"}, line 13.',
        f'TRYON["PROVIDERS"]["gemini"]["OPTIONS"]["api_key"] stands in {folder / "base.py"}, line 16.',
        f"SECRET_KEY stands in {folder / 'base.py'}, line 5.",
    ]
    assert "os.environ" in result.stdout
    assert "vendor" not in result.stdout
    assert "session" not in result.stdout
