from __future__ import annotations

import asyncio
import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from providers.base import AIProvider, Model
from providers.errors import ProviderError
from providers.utils import one_line

from ... import ageing
from ...conf import conf
from ...dispatch import aliases_in_use, close_providers, providers
from .._arguments import whole_number
from .._failures import interruptible, words

TIMEOUT: Final = 15
"""Seconds for a vendor to tell its models."""


@dataclass
class Row:
    """A model that the class knows or the options name."""

    model: Model
    """With what the vendor says now, where that is more or something else."""
    in_use: bool
    listed: bool | None = None
    """Whether the vendor lists it; None if it was not asked or did not say."""
    dated_by_vendor: bool = False

    @property
    def days_left(self) -> int | None:
        return ageing.days_left(self.model.shutdown) if self.model.shutdown else None


@dataclass
class Report:
    """A provider of the settings and its models."""

    alias: str
    provider: AIProvider | None = None
    problem: str = ""
    """Why there is no provider, or no answer of its vendor."""
    asked: bool = False
    """Whether its vendor was asked for its models."""
    rows: list[Row] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """What else the vendor lists."""

    @property
    def role(self) -> str:
        named = aliases_in_use()
        return "" if self.alias not in named else "in use" if self.alias == conf.PROVIDER else "fallback"


class Command(BaseCommand):
    help = (
        "Print the models of every provider in the settings: which are in use, when they are shut down, and what "
        "comes after them. Ends well even if there is trouble with some of them, which it names."
    )
    requires_system_checks = []  # it says what to do about tryon.E009

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("aliases", nargs="*", metavar="ALIAS", help="Only these providers.")
        parser.add_argument("--remote", action="store_true", help="Ask the vendors that can tell; it costs nothing.")
        parser.add_argument(
            "--timeout",
            type=whole_number(1, 600),
            default=TIMEOUT,
            metavar="SECONDS",
            help=f"For each vendor's answer; {TIMEOUT} by default.",
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *, aliases: list[str], remote: bool, timeout: int, json: bool, **options: Any) -> str:
        reports = [_create(alias) for alias in _chosen(aliases)]
        if remote:
            with interruptible("Stopped."):
                asyncio.run(_ask_all(reports, timeout))
        return _as_json(reports) if json else "\n\n".join(_as_text(report, remote=remote) for report in reports)


def _chosen(aliases: Sequence[str]) -> list[str]:
    configured = list(conf.PROVIDERS) if isinstance(conf.PROVIDERS, Mapping) else []
    for alias in aliases:
        if alias not in configured:
            raise CommandError(f"There is no provider {alias!r}. Use one of: {', '.join(configured) or 'none'}.")
    return list(dict.fromkeys(aliases)) or configured


def _create(alias: str) -> Report:
    try:
        provider = providers[alias]
        return Report(alias, provider, rows=_rows(provider))
    except ImproperlyConfigured as error:
        return Report(alias, problem=f"{words(error)}.")
    except Exception as error:  # noqa: BLE001 - of a class that is not ours, whose words may hold a key
        return Report(alias, problem=f"{type(error).__name__} while it was created.")


def _rows(provider: AIProvider) -> list[Row]:
    known = {model.name: model for model in provider.known_models}
    in_use = provider.models_in_use
    models = [*(Model(name) for name in in_use if name not in known), *known.values()]
    return [Row(model, model.name in in_use) for model in models]


async def _ask_all(reports: list[Report], timeout: float) -> None:
    """Ask all vendors side by side. What goes wrong with one is told in its report."""
    asked = [(report, report.provider) for report in reports if report.provider and report.provider.lists_models]
    try:
        await asyncio.gather(*(_ask(report, provider, timeout) for report, provider in asked))
    finally:
        await close_providers()


async def _ask(report: Report, provider: AIProvider, timeout: float) -> None:
    report.asked = True
    try:
        async with asyncio.timeout(timeout):
            remote = {model.name: model for model in await provider.remote_models()}
    except TimeoutError:
        report.problem = f"{provider} did not tell its models within {timeout:g} s."
    except ProviderError as error:
        report.problem = f"{words(error)}."
    except Exception as error:  # noqa: BLE001 - whatever it is, the other vendors' answers count
        report.problem = f"{type(error).__name__} while {provider} was asked for its models."
    else:
        for row in report.rows:
            _compare(row, remote.pop(row.model.name, None))
        report.others = sorted(remote)


def _compare(row: Row, remote: Model | None) -> None:
    """Note what the vendor says of the model; it knows best."""
    row.listed = remote is not None
    if remote is not None and remote.shutdown is not None:
        row.dated_by_vendor = True
        row.model = Model(row.model.name, remote.shutdown, row.model.successor or remote.successor)


def _as_text(report: Report, *, remote: bool) -> str:
    head = f"{report.alias}: {report.provider or 'cannot be used'}"
    lines = [f"{head} ({report.role})" if report.role else head]
    width = max((len(one_line(row.model.name)) for row in report.rows), default=0)
    lines += [f"  {one_line(row.model.name):{width}}  {', '.join(_notes(row))}".rstrip() for row in report.rows]
    if report.others:
        lines.append(f"  {len(report.others)} more that the vendor lists; --json names them.")
    if remote and report.provider and not report.asked:
        lines.append("  Its vendor cannot be asked.")
    if report.problem:
        lines.append(f"  ! {report.problem}")
    return "\n".join(lines)


def _notes(row: Row) -> list[str]:
    notes = ["in use"] if row.in_use else []
    if row.days_left is not None:
        said = "; the vendor says so" if row.dated_by_vendor else ""
        notes.append(f"shutdown {row.model.shutdown} ({ageing.in_words(row.days_left)}{said})")
    if row.listed is False:
        notes.append("not listed by the vendor")
    if row.model.successor:
        notes.append(f"successor {one_line(row.model.successor)}")
    return notes


def _as_json(reports: list[Report]) -> str:
    return json.dumps(
        {
            "today": ageing.today().isoformat(),
            "providers": [
                {
                    "alias": report.alias,
                    "name": str(report.provider or ""),
                    "role": report.role,
                    "problem": report.problem,
                    "asked": report.asked,
                    "models": [_row_as_json(row) for row in report.rows],
                    "others": report.others,
                }
                for report in reports
            ],
        }
    )


def _row_as_json(row: Row) -> dict[str, object]:
    shutdown: date | None = row.model.shutdown
    return {
        "name": row.model.name,
        "in_use": row.in_use,
        "shutdown": shutdown.isoformat() if shutdown else None,
        "days_left": row.days_left,
        "successor": row.model.successor,
        "listed": row.listed,
        "dated_by_vendor": row.dated_by_vendor,
    }
