from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from ...pipeline import recover
from .._failures import database_needed


class Command(BaseCommand):
    help = "End the runs whose process died and give their credits back. Safe to run at any time."
    requires_system_checks = []  # credits go back whatever is wrong with the provider

    def handle(self, **options: Any) -> str:
        with database_needed():
            recovered = recover()
        for tryon in recovered:
            self.stdout.write(f"{tryon.pk}  {tryon.created_at:%Y-%m-%d %H:%M:%S}  {tryon.credits} credit(s) back")
        return f"{len(recovered)} run(s) recovered."
