from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from ...models import TryOn
from ...recovery import recover
from .._failures import database_needed


class Command(BaseCommand):
    help = (
        "End the runs whose process died: with their picture if it was stored, else with their credits given back. "
        "Announce ends that nobody was told of, delete files that are no picture, erase the runs that are flagged. "
        "Safe to run at any time."
    )
    requires_system_checks = []  # credits go back whatever is wrong with the provider

    def handle(self, **options: Any) -> str:
        with database_needed():
            recovered = recover()
        for tryon in recovered.captured:
            self._tell(tryon, f"the picture was stored, {tryon.credits} credit(s) charged")
        for tryon in recovered.released:
            self._tell(tryon, f"{tryon.credits} credit(s) back")
        for tryon in recovered.announced:
            self._tell(tryon, f"{tryon.status}, announced")
        return (
            f"{len(recovered.captured) + len(recovered.released)} run(s) recovered, "
            f"{len(recovered.announced)} announced, {len(recovered.erased)} erased."
        )

    def _tell(self, tryon: TryOn, what: str) -> None:
        self.stdout.write(f"{tryon.pk}  {tryon.created_at:%Y-%m-%d %H:%M:%S}  {what}")
