"""What /health/ready says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from pytest_django import Settings

from tryon import circuit, health
from tryon.models import TryOn

from .shop import NOW
from .test_project import python

FAKE = {"BACKEND": "providers.fake.FakeProvider"}
NO_KEY = {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": {"api_key": ""}}
NOT_THERE = {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"api_key": "hunter2"}}
"""An option that the class does not have: the provider cannot be created."""
DEAD_REDIS = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://:hunter2@127.0.0.1:1"}


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
def test_readiness_looks_at_each_part(client: Client) -> None:
    answer = client.get("/health/ready")
    assert answer.status_code == 200, answer.json()
    assert {name: check["ok"] for name, check in answer.json()["checks"].items()} == {
        "database": True,
        "cache": True,
        "storage": True,
        "provider": True,
        "circuits": True,
    }


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_readiness_is_503_and_tells_no_secret_when_a_part_is_down(client: Client, settings: Settings) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://user:hunter2@127.0.0.1:1",
        }
    }
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["status"] == "not ready"
    assert answer.json()["checks"]["cache"]["ok"] is False
    assert answer.json()["checks"]["database"]["ok"] is True
    assert "hunter2" not in answer.content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("database")
def test_readiness_notices_a_database_that_was_never_migrated(client: Client) -> None:
    with connection.schema_editor() as editor:
        editor.alter_db_table(TryOn, "tryon_tryon", "elsewhere")
    try:
        answer = client.get("/health/ready")
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(TryOn, "elsewhere", "tryon_tryon")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"]["ok"] is False


def provider_of(*entries: dict[str, Any], tryon: Callable[..., None]) -> health.Check:
    """What the report says of providers "a", "b" and so on, the first of which is the settings' own."""
    providers = dict(zip("abc", entries, strict=False))
    tryon(PROVIDERS=providers, PROVIDER="a", FALLBACK_PROVIDERS=list(providers)[1:])
    return health.report()["provider"]


@pytest.mark.parametrize(
    ("entries", "ok", "detail"),
    [
        ([FAKE], True, "a"),
        ([FAKE, FAKE], True, "a, b"),
        ([FAKE, NO_KEY], True, "a; cannot work: b; see the log."),
        ([FAKE, NO_KEY, NOT_THERE], True, "a; cannot work: b, c; see the log."),
        ([NO_KEY, FAKE], False, "cannot work: a; see the log."),
        ([NO_KEY], False, "cannot work: a; see the log."),
        ([NO_KEY, NO_KEY], False, "cannot work: a, b; see the log."),
        ([NOT_THERE, FAKE], False, "cannot work: a; see the log."),
    ],
)
@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_the_first_provider_has_to_be_able_to_work_and_fallbacks_are_told_of(
    tryon: Callable[..., None], entries: list[dict[str, Any]], ok: bool, detail: str
) -> None:
    assert provider_of(*entries, tryon=tryon) == {"ok": ok, "detail": detail}


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_why_a_provider_cannot_work_is_in_the_log(tryon: Callable[..., None], log: pytest.LogCaptureFixture) -> None:
    provider_of(FAKE, NO_KEY, NOT_THERE, tryon=tryon)
    said = [record for record in log.records if record.name == "tryon.health"]
    assert ["Provider 'b' cannot work: " in said[0].getMessage(), "api_key" in said[0].getMessage()] == [True, True]
    assert said[1].getMessage() == "Provider 'c' cannot work."
    assert said[1].exc_info
    assert len(said) == 2
    assert "hunter2" not in log.text


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
@pytest.mark.parametrize("fallbacks", ["b", None])
def test_fallbacks_of_a_wrong_type_are_not_ready(tryon: Callable[..., None], fallbacks: Any) -> None:
    tryon(PROVIDERS={"a": FAKE}, PROVIDER="a", FALLBACK_PROVIDERS=fallbacks)
    assert health.report()["provider"] == {"ok": False, "detail": "cannot work: none is in use; see the log."}


def test_looking_at_providers_imports_no_sdk() -> None:
    code = """
import sys, django
django.setup()
from django.conf import settings
from tryon import health
backends = ["openai.OpenAIProvider", "fashn.FashnProvider", "local.LocalProvider"]
settings.TRYON |= {
    "PROVIDERS": {name: {"BACKEND": f"providers.{name}"} for name in backends},
    "PROVIDER": backends[0],
    "FALLBACK_PROVIDERS": backends[1:],
}
for name in ("provider", "circuits"):
    print(health._look(name, health.CHECKS[name])["detail"])
print([m for m in ("openai", "fashn", "google.genai", "aiohttp", "httpx2", "cv2") if m in sys.modules])
"""
    result = python("-c", code, DJANGO_SETTINGS_MODULE="settings.test")
    provider, circuits, imported = result.stdout.strip().splitlines()[-3:]
    assert "openai.OpenAIProvider" in provider
    assert "local.LocalProvider" in circuits
    assert imported == "[]", result.stdout


@pytest.fixture
def circuits(tryon: Callable[..., None]) -> Callable[[], str]:
    """Circuits of three providers that open at the first failure, for 30 s; what the report says of them."""
    cache.clear()
    entries = {"a": FAKE, "b": FAKE, "c": FAKE}
    tryon(PROVIDERS=entries, PROVIDER="a", FALLBACK_PROVIDERS=["b"], CIRCUIT_FAILURES=1, CIRCUIT_PAUSE=30)

    def say() -> str:
        check = health.report()["circuits"]
        assert check["ok"], "a vendor that is down is down for all servers"
        return check["detail"]

    return say


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_the_circuits_of_the_providers_in_use_are_told(circuits: Callable[[], str]) -> None:
    assert circuits() == "a: closed; b: closed"
    with mock.patch("tryon.circuit.time.time", return_value=NOW) as clock:
        circuit.note_failure("b")
        clock.return_value = NOW + 17.5
        assert circuits() == "a: closed; b: open for 13 s"
        clock.return_value = NOW + 30.5
        assert circuits() == "a: closed; b: half-open"
        circuit.note_success("b")
        assert circuits() == "a: closed; b: closed"


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_all_circuits_open_leave_the_server_in_rotation(circuits: Callable[[], str], client: Client) -> None:
    circuit.note_failure("a")
    circuit.note_failure("b")
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert re.fullmatch(r"a: open for \d+ s; b: open for \d+ s", answer.json()["checks"]["circuits"]["detail"])


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_circuits_whose_cache_is_away_are_as_good_as_closed(
    circuits: Callable[[], str], tryon: Callable[..., None], settings: Settings
) -> None:
    settings.CACHES = {**settings.CACHES, "dead": DEAD_REDIS}
    tryon(CIRCUIT_CACHE="dead")
    assert circuits() == "a: closed; b: closed"


@pytest.mark.django_db
@pytest.mark.usefixtures("database")
@pytest.mark.one_database
def test_circuits_that_cannot_be_told_keep_no_server_out_of_rotation(
    circuits: Callable[[], str], tryon: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    tryon(FALLBACK_PROVIDERS=[7])
    assert circuits() == "unknown; see the log."
    assert "The circuits cannot be told." in log.text
