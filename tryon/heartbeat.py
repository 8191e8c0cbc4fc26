"""What a process writes about its runs now and then, for all of them at once: that it lives, and whom it told.

A run carries a lease, which its process renews; when it has run out, the process is dead and the run is
recovery's. Writing for many runs at a time keeps both off the path of the single run.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connections
from django.utils import timezone

from .conf import conf
from .models import TryOn, connect, outlives_us

logger = logging.getLogger("tryon.heartbeat")

BEATS: Final = 3
"""Beats in the time of one lease: a database that is away for a moment costs no run."""
LONGEST_PAUSE: Final = 20.0
"""Seconds between two beats, however long a lease is."""
AT_ONCE: Final = 1000
"""Runs that one query names."""
MISSED_BEATS: Final = 30
"""While it is away, for then a whole beat may be too long."""


def expiry() -> datetime:
    """When a lease that is taken now runs out."""
    return timezone.now() + timedelta(seconds=conf.LEASE)


class Heartbeat:
    """The runs of this process, written about by one thread that lives as long as there is something to write.

    A thread and not a task of the event loop: it works under WSGI, and while something blocks the loop.
    """

    def __init__(self) -> None:
        self._alive: dict[UUID, float] = {}
        self._told: set[UUID] = set()
        self._lock = threading.Lock()
        self._is_beating = False
        self._thread = threading.current_thread()

    def keep_alive(self, run: UUID) -> None:
        """Renew the lease of ``run`` from now on; but not of one that hangs, for long after its deadline."""
        if not outlives_us():
            return
        with self._lock:
            self._alive[run] = time.monotonic() + conf.DEADLINE + conf.LEASE
            self._start()

    def let_go(self, run: UUID) -> None:
        """Leave the lease of ``run`` alone."""
        with self._lock:
            self._alive.pop(run, None)

    def tell(self, run: UUID) -> None:
        """Write down, with the next beat, that the end of ``run`` was announced."""
        if not outlives_us():
            return
        with self._lock:
            self._told.add(run)
            self._start()

    def beat(self) -> bool:
        """Write what there is to write; whether it was written. Else it waits for the next beat."""
        now = time.monotonic()
        with self._lock:
            self._alive = {run: until for run, until in self._alive.items() if now < until}
            alive, told = list(self._alive), list(self._told)
        return self._write(alive, told)

    def stop(self) -> bool:
        """The last beat of a process: what it has told, and no lease of a run that dies with it."""
        with self._lock:
            told = list(self._told)
        return self._write([], told)

    def _write(self, alive: list[UUID], told: list[UUID]) -> bool:
        try:
            if alive or told:
                connect()
            if alive:
                TryOn.objects.unfinished().filter(pk__in=alive).update_in_order(lease_until=expiry())
            for first in range(0, len(told), AT_ONCE):
                some = TryOn.objects.filter(pk__in=told[first : first + AT_ONCE])
                some.update_in_order(announced_at=timezone.now())
        except Exception as error:  # noqa: BLE001 - of any database's or driver's own class
            logger.warning("Could not renew %d lease(s), note %d announcement(s): %s", len(alive), len(told), error)
            return False
        with self._lock:
            self._told.difference_update(told)
        return True

    def _start(self) -> None:
        # A thread may have died of an error, or in a fork.
        if not (self._is_beating and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._beat_on, name="tryon-heartbeat", daemon=True)
            self._thread.start()
            self._is_beating = True

    def _beat_on(self) -> None:
        # Longer than most runs take: few cost a renewal.
        pause = min(conf.LEASE / BEATS, LONGEST_PAUSE)
        while True:
            time.sleep(pause)
            with self._lock:
                self._is_beating = bool(self._alive or self._told)
                if not self._is_beating:
                    return
            try:
                pause = min(conf.LEASE / (BEATS if self.beat() else MISSED_BEATS), LONGEST_PAUSE)
            finally:
                connections.close_all()


heartbeat = Heartbeat()
"""This process's."""

# Without this the ends of the last moments would be announced again.
atexit.register(heartbeat.stop)
