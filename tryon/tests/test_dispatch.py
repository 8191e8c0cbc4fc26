"""Retries, the deadline, fallbacks, jobs and alerts: what a run does when its provider does not do its part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from providers.tests.vendor import Answer, Call, VendorServer, openai_answer, openai_error
from tryon.models import TryOn

from .shop import png

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

VENDORS_KEY = "sk-of-the-vendor-1234567890"
PICTURE = openai_answer(png())
DOWN = openai_error(503)


def then(*answers: Answer, last: Answer = PICTURE) -> Callable[[Call], Answer]:
    """A vendor's answers, one for each call, and what it answers from then on."""
    remaining = iter(answers)
    return lambda call: next(remaining, last)


def openai_at(url: str, **entry: Any) -> dict[str, Any]:
    """An entry of PROVIDERS: a provider whose vendor is there."""
    options = {"api_key": VENDORS_KEY, "base_url": url}
    return {"BACKEND": "providers.openai.OpenAIProvider", "OPTIONS": options, **entry}


def fake_entry(error: str = "", **entry: Any) -> dict[str, Any]:
    return {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"error": error}, **entry}


@pytest.fixture
def vendor(tryon: Callable[..., None]) -> Iterator[VendorServer]:
    """The vendor of the provider in use, "openai", which makes every picture at once."""
    with VendorServer(PICTURE) as vendor:
        tryon(PROVIDER="openai", PROVIDERS={"openai": openai_at(vendor.base_url)})
        yield vendor


def attempts(run: TryOn | None = None) -> list[tuple[str, str]]:
    """Providers and outcomes of a run's attempts, by default of the latest run's."""
    run = run or TryOn.objects.latest("created_at")
    return [(attempt["provider"], attempt["outcome"]) for attempt in run.attempts]
