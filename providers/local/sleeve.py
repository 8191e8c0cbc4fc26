"""Where a sleeve parts from the body of a top, and how it lies beside it.

Lengths are in pixels of the garment photo. The shares were found by looking at about 40 flat lays and ghost
mannequins, where nothing else is said. The armhole runs from the shoulder down to the armpit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .imaging import OUTWARD, SIDES, Floats, Mask, Point, Side, dilated, largest, length, polygon
from .silhouette import NO_TOP, Contour, Outline, not_found, runs_of, silhouette_of

STATIONS: Final = (0.06, 0.12, 0.18, 0.24, 0.3, 0.38, 0.5, 0.62, 0.76, 0.9, 1.0)
"""Shares of a sleeve's length at which its width is measured."""
LAST_CUT: Final = 0.985
"""Of the length: the last cut lies a little inside of the end, as at the end itself it may miss the cloth."""
ARMHOLE_UNTIL, ACROSS_FROM, ACROSS_UNTIL, END_FROM = 0.0, 0.4, 0.6, 1.0
"""Of the length: at the first the cuts run along the armhole, from the second to the third square to the axis, at the
last along the sleeve's end; between them they turn."""
JOIN: Final = 0.016
"""Of the garment's width: a sleeve is broader everywhere."""
FURTHEST: Final = 99.0
"""Percentile of a distance, beyond which a sleeve's pixels make up a corner of its end."""
MOST_SLANTED: Final = 0.7
"""Cosine of the angle by which a sleeve's end may be cut aslant; beyond, its corners were not found."""

SLEEVE_AREA: Final = 0.012
"""Of the whole garment; less is no sleeve."""
SLEEVE_TOP: Final = 0.30
"""Of the height: a sleeve begins above that. What sticks out lower is the bust or the hips;"""
SLEEVE_TOP_OF_LONG: Final = 0.18
"""or above that, of a garment that is taller"""
LONG: Final = 2.2
"""than so many of its widths."""
SHORTEST_SLEEVE: Final = 0.06
"""Of the height: from a sleeve's highest point down to where it parts from the body."""
BELOW_GAP: Final = (0.02, 0.06)
"""Of the height: so far below the gap the body's width is compared,"""
ROWS_BELOW_GAP: Final = 9
"""in so many rows, of which the median counts."""
NOTCH: Final = 1.05
"""Over the distance of the gap from the middle,"""
NOTCH_MARGIN: Final = 0.01
"""and of the width: a body that is wider than both together below the gap goes on below a mere notch in its side."""

HEM_MARGIN: Final = 0.02
"""Of the height: so far above the hem the search for the wedge between sleeve and body begins,"""
WEDGE_TOP: Final = 0.12
"""and it ends so far below the top: no armpit lies higher."""
WEDGE_BREAK: Final = 0.02
"""Of the height: a wedge goes on over as many rows in which sleeve and body touch."""
SHORTEST_WEDGE: Final = 0.012
"""Of the height; shorter ones are folds."""
NARROWEST_SLEEVE: Final = 0.03
"""Of the width: what lies beside the body and is narrower is a fold, a ribbon or a tag."""

DENT_UNITS: Final = 256
"""OpenCV gives the depth of a dent in 256ths of a pixel."""
SHALLOWEST_DENT: Final = 0.045
"""Of the width: a dent in the outline less deep is a waist or a fold."""
DENT_FROM_MIDDLE: Final = 0.08
"""Of the width: a dent nearer to the middle is the neck's, or lies between legs."""
DENT_UNDER_SLEEVE: Final = 0.02
"""Of the width: so much further out than the dent reaches what lies above it."""


@dataclass(frozen=True, slots=True)
class Sleeve:
    """A sleeve lying flat."""

    sections: Floats
    """``(12, 2, 2)``: the outer and the inner point at the armhole and at each of ``STATIONS``."""
    length: float
    """Pixels along its middle, from the armhole."""


def has_sleeves(mask: Mask) -> bool:
    """Whether the outline has sleeves, quickly. Raise ``ImageUnusable`` where it is too small or has no middle."""
    outline = Outline(silhouette_of(mask, NO_TOP))
    return any(find_gap(outline, side) is not None for side in SIDES)


