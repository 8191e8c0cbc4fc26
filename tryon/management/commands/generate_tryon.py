from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from providers.base import Category

from ...exceptions import TryOnError
from ...models import TryOn
from ...pipeline import Order
from ...samples import sample
from ...serializers import CATEGORIES
from .._tryons import is_url, make_tryon
from .._users import find_user


class Command(BaseCommand):
    help = "Put a garment on a person: the same run as POST /api/v1/create-image, from the command line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user-image", metavar="PATH_OR_URL", help="Photo of the person.")
        parser.add_argument("--catalog-image", metavar="PATH_OR_URL", help="Photo of the garment.")
        parser.add_argument("--demo", action="store_true", help="Use the demo photos.")
        parser.add_argument("--user", help="Who pays. Without a user the run is the operator's and free.")
        parser.add_argument("--catalog-id", default="", help="Your id of the garment.")
        parser.add_argument("--provider", default="", metavar="ALIAS", help="Instead of the settings' PROVIDER.")
        parser.add_argument("--prompt", default="", help="Instead of the settings' PROMPT.")
        parser.add_argument("--category", default="auto", choices=CATEGORIES, help="What kind of garment it is.")
        parser.add_argument("--output", type=Path, metavar="FILE", help="Also write the picture to this file.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *, output: Path | None, json: bool, **options: Any) -> str:
        order = self.order(**options)
        if output is not None and not output.parent.is_dir():
            raise CommandError(f"--output {output}: there is no folder {output.parent}. Create it first.")
        try:
            tryon = asyncio.run(make_tryon(order, progress=sys.stderr if not json else None))
        except (TryOnError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Cancelled. Nothing was charged.", returncode=130) from None
        if output is not None:
            with tryon.image.open() as picture:
                output.write_bytes(picture.read())
        return self.report(tryon, output, as_json=json)

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
        **options: Any,
    ) -> Order:
        if demo:
            try:
                user_image = user_image or str(sample("person.jpg"))
                catalog_image = catalog_image or str(sample("garment.jpg"))
            except TryOnError as error:
                raise CommandError(str(error)) from error
        if not (user_image and catalog_image):
            raise CommandError("Give --user-image and --catalog-image, or --demo.")
        return Order(
            user=find_user(user) if user else None,
            person=_source("--user-image", user_image),
            garment=_source("--catalog-image", catalog_image),
            catalog_id=catalog_id or ("demo" if demo else ""),
            provider=provider,
            prompt=prompt,
            category=category,
        )

    def report(self, tryon: TryOn, output: Path | None, *, as_json: bool) -> str:
        try:
            path = str(output or tryon.image.path)
        except NotImplementedError:  # a storage without paths
            path = tryon.image.url
        if as_json:
            return json.dumps(
                {
                    "status": "success",
                    "id": str(tryon.pk),
                    "path": path,
                    "image_url": tryon.image.url,
                    "latency_ms": tryon.latency_ms,
                    "provider": tryon.provider,
                    "model": tryon.model,
                    "credits": tryon.credits,
                    "warnings": tryon.warnings,
                }
            )
        lines = [path, *(f"Note: {warning}" for warning in tryon.warnings)]
        lines.append(f"{tryon.provider} ({tryon.model}), {tryon.latency_ms} ms, {tryon.credits} credit(s)")
        return "\n".join(lines)


def _source(option: str, text: str) -> str | bytes:
    """A URL stays as it is; a path is read."""
    if is_url(text):
        return text
    try:
        return Path(text).read_bytes()
    except OSError as error:
        raise CommandError(f"{option} {text}: {error.strerror}. Give a file or an http(s) URL.") from None
