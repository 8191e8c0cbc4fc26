from __future__ import annotations

import csv
import hashlib
import io
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args

from django.core.management.base import BaseCommand, CommandError
from PIL import Image
from tqdm import tqdm

from providers.base import Category
from providers.errors import ImageUnusable, ProviderMisconfigured
from providers.local import INSTALL

from ... import images
from ...conf import conf
from ...exceptions import ImageTooLarge, TryOnError
from .._contact_sheet import Cell, draw, small
from .._failures import interruptible, words
from .._models import models_dir

if TYPE_CHECKING:
    from providers.local.imaging import Picture
    from providers.local.tryon import Outcome

Fit: TypeAlias = "Callable[[bytes, bytes, Category], Outcome]"

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp")
MAX_PAIRS: Final = 400
"""As many as make a sheet that can still be opened: 20 x 20 are about 5,000 x 8,500 pixels."""

FRAMES: Final = {"shown": "", "refused": "#c22", "no picture": "#777", "error": "#a0a"}
"""What may become of a pair, and its colour in the sheet. A refused one has a picture that no shopper would see; an
error is a bug."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A photo of the folder, as a provider gets it."""

    name: str
    """The file's, without its ending."""
    category: Category
    data: bytes = b""
    problem: str = ""
    """Why it cannot be used, if so."""

    def cell(self) -> Cell:
        text = self.name if self.category == "auto" else f"{self.name}\n{self.category}"
        if self.problem:
            return Cell(text=text, frame=FRAMES["no picture"])
        with Image.open(io.BytesIO(self.data)) as picture:
            return Cell(small(picture.convert("RGB")), text=text)


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a pair: a line of the table."""

    person: str
    garment: str
    category: str
    outcome: str
    """A key of FRAMES."""
    confidence: float | None = None
    """0 to 1, to two digits; None without a picture."""
    refusal: str = ""
    """Why it is not shown."""
    warnings: tuple[str, ...] = ()
    cpu_ms: int = 0
    """Of all threads. A photo that the provider remembers from an earlier pair takes less."""
    pixels: str = ""
    """Hash of the picture."""

    @property
    def verdict(self) -> str:
        return self.outcome if self.confidence is None else f"{self.outcome} {self.confidence:.2f}"

    def line(self) -> dict[str, object]:
        confidence = "" if self.confidence is None else f"{self.confidence:.2f}"
        return asdict(self) | {"confidence": confidence, "warnings": " ".join(self.warnings)}

    def cell(self, picture: Image.Image | None) -> Cell:
        text = "\n".join(filter(None, (self.refusal, *self.warnings)))
        return Cell(picture and small(picture), self.verdict, self.confidence, text, FRAMES[self.outcome])


REMEMBERED: Final = 24
"""People, and garments, whose analyses are kept while the pairs are made."""


class Command(BaseCommand):
    help = (
        "Put every garment of a folder on every person of it with the offline provider, and write the pictures, a "
        "contact sheet and a table, to see what a change of the provider did."
    )
    requires_system_checks = []  # it is about one provider, whichever the settings use

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "folder",
            type=Path,
            metavar="FOLDER",
            help="The photos: FOLDER/person/* and FOLDER/garment/*. Garments in garment/tops, garment/bottoms and "
            "garment/dresses are of that category.",
        )
        parser.add_argument(
            "--category",
            default="auto",
            choices=get_args(Category),
            help="Of the garments that lie in no such folder.",
        )
        for kind in ("person", "garment"):
            parser.add_argument(
                f"--{kind}",
                action="append",
                metavar="NAME",
                help=f"Only this {kind}: the file's name without its ending. May be given several times.",
            )
        parser.add_argument(
            "--output",
            type=Path,
            default=Path("evaluation"),
            metavar="FOLDER",
            help="Where the results go; ./evaluation by default.",
        )
        parser.add_argument(
            "--baseline", type=Path, metavar="FILE", help="An earlier table.csv: also print what is different now."
        )

    def handle(
        self,
        *,
        folder: Path,
        category: Category,
        person: list[str] | None,
        garment: list[str] | None,
        output: Path,
        baseline: Path | None,
        **options: Any,
    ) -> None:
        persons = _chosen("person", _photos(folder / "person", "auto"), person)
        garments = _chosen("garment", _garments(folder / "garment", category), garment)
        if len(persons) * len(garments) > MAX_PAIRS:
            raise CommandError(
                f"{len(persons)} persons with {len(garments)} garments are more than {MAX_PAIRS} pairs. Name those "
                "that matter: --person NAME, --garment NAME."
            )
        earlier = _read_table(baseline) if baseline else []
        fit = _offline()
        with interruptible(f"Stopped. The pictures that were made are in {output}."):
            try:
                output.mkdir(parents=True, exist_ok=True)
                evaluation = Evaluation(fit, output)
                evaluation.run(
                    [_shot("Person photo", path, category) for path, category in persons.items()],
                    [_shot("Garment photo", path, category) for path, category in garments.items()],
                )
            except OSError as error:
                raise CommandError(f"--output {output}: {error.strerror or error}.") from error
        self.stdout.write("\n".join(_summary(evaluation.rows)))
        if baseline:
            self.stdout.write("\n".join(_differences(evaluation.rows, earlier, baseline)))
        self.stdout.write(f"{evaluation.sheet}\n{evaluation.table}")
        if evaluation.first_error:
            count = sum(row.outcome == "error" for row in evaluation.rows)
            raise CommandError(
                f"{count} pair(s) ended in an error, which is a bug of the provider; --traceback shows the first one."
            ) from evaluation.first_error


# Before


def _photos(folder: Path, category: Category) -> dict[Path, Category]:
    """The photos in ``folder``, with the category that they are to have."""
    try:
        return {
            path: category
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
        }
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}. It should be a folder of photos.") from None


def _garments(folder: Path, category: Category) -> dict[Path, Category]:
    """Those in ``folder``, and those in folders of it that are named for a category."""
    found = _photos(folder, category)
    for name in get_args(Category):
        if (folder / name).is_dir():
            found |= _photos(folder / name, name)
    return found


def _chosen(kind: str, photos: dict[Path, Category], names: Collection[str] | None) -> dict[Path, Category]:
    """The photos by their names, if ``names`` says so only some of them."""
    by_name: dict[str, Path] = {}
    for path in sorted(photos, key=lambda path: (path.name, path)):
        if path.stem in by_name:
            raise CommandError(f"{by_name[path.stem]} and {path} have the same name. Rename one of them.")
        by_name[path.stem] = path
    if not by_name:
        raise CommandError(f"There are no photos of a {kind}: no {', '.join(SUFFIXES)} in the folder {kind}.")
    for name in names or ():
        if name not in by_name:
            raise CommandError(f"--{kind} {name}: there is no such photo. Use one of: {', '.join(by_name)}.")
    return {path: photos[path] for name, path in by_name.items() if names is None or name in names}


def _read_table(path: Path) -> list[Row]:
    """What an earlier evaluation found, as far as it is compared."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                Row(
                    line["person"],
                    line["garment"],
                    line["category"],
                    line["outcome"],
                    confidence=float(line["confidence"]) if line["confidence"] else None,
                    pixels=line["pixels"],
                )
                for line in csv.DictReader(file)
            ]
    except OSError as error:
        raise CommandError(f"--baseline {path}: {error.strerror}. Give the table.csv of an earlier run.") from error
    except (KeyError, ValueError, csv.Error):
        raise CommandError(
            f"--baseline {path} is no table of this command. Give the table.csv of an earlier run."
        ) from None


