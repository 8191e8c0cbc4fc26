"""A vendor that is down and the circuit of its provider, whose clock stands still: fixtures and helpers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends import base as cache_base
from django.core.cache.backends import locmem

from providers.tests.vendor import VendorServer
from tryon import circuit

from .shop import Shop
from .vendors_in_use import DOWN

PAUSE = 30.0


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of the circuits, and of a cache in memory."""
    clock = Clock()
    for module in (circuit, locmem, cache_base):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(params=["locmem", "redis"])
def shared_cache(request: pytest.FixtureRequest) -> str:
    """Behind the alias "default", one or the other."""
    if request.param == "redis":
        request.getfixturevalue("redis_cache")
    name: str = request.param
    return name


@pytest.fixture
def circuits(shop: Shop, vendor: VendorServer, tryon: Callable[..., None], clock: Clock) -> VendorServer:
    """A vendor that is down, and a circuit that opens at the third failure; no retries."""
    vendor.answer = DOWN
    tryon(CIRCUIT_FAILURES=3, CIRCUIT_PAUSE=PAUSE, CIRCUIT_WINDOW=60, RETRIES=0)
    return vendor


def state(alias: str = "openai") -> str:
    return circuit.states([alias])[alias].name


def open_it(alias: str = "openai") -> None:
    while not circuit.note_failure(alias):
        pass


def half_open_it(clock: Clock) -> None:
    open_it()
    clock.now += PAUSE


def assert_open(response: Any, wait: float) -> None:
    """Said at once, without a call, a row or a hold."""
    assert (response.status_code, response.json()["code"]) == (503, "provider_unavailable")
    assert response.headers["Retry-After"] == str(round(wait))
    assert "openai" not in response.json()["detail"]
