"""The circuit of a provider: when it opens, who may look whether it can close, and that nobody else does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.cache.backends import base as cache_base
from django.core.cache.backends import locmem
from django.db import close_old_connections
from pytest_django import Settings

from providers.tests.vendor import Answer, VendorServer, openai_error
from providers.tests.vendors.fashn import Fashn
from tryon import circuit, dispatch, pipeline
from tryon.credits import get_credits
from tryon.dispatch import providers
from tryon.models import TryOn
from tryon.runs import Order
from tryon.signals import provider_alert

from .dead import order_of
from .shop import Shop, jpeg
from .test_disconnect import hang_up
from .test_dispatch import DOWN, PICTURE, attempts, fake_entry, openai_at, then, vendor
from .test_limits import Gate, assert_overloaded, gate

__all__ = ["gate", "vendor"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

PAUSE = 30.0
CHARGED = [("hold", -1), ("capture", 0)]
RELEASED = [("hold", -1), ("release", 1)]


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


@pytest.fixture
def alerts() -> Iterator[list[dict[str, Any]]]:
    """What the operator was told."""
    told: list[dict[str, Any]] = []

    def hear(**kwargs: Any) -> None:
        told.append(kwargs)

    provider_alert.connect(hear)
    yield told
    provider_alert.disconnect(hear)


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


# Opening


def test_it_opens_at_the_last_of_so_many_failures_and_not_before(
    shop: Shop, circuits: VendorServer, clock: Clock, shared_cache: str, log: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert shop.post().json()["code"] == "provider_unavailable"
        assert state() == "closed"
    shop.post()
    assert state() == "open"
    assert "The circuit of provider 'openai' is open for 30 s." in log.text
    rows, ledger = TryOn.objects.count(), shop.ledger()
    assert_open(shop.post(), 30)
    clock.now += 12
    assert_open(shop.post(), 18)
    assert len(circuits.calls) == 3
    assert (TryOn.objects.count(), shop.ledger()) == (rows, ledger) == (3, [("grant", 3), *RELEASED * 3])


def test_a_run_counts_once_however_often_it_was_retried(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    """One shopper's trouble does not keep the provider from all others."""
    tryon(RETRIES=5)
    assert [shop.post().status_code for _ in range(2)] == [503, 503]
    assert state() == "closed"
    assert len(circuits.calls) == 12
    assert shop.post().status_code == 503
    assert state() == "open"
    assert shop.ledger() == [("grant", 3), *RELEASED * 3]


