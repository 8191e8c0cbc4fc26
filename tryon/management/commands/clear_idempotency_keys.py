from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from ...conf import conf
from ...models import TryOn
from .._failures import database_needed


class Command(BaseCommand):
    help = (
        'Free the Idempotency-Keys that are older than TRYON["IDEMPOTENCY_TTL"]; the runs stay. '
        "Run it as a cronjob, like clearsessions."
    )
    requires_system_checks = []  # a provider without its key is no reason to wait

    def handle(self, **options: Any) -> str:
        with database_needed():
            freed = TryOn.objects.forget_keys(timezone.now() - timedelta(seconds=conf.IDEMPOTENCY_TTL))
        return f"{freed} Idempotency-Key(s) freed."
