"""Guessing keys: after some different wrong ones nobody looks at a key, wherever in the request it stands."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connection, connections
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from settings.base import cache as cache_settings
from tryon.models import ApiKey
from tryon.throttling import KeyGuesses

from .shop import NOW, URL, Shop
from .test_counters import ForgetfulCache

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database", "stopped_clock"),
    pytest.mark.one_database,
]

HERE, ELSEWHERE = "198.51.100.7", "198.51.100.8"


def guess() -> str:
    """A key as ours look, which is nobody's."""
    return f"tryon_{secrets.token_urlsafe(32)}"


def in_body(shop: Shop, key: str, address: str = HERE) -> Any:
    return shop.post(shop.body | {"api_key": key}, REMOTE_ADDR=address)


def in_bearer(shop: Shop, key: str, address: str = HERE) -> Any:
    return shop.post(without_key(shop), headers={"Authorization": f"Bearer {key}"}, REMOTE_ADDR=address)


def in_header(shop: Shop, key: str, address: str = HERE) -> Any:
    return shop.post(without_key(shop), headers={"X-API-Key": key}, REMOTE_ADDR=address)


def without_key(shop: Shop) -> dict[str, str]:
    return {name: value for name, value in shop.body.items() if name not in ("user_id", "api_key")}


Ask = Callable[..., Any]
each_place = pytest.mark.parametrize("ask", [in_body, in_bearer, in_header])


@each_place
def test_after_ten_different_wrong_keys_no_key_from_that_address_is_looked_at(shop: Shop, ask: Ask) -> None:
    assert [ask(shop, guess()).status_code for _ in range(10)] == [401] * 10
    for key in (guess(), shop.key):
        refused = ask(shop, key)
        assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert ask(shop, shop.key, ELSEWHERE).status_code == 200, "other addresses are not concerned"
    assert shop.balance() == 2


def test_wrong_keys_count_together_wherever_they_stand(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=3)
    assert [ask(shop, guess()).status_code for ask in (in_body, in_bearer, in_header)] == [401] * 3
    assert [ask(shop, shop.key).status_code for ask in (in_body, in_bearer, in_header)] == [429] * 3


def test_a_refusal_costs_no_query(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=1)
    in_body(shop, guess())
    with CaptureQueriesContext(connection) as queries:
        assert in_body(shop, shop.key).status_code == 429
    assert [query["sql"] for query in queries if "tryon_" in query["sql"]] == []


