"""Ends are announced at least once, whatever dies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError
from django.utils import timezone

from tryon import recovery, runs, signals
from tryon.heartbeat import heartbeat
from tryon.models import TryOn, UsageRecord
from tryon.recovery import Recovered, recover

from .dead import LEASE, later
from .shop import Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """What a host's receivers hear of ends."""
    heard: list[dict[str, Any]] = []

    def listen(**kwargs: Any) -> None:
        heard.append(kwargs)

    for signal in (signals.try_on_succeeded, signals.try_on_failed):
        signal.connect(listen)
    yield heard
    for signal in (signals.try_on_succeeded, signals.try_on_failed):
        signal.disconnect(listen)


def test_an_end_is_announced_once_where_nothing_dies(shop: Shop, heard: list[dict[str, Any]]) -> None:
    shop.post()
    heartbeat.beat()
    assert recover(later()) == Recovered()
    assert [(call["status"], call["repeated"]) for call in heard] == [("succeeded", False)]


def test_an_end_that_nobody_was_told_of_is_announced(
    shop: Shop, heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died between the commit and the signal."""
    with monkeypatch.context() as patch:
        patch.setattr(runs, "announce", lambda *args, **kwargs: None)
        assert shop.post().status_code == 200
    [run] = TryOn.objects.all()
    assert (heard, UsageRecord.objects.count()) == ([], 0)

    assert recover() == Recovered(), "for as long as a process may still be at it, it is left to that"
    assert recover(later()) == Recovered(announced=[run])

    [call] = heard
    assert (call["tryon_id"], call["status"], call["repeated"]) == (run.pk, "succeeded", True)
    assert call["image_url"].endswith(run.image.name)
    assert UsageRecord.objects.get().tryon_id == run.pk
    heartbeat.beat()
    assert recover(later()) == Recovered()


def test_of_many_that_find_an_end_unannounced_one_tells(shop: Shop, heard: list[dict[str, Any]]) -> None:
    shop.post()
    heard.clear()
    long_ago = timezone.now() - 2 * LEASE
    TryOn.objects.update(finished_at=long_ago, lease_until=long_ago)
    assert recover() == Recovered(announced=[TryOn.objects.get()])
    assert recover() == Recovered(), "somebody is telling it"
    assert len(heard) == 1


def test_an_end_whose_announcement_was_not_written_down_is_announced_again_and_can_be_told(
    shop: Shop, heard: list[dict[str, Any]]
) -> None:
    """The process died after the signal. The usage is still one row."""
    shop.post()
    recover(later())
    assert len({call["tryon_id"] for call in heard}) == 1
    assert [call["repeated"] for call in heard] == [False, True]
    assert UsageRecord.objects.count() == 1


def test_usage_that_could_not_be_recorded_is_recorded_later(
    shop: Shop, heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away for a moment")

    with monkeypatch.context() as patch:
        patch.setattr(UsageRecord, "save", refuse)
        assert shop.post().status_code == 200
    heartbeat.beat()
    assert not UsageRecord.objects.exists()
    recover(later())
    heartbeat.beat()
    assert UsageRecord.objects.get().status == "succeeded"
    assert recover(later()) == Recovered()


def test_a_hosts_receiver_that_fails_is_not_asked_for_ever(shop: Shop) -> None:
    def fail(**kwargs: Any) -> None:
        raise RuntimeError("a bug of the host's")

    signals.try_on_succeeded.connect(fail)
    try:
        shop.post()
    finally:
        signals.try_on_succeeded.disconnect(fail)
    heartbeat.beat()
    assert recover(later()) == Recovered()


def test_an_end_that_another_process_took_in_the_same_moment_is_left_to_it(
    shop: Shop, heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.post()
    heard.clear()
    each = recovery._each

    def be_late(found: Any) -> list[TryOn]:
        late = each(found)
        for run in late:
            assert TryOn.objects.get(pk=run.pk).take_over(later())
        return late

    monkeypatch.setattr(recovery, "_each", be_late)
    assert recover(later()) == Recovered()
    assert heard == []
