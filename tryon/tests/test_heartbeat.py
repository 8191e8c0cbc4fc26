"""What a process writes about its runs now and then: leases, and whom it told."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.files.base import File
from django.db import DatabaseError
from django.utils import timezone

from tryon import fetching, pipeline, runs
from tryon.conf import conf
from tryon.heartbeat import Heartbeat, heartbeat
from tryon.models import TryOn
from tryon.recovery import Recovered, recover

from .dead import dead_run, later
from .shop import Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


def test_a_beat_renews_the_leases_of_the_living_and_of_nobody_else(shop: Shop) -> None:
    alive, dead = dead_run(shop), dead_run(shop)
    heartbeat.keep_alive(alive.pk)
    heartbeat.beat()
    assert recover() == Recovered(released=[dead])
    heartbeat.let_go(alive.pk)
    heartbeat.beat()
    assert recover(later()) == Recovered(released=[alive])


def test_the_lease_of_a_run_that_has_ended_is_left_alone(shop: Shop) -> None:
    """Recovery goes by it, where the end is yet to be announced."""
    ended = dead_run(shop)
    runs.fail(ended, TryOn.Status.FAILED, "error", "")
    heartbeat.keep_alive(ended.pk)
    heartbeat.beat()
    assert TryOn.objects.get().lease_until < timezone.now()


def test_a_run_is_kept_alive_from_its_admission_to_its_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    fetch = fetching.fetch

    async def look(url: str, *, field: str) -> File[bytes]:
        alive.append(len(heartbeat._alive))
        return await fetch(url, field=field)

    monkeypatch.setattr(pipeline, "fetch", look)
    assert shop.post().status_code == 200
    assert shop.post(shop.body | {"user_image_url": shop.body["user_image_url"] + ".gone"}).status_code == 422
    assert set(alive) == {1}
    assert heartbeat._alive == {}


def test_a_run_that_hangs_is_not_kept_alive_for_ever(shop: Shop, tryon: Callable[..., None]) -> None:
    """Whatever became of its thread."""
    tryon(DEADLINE=0, LEASE=0)
    dead = dead_run(shop)
    heartbeat.keep_alive(dead.pk)
    heartbeat.beat()
    assert heartbeat._alive == {}
    assert recover().released == [dead]


def test_a_process_that_ends_writes_what_it_told_and_renews_nothing(shop: Shop) -> None:
    shop.post()
    dead = dead_run(shop)
    heartbeat.keep_alive(dead.pk)
    assert heartbeat.stop()
    assert TryOn.objects.get(status="succeeded").announced_at is not None
    assert recover().released == [dead]


def test_what_was_written_is_not_written_again(shop: Shop, django_assert_num_queries: Any) -> None:
    shop.post()
    heartbeat.beat()
    with django_assert_num_queries(0):
        heartbeat.beat()


def test_a_heart_that_could_not_start_starts_with_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    heart = Heartbeat()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            heart.keep_alive(uuid.uuid4())
    assert not heart._is_beating


def test_a_beat_without_a_database_is_logged_and_made_up_for(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    shop.post()

    def away(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr("django.db.models.query.QuerySet.update", away)
        heartbeat.beat()
    assert "note 1 announcement(s): away" in log.text
    assert TryOn.objects.get().announced_at is None
    heartbeat.beat()
    assert TryOn.objects.get().announced_at is not None


def test_a_missed_beat_is_made_up_for_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease might run out before the next."""
    heart = Heartbeat()
    heart._alive[uuid.uuid4()] = float("inf")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            heart._alive.clear()

    monkeypatch.setattr("tryon.heartbeat.time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(heart, "beat", iter([False, True]).__next__)
    heart._beat_on()
    assert pauses == [conf.LEASE / 3, conf.LEASE / 30, conf.LEASE / 3]


def test_the_heart_stops_when_there_is_nothing_to_say(shop: Shop, tryon: Callable[..., None]) -> None:
    """In its own thread, as in a server."""
    tryon(LEASE=0.03)
    heart = Heartbeat()
    dead_run(shop)
    lease = TryOn.objects.get().lease_until
    heart.keep_alive(TryOn.objects.get().pk)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "tryon-heartbeat"]
    while TryOn.objects.get().lease_until == lease:
        assert thread.is_alive()
    heart.let_go(TryOn.objects.get().pk)
    thread.join(30)
    assert not thread.is_alive()
