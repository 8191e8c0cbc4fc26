"""How much strangers' photos may take of this process, however many people send them at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from concurrent.futures import Future
from typing import Final, Self

from .conf import conf
from .exceptions import Overloaded

PATIENCE: Final = 30.0
"""Seconds that a run waits for room before it is refused."""


logger = logging.getLogger("tryon.room")


class Place:
    """What one run takes of a ``Room``; as a context manager, until the end of the block."""

    def __init__(self, room: Room, size: int) -> None:
        self._room = room
        self._size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def shrink(self, size: int) -> None:
        """Take no more than ``size`` from now on."""
        if size < self._size:
            self._room.give_back(self._size - size)
            self._size = size

    def leave(self) -> None:
        """Take nothing any more. Leaving twice does no harm."""
        self.shrink(0)


class Room:
    """As much as a setting says, shared by all runs of this process, first come, first served.

    Who finds too little left waits; so nobody may take a second place while he holds one. A run that would need more
    than there is in all gets all of it. Runs of different event loops share one room, as under WSGI.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._lock = threading.Lock()
        self._taken = 0
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    @property
    def size(self) -> int:
        size: int = getattr(conf, self._setting)
        return size

    async def enter(self, size: int) -> Place:
        """Wait for so much. Raise ``Overloaded`` if it does not come free within ``PATIENCE``."""
        size = min(size, self.size)
        if not size:
            return Place(self, 0)
        turn: Future[None] = Future()
        with self._lock:
            self._waiting.append((size, turn))
            self._admit()
        if not turn.done():
            try:
                async with asyncio.timeout(PATIENCE):
                    await asyncio.wrap_future(turn)
            except BaseException as error:
                self._give_up(size, turn)
                if isinstance(error, TimeoutError):
                    logger.warning("A run waited %s s in vain: %s is %s.", PATIENCE, self._setting, self.size)
                    raise Overloaded from None
                raise
        return Place(self, size)

    def give_back(self, size: int) -> None:
        with self._lock:
            self._taken -= size
            self._admit()

    def _give_up(self, size: int, turn: Future[None]) -> None:
        if not turn.cancel() and not turn.cancelled():  # it came in this very moment
            self.give_back(size)
            return
        with self._lock:  # whoever stood behind a large one may fit in
            self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif self._taken + size <= max(self.size, size):
                self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    self._taken += size
                    turn.set_result(None)
            else:
                return


memory: Final = Room("PHOTO_MEMORY")
"""Bytes of photos, from their download to the provider's answer."""
downloads: Final = Room("MAX_DOWNLOADS")
"""Photos that are being fetched."""


COPIES: Final = 2
"""Times that a photo is in memory: as it came and as it leaves, and then in the vendor's SDK."""