def test_a_run_that_a_retry_saved_does_not_count(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(RETRIES=1, CIRCUIT_FAILURES=1)
    circuits.answer = lambda call: DOWN if len(circuits.calls) == 1 else PICTURE
    assert shop.post().status_code == 200
    assert state() == "closed"


def test_a_fallback_that_had_only_a_moment_is_not_blamed(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(
        PROVIDER="hanging",
        PROVIDERS={"hanging": openai_at(circuits.base_url, TIMEOUT=0.8), "openai": openai_at(circuits.base_url)},
        FALLBACK_PROVIDERS=["openai"],
        DEADLINE=1,
        CIRCUIT_FAILURES=1,
        RETRIES=0,
    )
    circuits.answer = Answer(end="hang")
    assert shop.post().status_code == 504
    assert (state("hanging"), state()) == ("open", "closed")


def test_a_job_that_the_vendor_could_not_do_does_not_count(shop: Shop, tryon: Callable[..., None]) -> None:
    """It may be the photos."""
    double = Fashn()
    double.trouble = next(trouble for trouble in double.troubles() if trouble.name == "PipelineError")
    with VendorServer(double) as server:
        entry = {"BACKEND": double.backend, "OPTIONS": double.options(server)}
        tryon(PROVIDER="fashn", PROVIDERS={"fashn": entry}, CIRCUIT_FAILURES=1, RETRIES=0)
        assert shop.post().status_code == 503
    assert state("fashn") == "closed"


def test_a_provider_that_takes_too_long_counts_as_failing(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    circuits.answer = Answer(end="hang")
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url, TIMEOUT=0.05)}, CIRCUIT_FAILURES=1)
    assert shop.post().status_code == 504
    assert state() == "open"
    assert shop.balance() == 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (openai_error(429), "provider_rate_limited"),
        (openai_error(429, "insufficient_quota"), "provider_quota_exceeded"),
        (openai_error(401), "provider_misconfigured"),
        (openai_error(400), "provider_rejected_input"),
        (openai_error(400, "moderation_blocked"), "content_refused"),
        (Answer(body=b"<html>"), "provider_invalid_response"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_answer_that_is_no_failure_of_the_vendors_does_not_count(
    shop: Shop, circuits: VendorServer, answer: Answer, code: str
) -> None:
    circuits.answer = answer
    assert [shop.post().json()["code"] for _ in range(4)] == [code] * 4
    assert state() == "closed"
    assert shop.balance() == 3


def test_failures_of_different_windows_do_not_count_together(shop: Shop, circuits: VendorServer, clock: Clock) -> None:
    for _ in range(2):
        shop.post()
    clock.now += 61
    for _ in range(2):
        shop.post()
    assert state() == "closed"
    clock.now += 59
    shop.post()
    assert state() == "open"
    assert shop.balance() == 3


def test_it_stays_closed_where_the_settings_say_so(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    tryon(CIRCUIT_FAILURES=0)
    for _ in range(4):
        shop.post()
    assert len(circuits.calls) == 4
    assert state() == "closed"
    assert shop.balance() == 3


def test_one_provider_does_not_open_anothers(shop: Shop, circuits: VendorServer) -> None:
    for alias in ("a", "ä ö/%\n", "x" * 60):
        assert [circuit.note_failure(alias) for _ in range(3)] == [False, False, True]
        assert state(alias) == "open"
    assert state() == "closed"
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert shop.balance() == 2


def test_the_operator_hears_that_it_opened(
    shop: Shop, circuits: VendorServer, alerts: list[dict[str, Any]], tryon: Callable[..., None]
) -> None:
    tryon(CIRCUIT_FAILURES=1)
    shop.post()
    shop.post()
    [alert] = alerts
    assert (alert["provider"], alert["code"], alert["status"]) == ("openai", "circuit_open", 503)
    assert alert["model"] == providers["openai"].model
    assert shop.balance() == 3


# Open


def test_an_open_one_leads_to_the_fallback_at_once(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    """At the price of the provider of the settings."""
    tryon(
        PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()},
        FALLBACK_PROVIDERS=["backup"],
        PRICES={"openai": 2},
    )
    open_it()
    response = shop.post()
    assert (response.status_code, response.json()["provider"], response.json()["credits"]) == (200, "backup", 2)
    assert not circuits.calls
    assert attempts() == [("openai", "circuit_open"), ("backup", "succeeded")]
    assert shop.ledger() == [("grant", 3), ("hold", -2), ("capture", 0)]


def test_where_all_are_open_the_first_that_may_be_asked_again_says_when(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    tryon(
        PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()},
        FALLBACK_PROVIDERS=["backup"],
    )
    open_it("backup")
    clock.now += 10
    open_it()
    assert_open(shop.post(), 20)
    assert not TryOn.objects.exists()
    assert shop.ledger() == [("grant", 3)]


def test_a_fallback_that_cannot_be_used_does_not_say_when(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    broken = {"BACKEND": "providers.fake.FakeProvider", "OPTIONS": {"no": "such option"}}
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "broken": broken}, FALLBACK_PROVIDERS=["broken"])
    open_it()
    assert_open(shop.post(), 30)
    assert shop.ledger() == [("grant", 3)]


def test_where_one_is_open_and_the_other_is_full_that_is_overload(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], gate: Gate
) -> None:
    backup = fake_entry(MAX_RUNS=1)
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "backup": backup}, FALLBACK_PROVIDERS=["backup"])
    open_it()
    with gate.holding(shop):
        assert_overloaded(shop.post())
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_provider_that_is_asked_for_by_name_is_asked_all_the_same(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None]
) -> None:
    """Whoever names it wants to know how it is."""
    circuits.answer = PICTURE
    open_it()
    order = Order(user=shop.user, person=jpeg(), garment=jpeg(color="navy"), provider="openai")
    assert asyncio.run(pipeline.execute(lambda: order, lambda tryon: tryon)).status == "succeeded"
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_an_answer_is_given_again_although_the_circuit_is_open(shop: Shop, circuits: VendorServer) -> None:
    circuits.answer = PICTURE
    key = {"Idempotency-Key": "order-7"}
    first = shop.post(headers=key)
    open_it()
    again = shop.post(headers=key)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    assert_open(shop.post(headers={"Idempotency-Key": "order-8"}), 30)
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_an_older_setting_keeps_nobody_waiting(shop: Shop, circuits: VendorServer, tryon: Callable[..., None]) -> None:
    tryon(CIRCUIT_PAUSE=86_000)
    open_it()
    tryon(CIRCUIT_PAUSE=PAUSE)
    assert_open(shop.post(), 30)
    assert shop.ledger() == [("grant", 3)]


# Half-open


def test_a_success_closes_it(shop: Shop, circuits: VendorServer, clock: Clock, shared_cache: str) -> None:
    half_open_it(clock)
    assert state() == "half-open"
    assert not circuit.note_failure("openai"), "of one who asked for it by name"
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert state() == "closed"
    circuits.answer = DOWN
    assert [shop.post().status_code for _ in range(2)] == [503, 503]
    assert state() == "closed", "failures are counted anew"
    assert shop.ledger() == [("grant", 3), *CHARGED, *RELEASED * 2]


