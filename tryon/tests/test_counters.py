"""The throttle counts right over threads and processes, and says so when it cannot count."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from unittest import mock

import pytest
from django.core.cache.backends.base import BaseCache
from django.test import RequestFactory
from pytest_django import Settings

from settings.base import cache as cache_settings
from tryon.exceptions import CounterUnavailable
from tryon.throttling import TryOnThrottle, limit_headers

pytestmark = pytest.mark.usefixtures("stopped_clock")


def hit(times: int, who: str = "ada") -> int:
    """How many of ``times`` requests are allowed."""
    return sum(TryOnThrottle().count(RequestFactory().get("/"), who) for _ in range(times))


def hit_in_a_process(redis_url: str, limit: int, times: int) -> int:
    import django

    django.setup()
    from django.test import override_settings

    from .shop import NOW

    clock = mock.patch("django_ratelimit.core.time.time", return_value=NOW)
    changes = {"CACHES": {"default": cache_settings(redis_url)}, "TRYON": {"THROTTLE_RPM": limit}}
    with clock, override_settings(**changes):
        return hit(times)


@pytest.mark.usefixtures("redis_cache")
def test_redis_counts_exactly_over_threads(tryon: Callable[..., None]) -> None:
    tryon(THROTTLE_RPM=100)
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(hit, [20] * 16)) == 100


@pytest.mark.usefixtures("redis_cache")
def test_redis_counts_exactly_over_processes(redis_url: str) -> None:
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        allowed = [pool.submit(hit_in_a_process, redis_url, 100, 40) for _ in range(4)]
        assert sum(future.result() for future in allowed) == 100


@pytest.mark.usefixtures("redis_cache")
def test_users_and_addresses_are_counted_apart(tryon: Callable[..., None]) -> None:
    tryon(THROTTLE_RPM=2)
    assert hit(5, "ada") == 2
    assert hit(5, "eve") == 2
    assert hit(5, "") == 2, "by address"


@pytest.mark.usefixtures("redis_cache")
def test_the_headers_tell_what_is_left(tryon: Callable[..., None]) -> None:
    tryon(THROTTLE_RPM=2)
    request = RequestFactory().get("/")
    seen = []
    for _ in range(3):
        TryOnThrottle().count(request, "ada")
        seen.append(limit_headers(request)["X-RateLimit-Remaining"])
    assert seen == ["1", "0", "0"]


@pytest.fixture
def no_store(settings: Settings, tryon: Callable[..., None]) -> None:
    """A Redis that is not there."""
    settings.CACHES = {"default": cache_settings("redis://127.0.0.1:1")}
    tryon(THROTTLE_RPM=2)


@pytest.mark.usefixtures("no_store")
def test_a_store_that_is_down_stops_requests_and_is_logged(log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CounterUnavailable):
        hit(1)
    assert "THROTTLE_FAIL_OPEN is False" in log.text


@pytest.mark.usefixtures("no_store")
def test_a_store_that_is_down_lets_requests_through_if_the_operator_says_so(
    tryon: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    tryon(THROTTLE_RPM=2, THROTTLE_FAIL_OPEN=True)
    assert hit(5) == 5
    assert "THROTTLE_FAIL_OPEN is True" in log.text


class ForgetfulCache(BaseCache):
    """What Memcached's client is when its server is gone: nothing is stored, and nothing is said."""

    def __init__(self, location: str, parameters: dict[str, object]) -> None:
        super().__init__(parameters)

    def add(self, *args: object, **kwargs: object) -> bool:
        return False

    def get(self, key: object, default: object = None, version: int | None = None) -> object:
        return default

    def incr(self, *args: object, **kwargs: object) -> int:
        raise ValueError("no such key")


def test_a_store_that_fails_without_a_word_stops_requests_too(
    settings: Settings, tryon: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.ForgetfulCache"}}
    tryon(THROTTLE_RPM=2)
    with pytest.raises(CounterUnavailable):
        hit(1)
    assert "gave no count" in log.text