def _offline() -> Fit:
    """The offline provider's own function, without its queue."""
    try:
        from providers.local import nets, tryon  # what they need is an extra

        return partial(tryon.fit, nets.load(models_dir()), analyses=tryon.Analyses(REMEMBERED))
    except ImportError as error:
        raise CommandError(f"The offline provider cannot be loaded: {words(error)}. {INSTALL}") from error
    except ProviderMisconfigured as error:
        raise CommandError(str(error)) from error


# The work


def _shot(field: str, path: Path, category: Category) -> Shot:
    """A photo, gone through what one goes through before a provider gets it."""
    try:
        with path.open("rb") as file:
            data = file.read(conf.MAX_IMAGE_BYTES + 1)
        if len(data) > conf.MAX_IMAGE_BYTES:
            raise ImageTooLarge(f"the image has more than {conf.MAX_IMAGE_BYTES:,} bytes. Send a smaller one.")
        data = images.normalise(data, field=field).data
        images.decode(data)
        return Shot(path.stem, category, data)
    except OSError as error:
        problem = f"{error.strerror}."
    except TryOnError as error:
        problem = str(error).removeprefix(f"{field}: ")
    return Shot(path.stem, category, problem=f"{field}: {problem}")


class Evaluation:
    """Every person with every garment; the results go to the folder ``output``. Raise ``OSError``."""

    def __init__(self, fit: Fit, output: Path) -> None:
        self.rows: list[Row] = []
        self.first_error: Exception | None = None  # not all: each keeps the arrays of its frames alive
        self.sheet, self.table = output / "sheet.png", output / "table.csv"
        self._fit, self._output = fit, output

    def run(self, persons: Sequence[Shot], garments: Sequence[Shot]) -> None:
        lines = [[person.cell()] for person in persons]
        pairs = [(person, line, garment) for person, line in zip(persons, lines, strict=True) for garment in garments]
        for person, line, garment in tqdm(pairs, leave=False, file=sys.stderr, disable=None, unit="pair"):
            row, picture = self._try_on(person, garment)
            self.rows.append(row)
            line.append(row.cell(Image.fromarray(picture) if picture is not None else None))
            self._save(self._output / f"{person.name}__{garment.name}.png", picture)
        first = [Cell(text="\n".join(_counts(self.rows))), *(garment.cell() for garment in garments)]
        draw([first, *lines]).save(self.sheet)
        with self.table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(row.line() for row in self.rows)

    def _try_on(self, person: Shot, garment: Shot) -> tuple[Row, Picture | None]:
        row = partial(Row, person.name, garment.name, garment.category)
        if problem := person.problem or garment.problem:
            return row("no picture", refusal=problem), None
        started = time.process_time()

        def cpu_ms() -> int:
            return round(1000 * (time.process_time() - started))

        try:
            made = self._fit(person.data, garment.data, garment.category)
        except ImageUnusable as error:
            return row("no picture", refusal=str(error), cpu_ms=cpu_ms()), None
        except Exception as error:  # noqa: BLE001 - the other pairs are wanted all the same
            self.first_error = self.first_error or error
            return row("error", refusal=f"{type(error).__name__}: {words(error)}.", cpu_ms=cpu_ms()), None
        return row(
            "refused" if made.refusal else "shown",
            confidence=round(made.confidence, 2),
            refusal=made.refusal,
            warnings=made.warnings,
            cpu_ms=cpu_ms(),
            pixels=hashlib.sha256(made.picture.tobytes()).hexdigest()[:16],
        ), made.picture

    @staticmethod
    def _save(path: Path, picture: Picture | None) -> None:
        """As a provider's result would be; without a picture, none of an earlier run stays."""
        if picture is None:
            path.unlink(missing_ok=True)
        else:
            from providers.local import mark

            path.write_bytes(mark.png(picture))


