"""What happens when a server process starts."""

import contextlib
import ctypes
import gc
import logging
import os
import sys

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
    give_memory_back()
    # What has been loaded by now stays: the garbage collector need not look through it again and again.
    gc.freeze()


def give_memory_back() -> None:
    """Have freed photos leave the process at once.

    glibc takes freed blocks of up to 32 MB for a sign that more of that size will come, and keeps them. A threshold
    that was set stays (mallopt(3)). An environment that has its own is left alone.
    """
    m_mmap_threshold, megabyte = -3, 1024 * 1024
    if sys.platform == "linux" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        with contextlib.suppress(AttributeError):  # another libc
            ctypes.CDLL(None).mallopt(m_mmap_threshold, megabyte)
