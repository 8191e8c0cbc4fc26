from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from ...pipeline import recover


class Command(BaseCommand):
    help = "End the runs whose process died and give their credits back. Safe to run at any time."

    def handle(self, **options: Any) -> str:
        recovered = recover()
        for tryon in recovered:
            self.stdout.write(f"{tryon.pk}  {tryon.created_at:%Y-%m-%d %H:%M:%S}  {tryon.credits} credit(s) back")
        return f"{len(recovered)} run(s) recovered."
