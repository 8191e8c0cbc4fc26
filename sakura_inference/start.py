"""What happens when a server process starts."""

import gc

from django.conf import settings
from django.core.management import call_command


def start() -> None:
    """Refuse to serve what the system checks refuse, as manage.py does; and get ready for many requests."""
    if not settings.DEBUG:
        call_command("check", tags=["tryon"])
    # What has been loaded by now stays: the garbage collector need not look through it again and again.
    gc.freeze()
