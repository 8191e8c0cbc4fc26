"""The cache of the circuits: threads and processes share it, and without it no circuit is open."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from pytest_django import Settings

from providers.tests.vendor import VendorServer, openai_error
from tryon import circuit, dispatch

from .circuits import Clock, assert_open, circuits, clock, half_open_it, open_it, shared_cache, state
from .shop import CHARGED, RELEASED, Shop
from .vendors_in_use import PICTURE

__all__ = ["circuits", "clock", "shared_cache"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]


def test_threads_share_it(shop: Shop, circuits: VendorServer, shared_cache: str) -> None:
    """Each has a client of its own for the cache."""
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: caches["default"]).result() is not caches["default"]
        assert [circuit.note_failure("openai"), other.submit(circuit.note_failure, "openai").result()] == [False] * 2
        assert other.submit(circuit.note_failure, "openai").result()
    assert_open(shop.post(), 30)
    assert shop.ledger() == [("grant", 3)]


def test_failures_that_many_threads_note_together_open_it_once(
    circuits: VendorServer, shared_cache: str, tryon: Callable[..., None]
) -> None:
    tryon(CIRCUIT_FAILURES=20)
    together = threading.Barrier(8)

    def note(number: int) -> int:
        together.wait(30)
        return sum(circuit.note_failure("openai") for _ in range(3))

    with ThreadPoolExecutor(8) as pool:
        opened = sum(pool.map(note, range(8)))
    assert opened >= 1
    assert state() == "open"


PROCESS = """
import sys
from django.conf import settings
settings.configure(
    CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": sys.argv[1]}},
    TRYON={"CIRCUIT_FAILURES": 3},
)
from tryon import circuit
print("here", flush=True)
sys.stdin.readline()
print(circuit.states(["openai"])["openai"].name, circuit.claim_probe("openai"))
"""


def test_processes_share_it_and_one_of_them_looks(
    circuits: VendorServer, clock: Clock, redis_cache: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.now = 1_700_000_000.0  # long ago, by the clock of the others
    open_it()
    arguments = [sys.executable, "-c", PROCESS, redis_url]
    root = Path(__file__).parents[2]
    others = [
        subprocess.Popen(arguments, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"
    said = sorted(other.communicate("\n", timeout=30)[0] for other in others)
    assert said == ["half-open False\n", "half-open True\n"]


# A cache that is away


@pytest.fixture
def no_cache(settings: Settings, tmp_path: Path) -> None:
    """Where the cache should be there is nobody."""
    location = f"unix://{tmp_path}/nobody"
    settings.CACHES = {
        **settings.CACHES,
        "away": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location},
    }


@pytest.mark.usefixtures("no_cache")
def test_a_cache_that_is_away_opens_nothing(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    tryon(CIRCUIT_CACHE="away", CIRCUIT_FAILURES=1)
    assert [shop.post().status_code for _ in range(2)] == [503, 503]
    assert len(circuits.calls) == 2
    assert "The cache of the circuits cannot be used; the provider is asked all the same." in log.text
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED * 2, *CHARGED]


@pytest.mark.usefixtures("no_cache")
def test_a_cache_that_goes_away_in_between_keeps_nobody_from_the_picture(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a look at the circuit and the claim to be the one who asks."""
    half_open_it(clock)
    circuits.answer = PICTURE
    begin = dispatch.Dispatch.begin

    def then_away(self: dispatch.Dispatch) -> Any:
        priced = begin(self)
        tryon(CIRCUIT_CACHE="away")
        return priced

    monkeypatch.setattr(dispatch.Dispatch, "begin", then_away)
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *CHARGED]


@pytest.mark.usefixtures("no_cache")
def test_the_operator_hears_of_a_bad_key_although_the_cache_is_away(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], alerts: list[dict[str, Any]]
) -> None:
    tryon(CIRCUIT_CACHE="away")
    circuits.answer = openai_error(401)
    assert shop.post().status_code == 502
    assert [alert["code"] for alert in alerts] == ["provider_misconfigured"]
    assert shop.balance() == 3
