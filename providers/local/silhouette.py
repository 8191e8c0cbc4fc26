"""The outline of a garment laid flat, and how to say what is missing from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageUnusable
from .imaging import Floats, Mask, Side, largest

Indices: TypeAlias = NDArray[np.intp]

SMALLEST: Final = 32
"""Pixels; nothing can be measured on a smaller silhouette."""

NO_TOP: Final = (
    "Garment photo: {what} was not found. Use a photo of a top alone, upright, laid flat and spread out on a plain "
    "ground, seen from the front."
)
NO_TROUSERS: Final = (
    "Garment photo: {what} was not found. Use a photo of trousers or a skirt alone, upright, laid flat on a plain "
    "ground with the waistband at the top; dungarees cannot be tried on."
)


@dataclass(frozen=True, slots=True)
class Silhouette:
    """The garment's mask, and its first and last column and row."""

    mask: Mask
    left: int
    right: int
    top: int
    bottom: int

    @property
    def width(self) -> float:
        return float(self.right - self.left)

    @property
    def height(self) -> float:
        return float(self.bottom - self.top)

    def row(self, share: float) -> float:
        """y of the row at this share of the height."""
        return self.top + share * self.height


def run_at(mask: Mask, y: float, x: float) -> tuple[float, float] | None:
    """The first and last column of the run of row ``y`` that is nearest to ``x``; None where the row is empty."""
    if not 0 <= int(y) < len(mask):
        return None
    starts, ends = runs_of(mask[int(y)])
    if not len(starts):
        return None
    nearest = np.argmin(np.maximum(0, np.maximum(starts - x, x - ends)))
    return float(starts[nearest]), float(ends[nearest])


def runs_of(row: Mask) -> tuple[Indices, Indices]:
    """The first and the last column of every run of a row."""
    framed = np.zeros(len(row) + 2, bool)
    framed[1:-1] = row
    changes = np.flatnonzero(framed[1:] != framed[:-1])
    return changes[::2], changes[1::2] - 1


def ends_at(mask: Mask, y: float, x: float, message: str) -> dict[Side, float]:
    """Both ends of that run. Raise ``ImageUnusable`` with this message where the row is empty."""
    run = run_at(mask, y, x)
    if run is None:
        raise not_found(message, "the whole outline")
    return {"left": run[0], "right": run[1]}


def not_found(message: str, what: str) -> ImageUnusable:
    """The error for ``NO_TOP`` or ``NO_TROUSERS``."""
    return ImageUnusable(message.format(what=what))


def silhouette_of(alpha: Floats, message: str) -> Silhouette:
    """The largest piece of the garment. Raise ``ImageUnusable`` with this message where there is none."""
    mask = largest(alpha > 0.5)
    ys, xs = np.where(mask)
    if not len(xs) or min(np.ptp(xs), np.ptp(ys)) < SMALLEST:
        raise not_found(message, "a garment that is large enough")
    return Silhouette(mask, int(xs.min()), int(xs.max()), int(ys.min()), int(ys.max()))


def column_of(mask: Mask, x: float) -> Indices:
    """The rows of a top's mask in this column."""
    rows = np.flatnonzero(mask[:, int(np.clip(x, 0, mask.shape[1] - 1))])
    if not len(rows):
        raise not_found(NO_TOP, "the whole outline")
    return rows