# What is printed


def _counts(rows: Sequence[Row]) -> Iterator[str]:
    found = Counter(row.outcome for row in rows)
    yield f"{len(rows)} pair(s): {', '.join(f'{found[name]} {name}' for name in FRAMES if found[name])}."
    if sure := [row.confidence for row in rows if row.confidence is not None]:
        yield f"Confidence: {fmean(sure):.2f} on average of {len(sure)}, {min(sure):.2f} to {max(sure):.2f}."
    if timed := [row for row in rows if row.cpu_ms]:
        slowest = max(timed, key=lambda row: row.cpu_ms)
        yield (
            f"CPU: {fmean(row.cpu_ms for row in timed) / 1000:.1f} s a pair, at most {slowest.cpu_ms / 1000:.1f} s "
            f"({slowest.person}, {slowest.garment})."
        )


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    yield from _counts(rows)
    for row in rows:
        if row.refusal:
            yield f"  {row.person}  {row.garment}  {row.verdict}: {row.refusal}"


def _differences(rows: Sequence[Row], earlier: Sequence[Row], baseline: Path) -> Iterator[str]:
    """Pair by pair, where the outcome or the confidence is another one."""
    known = {(row.person, row.garment): row for row in earlier}
    pairs = [(known[key], row) for row in rows if (key := (row.person, row.garment)) in known]
    others = sum(before.pixels != now.pixels for before, now in pairs)
    yield f"Compared with {baseline}: {len(pairs)} pair(s) are in both, {others} of them with another picture."
    for before, now in pairs:
        if before.verdict != now.verdict:
            yield f"  {now.person}  {now.garment}  {before.verdict} -> {now.verdict}"
