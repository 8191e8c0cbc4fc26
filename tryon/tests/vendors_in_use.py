"""The vendor of the provider in use, on loopback, and its fallbacks: what the tests of the dispatcher share."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import close_old_connections

from providers import openai
from providers.fake import FakeProvider
from providers.tests.vendor import Answer, Call, VendorServer, openai_answer, openai_error
from tryon import dispatch, pipeline
from tryon.dispatch import providers
from tryon.models import TryOn
from tryon.runs import Order
from tryon.signals import provider_alert

from .shop import Shop, png

VENDORS_KEY = "sk-of-the-vendor-1234567890"
MODEL = "gpt-image-2.6-sunburst"
PICTURE = openai_answer(png())
DOWN = openai_error(503)
RESET = Answer(raw=b"", end="reset")
HANG = Answer(end="hang")
SHORT = 0.6
"""Seconds, in which even a busy machine has fetched two photos."""


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
    openai._import()  # takes a second, which the tests with little time do not have
    with VendorServer(PICTURE) as vendor:
        tryon(PROVIDER="openai", PROVIDERS={"openai": openai_at(vendor.base_url)})
        yield vendor


@pytest.fixture
def backed_up(vendor: VendorServer, tryon: Callable[..., None]) -> Callable[..., None]:
    """Give the provider in use fallbacks, by alias."""

    def configure(*, primary: dict[str, Any] | None = None, **fallbacks: dict[str, Any]) -> None:
        entries = {"openai": openai_at(vendor.base_url, **(primary or {})), **fallbacks}
        tryon(PROVIDERS=entries, FALLBACK_PROVIDERS=list(fallbacks))

    return configure


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the dispatcher makes, which take no time."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(dispatch, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return made


@pytest.fixture
def alerts() -> Iterator[list[dict[str, Any]]]:
    """What the operator was told."""
    told: list[dict[str, Any]] = []

    def hear(**kwargs: Any) -> None:
        told.append(kwargs)

    provider_alert.connect(hear)
    yield told
    provider_alert.disconnect(hear)


class Gate:
    """Holds the runs that have come to a fake provider, until ``opened``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived = threading.Semaphore(0)
        self.first = threading.Event()
        self.opened = threading.Event()
        generate = FakeProvider.generate_image

        async def wait(provider: FakeProvider, request: Any) -> Any:
            self.first.set()
            self.arrived.release()
            while not self.opened.is_set():
                await asyncio.sleep(0.001)
            return await generate(provider, request)

        monkeypatch.setattr(FakeProvider, "generate_image", wait)

    @contextlib.contextmanager
    def holding(self, shop: Shop, number: int = 1, **options: Any) -> Iterator[list[Future[Any]]]:
        """So many requests wait for their pictures meanwhile; afterwards they have been answered."""

        def post() -> Any:
            try:
                return shop.post(**options)
            finally:
                close_old_connections()

        with ThreadPoolExecutor(number) as pool:
            answers = [pool.submit(post) for _ in range(number)]
            try:
                for _ in range(number):
                    while not self.arrived.acquire(timeout=0.1):
                        assert not any(answer.done() for answer in answers), [answer.result() for answer in answers]
                yield answers
            finally:
                self.opened.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def assert_overloaded(response: Any) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert "Nothing was charged" in response.json()["detail"]


def attempts(run: TryOn | None = None) -> list[tuple[str, str]]:
    """Providers and outcomes of a run's attempts, by default of the latest run's."""
    run = run or TryOn.objects.latest("created_at")
    return [(attempt["provider"], attempt["outcome"]) for attempt in run.attempts]


def asked(alias: str) -> int:
    """How often a fake provider was asked."""
    provider = providers[alias]
    assert isinstance(provider, FakeProvider)
    return len(provider.calls)


def execute(order: Order) -> TryOn:
    return asyncio.run(pipeline.execute(lambda: order, lambda tryon: tryon))