def find_gap(outline: Outline, side: Side) -> Point | None:
    """The upper end of the gap between sleeve and body, seen from below; None where there is no sleeve."""
    found = [point for point in (_gap_by_rows(outline, side), _gap_by_hull(outline, side)) if point is not None]
    real = [point for point in found if _is_under_sleeve(outline, side, point)]
    return min(real, key=lambda point: float(point[1])) if real else None


def _is_under_sleeve(outline: Outline, side: Side, gap: Point) -> bool:
    """Whether what lies beyond the gap begins near the top and is large enough, and the body below is narrower."""
    box, beyond = outline.box, outline.beyond(side, float(gap[0]))
    if beyond.sum() < SLEEVE_AREA * box.mask.sum():
        return False
    highest = np.flatnonzero(beyond.any(1)).min()
    begins = box.row(SLEEVE_TOP if box.height < LONG * box.width else SLEEVE_TOP_OF_LONG)
    rows = gap[1] + np.linspace(*BELOW_GAP, ROWS_BELOW_GAP) * box.height
    below = float(np.median([outline.out(side, outline.edge(side, float(y))) for y in rows]))
    # Below a notch in the side the body goes on as wide as above it.
    parted = below < NOTCH * outline.out(side, float(gap[0])) + NOTCH_MARGIN * box.width
    return bool(parted and highest < begins and gap[1] > highest + SHORTEST_SLEEVE * box.height)


def _gap_by_rows(outline: Outline, side: Side) -> Point | None:
    """The top of the empty wedge between sleeve and body, followed upwards row by row: sleeves that hang."""
    height = outline.box.height
    wedges: list[list[tuple[float, int]]] = [[]]
    for y in range(int(outline.hem_y - HEM_MARGIN * height), int(outline.box.row(WEDGE_TOP)), -1):
        x = _gap_in_row(outline, side, y)
        if x is None:
            continue
        if wedges[-1] and wedges[-1][-1][1] - y > WEDGE_BREAK * height:
            wedges.append([])
        wedges[-1].append((x, y))
    tall = [wedge for wedge in wedges if len(wedge) > SHORTEST_WEDGE * height]
    return np.array(max(tall, key=len)[-1], np.float64) if tall else None


def _gap_in_row(outline: Outline, side: Side, y: int) -> float | None:
    """x of the middle between the body and what lies beside it, if that is wide enough for a sleeve."""
    starts, ends = runs_of(outline.box.mask[y])
    bodies = np.flatnonzero((starts <= outline.centre) & (outline.centre <= ends))
    if not len(bodies):
        return None
    body = int(bodies[0])
    beside = body + OUTWARD[side]
    if not (0 <= beside < len(starts) and ends[beside] - starts[beside] > NARROWEST_SLEEVE * outline.box.width):
        return None
    left, right = min(body, beside), max(body, beside)
    return float((ends[left] + starts[right]) / 2)


def _gap_by_hull(outline: Outline, side: Side) -> Point | None:
    """The deepest dent in the outline that opens downwards or outwards: sleeves that stick out."""
    width, points = outline.box.width, outline.contour[:, 0, :].astype(np.float64)

    def out(point: Point) -> float:
        return outline.out(side, float(point[0]))

    best, deepest = None, 0
    for start, end, bottom, depth in _dents(outline.contour):
        dent, ends = points[bottom], (points[start], points[end])
        inner = min(ends, key=out)
        upper = min(ends, key=lambda point: float(point[1]))
        if (
            depth > deepest
            and depth / DENT_UNITS > SHALLOWEST_DENT * width
            and out(dent) > DENT_FROM_MIDDLE * width
            and inner[1] > dent[1]
            and out(upper) > out(dent) + DENT_UNDER_SLEEVE * width
        ):
            best, deepest = dent, depth
    return best


def _dents(contour: Contour) -> NDArray[np.int32]:
    """Start, end, deepest point (indices into the contour) and depth (1/256 pixel) of each dent, ``(N, 4)``."""
    hull = np.sort(cv2.convexHull(contour, returnPoints=False), axis=0)[::-1]
    try:
        dents = cv2.convexityDefects(contour, np.ascontiguousarray(hull))
    except cv2.error:  # the contour crosses itself
        dents = None
    return np.zeros((0, 4), np.int32) if dents is None else np.asarray(dents[:, 0], np.int32)