def test_when_the_window_is_over_keys_are_looked_at_again(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=1)
    in_body(shop, guess())
    wait = int(in_body(shop, shop.key).headers["Retry-After"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.time", lambda: NOW + wait - 1)
        assert in_body(shop, shop.key).headers["Retry-After"] == "1"
        patch.setattr("time.time", lambda: NOW + wait)
        assert in_body(shop, shop.key).status_code == 200
        assert in_body(shop, guess()).status_code == 401
        assert in_body(shop, shop.key).status_code == 429


def test_a_key_under_another_users_name_is_a_guess(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=1)
    assert shop.post(shop.body | {"user_id": "grace"}, REMOTE_ADDR=HERE).status_code == 401
    assert in_body(shop, shop.key).status_code == 429


def test_the_same_wrong_key_in_a_loop_is_one_guess(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=2)
    old = guess()
    assert {in_body(shop, old).status_code for _ in range(20)} == {401}
    assert in_body(shop, shop.key).status_code == 200
    assert in_body(shop, guess()).status_code == 401
    assert in_body(shop, shop.key).status_code == 429


def test_one_key_is_guarded_against_guesses_from_many_addresses(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=3)
    addresses = (f"203.0.113.{number}" for number in itertools.count(1))
    start = ApiKey.prefix_of(shop.key)
    wrong = [start + secrets.token_urlsafe(24) for _ in range(3)]
    assert [in_body(shop, key, next(addresses)).status_code for key in wrong] == [401] * 3
    assert in_body(shop, shop.key, next(addresses)).status_code == 429
    _, other = ApiKey.create_key(shop.user)
    assert in_body(shop, other, next(addresses)).status_code == 200, "keys with another beginning are looked at"


def _revoke(key: ApiKey) -> None:
    key.revoked_at = timezone.now()


def _expire(key: ApiKey) -> None:
    key.expires_at = timezone.now() - timedelta(days=1)


def _deactivate(key: ApiKey) -> None:
    key.user.is_active = False
    key.user.save()


@pytest.mark.parametrize("spoil", [_revoke, _expire, _deactivate])
def test_a_key_that_no_longer_counts_is_a_guess_like_any_other(
    shop: Shop, tryon: Callable[..., None], spoil: Callable[[ApiKey], None]
) -> None:
    tryon(KEY_GUESSES=1)
    key = ApiKey.objects.get()
    spoil(key)
    key.save()
    assert [in_body(shop, shop.key).status_code for _ in range(2)] == [401, 429]


@pytest.mark.parametrize("text", ["x" * 201, "tryon_\0", "tryon_ü", 7, ["tryon_"], {"a": 1}, True])
def test_what_can_be_nobodys_key_is_wrong_and_no_guess(shop: Shop, tryon: Callable[..., None], text: Any) -> None:
    tryon(KEY_GUESSES=1)
    assert [in_body(shop, text).status_code for _ in range(3)] == [401] * 3
    assert in_body(shop, shop.key).status_code == 200


def test_looking_at_the_form_with_a_key_is_a_guess_too(shop: Shop, tryon: Callable[..., None]) -> None:
    """It would tell whose the key is."""
    tryon(KEY_GUESSES=1)
    for key, greeted in ((guess(), False), (shop.key, False)):
        page = Client().get(URL, headers={"Accept": "text/html", "X-API-Key": key}, REMOTE_ADDR=HERE)
        assert (page.status_code, ">ada<" in page.content.decode()) == (200, greeted)
    cache.clear()
    page = Client().get(URL, headers={"Accept": "text/html", "X-API-Key": shop.key}, REMOTE_ADDR=HERE)
    assert ">ada<" in page.content.decode()


def test_none_is_counted_where_the_setting_is_off(shop: Shop, tryon: Callable[..., None]) -> None:
    tryon(KEY_GUESSES=0)
    assert [in_body(shop, guess()).status_code for _ in range(12)] == [401] * 12
    assert in_body(shop, shop.key).status_code == 200


def test_a_hosts_own_ways_to_sign_in_are_not_concerned(shop: Shop, tryon: Callable[..., None]) -> None:
    basic = "rest_framework.authentication.BasicAuthentication"
    tryon(KEY_GUESSES=1, AUTHENTICATION_CLASSES=[basic, "tryon.authentication.ApiKeyAuthentication"])
    in_body(shop, guess())
    assert in_body(shop, shop.key).status_code == 429
    as_ada = {"Authorization": "Basic YWRhOnNlY3JldA=="}  # ada:secret
    assert shop.post(without_key(shop), headers=as_ada, REMOTE_ADDR=HERE).status_code == 200


class Recorded(LocMemCache):
    """A cache that notes what it is asked, and what for."""

    asked: list[tuple[str, Any]] = []

    def get_many(self, keys: Any, version: int | None = None) -> Any:
        self.asked.append(("get_many", list(keys)))
        return super().get_many(keys, version)

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        self.asked.append(("get", key))
        return super().get(key, default, version)

    def add(self, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        self.asked.append(("add", (key, value)))
        return super().add(key, value, *args, **options)

    def set(self, key: Any, value: Any, *args: Any, **options: Any) -> Any:
        self.asked.append(("set", (key, value)))
        return super().set(key, value, *args, **options)


@pytest.fixture
def recorded(settings: Settings) -> list[tuple[str, Any]]:
    """The requests to the cache so far."""
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.Recorded", "LOCATION": secrets.token_hex(8)}}
    Recorded.asked = []
    return Recorded.asked


def test_a_right_key_costs_one_look_at_the_cache_for_two_marks(shop: Shop, recorded: list[tuple[str, Any]]) -> None:
    assert in_body(shop, shop.key).status_code == 200
    many = [keys for how, keys in recorded if how == "get_many"]
    assert [len(keys) for keys in many] == [2]
    assert sorted(key for how, key in recorded if how == "get") == sorted(many[0]), "LocMem asks for each by itself"
    assert {how for how, _ in recorded} == {"get_many", "get"}


def test_no_part_of_a_key_stands_in_the_cache(
    shop: Shop, tryon: Callable[..., None], recorded: list[tuple[str, Any]]
) -> None:
    tryon(KEY_GUESSES=1)
    wrong = guess()
    for ask in (in_body, in_bearer, in_header):
        ask(shop, wrong)
        ask(shop, shop.key, ELSEWHERE)
    everything = repr(recorded)
    assert ("set" in {how for how, _ in recorded}, len(recorded) > 10) == (True, True)
    for key in (wrong, shop.key):
        assert not any(key[start : start + 10] in everything for start in range(len(key) - 9))


def count_in_a_thread(number: int) -> None:
    KeyGuesses(RequestFactory().get("/", REMOTE_ADDR=HERE), f"tryon_{number}", f"tryon_{number}").count()


@pytest.mark.usefixtures("redis_cache")
def test_redis_counts_guesses_that_come_at_once(tryon: Callable[..., None]) -> None:
    def is_open() -> bool:
        return not KeyGuesses(RequestFactory().get("/", REMOTE_ADDR=HERE), "tryon_", "tryon_").wait()

    for limit, open_ in ((161, True), (160, False)):
        tryon(KEY_GUESSES=limit)
        cache.clear()
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(count_in_a_thread, [*range(160), *range(160)]))
        assert is_open() is open_


@pytest.mark.parametrize("fails_open", [False, True])
@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_a_store_that_is_down_is_the_operators_choice(
    shop: Shop, settings: Settings, tryon: Callable[..., None], fails_open: bool, accept: str
) -> None:
    settings.CACHES = {"default": cache_settings("redis://127.0.0.1:1")}
    tryon(THROTTLE_FAIL_OPEN=fails_open)
    answers = [shop.post(shop.body | {"api_key": key}, headers={"Accept": accept}) for key in (guess(), shop.key)]
    if fails_open:
        assert [answer.status_code for answer in answers] == [401, 200]
    else:
        assert [(answer.status_code, answer.headers["Retry-After"]) for answer in answers] == [(503, "5")] * 2
        assert all("counter_unavailable" in answer.content.decode() for answer in answers)


def test_a_store_that_fails_without_a_word_stops_wrong_keys(shop: Shop, settings: Settings) -> None:
    settings.CACHES = {"default": {"BACKEND": f"{ForgetfulCache.__module__}.ForgetfulCache"}}
    answer = in_body(shop, guess())
    assert (answer.status_code, answer.json()["code"]) == (503, "counter_unavailable")


# What a wrong key tells about the keys there are


@pytest.fixture
def wrong_keys(shop: Shop) -> dict[str, str]:
    """One of each kind."""
    keys = {}
    for name, spoil in (("revoked", _revoke), ("expired", _expire)):
        key, keys[name] = ApiKey.create_key(shop.user)
        spoil(key)
        key.save()
    idle = type(shop.user).objects.create_user("idle", is_active=False)
    _, keys["inactive user"] = ApiKey.create_key(idle)
    keys["wrong secret"] = shop.key[:16] + secrets.token_urlsafe(24)[: len(shop.key) - 16]
    keys["unknown"] = guess()
    return keys


def test_all_wrong_keys_get_the_same_answer_after_the_same_queries(
    shop: Shop, wrong_keys: dict[str, str], tryon: Callable[..., None]
) -> None:
    tryon(KEY_GUESSES=100, THROTTLE_RPM=100)
    told = {}
    for name, key in wrong_keys.items():
        cache.clear()
        with CaptureQueriesContext(connection) as queries:
            answer = in_header(shop, key)
        headers = {name: value for name, value in answer.headers.items() if name != "X-Request-ID"}
        told[name] = (answer.status_code, answer.content, headers, len(queries))
    assert len({repr(answer) for answer in told.values()}) == 1, told
    assert told["unknown"][0] == 401


def test_what_the_database_finds_is_the_same_for_all_wrong_keys(shop: Shop, wrong_keys: dict[str, str]) -> None:
    """Nothing, so that no time is spent on a row either."""
    made: list[str] = []
    real = ApiKey.from_db.__func__  # type: ignore[attr-defined]

    def from_db(cls: Any, *args: Any) -> Any:
        made.append("row")
        return real(cls, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ApiKey, "from_db", classmethod(from_db))
        assert ApiKey.find(shop.key, timezone.now()) is not None
        assert made == ["row"]
        assert [ApiKey.find(key, timezone.now()) for key in wrong_keys.values()] == [None] * 5
    assert made == ["row"]


def test_of_fifty_requests_at_once_one_writes_that_the_key_was_used(shop: Shop) -> None:
    now = timezone.now()
    together = threading.Barrier(50)
    keys = [ApiKey.objects.get() for _ in range(50)]

    def use(key: ApiKey) -> bool:
        together.wait(30)
        try:
            return key.mark_used(now)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(use, keys)) == 1
    assert ApiKey.objects.get().last_used_at == now
    assert [key.mark_used(now + timedelta(seconds=59)) for key in keys] == [False] * 50
    assert [key.mark_used(now + timedelta(seconds=60)) for key in keys] == [True] + [False] * 49
