"""What happens when a server process starts."""

from django.conf import settings
from django.core.management import call_command


def check_production() -> None:
    """Refuse to start where the system checks find an error, as manage.py does; servers do not look by themselves."""
    if not settings.DEBUG:
        call_command("check", tags=["tryon"])
