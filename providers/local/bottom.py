"""Where trousers, shorts and skirts have their waistband, crotch, legs and hem, from the outline of their photo.

Lengths are in pixels of the garment photo. The shares were found by looking at catalogue photos, where nothing
else is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from .imaging import OUTWARD, SIDES, Floats, Mask, Point, Side
from .silhouette import NO_TROUSERS, Silhouette, ends_at, not_found, silhouette_of

LEFT_LEG, RIGHT_LEG = 1, 2
LEG_PARTS: Final[Mapping[Side, int]] = {"left": LEFT_LEG, "right": RIGHT_LEG}

CROTCH_WITHIN: Final = 0.15
"""Of the width: so far to both sides of the middle the crotch is looked for."""
HEM_MARGIN: Final = 0.03
"""Of the height: so far above the last row the search ends, because a hem need not be straight."""
LOWEST_CROTCH: Final = 0.9
"""Of the height: a gap that begins lower is a slit."""
WAISTBAND: Final = 0.015
"""Of the height: where the width of the waistband is measured."""
WAIST_ROWS: Final = (0.0, 0.5, 1.0)
"""Of the way from the waistband to the hips."""
HIPS_ABOVE_CROTCH: Final = 0.6
"""Of the way from the waistband to the crotch: 20 % of the height of long trousers, whatever their legs are cut to."""
HIPS_BELOW_WAIST: Final = 0.6
"""Widths of the waistband: where a skirt, which has no crotch, reaches the hips. Trousers had 0.5 to 0.9,"""
LOWEST_HIPS: Final = 0.9
"""and no more, as legs that touch part only far below the crotch."""
SHORTEST: Final = 0.5
"""Of the height: whatever is shorter ends at the hips, or above."""
WIDEST_HIPS: Final = 1.4
"""Over the waistband; trousers had 1.1 to 1.37. A skirt that is wider flares, and hangs free of the hips."""
LEG_ROWS: Final = (0.08, 0.25, 0.45, 0.65, 0.85, 0.985)
"""Of the way from the crotch to the hem; of a skirt from the hips."""
LEG_AT: Final = 0.25
"""Of the width, from the middle: where a leg is looked for, or half of a skirt."""
NARROWEST_WAIST: Final = 0.5
"""Of the width below; the bib of dungarees is narrower."""
LOWEST_WAIST: Final = 0.2
"""Of a skirt's height: further down it may be as wide as it likes."""


@dataclass(frozen=True, slots=True)
class Bottom:
    """Whatever hangs from the waist."""

    parts: Mask
    """``(H, W)`` uint8: 0, ``LEFT_LEG`` or ``RIGHT_LEG``; a skirt is ``LEFT_LEG`` alone."""
    centre: float
    """x of the middle."""
    crotch: Point | None
    """None for a skirt."""
    waist: Floats
    """``(3, 2, 2)``, waistband to hips: the left and the right end of each of ``WAIST_ROWS``."""
    legs: Mapping[Side, Floats]
    """``(6, 2, 2)``: the outer and the inner end of each of ``LEG_ROWS``."""
    top: float
    """y of the first row."""
    bottom: float
    """y of the last row."""

    @property
    def height(self) -> float:
        """From the first to the last row, pixels."""
        return self.bottom - self.top

    @property
    def hip_width(self) -> float:
        """Of the body it is cut for, lying flat."""
        waistband, _, hips = self.waist[:, 1, 0] - self.waist[:, 0, 0]
        return float(min(hips, WIDEST_HIPS * waistband))