def sleeve_mask(outline: Outline, side: Side, seam: list[Point]) -> Mask:
    """What lies on this side beyond the seam, which runs from the shoulder down to the hem; it may be empty."""
    centre, first, last = outline.centre, seam[0][0], seam[-1][0]
    above, below = -1, len(outline.box.mask)  # outside of the photo
    body = polygon(outline.box.mask.shape, [*seam, (last, below), (centre, below), (centre, above), (first, above)])
    beyond = outline.beyond(side, centre) & (1 - body)
    # What hangs together with it by a few pixels only, below the armpit, is a strip of the body's side.
    width = int(JOIN * outline.box.width) | 1
    whole = np.asarray(cv2.morphologyEx(beyond, cv2.MORPH_OPEN, np.ones((width, width), np.uint8)), np.uint8)
    return beyond & dilated(largest(whole), width)


def measure_sleeve(mask: Mask, shoulder: Point, armpit: Point) -> Sleeve:
    """Cut across at each station: first along the armhole, then square to the axis, at last along the sleeve's end.

    Raise ``ImageUnusable`` where it has no length.
    """
    start, ends = (shoulder + armpit) / 2, _corners_of_end(mask, shoulder, armpit)
    reach = ends.mean(0) - start
    total = length(reach)
    if total < 1:
        raise not_found(NO_TOP, "a whole sleeve")
    axis = reach / total
    square = np.array([axis[1], -axis[0]])
    if square @ (shoulder - armpit) < 0:
        square = -square
    armhole, end = _direction(armpit, shoulder), _direction(ends[1], ends[0])
    if end @ square < MOST_SLANTED:
        end = square
    sections = [(shoulder, armpit)]
    for station in STATIONS:
        across = _turned(station, armhole, square, end)
        sections.append(_across(mask, start + axis * (min(station, LAST_CUT) * total), across))
    return Sleeve(np.array(sections), total)


def _direction(start: Point, end: Point) -> Point:
    """The unit vector from one point to the other; zero where they are the same."""
    return (end - start) / (length(end - start) + 1e-6)


def _corners_of_end(mask: Mask, shoulder: Point, armpit: Point) -> Floats:
    """The outer and the inner corner of the sleeve's end, ``(2, 2)``.

    The inner one lies furthest from the shoulder, the outer one furthest from the armpit, of what sticks out from the
    armhole.
    """
    pixels = np.argwhere(mask)[:, ::-1].astype(np.float64)
    armhole = _direction(armpit, shoulder)
    away = np.abs((pixels - armpit) @ np.array([armhole[1], -armhole[0]]))
    corners = []
    for opposite, there in ((armpit, pixels[away >= away.max() / 2]), (shoulder, pixels)):
        distance = np.hypot(*(there - opposite).T)
        corners.append(there[distance >= np.percentile(distance, FURTHEST)].mean(0))
    return np.array(corners)


def _turned(station: float, armhole: Point, square: Point, end: Point) -> Point:
    """The direction of the cut at this share of the length, from the inner to the outer side: a unit vector."""
    places = (ARMHOLE_UNTIL, ACROSS_FROM, ACROSS_UNTIL, END_FROM)
    across = np.array([np.interp(station, places, each) for each in zip(armhole, square, square, end, strict=True)])
    return across / length(across)


def _across(mask: Mask, middle: Point, direction: Point) -> tuple[Point, Point]:
    """Both ends of the mask on the line through ``middle``, of the piece that is nearest to it.

    The first lies in ``direction``, a unit vector; both are ``middle`` where the line misses the mask.
    """
    steps = np.arange(-max(mask.shape), max(mask.shape))
    xs = np.rint(middle[0] + direction[0] * steps).astype(int)
    ys = np.rint(middle[1] + direction[1] * steps).astype(int)
    within = (xs >= 0) & (xs < mask.shape[1]) & (ys >= 0) & (ys < mask.shape[0])
    within[within] = mask[ys[within], xs[within]] > 0
    starts, ends = runs_of(within.astype(np.uint8))
    if not len(starts):
        return middle, middle
    nearest = int(np.argmin(np.maximum(0, np.maximum(steps[starts], -steps[ends]))))
    return middle + direction * steps[ends[nearest]], middle + direction * steps[starts[nearest]]
