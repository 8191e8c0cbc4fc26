"""How much memory decoding takes, and that all of it together stays within DECODE_MEMORY."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator

from .conf import conf
from .exceptions import ImageTooLarge

STRIPS = 6 * 1024 * 1024
"""Bytes that the strips take in which a picture is converted, and their copies."""

THREADS = 8 * 1024 * 1024
"""Bytes of HEIC's decoder, whose threads have buffers of their own."""

STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Bytes for each pixel of Pillow's modes; all others take 4, RGB too."""


def estimate(
    kind: str, mode: str, pixels: int, kept: int, size: int, *, source: int = 0, samples: float = 0, deep: bool = False
) -> int:
    """Bytes that it takes at its peak to decode a picture and make one of ``kept`` pixels of it.

    ``pixels`` is what comes out of the decoder: of a large JPEG, that may be a half or less of each side of the
    ``source``. ``samples`` a pixel are kept by the decoder, of one or two bytes each if they are ``deep``; ``size`` is
    the file's. The factors are measured, by tests/test_decoding.py too.
    """
    stored = STORED.get(mode, 4)
    channels = 4 if mode in ("RGBA", "RGBa", "LA") else 3
    planes = samples * (2 if deep else 1)
    if kind == "JPEG":  # coefficients have two bytes
        peak, held = 2 * samples * source + stored * pixels, float(stored * pixels)
    elif kind == "WEBP":  # two canvases, one copy for Python and one of Pillow's own
        peak, held = 16.0 * pixels, 12.0 * pixels
    elif kind == "AVIF":  # planes, interleaved, and two copies
        peak, held = (planes + channels + 4 + 1.5) * pixels, (planes + 4 + 0.5) * pixels
    elif kind == "HEIF":  # planes of tiles and of the whole, and interleaved
        peak, held = (1.5 * planes + channels) * pixels, float(channels * pixels)
    else:
        peak = held = float(stored * pixels)
    copies = 2 * size if kind in ("WEBP", "AVIF", "HEIF") else size
    return round(max(peak, held + 4 * kept)) + copies + STRIPS + (THREADS if kind == "HEIF" else 0)


LARGE_BLOCK = 256 * 1024
"""Bytes from which a block of memory is given back to the system as soon as it is free."""
M_MMAP_THRESHOLD = -3
"""The number by which glibc's mallopt() knows that."""


@functools.cache
def give_back_memory() -> None:
    """Have glibc give all large blocks back at once; other C libraries do, or cannot be told.

    By itself it raises the size from which it does so to 32 MB when it sees such blocks, and then keeps what one
    thread has freed from all others: two threads that decode within 160 MB come to 400 MB. It holds for the whole
    process, unless its environment has a threshold of its own.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


class Budget:
    """Memory that several threads share. Whoever waits for much is not overtaken by those who need little."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._taken = 0

    @contextlib.contextmanager
    def hold(self, need: int) -> Iterator[None]:
        """Wait until ``need`` bytes are free, and keep them; raise ``ImageTooLarge`` if there are never so many."""
        if need > conf.DECODE_MEMORY:
            raise ImageTooLarge(
                f"decoding the image takes {need / 1e6:.0f} MB of memory; the limit is "
                f"{conf.DECODE_MEMORY / 1e6:.0f} MB. Send a smaller one, or a JPEG that is not progressive."
            )
        give_back_memory()
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._taken + need <= conf.DECODE_MEMORY or not self._taken)
            self._taken += need
        try:
            yield
        finally:
            with self._changed:
                self._taken -= need
                self._changed.notify()


budget = Budget()
"""Of this process."""
