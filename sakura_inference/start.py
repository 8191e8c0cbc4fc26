"""What happens when a server process starts."""

import gc
import logging

from django.conf import settings
from django.core.checks import run_checks
from django.core.management import call_command

logger = logging.getLogger("tryon.checks")


def start() -> None:
    """Refuse to serve what the system checks refuse, as manage.py does; and get ready for many requests."""
    if not settings.DEBUG:
        call_command("check", tags=["tryon"])
        # Told and not refused: the day on which a vendor ends a model is no day for a whole shop to go down.
        for message in run_checks(tags=["tryon_models"]):
            if not message.is_silenced():
                logger.log(message.level, message)
    # What has been loaded by now stays: the garbage collector need not look through it again and again.
    gc.freeze()