def find_bottom(mask: Mask) -> Bottom:
    """The landmarks of the largest piece of the mask, ``(H, W)`` of 0 and 1.

    Raise ``ImageUnusable`` where its outline is not that of trousers or a skirt.
    """
    box = silhouette_of(mask, NO_TROUSERS)
    middle = (box.left + box.right) / 2
    crotch = _crotch(box, middle)
    centre = float(crotch[0]) if crotch is not None else middle
    waist = _waist(box, centre, crotch)
    if (waist[:, 1, 0] <= waist[:, 0, 0]).any() or _has_bib(box, centre, crotch):
        raise not_found(NO_TROUSERS, "a waistband at the top")
    parts = box.mask * LEFT_LEG
    if crotch is not None:
        parts[:, int(crotch[0]) :] = box.mask[:, int(crotch[0]) :] * RIGHT_LEG
    start = crotch[1] if crotch is not None else waist[2, 0, 1]
    legs = {side: _leg(box, centre, float(start), side, split=crotch is not None) for side in SIDES}
    return Bottom(parts, centre, crotch, waist, legs, float(box.top), float(box.bottom))


def _crotch(box: Silhouette, middle: float) -> Point | None:
    """The top of the gap between the legs; None where there is no gap."""
    above_hem = box.mask[: box.bottom - int(HEM_MARGIN * box.height)]
    best: tuple[int, int] | None = None
    for x in range(int(middle - CROTCH_WITHIN * box.width), int(middle + CROTCH_WITHIN * box.width)):
        rows = np.flatnonzero(above_hem[:, x])
        if len(rows) and (best is None or rows.max() < best[1]):
            best = (x, int(rows.max()))
    if best is None or best[1] > box.row(LOWEST_CROTCH):
        return None
    return np.array(best, np.float64)


def _waist(box: Silhouette, centre: float, crotch: Point | None) -> Floats:
    """Both ends at ``WAIST_ROWS``, ``(3, 2, 2)``.

    How far down the hips are does not depend on the length of legs or skirt. Raise ``ImageUnusable`` where a row is
    empty.
    """
    top = box.row(WAISTBAND)
    band = _width(box, top, centre)
    depth = HIPS_BELOW_WAIST * band
    if crotch is not None:
        depth = min(HIPS_ABOVE_CROTCH * (float(crotch[1]) - top), LOWEST_HIPS * band)
    depth = float(np.clip(depth, 1, SHORTEST * box.height))
    rows = []
    for share in WAIST_ROWS:
        y = top + share * depth
        ends = ends_at(box.mask, y, centre, NO_TROUSERS)
        rows.append(((ends["left"], y), (ends["right"], y)))
    return np.array(rows)


def _has_bib(box: Silhouette, centre: float, crotch: Point | None) -> bool:
    """Whether it is far narrower at the top than further down: of trousers anywhere above the crotch."""
    lowest = box.row(LOWEST_WAIST if crotch is None else SHORTEST)
    if crotch is not None:
        lowest = min(lowest, float(crotch[1]))
    band = _width(box, box.row(WAISTBAND), centre)
    return any(band < NARROWEST_WAIST * _width(box, y, centre) for y in range(box.top, int(lowest) + 1))


def _width(box: Silhouette, y: float, centre: float) -> float:
    """Pixels of what lies nearest to the middle in this row."""
    ends = ends_at(box.mask, y, centre, NO_TROUSERS)
    return ends["right"] - ends["left"]


def _leg(box: Silhouette, centre: float, start: float, side: Side, *, split: bool) -> Floats:
    """Outer and inner ends at ``LEG_ROWS``, ``(6, 2, 2)``, of the half of a skirt if it is not ``split``.

    ``start`` is the y from which the rows are counted. Raise ``ImageUnusable`` where a row is empty.
    """
    rows = []
    for at in LEG_ROWS:
        y = start + at * (box.bottom - start)
        ends = ends_at(box.mask, y, centre + OUTWARD[side] * LEG_AT * box.width, NO_TROUSERS)
        inner = ends["right" if side == "left" else "left"] if split else centre
        if (inner - centre) * OUTWARD[side] < 0:
            inner = centre
        rows.append(((ends[side], y), (inner, y)))
    return np.array(rows)
