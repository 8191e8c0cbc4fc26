"""The outline of a garment laid flat: its box, its rows, its middle, and how to say what is missing from it.

Lengths are in pixels of the garment photo, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageUnusable
from .imaging import OUTWARD, SIDES, Mask, Point, Side, largest

Indices: TypeAlias = NDArray[np.intp]
Contour: TypeAlias = NDArray[np.int32]
"""As OpenCV finds it, ``(N, 1, 2)``."""

SMALLEST: Final = 32
"""Pixels; nothing can be measured on a smaller silhouette."""
MIDDLE_WITHIN: Final = 0.12
"""Of the width: so far to both sides of the middle of the box the axis is looked for."""
MIDDLE_SHRINK: Final = 4
"""The axis is found in the outline at a quarter of its size, in steps of 2 pixels of the photo."""

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
        """Pixels from the first to the last column."""
        return float(self.right - self.left)

    @property
    def height(self) -> float:
        """Pixels from the first to the last row."""
        return float(self.bottom - self.top)

    def row(self, share: float) -> float:
        """y of the row at this share of the height, 0 at the top."""
        return self.top + share * self.height


class Outline:
    """The silhouette of a top or a dress, its middle, and how far it reaches to both sides."""

    def __init__(self, box: Silhouette) -> None:
        """Raise ``ImageUnusable`` where nothing lies in the middle."""
        self.box = box
        self.centre, self.symmetry = axis_of(box)
        """x of the middle, and IoU with the mirror image, 0 to 1."""
        self.hem_y = float(column_of(box.mask, self.centre).max())
        """y of the lowest row of the middle."""
        contours, _ = cv2.findContours(box.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        self.contour: Contour = np.asarray(max(contours, key=cv2.contourArea), np.int32)
        """Of the largest piece, from outside."""
        self._ends = np.array([self._ends_of(box.mask[y]) for y in range(box.top, box.bottom + 1)])

    def _ends_of(self, row: Mask) -> tuple[float, float]:
        """The outer ends of what lies nearest to the middle on either side: of the body, or of two straps."""
        starts, ends = runs_of(row)
        left, right = starts <= self.centre, ends >= self.centre
        return (
            float(starts[left][-1]) if left.any() else self.centre,
            float(ends[right][0]) if right.any() else self.centre,
        )

    def out(self, side: Side, x: float) -> float:
        """How far x lies from the middle towards the side."""
        return (x - self.centre) * OUTWARD[side]

    def point(self, side: Side, out: float, y: float) -> Point:
        """The point so far out, in this row."""
        return np.array([self.centre + out * OUTWARD[side], y])

    def edge(self, side: Side, y: float) -> float:
        """x of the end of what lies nearest to the middle, in this row or else in the nearest one that has any."""
        row = int(np.clip(y - self.box.top, 0, len(self._ends) - 1))
        return float(self._ends[row, SIDES.index(side)])

    def furthest(self, side: Side, y: int, most: float) -> float:
        """How far out the garment reaches in this row, up to ``most``; 0 where it has nothing on this side."""
        out = (np.flatnonzero(self.box.mask[y]) - self.centre) * OUTWARD[side]
        out = out[out <= most]
        return float(out.max()) if len(out) else 0.0

    def beyond(self, side: Side, x: float) -> Mask:
        """The garment further out than x, ``(H, W)``."""
        half = np.zeros_like(self.box.mask)
        half[:, slice(0, int(x)) if side == "left" else slice(int(x) + 1, None)] = 1
        return half & self.box.mask


def silhouette_of(mask: Mask, message: str) -> Silhouette:
    """The largest piece of the garment. Raise ``ImageUnusable`` with this message where there is none.

    ``message`` is ``NO_TOP`` or ``NO_TROUSERS``.
    """
    box = box_of(largest(mask)) if mask.any() else None
    if box is None or min(box.width, box.height) < SMALLEST:
        raise not_found(message, "a garment that is large enough")
    return box


def box_of(mask: Mask) -> Silhouette:
    """The mask as it is, which must have something, in its box."""
    ys, xs = np.where(mask)
    return Silhouette(mask, int(xs.min()), int(xs.max()), int(ys.min()), int(ys.max()))


def axis_of(box: Silhouette) -> tuple[float, float]:
    """x of the axis on which the outline is most even, and how even it is (IoU with its mirror image, 0 to 1)."""
    scale = 1 / MIDDLE_SHRINK
    small = cv2.resize(box.mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) > 0
    best, most = (box.left + box.right) / 2, -1.0
    reach = int(MIDDLE_WITHIN * box.width / MIDDLE_SHRINK)
    middle = round(best / MIDDLE_SHRINK)
    for twice in range(2 * (middle - reach), 2 * (middle + reach) + 1):
        overlap = _overlap_mirrored(small, twice)
        if overlap > most:
            best, most = (twice + 1) * MIDDLE_SHRINK / 2, overlap
    return float(best), most


def _overlap_mirrored(small: NDArray[np.bool_], twice: int) -> float:
    """IoU of a mask with its image, mirrored at x = ``twice`` / 2."""
    columns = np.arange(small.shape[1])
    origins = twice - columns
    inside = (origins >= 0) & (origins < small.shape[1])
    mirrored = np.zeros_like(small)
    mirrored[:, columns[inside]] = small[:, origins[inside]]
    return float((small & mirrored).sum() / max(1, (small | mirrored).sum()))


def symmetry_of(mask: Mask) -> float:
    """IoU of the largest piece of the mask with its mirror image, 0 to 1.

    Raise ``ImageUnusable`` where it is too small.
    """
    return axis_of(silhouette_of(mask, NO_TOP))[1]


def runs_of(row: Mask) -> tuple[Indices, Indices]:
    """The first and the last column of every run of a row."""
    framed = np.zeros(len(row) + 2, bool)
    framed[1:-1] = row
    changes = np.flatnonzero(framed[1:] != framed[:-1])
    return changes[::2], changes[1::2] - 1


def run_at(mask: Mask, y: float, x: float) -> tuple[float, float] | None:
    """The first and last column of the run of row ``y`` that is nearest to ``x``; None where the row is empty."""
    if not 0 <= int(y) < len(mask):
        return None
    starts, ends = runs_of(mask[int(y)])
    if not len(starts):
        return None
    nearest = np.argmin(np.maximum(0, np.maximum(starts - x, x - ends)))
    return float(starts[nearest]), float(ends[nearest])


def ends_at(mask: Mask, y: float, x: float, message: str) -> dict[Side, float]:
    """Both ends of that run. Raise ``ImageUnusable`` with this message where the row is empty."""
    run = run_at(mask, y, x)
    if run is None:
        raise not_found(message, "the whole outline")
    return {"left": run[0], "right": run[1]}


def column_of(mask: Mask, x: float) -> Indices:
    """The rows of a top's mask in this column. Raise ``ImageUnusable`` where it is empty."""
    rows = np.flatnonzero(mask[:, int(np.clip(x, 0, mask.shape[1] - 1))])
    if not len(rows):
        raise not_found(NO_TOP, "the whole outline")
    return rows


def not_found(message: str, what: str) -> ImageUnusable:
    """The error for ``NO_TOP`` or ``NO_TROUSERS``."""
    return ImageUnusable(message.format(what=what))
