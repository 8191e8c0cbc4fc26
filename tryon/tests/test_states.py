"""A run's signature in time: which moves it makes, from where, and how often."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.utils import timezone

from tryon.models import TryOn

from .shop import Shop

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("database")]

LEGAL = {
    ("queued", "running"),
    ("queued", "failed"),
    ("queued", "cancelled"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
}


def fields(status: str) -> dict[str, Any]:
    """What a run in this state has, as the table's constraints want it."""
    ended = status in ("succeeded", "failed", "cancelled")
    return {"image": "a.png" if status == "succeeded" else "", "finished_at": timezone.now() if ended else None}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(TryOn.Status.values, repeat=2)))
def test_only_legal_moves_are_made(shop: Shop, before: str, after: str) -> None:
    run = TryOn.objects.create(user=shop.user, credits=1, status=before, lease_until=timezone.now(), **fields(before))
    if after == "queued":
        assert TryOn.Status.QUEUED not in TryOn.MOVES, "nothing leads back there"
        return
    assert run.move(TryOn.Status(after), **fields(after)) == ((before, after) in LEGAL)
    stored = TryOn.objects.get().status
    assert stored == run.status == (after if (before, after) in LEGAL else before)


def test_of_two_processes_one_makes_a_move(shop: Shop) -> None:
    """Each knows the run as it was before."""
    run = TryOn.objects.create(user=shop.user, credits=1, status="running", lease_until=timezone.now())
    one, other = TryOn.objects.get(), TryOn.objects.get()
    assert one.finish(TryOn.Status.FAILED)
    assert not other.finish(TryOn.Status.CANCELLED)
    run.refresh_from_db()
    assert (run.status, other.status) == ("failed", "running")