def test_a_failure_opens_it_anew(
    shop: Shop, circuits: VendorServer, clock: Clock, shared_cache: str, tryon: Callable[..., None]
) -> None:
    """The first one, and without retries."""
    tryon(RETRIES=3)
    half_open_it(clock)
    assert shop.post().status_code == 503
    assert len(circuits.calls) == 1
    assert state() == "open"
    assert_open(shop.post(), 30)
    clock.now += PAUSE
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert state() == "closed"
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


@pytest.mark.parametrize(
    "answer",
    [openai_error(429), openai_error(401), openai_error(400, "moderation_blocked"), Answer(body=b"<html>")],
    ids=["rate limit", "bad key", "refusal", "invalid"],
)
def test_any_answer_of_the_vendors_own_closes_it(
    shop: Shop, circuits: VendorServer, clock: Clock, answer: Answer
) -> None:
    half_open_it(clock)
    circuits.answer = answer
    assert shop.post().status_code != 200
    assert state() == "closed"
    assert shop.balance() == 3


def test_one_of_many_looks_whether_it_can_close(
    shop: Shop, tryon: Callable[..., None], clock: Clock, gate: Gate, shared_cache: str
) -> None:
    """The others hear at once that it cannot be asked, and hold nothing then."""
    tryon(PROVIDER="fake", PROVIDERS={"fake": fake_entry()}, CIRCUIT_FAILURES=3, CIRCUIT_PAUSE=PAUSE)
    get_credits().grant(shop.user, 7, reason="test")
    open_it("fake")
    clock.now += PAUSE

    def post(number: int) -> tuple[int, str]:
        try:
            answer = shop.post()
        finally:
            close_old_connections()
        return answer.status_code, answer.json().get("code", "")

    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(post, number) for number in range(3)]
        assert gate.first.wait(30)
        answers += [pool.submit(post, number) for number in range(3)]
        done = as_completed(answers, timeout=30)
        for _ in range(5):
            next(done)
        gate.opened.set()
    codes = sorted(answer.result() for answer in answers)
    assert codes == [(200, ""), *[(503, "provider_unavailable")] * 5]
    assert gate.arrived.acquire(blocking=False)
    assert not gate.arrived.acquire(blocking=False), "it was asked once"
    assert state("fake") == "closed"
    assert shop.balance() == 9
    assert sorted(TryOn.objects.values_list("status", flat=True)) == [*["failed"] * 5, "succeeded"]


def test_those_who_do_not_look_go_to_the_fallback(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()}, FALLBACK_PROVIDERS=["backup"])
    half_open_it(clock)
    assert circuit.claim_probe("openai"), "another process looks"
    response = shop.post()
    assert (response.status_code, response.json()["provider"]) == (200, "backup")
    assert attempts() == [("openai", "circuit_open"), ("backup", "succeeded")]
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_who_looks_and_fails_goes_to_the_fallback(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    tryon(PROVIDERS={"openai": openai_at(circuits.base_url), "backup": fake_entry()}, FALLBACK_PROVIDERS=["backup"])
    half_open_it(clock)
    assert shop.post().json()["provider"] == "backup"
    assert attempts() == [("openai", "provider_unavailable"), ("backup", "succeeded")]
    assert (state(), state("backup")) == ("open", "closed")
    assert shop.ledger() == [("grant", 3), *CHARGED]


class SlowPhoto:
    """The photo of one request that has entered and goes on when the test says so."""

    def __init__(self, shop: Shop, server: VendorServer) -> None:
        self._shop, self._server = shop, server
        self.entered = server.called
        self.go_on = threading.Event()
        server.answer = self._answer

    def _answer(self, call: Any) -> Answer:
        assert self.go_on.wait(30)
        return Answer(body=jpeg(), headers={"content-type": "image/jpeg"})

    def post(self) -> Any:
        try:
            return self._shop.post(self._shop.body | {"user_image_url": f"{self._server.base_url}/slow.jpg"})
        finally:
            close_old_connections()


@pytest.fixture
def slow_photo(shop: Shop, tryon: Callable[..., None], settings: Settings) -> Iterator[SlowPhoto]:
    with VendorServer(Answer()) as server:
        tryon(FETCH_ALLOWED_HOSTS=[*settings.TRYON["FETCH_ALLOWED_HOSTS"], f"127.0.0.1:{server.port}"])
        photo = SlowPhoto(shop, server)
        yield photo
        photo.go_on.set()


def test_who_entered_while_it_was_half_open_does_not_ask_when_it_has_opened_anew(
    shop: Shop, circuits: VendorServer, clock: Clock, slow_photo: SlowPhoto
) -> None:
    half_open_it(clock)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow_photo.post)
        assert slow_photo.entered.wait(30)
        assert shop.post().status_code == 503
        assert state() == "open"
        slow_photo.go_on.set()
        assert late.result().json()["code"] == "provider_unavailable"
    assert len(circuits.calls) == 1
    assert state() == "open"
    assert shop.balance() == 3


