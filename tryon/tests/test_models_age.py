"""Models whose end is near or past: what the checks say, and what goes on all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, run_checks  # noqa: A004
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from tryon import ageing, checks
from tryon.conf import Conf

from .aged_provider import SHUTDOWN, aged

Today = Callable[[date], None]


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> Today:
    """Make it this day."""
    return lambda day: monkeypatch.setattr(ageing, "today", lambda: day)


@pytest.fixture(autouse=True)
def no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the tests were started."""
    monkeypatch.setattr(sys, "argv", ["pytest"])


@pytest.fixture
def use(tryon: Callable[..., None]) -> Callable[..., None]:
    """Choose the provider by its options."""
    return lambda **options: tryon(PROVIDER="aged", PROVIDERS={"aged": aged(**options)})


def before(days: int) -> date:
    return SHUTDOWN - timedelta(days=days)


def look() -> list[CheckMessage]:
    return checks.check_models(None)


def test_w008_begins_60_days_before_the_end(use: Callable[..., None], today: Today) -> None:
    use()
    today(before(61))
    assert look() == []
    today(before(60))
    [message] = look()
    assert (type(message), message.id) == (Warning, "tryon.W008")
    assert message.msg == "Provider 'aged': the model aged-2 will be shut down on 2027-03-01 (in 60 days)."
    assert str(message.hint).startswith("The successor: aged-3. Change the model in the OPTIONS of ")


def test_w008_is_still_a_warning_on_the_day_before(use: Callable[..., None], today: Today) -> None:
    use()
    today(before(1))
    [message] = look()
    assert (type(message), message.id) == (Warning, "tryon.W008")
    assert "(in 1 day)" in message.msg


@pytest.mark.parametrize(("days", "says"), [(0, "today"), (-1, "1 day ago"), (-400, "400 days ago")])
def test_e009_from_the_day_itself(use: Callable[..., None], today: Today, days: int, says: str) -> None:
    use()
    today(before(days))
    [message] = look()
    assert (type(message), message.id) == (Error, "tryon.E009")
    assert message.msg == f"Provider 'aged': the model aged-2 was shut down on 2027-03-01 ({says})."
    assert "aged-3" in str(message.hint)


def test_a_model_without_a_successor_has_a_hint_all_the_same(use: Callable[..., None], today: Today) -> None:
    use(model="aged-1")
    today(before(0))
    [message] = look()
    assert message.id == "tryon.E009"
    assert str(message.hint).startswith("Its vendor names no successor. Choose another model")


@pytest.mark.parametrize("model", ["aged-3", "aged-4-which-nobody-knows", "aged-20", "aged"])
def test_models_without_an_end_and_unknown_ones_are_fine(use: Callable[..., None], today: Today, model: str) -> None:
    use(model=model)
    today(before(-10_000))
    assert look() == []


def test_every_model_of_several_steps_counts(use: Callable[..., None], today: Today) -> None:
    use(model="aged-1", renderer="aged-2")
    today(before(5))
    assert {(message.id, str(message.msg).split()[4]) for message in look()} == {
        ("tryon.E009", "aged-1"),
        ("tryon.W008", "aged-2"),
    }


def test_the_dates_are_those_of_the_vendors_own_server(use: Callable[..., None], today: Today) -> None:
    use(base_url="http://localhost:8080/v1")
    today(before(0))
    assert look() == []


def test_providers_that_are_not_in_use_may_be_as_old_as_they_like(tryon: Callable[..., None], today: Today) -> None:
    tryon(PROVIDER="new", PROVIDERS={"new": aged(model="aged-3"), "old": aged()})
    today(before(0))
    assert look() == []


def test_fallbacks_are_in_use_and_each_is_named_once(tryon: Callable[..., None], today: Today) -> None:
    providers = {"new": aged(model="aged-3"), "old": aged(), "older": aged(model="aged-1")}
    tryon(PROVIDER="new", PROVIDERS=providers, FALLBACK_PROVIDERS=["old", "nobody", "old", "new"])
    today(before(0))
    [message] = look()
    assert "'old'" in message.msg


@pytest.mark.parametrize("fallbacks", ["old", None, {"old": 1}])
def test_fallbacks_of_a_wrong_type_are_another_checks_finding(
    tryon: Callable[..., None], today: Today, monkeypatch: pytest.MonkeyPatch, fallbacks: Any
) -> None:
    tryon(PROVIDER="new", PROVIDERS={"new": aged(model="aged-3"), "old": aged()})
    monkeypatch.setattr(Conf, "FALLBACK_PROVIDERS", fallbacks, raising=False)
    today(before(0))
    assert look() == []


@pytest.mark.parametrize("providers", [[], {}, {"aged": {"BACKEND": "no.such.Class"}}, {"aged": aged(modle="x")}])
def test_providers_that_cannot_be_used_are_another_checks_finding(tryon: Callable[..., None], providers: Any) -> None:
    tryon(PROVIDER="aged", PROVIDERS=providers)
    assert look() == []


def test_it_is_today_by_the_clock() -> None:
    earlier = datetime.now(UTC).date()
    assert earlier <= ageing.today() <= datetime.now(UTC).date()


def test_manage_py_check_looks_at_the_models(use: Callable[..., None], today: Today) -> None:
    use()
    today(before(0))
    with pytest.raises(SystemCheckError, match=r"tryon\.E009"):
        call_command("check")
    today(before(60))
    assert "tryon.W008" in {message.id for message in run_checks()}


@pytest.mark.parametrize(
    ("argv", "level"),
    [
        (["manage.py", "check", "--deploy"], Error),
        (["./manage.py", "migrate"], Warning),
        (["/usr/bin/django-admin", "createsuperuser", "--noinput"], Warning),
        (["manage.py"], Warning),
        (["/usr/bin/pytest", "migrate"], Error),
        ([], Error),
    ],
)
def test_e009_is_an_error_for_whoever_asks_for_the_checks(
    use: Callable[..., None], today: Today, monkeypatch: pytest.MonkeyPatch, argv: list[str], level: type[CheckMessage]
) -> None:
    use()
    today(before(0))
    monkeypatch.setattr(sys, "argv", argv)
    [message] = look()
    assert (type(message), message.id) == (level, "tryon.E009")


@pytest.fixture
def old_project(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a process whose settings use a model that ended years ago."""
    (tmp_path / "old_settings.py").write_text(
        "from settings.test import *\n"
        "from tryon.tests.aged_provider import aged\n"
        'TRYON |= {"PROVIDER": "aged", "PROVIDERS": {"aged": aged(model="aged-1")}}\n'
    )
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "old_settings", "READ_DOT_ENV": "0"}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        folder = settings.BASE_DIR
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return python


def test_check_fails_where_a_model_has_ended(old_project: Callable[..., Any]) -> None:
    result = old_project("manage.py", "check")
    assert result.returncode == 1
    assert "(tryon.E009)" in result.stderr
    assert "2025-01-01" in result.stderr


def test_a_container_that_migrates_before_it_serves_still_starts(old_project: Callable[..., Any]) -> None:
    result = old_project("manage.py", "migrate")
    assert result.returncode == 0, result.stderr
    assert "(tryon.E009)" in result.stderr


@pytest.mark.parametrize("module", ["asgi", "wsgi"])
def test_a_server_says_that_a_model_has_ended_and_serves(old_project: Callable[..., Any], module: str) -> None:
    result = old_project("-c", f"import sakura_inference.{module}; print('serves')")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "serves"
    [line] = [json.loads(line) for line in result.stderr.splitlines() if "(tryon.E009)" in line]
    assert (line["logger"], line["level"]) == ("tryon.checks", "ERROR")
