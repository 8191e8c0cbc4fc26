"""Dead runs, as tests need them, and the time when somebody notices."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils import timezone

from tryon import runs
from tryon.conf import conf
from tryon.dispatch import choose_provider
from tryon.models import TryOn
from tryon.runs import Order

from .shop import Shop, jpeg

LEASE = timedelta(seconds=conf.LEASE)


def later(leases: float = 1.5) -> Any:
    """When so many leases that are taken now have run out."""
    return timezone.now() + leases * LEASE


def order_of(shop: Shop, **changes: Any) -> Order:
    return Order(**{"user": shop.user, "person": jpeg(), "garment": jpeg(color="navy"), **changes})


def dead_run(shop: Shop) -> TryOn:
    """What a process leaves behind that is killed while it waits for the provider."""
    tryon = runs.admit(TryOn().pk, order_of(shop), choose_provider())
    TryOn.objects.filter(pk=tryon.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    return tryon


def leave_file(tryon: TryOn, media: Path, name: str, data: bytes) -> Path:
    media.mkdir(parents=True, exist_ok=True)
    file = media / f"{tryon.file_stem}.{name}"
    file.write_bytes(data)
    return file