def test_who_entered_while_it_was_half_open_asks_as_all_do_when_it_has_closed(
    shop: Shop, circuits: VendorServer, clock: Clock, slow_photo: SlowPhoto
) -> None:
    """So that one failure then is one failure, and opens nothing."""
    half_open_it(clock)
    circuits.answer = then(PICTURE, last=DOWN)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(slow_photo.post)
        assert slow_photo.entered.wait(30)
        assert shop.post().status_code == 200
        slow_photo.go_on.set()
        assert late.result().json()["code"] == "provider_unavailable"
    assert len(circuits.calls) == 2
    assert state() == "closed"
    assert shop.balance() == 2


# Looking, and not finding out


def test_a_client_that_goes_away_keeps_nobody_from_looking(
    shop: Shop, tryon: Callable[..., None], clock: Clock, gate: Gate, shared_cache: str
) -> None:
    tryon(PROVIDER="fake", PROVIDERS={"fake": fake_entry()}, CIRCUIT_FAILURES=3, CIRCUIT_PAUSE=PAUSE)
    open_it("fake")
    clock.now += PAUSE
    hang_up(shop, gate.first, threading.Event())
    assert state("fake") == "half-open"
    gate.opened.set()
    assert shop.post().status_code == 200
    assert state("fake") == "closed"
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_a_client_that_goes_away_before_the_cache_has_answered_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that asks the cache goes on when the request is gone."""
    half_open_it(clock)
    asking, gone = threading.Event(), threading.Event()
    claim = circuit.claim_probe

    def slow(alias: str) -> bool:
        asking.set()
        assert gone.wait(30)
        return claim(alias)

    with monkeypatch.context() as patch:
        patch.setattr(circuit, "claim_probe", slow)

        async def main() -> None:
            task = asyncio.create_task(pipeline.execute(lambda: order_of(shop), lambda tryon: tryon))
            assert await asyncio.to_thread(asking.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while pipeline.is_busy():
                await asyncio.sleep(0.001)
            gone.set()

        asyncio.run(main())  # waits for its threads
    circuits.answer = PICTURE
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_want_of_credits_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, tryon: Callable[..., None], clock: Clock
) -> None:
    half_open_it(clock)
    circuits.answer = PICTURE
    tryon(PRICE=4)
    assert shop.post().json()["code"] == "insufficient_credits"
    tryon(PRICE=1)
    assert shop.post().status_code == 200
    assert state() == "closed"
    assert shop.ledger() == [("grant", 3), *CHARGED]


def test_a_photo_that_cannot_be_had_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, clock: Clock
) -> None:
    half_open_it(clock)
    circuits.answer = PICTURE
    gone = shop.body["user_image_url"].replace("person", "nobody")
    assert shop.post(shop.body | {"user_image_url": gone}).json()["code"] == "image_unreachable"
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_what_was_never_sent_tells_nothing_about_the_vendor(shop: Shop, circuits: VendorServer, clock: Clock) -> None:
    half_open_it(clock)
    assert shop.post({**shop.body, "seed": 7}).json()["code"] == "unsupported_feature"
    assert not circuits.calls
    assert state() == "half-open"
    assert shop.post().status_code == 503, "and the next one looks"
    assert len(circuits.calls) == 1
    assert state() == "open"
    assert shop.balance() == 3


def test_an_adapter_with_a_bug_keeps_nobody_from_looking(
    shop: Shop, circuits: VendorServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_open_it(clock)
    circuits.answer = PICTURE
    with monkeypatch.context() as patch:
        patch.setattr(type(providers["openai"]), "generate_image", lambda self, request: asyncio.sleep(0, None))
        assert shop.post().status_code == 500
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


def test_a_process_that_was_killed_keeps_others_from_looking_for_as_long_as_a_run_takes(
    shop: Shop, circuits: VendorServer, clock: Clock, tryon: Callable[..., None]
) -> None:
    tryon(DEADLINE=120)
    half_open_it(clock)
    assert circuit.claim_probe("openai")
    circuits.answer = PICTURE
    clock.now += 119
    assert shop.post().status_code == 503
    clock.now += 10
    assert shop.post().status_code == 200
    assert shop.ledger() == [("grant", 3), *RELEASED, *CHARGED]


# Shared


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
