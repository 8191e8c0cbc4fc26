"""Where trousers, shorts and skirts have their waistband, crotch, legs and hem, from the outline of their photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from .imaging import OUTWARD, SIDES, Floats, Mask, Point, Side
from .silhouette import NO_TROUSERS, Silhouette, ends_at, not_found, silhouette_of

LEFT_LEG, RIGHT_LEG = 1, 2
LEG_PARTS: Final[Mapping[Side, int]] = {"left": LEFT_LEG, "right": RIGHT_LEG}

WAIST_ROWS: Final = (0.015, 0.10, 0.2)
"""Of the height; of trousers those above the crotch."""
LEG_ROWS: Final = (0.08, 0.25, 0.45, 0.65, 0.85, 0.985)
"""Of the way from the crotch to the hem; of a skirt from the hips."""
NARROWEST_WAIST: Final = 0.5
"""Of the hips' width; the bib of dungarees is narrower."""


@dataclass(frozen=True, slots=True)
class Bottom:
    """Whatever hangs from the waist."""

    mask: Mask
    parts: Mask
    """``(H, W)`` uint8: 0, ``LEFT_LEG`` or ``RIGHT_LEG``; a skirt is ``LEFT_LEG`` alone."""
    centre: float
    """x of the middle."""
    crotch: Point | None
    """None for a skirt."""
    waist: Floats
    """``(3, 2, 2)``: the left and the right end of each of ``WAIST_ROWS``."""
    legs: Mapping[Side, Floats]
    """``(6, 2, 2)``: the outer and the inner end of each of ``LEG_ROWS``."""
    top: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def hip_width(self) -> float:
        return float(self.waist[2, 1, 0] - self.waist[2, 0, 0])


def find_bottom(mask: Mask) -> Bottom:
    """The landmarks. Raise ``ImageUnusable`` where the outline is not that of trousers or a skirt."""
    box = silhouette_of(mask.astype(np.float32), NO_TROUSERS)
    middle = (box.left + box.right) / 2
    crotch = _crotch(box, middle)
    centre = float(crotch[0]) if crotch is not None else middle
    waist = _waist(box, centre)
    waist_width, hips = waist[0, 1, 0] - waist[0, 0, 0], waist[2, 1, 0] - waist[2, 0, 0]
    if hips <= 0 or waist_width < NARROWEST_WAIST * hips:
        raise not_found(NO_TROUSERS, "a waistband at the top")
    parts = box.mask * LEFT_LEG
    if crotch is not None:
        parts[:, int(crotch[0]) :] = box.mask[:, int(crotch[0]) :] * RIGHT_LEG
    start = crotch[1] if crotch is not None else box.row(WAIST_ROWS[2])
    legs = {side: _leg(box, centre, float(start), side, split=crotch is not None) for side in SIDES}
    return Bottom(box.mask, parts, centre, crotch, waist, legs, float(box.top), float(box.bottom))


def _crotch(box: Silhouette, middle: float) -> Point | None:
    """The top of the gap between the legs; None where there is no gap."""
    best: tuple[int, int] | None = None
    for x in range(int(middle - 0.15 * box.width), int(middle + 0.15 * box.width)):
        rows = np.flatnonzero(box.mask[: box.bottom - int(0.03 * box.height), x])
        if len(rows) and (best is None or rows.max() < best[1]):
            best = (x, int(rows.max()))
    if best is None or best[1] > box.row(0.9):
        return None
    return np.array(best, np.float64)


def _waist(box: Silhouette, centre: float) -> Floats:
    rows = []
    for share in WAIST_ROWS:
        y = box.row(share)
        ends = ends_at(box.mask, y, centre, NO_TROUSERS)
        rows.append(((ends["left"], y), (ends["right"], y)))
    return np.array(rows)


def _leg(box: Silhouette, centre: float, start: float, side: Side, *, split: bool) -> Floats:
    """Outer and inner ends at ``LEG_ROWS``."""
    rows = []
    for at in LEG_ROWS:
        y = start + at * (box.bottom - start)
        ends = ends_at(box.mask, y, centre + OUTWARD[side] * 0.25 * box.width, NO_TROUSERS)
        inner = ends["right" if side == "left" else "left"] if split else centre
        if (inner - centre) * OUTWARD[side] < 0:
            inner = centre
        rows.append(((ends[side], y), (inner, y)))
    return np.array(rows)
