"""What is known of OpenAI's models: how long there are any, what they can make, and what it costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final
from urllib.parse import urlsplit

from ..base import Model, Photo
from ..utils import bad_option

QUALITIES: Final = ("auto", "low", "medium", "high", "xhigh", "max")
BEFORE_2_5: Final = re.compile(r"dall-e|chatgpt-image|gpt-image-(1[.-]|1$|2-|2$)")
"""Models that do not know the two best qualities."""

MAX_EDGE: Final = 3840
"""Pixels, of the longer edge of a picture."""
MAX_RATIO: Final = 3
"""Of the longer edge to the shorter."""
STEP: Final = 16
"""Pixels, that both edges are divisible by."""
MIN_PIXELS: Final = 655_360
MAX_PIXELS: Final = 8_294_400
PIXELS: Final = {"1k": 1024**2, "2k": 2048**2, "4k": MAX_PIXELS}

SUNBURST: Final = "gpt-image-2.6-sunburst"
FLARE: Final = "gpt-image-2.6-flare"
MODELS: Final = (
    # developers.openai.com/api/docs/deprecations, and the SDK's types/image_model.py.
    Model(SUNBURST),
    Model(FLARE),
    Model("gpt-image-2.5-sunburst"),
    Model("gpt-image-2.5-sunburst-2026-09-08"),
    Model("gpt-image-2.5-flare"),
    Model("gpt-image-2.5-flare-2026-09-08"),
    Model("gpt-image-2"),
    Model("gpt-image-2-2026-04-21"),
    Model("gpt-image-1.5", date(2026, 12, 1), SUNBURST),
    Model("gpt-image-1.5-2025-12-16", date(2026, 12, 1), SUNBURST),
    Model("gpt-image-1-mini", date(2026, 12, 1), FLARE),
    Model("chatgpt-image-latest", date(2026, 12, 1), SUNBURST),
    Model("gpt-image-1", date(2026, 10, 23), "gpt-image-2.5-sunburst"),
    Model("dall-e-3", date(2026, 5, 12), SUNBURST),
    Model("dall-e-2", date(2026, 5, 12), SUNBURST),
)
AZURE_MODELS: Final = (
    # MicrosoftDocs/azure-ai-docs, concepts-model-retirement-schedule-content.md, of 2026-07-07.
    Model("gpt-image-2", date(2027, 4, 21)),
    Model("gpt-image-1-mini", date(2027, 4, 7)),
    Model("gpt-image-1.5", date(2026, 12, 16)),
    Model("gpt-image-1", date(2026, 10, 23)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    family: re.Pattern[str]
    text_in: Decimal
    image_in: Decimal
    cached_text_in: Decimal
    cached_image_in: Decimal
    image_out: Decimal


PRICES: Final = (
    # developers.openai.com/api/docs/models/gpt-image-2.6-sunburst. The others of the family cost the same:
    # docs.apiyi.com/en/live/2026-11/gpt-image-2-6-launch.md.
    Price(
        family=re.compile(r"gpt-image-2\.[56]-"),
        text_in=Decimal(5),
        image_in=Decimal(8),
        cached_text_in=Decimal("1.25"),
        cached_image_in=Decimal(2),
        image_out=Decimal(30),
    ),
)


def models_at(base_url: str, azure_api_version: str) -> tuple[Model, ...]:
    """The models whose dates hold at that server: a compatible one keeps a model for as long as it likes."""
    if azure_api_version:
        return AZURE_MODELS
    host = urlsplit(base_url).hostname or ""
    return MODELS if host.endswith(".openai.com") else ()


def qualities_of(model: str) -> tuple[str, ...]:
    return QUALITIES[:4] if BEFORE_2_5.match(model) else QUALITIES


def makes_any_size(model: str) -> bool:
    """Other models, and those behind a base_url of one's own, have limits of their own."""
    return model.startswith("gpt-image-2")


def check_size(alias: str, size: object, model: str) -> None:
    if size == "auto":
        return
    edges = edges_of(size)
    if edges is None:
        raise bad_option(alias, "size", size, 'Use "auto" or WIDTHxHEIGHT in pixels, for instance "1024x1536".')
    width, height = edges
    fits = (
        width % STEP == 0
        and height % STEP == 0
        and max(width, height) <= min(MAX_RATIO * min(width, height), MAX_EDGE)
        and MIN_PIXELS <= width * height <= MAX_PIXELS
    )
    if makes_any_size(model) and not fits:
        raise bad_option(
            alias,
            "size",
            size,
            f"{model} makes pictures with edges divisible by {STEP} and at most {MAX_EDGE}, not longer than three "
            f"times their width, of {MIN_PIXELS} to {MAX_PIXELS} pixels.",
        )


def edges_of(size: object) -> tuple[int, int] | None:
    """Width and height of a size as OpenAI writes it; None if it is "auto" or anything else."""
    match = re.fullmatch(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", size) if isinstance(size, str) else None
    return (int(match[1]), int(match[2])) if match else None


def size_for(photo: Photo, size: str) -> str:
    """WIDTHxHEIGHT of about as many pixels as ``size`` says, in the shape of the photo as far as that is possible."""
    ratio = min(max(photo.width, photo.height) / min(photo.width, photo.height), MAX_RATIO)
    short = _steps(min(math.sqrt(PIXELS[size] / ratio), MAX_EDGE / ratio))
    long = min(_steps(short * ratio + STEP / 2), MAX_RATIO * short, MAX_EDGE, _steps(MAX_PIXELS / short))
    return f"{long}x{short}" if photo.width > photo.height else f"{short}x{long}"


def _steps(pixels: float) -> int:
    """The length, or the next smaller one that OpenAI makes."""
    return int(pixels / STEP) * STEP


def cost_of(model: str, usage: Mapping[str, int]) -> Decimal | None:
    """US dollars at list price. None if not known."""
    price = next((price for price in PRICES if price.family.match(model)), None)
    if price is None or not {"input_text_tokens", "input_image_tokens", "output_tokens"} <= usage.keys():
        return None
    text, image = usage["input_text_tokens"], usage["input_image_tokens"]
    # Where only their sum is told, cached tokens count as text first, which saves the least.
    cached = usage.get("input_cached_tokens", 0)
    cached_text = min(usage.get("input_cached_text_tokens", cached), text)
    cached_image = min(usage.get("input_cached_image_tokens", max(cached - cached_text, 0)), image)
    return (
        (text - cached_text) * price.text_in
        + (image - cached_image) * price.image_in
        + cached_text * price.cached_text_in
        + cached_image * price.cached_image_in
        + usage["output_tokens"] * price.image_out
    ) / 1_000_000
