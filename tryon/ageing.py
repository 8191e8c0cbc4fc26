"""For how long the models in use will be there."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Final

from providers.base import AIProvider, Model

WARN_WITHIN: Final = 60
"""Days."""


def today() -> date:
    """The day it is for models. Their vendors name days without an hour or a zone."""
    return datetime.now(UTC).date()


def days_left(shutdown: date) -> int:
    """How many more days there are; 0 on the day itself, less than 0 after it."""
    return (shutdown - today()).days


def in_words(days: int) -> str:
    """What ``days_left()`` means."""
    if days == 0:
        return "today"
    unit = "day" if abs(days) == 1 else "days"
    return f"in {days} {unit}" if days > 0 else f"{-days} {unit} ago"


def ending_models(provider: AIProvider) -> Iterator[tuple[Model, int]]:
    """The models that ``provider`` uses and whose end is near or past, each with the days it has left."""
    for model in provider.known_models:
        if model.shutdown and model.name in provider.models_in_use:
            days = days_left(model.shutdown)
            if days <= WARN_WITHIN:
                yield model, days
