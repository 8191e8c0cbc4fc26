from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from providers.base import OUTPUT_FORMATS, SIZES, Category, OutputFormat, Size

from ...conf import conf
from ...models import TryOn
from ...runs import Order
from ...serializers import CATEGORIES, MAX_SEED
from .._arguments import text_for, whole_number
from .._failures import interruptible
from .._tryons import demo_photo, is_url, locations, make_tryon
from .._users import find_user


class Command(BaseCommand):
    help = "Put a garment on a person: the same run as POST /api/v1/create-image, from the command line."
    requires_system_checks = []  # --provider may name another than the one that lacks something

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user-image", metavar="PATH_OR_URL", help="Photo of the person.")
        parser.add_argument("--catalog-image", metavar="PATH_OR_URL", help="Photo of the garment.")
        parser.add_argument("--demo", action="store_true", help="Use the demo photos, where no other is given.")
        parser.add_argument("--user", help="Who pays. Without a user the run is the operator's and free.")
        parser.add_argument(
            "--catalog-id", default="", type=text_for(TryOn, "catalog_id"), help="Your id of the garment."
        )
        parser.add_argument("--provider", default="", metavar="ALIAS", help="Instead of the settings' PROVIDER.")
        parser.add_argument("--prompt", default="", help="Instead of the settings' PROMPT.")
        parser.add_argument("--category", default="auto", choices=CATEGORIES, help="What kind of garment it is.")
        parser.add_argument(
            "--seed",
            type=whole_number(0, MAX_SEED),
            help="The same seed gives a comparable picture, if the provider can.",
        )
        parser.add_argument("--pictures", type=whole_number(1, 10), default=1, metavar="N", help="How many to make.")
        parser.add_argument("--size", default="", choices=SIZES, help="If the provider can be told.")
        parser.add_argument("--output-format", default="", choices=OUTPUT_FORMATS, help="If the provider can be told.")
        parser.add_argument("--output", type=Path, metavar="FILE", help="Also write the picture to this file.")
        parser.add_argument("--no-store", action="store_true", help="Keep the picture in the --output file alone.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *, output: Path | None, json: bool, **options: Any) -> str:
        if output is not None:
            _demand_place(output)
        elif options["no_store"]:
            raise CommandError("--no-store needs --output FILE: nobody could see the picture.")
        if options["no_store"] and options["pictures"] > 1:
            raise CommandError("--no-store keeps one picture, in the --output file. Leave --pictures out.")
        present = partial(self.present, output=output, as_json=json)
        with interruptible("Cancelled. A picture that was not finished costs nothing."):
            return make_tryon(self.order(**options), present, progress=sys.stderr if not json else None)

    def order(
        self,
        *,
        user_image: str | None,
        catalog_image: str | None,
        demo: bool,
        user: str | None,
        catalog_id: str,
        provider: str,
        prompt: str,
        category: Category,
        seed: int | None,
        pictures: int,
        size: Size,
        output_format: OutputFormat,
        no_store: bool,
        **options: Any,
    ) -> Order:
        if demo:
            user_image = user_image or str(demo_photo("person.jpg"))
            catalog_image = catalog_image or str(demo_photo("garment.jpg"))
        if not (user_image and catalog_image):
            raise CommandError("Give --user-image and --catalog-image, or --demo.")
        return Order(
            user=find_user(user, active=True) if user is not None else None,
            person=_source("--user-image", user_image),
            garment=_source("--catalog-image", catalog_image),
            catalog_id=catalog_id or ("demo" if demo else ""),
            provider=provider,
            prompt=prompt,
            category=category,
            seed=seed,
            pictures=pictures,
            size=size,
            output_format=output_format,
            no_store=no_store,
        )

    def present(self, tryon: TryOn, *, output: Path | None, as_json: bool) -> str:
        """Write the file and say what was made."""
        path, *more = [str(output)] if tryon.no_store else locations(tryon)
        report = self.report(tryon, str(output or path), more, as_json=as_json)
        if output is not None:
            _write(tryon, output)
        return report

    def report(self, tryon: TryOn, path: str, more: list[str], *, as_json: bool) -> str:
        if as_json:
            return json.dumps(
                {
                    "status": "success",
                    "id": str(tryon.pk),
                    "path": path,
                    "image_url": None if tryon.no_store else tryon.image.url,
                    "more_paths": more,
                    "latency_ms": tryon.latency_ms,
                    "provider": tryon.provider,
                    "model": tryon.model,
                    "credits": tryon.credits,
                    "ai_generated": tryon.ai_generated,
                    "warnings": tryon.warnings,
                    "confidence": tryon.confidence,
                }
            )
        lines = [path, *more, *(f"Note: {warning}" for warning in tryon.warnings)]
        if tryon.confidence is not None:
            lines.append(f"Confidence: {tryon.confidence:.2f}")
        lines.append(f"{tryon.provider} ({tryon.model}), {tryon.latency_ms} ms, {tryon.credits} credit(s)")
        return "\n".join(lines)


def _demand_place(output: Path) -> None:
    """Refuse, before anything is done, what cannot become a file."""
    if os.path.isdir(output):  # unlike Path's own, it takes any text
        raise CommandError(f"--output {output} is a folder. Name a file in it.")
    if not os.path.isdir(output.parent):
        raise CommandError(f"--output {output}: there is no folder {output.parent}. Create it first.")


def _write(tryon: TryOn, output: Path) -> None:
    with tryon.image.open() as picture:
        data = picture.read()
    try:
        output.write_bytes(data)
    except OSError as error:
        raise CommandError(f"--output {output}: {error.strerror}. Nothing was charged.") from error


def _source(option: str, text: str) -> str | bytes:
    """A URL stays as it is; a file is read, as far as it could be a photo."""
    if is_url(text):
        return text
    try:
        if os.path.exists(text) and not os.path.isfile(text):  # a pipe or a device may never end
            raise CommandError(f"{option} {text} is no file. Give a file or an http(s) URL.")
        with open(text, "rb") as file:
            return file.read(conf.MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{option} {text}: {error.strerror}. Give a file or an http(s) URL.") from None
