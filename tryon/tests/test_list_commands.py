"""``list_models`` and ``list_providers``: what they print, and what they never print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from providers.base import AIProvider, Model
from providers.catalog import provider_classes
from providers.rest import RestProvider
from providers.tests.vendor import Answer, Call, VendorServer, json_answer
from tryon import ageing
from tryon.conf import Conf

from .aged_provider import SHUTDOWN, AgedProvider, aged

README = Path(settings.BASE_DIR) / "README.md"
KEY = "test-key-0123456789abcdef"


class TellingProvider(RestProvider):
    """Its vendor tells its models, and some of their days."""

    name: ClassVar[str] = "Telling"
    default_base_url: ClassVar[str] = "https://telling.example"
    key_variable: ClassVar[str] = "TELLING_KEY"
    lists_models = True
    models: ClassVar[tuple[Model, ...]] = (*AgedProvider.models, Model("told-1"))

    @property
    def model(self) -> str:
        return "aged-3"

    async def remote_models(self) -> list[Model]:
        listed = self.read(await self.ask("GET", "/models"))["data"]
        return [Model(each["id"], _day(each.get("shutdown_date")), each.get("instead", "")) for each in listed]


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


class BrokenProvider(TellingProvider):
    """Fails in a way that nobody foresaw, with the key in its words. Knows how often it was closed."""

    closed = 0

    async def remote_models(self) -> list[Model]:
        raise RuntimeError(f"cannot use {self._api_key.reveal()}")

    async def aclose(self) -> None:
        self.closed += 1


class StillbornProvider(AIProvider):
    def __init__(self, alias: str, *, api_key: str = "") -> None:
        raise RuntimeError(f"cannot use {api_key}")


def telling(server: VendorServer | None = None, backend: str = "TellingProvider") -> dict[str, Any]:
    options = {"api_key": KEY} | ({"base_url": server.base_url} if server else {})
    return {"BACKEND": f"tryon.tests.test_list_commands.{backend}", "OPTIONS": options}


def models_answer(*models: dict[str, str]) -> Answer:
    return json_answer({"data": list(models)})


def manage(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    assert KEY not in out.getvalue()
    return out.getvalue()


def listed(*arguments: str) -> dict[str, Any]:
    """The report of each provider, by alias."""
    return {report["alias"]: report for report in json.loads(manage("list_models", "--json", *arguments))["providers"]}


def model(report: dict[str, Any], name: str) -> dict[str, Any]:
    [row] = [row for row in report["models"] if row["name"] == name]
    assert isinstance(row, dict)
    return row


@pytest.fixture
def a_week_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ageing, "today", lambda: SHUTDOWN - timedelta(days=7))


@pytest.mark.usefixtures("a_week_before")
def test_list_models_tells_what_is_in_use_what_ends_and_what_comes_after(
    tryon: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    tryon(PROVIDER="b", PROVIDERS={"a": aged(model="mine"), "b": aged(), "c": aged(model="aged-3")})
    monkeypatch.setattr(Conf, "FALLBACK_PROVIDERS", ["a"], raising=False)
    assert manage("list_models").splitlines() == [
        "a: Aged (fallback)",
        "  mine    in use",
        "  aged-3",
        "  aged-2  shutdown 2027-03-01 (in 7 days), successor aged-3",
        "  aged-1  shutdown 2025-01-01 (782 days ago)",
        "",
        "b: Aged (in use)",
        "  aged-3",
        "  aged-2  in use, shutdown 2027-03-01 (in 7 days), successor aged-3",
        "  aged-1  shutdown 2025-01-01 (782 days ago)",
        "",
        "c: Aged",
        "  aged-3  in use",
        "  aged-2  shutdown 2027-03-01 (in 7 days), successor aged-3",
        "  aged-1  shutdown 2025-01-01 (782 days ago)",
    ]


@pytest.mark.usefixtures("a_week_before")
def test_list_models_prints_json(tryon: Callable[..., None]) -> None:
    tryon(PROVIDER="aged", PROVIDERS={"aged": aged()})
    answer = json.loads(manage("list_models", "--json"))
    assert answer["today"] == "2027-02-22"
    [report] = answer["providers"]
    assert {"alias": "aged", "name": "Aged", "role": "in use", "problem": "", "asked": False}.items() <= report.items()
    assert model(report, "aged-2") == {
        "name": "aged-2",
        "in_use": True,
        "shutdown": "2027-03-01",
        "days_left": 7,
        "successor": "aged-3",
        "listed": None,
        "dated_by_vendor": False,
    }
    assert (model(report, "aged-3")["shutdown"], model(report, "aged-3")["days_left"]) == (None, None)


def test_list_models_tells_of_some_providers_only(tryon: Callable[..., None]) -> None:
    tryon(PROVIDERS={"a": aged(), "b": aged(), "c": aged()})
    assert list(listed("c", "a", "c")) == ["c", "a"]
    with pytest.raises(CommandError, match=r"There is no provider 'd'\. Use one of: a, b, c\."):
        manage("list_models", "d")


def test_list_models_names_providers_that_cannot_be_created_and_why(tryon: Callable[..., None]) -> None:
    tryon(
        PROVIDERS={
            "gone": {"BACKEND": "no.such.Class"},
            "typo": {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": {"api_key": KEY, "modle": "x"}},
            "key": {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": {"api_key": f"{KEY} {KEY}"}},
            "none": None,
            "stillborn": telling(backend="StillbornProvider"),
            "fine": aged(),
        }
    )
    reports = listed("--remote")
    assert "cannot be imported" in reports["gone"]["problem"]
    assert "unknown option 'modle'" in reports["typo"]["problem"]
    assert '["api_key"] is Secret' in reports["key"]["problem"]
    assert reports["none"]["problem"]
    assert reports["stillborn"]["problem"] == "RuntimeError while it was created."
    assert reports["fine"]["models"]
    text = manage("list_models")
    assert "stillborn: cannot be used\n  ! RuntimeError while it was created.\n" in text


def test_list_models_without_any_provider_has_nothing_to_tell(tryon: Callable[..., None]) -> None:
    for kind in (dict, list):
        tryon(PROVIDERS=kind())
        assert manage("list_models", "--remote").strip() == ""
        assert listed() == {}


def test_list_models_asks_nobody_unless_told(tryon: Callable[..., None]) -> None:
    with VendorServer(models_answer()) as server:
        tryon(PROVIDERS={"telling": telling(server)})
        manage("list_models")
    assert server.calls == []


@pytest.mark.usefixtures("a_week_before")
def test_remote_marks_what_the_vendor_no_longer_lists_and_takes_its_days(tryon: Callable[..., None]) -> None:
    answer = models_answer(
        {"id": "aged-3"},
        {"id": "aged-2", "shutdown_date": "2027-02-23", "instead": "aged-4"},
        {"id": "told-1", "shutdown_date": "2027-12-31", "instead": "told-2"},
        {"id": "other-2"},
        {"id": "other-1"},
    )
    with VendorServer(answer) as server:
        tryon(PROVIDER="telling", PROVIDERS={"telling": telling(server), "aged": aged()})
        text = manage("list_models", "--remote")
        reports = listed("--remote")

    assert [call.path for call in server.calls] == ["/v1/models"] * 2
    assert text.splitlines()[:7] == [
        "telling: Telling (in use)",
        "  aged-3  in use",
        "  aged-2  shutdown 2027-02-23 (in 1 day; the vendor says so), successor aged-3",
        "  aged-1  shutdown 2025-01-01 (782 days ago), not listed by the vendor",
        "  told-1  shutdown 2027-12-31 (in 312 days; the vendor says so), successor told-2",
        "  2 more that the vendor lists; --json names them.",
        "",
    ]
    assert text.splitlines()[-1] == "  Its vendor cannot be asked."
    telling_report = reports["telling"]
    assert (telling_report["asked"], telling_report["problem"]) == (True, "")
    assert telling_report["others"] == ["other-1", "other-2"]
    assert [row["listed"] for row in telling_report["models"]] == [True, True, False, True]
    assert [row["dated_by_vendor"] for row in telling_report["models"]] == [False, True, False, True]
    assert (reports["aged"]["asked"], model(reports["aged"], "aged-2")["listed"]) == (False, None)


def test_remote_asks_all_vendors_at_the_same_time(tryon: Callable[..., None]) -> None:
    with VendorServer(models_answer({"id": "aged-3"}), together=3) as server:
        tryon(PROVIDERS={alias: telling(server) for alias in "abc"})
        reports = listed("--remote", "--timeout=30")
    assert [model(report, "aged-3")["listed"] for report in reports.values()] == [True] * 3


def test_trouble_with_one_vendor_does_not_hide_the_others(tryon: Callable[..., None]) -> None:
    from tryon.dispatch import providers

    def answer(call: Call) -> Answer:
        return {
            "/v1/models": models_answer({"id": "aged-3"}),
            "/v1/refuses/models": json_answer({"message": KEY}, 401),
            "/v1/hangs/models": Answer(end="hang"),
            "/v1/babbles/models": json_answer({"data": [KEY]}),
        }[call.path]

    with VendorServer(answer) as server:
        entries = {alias: telling(server) for alias in ("answers", "refuses", "hangs", "babbles")}
        for alias in ("refuses", "hangs", "babbles"):
            entries[alias]["OPTIONS"]["base_url"] += f"/{alias}"
        entries["broken"] = telling(backend="BrokenProvider")
        tryon(PROVIDERS=entries)
        reports = listed("--remote", "--timeout=1")

    assert {alias: report["problem"] for alias, report in reports.items()} == {
        "answers": "",
        "refuses": "Telling answered 401. Check the api_key.",
        "hangs": "Telling did not tell its models within 1 s.",
        "babbles": "TypeError while Telling was asked for its models.",
        "broken": "RuntimeError while Telling was asked for its models.",
    }
    assert model(reports["answers"], "aged-3")["listed"] is True
    assert [row["listed"] for row in reports["refuses"]["models"]] == [None] * 4
    broken = providers["broken"]
    assert isinstance(broken, BrokenProvider)
    assert broken.closed == 1


def test_what_a_vendor_calls_its_models_cannot_write_on_the_terminal(tryon: Callable[..., None]) -> None:
    answer = models_answer({"id": "told-1", "shutdown_date": "2030-01-01", "instead": "a\x1b[2J\nb"})
    with VendorServer(answer) as server:
        tryon(PROVIDERS={"telling": telling(server)})
        text = manage("list_models", "--remote")
    assert "successor a [2J b" in text
    assert "\x1b" not in text


# list_providers


def table() -> str:
    return manage("list_providers", "--markdown").strip()


def test_the_table_of_the_readme_is_what_list_providers_prints() -> None:
    text = README.read_text()
    assert text.count("<!-- list_providers") == text.count("<!-- /list_providers -->") == 1
    shown = text.partition("<!-- list_providers")[2].partition("-->\n")[2].partition("\n<!-- /list_providers -->")[0]
    assert shown == table(), "Run: python manage.py list_providers --update README.md"


def test_the_table_follows_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    [cls] = [cls for cls in provider_classes() if cls.__name__ == "FakeProvider"]

    async def cancel(self: AIProvider, job: str) -> None: ...

    def line() -> list[str]:
        [line] = [line for line in table().splitlines() if "FakeProvider" in line]
        return [cell.strip() for cell in line.strip("|").split("|")]

    for name in ("supports_prompt", "supports_seed", "supports_category", "makes_video", "keeps_jobs"):
        monkeypatch.setattr(cls, name, False)
    assert line() == ["`fake`", "`providers.fake.FakeProvider`", "", "", "", "", "1 to 4", "", "png", "", "", ""]

    for name in ("ai_generated", "supports_prompt", "supports_seed", "supports_category", "makes_video", "keeps_jobs"):
        monkeypatch.setattr(cls, name, True)
    monkeypatch.setattr(cls, "max_pictures", 4)
    monkeypatch.setattr(cls, "sizes", ("1k", "2k"))
    monkeypatch.setattr(cls, "output_formats", ("png",))
    monkeypatch.setattr(cls, "cancel", cancel)
    monkeypatch.setattr(cls, "models", AgedProvider.models[:2])
    assert line()[2:] == [
        *("yes", "yes", "yes", "yes", "1 to 4", "1k, 2k", "png", "yes", "resumed, cancelled"),
        "`aged-3`, `aged-2` (2027-03-01)",
    ]


def test_the_table_has_every_provider_of_the_package_and_no_base() -> None:
    classes = provider_classes()
    assert {f"{cls.__module__}.{cls.__name__}" for cls in classes} >= {
        "providers.fake.FakeProvider",
        "providers.fashn.FashnProvider",
        "providers.local.LocalProvider",
        "providers.openai.OpenAIProvider",
    }
    assert not {"AIProvider", "RestProvider", "JobProvider"} & {cls.__name__ for cls in classes}
    assert all(cls.generate_image is not AIProvider.generate_image for cls in classes)
    modules = [cls.__module__ for cls in classes]
    assert len(modules) == len(set(modules)), "two rows would have the same alias"


def test_the_settings_offer_classes_of_the_table() -> None:
    shown = table()
    for entry in settings.TRYON["PROVIDERS"].values():
        assert f"`{entry['BACKEND']}`" in shown


def test_list_providers_prints_columns_for_a_terminal() -> None:
    head, *lines = manage("list_providers").splitlines()
    assert head.split() == table().splitlines()[0].replace("|", " ").split()
    assert len(lines) == len(provider_classes())
    assert {line.index("providers.") for line in lines} == {head.index("class")}


def test_list_providers_updates_a_file_and_nothing_else_in_it(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("before\n<!-- list_providers: how -->\nold\n<!-- /list_providers -->\nafter\n")
    manage("list_providers", f"--update={file}")
    manage("list_providers", f"--update={file}")
    expected = f"before\n<!-- list_providers: how -->\n{table()}\n<!-- /list_providers -->\nafter\n"
    assert file.read_text() == expected


@pytest.mark.parametrize("text", ["", "<!-- list_providers -->\n", None])
def test_list_providers_refuses_a_file_without_a_place_for_the_table(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "README.md"
    if text is not None:
        file.write_text(text)
    with pytest.raises(CommandError, match="README"):
        manage("list_providers", f"--update={file}")
    assert text is None or file.read_text() == text


@pytest.mark.parametrize("command", ["list_providers", "list_models"])
def test_listing_imports_no_vendors_sdk_and_needs_no_key(command: str) -> None:
    sdks = ("openai", "google.genai", "google.auth", "aiohttp", "httpx2", "fashn", "fal_client", "replicate", "cv2")
    code = (
        "import sys, django; django.setup();"
        "from django.core.management import execute_from_command_line;"
        f"execute_from_command_line(['manage.py', '{command}']);"
        f"found = [m for m in {sdks} if m in sys.modules]; assert not found, found"
    )
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "settings.test"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "openai" in result.stdout
