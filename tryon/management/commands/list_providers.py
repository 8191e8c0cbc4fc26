from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError

from providers.base import AIProvider, Model
from providers.catalog import provider_classes

HEAD: Final = (
    "alias",
    "class",
    "AI",
    "prompt",
    "seed",
    "category",
    "pictures",
    "sizes",
    "formats",
    "video",
    "jobs",
    "models",
)
CODE: Final = ("alias", "class", "models")
"""Columns of names."""
PLACE: Final = re.compile(r"(<!-- list_providers\b[^>]*-->\n).*?(<!-- /list_providers -->)", re.DOTALL)


class Command(BaseCommand):
    help = "Print what the provider classes of this package can do, whichever of them the settings use."
    requires_system_checks = []  # it is about classes, not about settings

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--markdown", action="store_true", help="Print the table of the README.")
        parser.add_argument(
            "--update", type=Path, metavar="FILE", help="Put that table between its two marks in FILE, a README.md."
        )

    def handle(self, *, markdown: bool, update: Path | None, **options: Any) -> str:
        rows = [row(cls) for cls in provider_classes()]
        if update is not None:
            return _put(markdown_table(rows), update)
        return markdown_table(rows) if markdown else text_table(rows)


def row(cls: type[AIProvider]) -> dict[str, list[str]]:
    """What the class says of itself, by column."""
    jobs = ["resumed"] if cls.keeps_jobs else []
    if cls.cancel is not AIProvider.cancel:
        jobs.append("cancelled")
    cells = (
        [cls.__module__.rpartition(".")[2]],
        [f"{cls.__module__}.{cls.__name__}"],
        _yes(cls.ai_generated),
        _yes(cls.supports_prompt),
        _yes(cls.supports_seed),
        _yes(cls.supports_category),
        ["1" if cls.max_pictures == 1 else f"1 to {cls.max_pictures}"],
        list(cls.sizes),
        list(cls.output_formats),
        _yes(cls.makes_video),
        jobs,
        [_known(model) for model in cls.models],
    )
    return dict(zip(HEAD, cells, strict=True))


def markdown_table(rows: list[dict[str, list[str]]]) -> str:
    """The rows as a table of the README."""
    cells = [[", ".join(map(_quoted if name in CODE else str, each[name])) for name in HEAD] for each in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ["---"] * len(HEAD), *cells))


def text_table(rows: list[dict[str, list[str]]]) -> str:
    """The rows for a terminal."""
    lines = [HEAD, *(tuple(", ".join(each[name]) or "-" for name in HEAD) for each in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _yes(can: bool) -> list[str]:
    return ["yes"] if can else []


def _known(model: Model) -> str:
    return f"{model.name} ({model.shutdown})" if model.shutdown else model.name


def _quoted(text: str) -> str:
    name, space, date = text.partition(" ")
    return f"`{name}`{space}{date}"


def _put(table: str, path: Path) -> str:
    try:
        text, places = PLACE.subn(lambda marks: f"{marks[1]}{table}\n{marks[2]}", path.read_text("utf-8"))
        if places != 1:
            raise CommandError(
                f"{path} needs one place for the table: <!-- list_providers --> <!-- /list_providers -->."
            )
        path.write_text(text, "utf-8")
    except OSError as error:
        raise CommandError(f"--update {path}: {error.strerror}.") from error
    return f"The table is in {path}."
