"""Keypoints of a garment laid flat, from its silhouette: collar, shoulders, sleeves, hem; waist, crotch, legs.

Every number that is a share is one of the silhouette's width or height, unless said otherwise; all were tuned by eye
on flat lays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from .imaging import OUTWARD, SIDES, Floats, Mask, Picture, Point, Side, largest, polygon
from .neckline import Neckline, find_neckline
from .silhouette import (
    NO_TOP,
    NO_TROUSERS,
    Silhouette,
    column_of,
    ends_at,
    not_found,
    run_at,
    runs_of,
    silhouette_of,
)
from .sleeves import STATIONS, Sleeve, long_sleeve, short_sleeve

__all__ = [
    "STATIONS",
    "WAIST_ROWS",
    "Half",
    "Neckline",
    "Sleeve",
    "Top",
    "Trousers",
    "find_top",
    "find_trousers",
    "run_at",
]

WAIST_ROWS: Final = (0.015, 0.12, 0.25)
"""Shares of the height of trousers, from the top: where they are measured above the legs."""
LEG_ROWS: Final = (0.1, 0.3, 0.5, 0.7, 0.85, 0.985)
"""Shares of the way from the crotch to the bottom."""
HEM_COLUMNS: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the way from the left end of the hem to the right one."""
COLLAR_ROWS: Final = (0.02, 0.014, 0.009, 0.006)
"""Where the collar may be measured, from the top; higher up if it is too wide there to be one."""

WIDEST_NECK: Final = 0.62
NARROWEST_SHOULDERS: Final = 0.25
NARROWEST_WAIST: Final = 0.6
"""Of the hips' width; trousers have more, the straps of dungarees less."""
SYMMETRIC: Final = 0.93
"""Symmetry above which what differs between both halves is how it was laid, not how it was cut."""


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a top."""

    shoulder: Point
    """Where the shoulder seam meets the sleeve, or the arm hole."""
    armpit: Point
    gap: Point
    """Where sleeve and body part; below the armpit if the sleeve lies against the body."""
    hem: Point
    """The lower end of the side seam."""
    sleeve: Sleeve | None


@dataclass(frozen=True, slots=True)
class Top:
    """Whatever is worn above the waist, and dresses."""

    mask: Mask
    body: Mask
    """The mask without the sleeves."""
    neck: tuple[Point, Point]
    """The left and the right end of the collar."""
    centre: float
    """x of the middle of the neck."""
    top: float
    """y of the topmost row."""
    halves: Mapping[Side, Half]
    shoulder_width: float
    """Pixels."""
    length: float
    """From the shoulders to the hem, pixels."""
    hem: Floats
    """``(5, 2)`` float64, from left to right, at ``HEM_COLUMNS``."""
    symmetry: float
    """Overlap (IoU) of the silhouette and its mirror image, 0 to 1."""
    neckline: Neckline | None


@dataclass(frozen=True, slots=True)
class Trousers:
    """Trousers, shorts and skirts."""

    mask: Mask
    crotch: Point
    rows: Floats
    """``(3, 2, 2)`` float64: the left and the right end of each of ``WAIST_ROWS``."""
    legs: Mapping[Side, Floats]
    """``(6, 2, 2)`` float64: the outer and the inner end of each of ``LEG_ROWS``."""
    top: float
    """y of the topmost row."""
    bottom: float
    """y of the lowest row."""


@dataclass(frozen=True, slots=True)
class _Lay:
    """What both halves of a top are measured from."""

    box: Silhouette
    centre: float
    hem_y: float
    """y of the hem below the neck."""
    hem_ends: dict[Side, float]
    """x of both ends of the body a little above the hem."""
    contour: NDArray[np.int32]
    """``(N, 1, 2)``."""

    @property
    def outline(self) -> Floats:
        """``(N, 2)`` float64."""
        return self.contour[:, 0, :].astype(np.float64)

    @property
    def hem_row(self) -> float:
        """y of the row in which ``hem_ends`` lie."""
        return self.hem_y - 0.025 * self.box.height

    def outwards(self, side: Side, x: Floats) -> Floats:
        """How far these x lie from the centre towards the side, pixels."""
        return (x - self.centre) * OUTWARD[side]

    def edge(self, side: Side, y: float) -> float:
        """x of the end of the body, or of what is joined to it, in this row."""
        return ends_at(self.box.mask, y, self.centre, NO_TOP)[side]


def find_top(rgb: Picture, alpha: Floats) -> Top:
    """Keypoints of a top or a dress. Raise ``ImageUnusable``."""
    box = silhouette_of(alpha, NO_TOP)
    neck = _neck(box)
    lay = _lay(box, float(neck[0][0] + neck[1][0]) / 2)
    halves = {side: _half(lay, side) for side in SIDES}
    shoulder_width = _shoulder_width(halves)
    if shoulder_width < NARROWEST_SHOULDERS * box.width:
        raise not_found(NO_TOP, "the shoulder line")
    body = _without_sleeves(box.mask, halves)
    hem = _hem(box, body, halves)
    body_length = float(np.median(hem[:, 1]) - (halves["left"].shoulder[1] + halves["right"].shoulder[1]) / 2)
    if body_length <= 0:
        raise not_found(NO_TOP, "the hem below the shoulders")
    symmetry = _symmetry(box)
    if symmetry > SYMMETRIC:
        halves = _evened(halves)
    return Top(
        mask=box.mask,
        body=body,
        neck=neck,
        centre=lay.centre,
        top=float(box.top),
        halves=halves,
        shoulder_width=_shoulder_width(halves),
        length=body_length,
        hem=hem,
        symmetry=symmetry,
        neckline=find_neckline(rgb, box.mask, neck),
    )


def find_trousers(alpha: Floats) -> Trousers:
    """Keypoints of trousers or a skirt. Raise ``ImageUnusable``."""
    box = silhouette_of(alpha, NO_TROUSERS)
    crotch = _crotch(box)
    rows = _waist_rows(box)
    waist, hips = rows[0, 1, 0] - rows[0, 0, 0], rows[2, 1, 0] - rows[2, 0, 0]
    if hips <= 0 or waist < NARROWEST_WAIST * hips:
        raise not_found(NO_TROUSERS, "a waistband at the top")
    legs = {side: _leg(box, crotch, side) for side in SIDES}
    return Trousers(box.mask, crotch, rows, legs, top=float(box.top), bottom=float(box.bottom))


def _neck(box: Silhouette) -> tuple[Point, Point]:
    """Both ends of the collar, just under its top."""
    for share in COLLAR_ROWS:
        y = box.row(share)
        columns = np.flatnonzero(box.mask[int(y)])
        left, right = float(columns.min()), float(columns.max())
        if right - left < 0.27 * box.width:
            break
    if right - left > WIDEST_NECK * box.width:
        raise not_found(NO_TOP, "a collar at the top")
    return np.array([left, y]), np.array([right, y])


def _lay(box: Silhouette, centre: float) -> _Lay:
    """Find the hem below the neck, and the outline."""
    hem_y = float(column_of(box.mask, centre).max())
    hem_ends = ends_at(box.mask, hem_y - 0.025 * box.height, centre, NO_TOP)
    contours, _ = cv2.findContours(box.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return _Lay(box, centre, hem_y, hem_ends, cast("NDArray[np.int32]", max(contours, key=cv2.contourArea)))


def _half(lay: _Lay, side: Side) -> Half:
    """A half that no gap parts from its sleeve has none."""
    gap = _gap_by_rows(lay, side)
    if gap is None:
        gap = _gap_by_hull(lay, side)
    return _sleeveless(lay, side) if gap is None else _sleeved(lay, side, gap)


def _gap_by_rows(lay: _Lay, side: Side) -> Point | None:
    """The top of the empty wedge between sleeve and body, followed upwards row by row; the tallest counts."""
    height = lay.box.height
    wedges: list[list[tuple[float, int]]] = []
    for y in range(int(lay.hem_y - 0.03 * height), int(lay.box.row(0.15)), -1):
        x = _gap_in_row(lay, side, y)
        if x is None:
            continue
        if not wedges or wedges[-1][-1][1] - y > 0.02 * height:
            wedges.append([])
        wedges[-1].append((x, y))
    tall = [wedge for wedge in wedges if len(wedge) > 0.012 * height]
    return np.array(max(tall, key=len)[-1], np.float64) if tall else None


def _gap_in_row(lay: _Lay, side: Side, y: int) -> float | None:
    """x of the middle between the body and what lies beside it, if that is wide enough for a sleeve."""
    starts, ends = runs_of(lay.box.mask[y])
    bodies = np.flatnonzero((starts <= lay.centre) & (lay.centre <= ends))
    if not len(bodies):
        return None
    body = int(bodies[0])
    beside = body + OUTWARD[side]
    if not (0 <= beside < len(starts) and ends[beside] - starts[beside] > 0.03 * lay.box.width):
        return None
    left, right = min(body, beside), max(body, beside)
    return float((ends[left] + starts[right]) / 2)


def _gap_by_hull(lay: _Lay, side: Side) -> Point | None:
    """The deepest dent in the outline between the end of a sleeve and the hem.

    For sleeves that stick out: no row holds both the body and the sleeve's end.
    """
    box, outline = lay.box, lay.outline
    best, deepest = None, 0
    for start, end, bottom, depth in _dents(lay.contour):
        dent = outline[bottom]
        inner = max((outline[start], outline[end]), key=lambda point: -float(lay.outwards(side, point[0])))
        if (
            depth / 256 > 0.035 * box.width
            and lay.outwards(side, dent[0]) > 0.08 * box.width
            and dent[1] > box.row(0.2)
            and inner[1] > box.row(0.6)
            and depth > deepest
        ):
            best, deepest = dent, depth
    return best


def _dents(contour: NDArray[np.int32]) -> NDArray[np.int32]:
    """Start, end, deepest point (indices into the contour) and depth (1/256 pixel) of each dent, ``(N, 4)``."""
    hull = np.sort(cv2.convexHull(contour, returnPoints=False), axis=0)[::-1]
    try:
        dents = cv2.convexityDefects(contour, np.ascontiguousarray(hull))
    except cv2.error:  # the contour crosses itself
        dents = None
    return np.zeros((0, 4), np.int32) if dents is None else cast("NDArray[np.int32]", dents[:, 0])


def _sleeveless(lay: _Lay, side: Side) -> Half:
    """The shoulder is the outermost point near the top; a fixed way below it, on the edge, is the armpit."""
    box = lay.box
    ys = np.arange(int(box.row(0.03)), int(box.row(0.35)))
    xs = np.array([lay.edge(side, float(y)) for y in ys])
    tip = int(np.argmax(lay.outwards(side, xs) - 0.2 * (ys - box.top)))
    armpit = np.array([lay.edge(side, box.row(0.36)), box.row(0.36)])
    hem = np.array([lay.hem_ends[side], lay.hem_row])
    return Half(np.array([xs[tip], ys[tip]], np.float64), armpit, armpit, hem, None)


def _sleeved(lay: _Lay, side: Side, gap: Point) -> Half:
    """The side seam runs from the hem to the gap; straight above lies the shoulder."""
    half_width = abs(gap[0] - lay.centre)
    shoulder = np.array([gap[0], float(column_of(lay.box.mask, gap[0]).min())])
    # A sleeve that lies against the body hides the armpit: no deeper than an armhole is.
    armpit = np.array([gap[0], min(gap[1], shoulder[1] + 0.92 * half_width)])
    short = _is_short(lay, side, half_width)
    if short or gap[1] <= armpit[1] + 1:
        armpit = gap
    hem = _side_hem(lay, side, gap)
    mask = _sleeve_mask(lay, side, [shoulder - np.array([0, 3]), armpit, gap, hem + np.array([0, 5])])
    measure = short_sleeve if short else long_sleeve
    return Half(shoulder, armpit, gap, hem, measure(mask, side, shoulder, armpit))


def _is_short(lay: _Lay, side: Side, half_width: float) -> bool:
    """Whether the sleeve ends well above the hem."""
    outline = lay.outline
    sleeve = outline[lay.outwards(side, outline[:, 0]) > half_width + 0.05 * lay.box.width]
    return len(sleeve) > 0 and bool(sleeve[:, 1].max() < lay.box.top + 0.68 * (lay.hem_y - lay.box.top))


def _side_hem(lay: _Lay, side: Side, gap: Point) -> Point:
    """The lowest point of the side seam: the edge below the gap, while it stays about as far out as the gap."""
    half_width = abs(gap[0] - lay.centre)
    hem = np.array([gap[0], max(gap[1], lay.hem_y - 0.02 * lay.box.height)])
    strays = 0
    for y in range(int(gap[1]), lay.box.bottom + 1):
        x = lay.edge(side, y)
        if abs(x - lay.centre) < 0.94 * half_width:
            strays += 1
            if strays > 0.02 * lay.box.height:
                break
        elif abs(x - lay.centre) < 1.12 * half_width:
            hem = np.array([x, y], np.float64)
    return hem


def _sleeve_mask(lay: _Lay, side: Side, seam: list[Point]) -> Mask:
    """What lies on this side beyond the seam, which runs from the shoulder down to the hem."""
    box, centre = lay.box, lay.centre
    below, above = box.bottom + 50, box.top - 50
    body = polygon(box.mask.shape, [*seam, (centre, below), (centre, above), (seam[0][0], above)])
    half = np.zeros_like(box.mask)
    half[:, slice(0, int(centre)) if side == "left" else slice(int(centre), None)] = 1
    return largest(box.mask & half & (1 - body))


def _shoulder_width(halves: Mapping[Side, Half]) -> float:
    """Pixels across."""
    return float(halves["right"].shoulder[0] - halves["left"].shoulder[0])


def _without_sleeves(mask: Mask, halves: Mapping[Side, Half]) -> Mask:
    body = mask.copy()
    for half in halves.values():
        if half.sleeve is not None:
            body &= 1 - half.sleeve.mask
    return body


def _hem(box: Silhouette, body: Mask, halves: Mapping[Side, Half]) -> Floats:
    """The lower edge of the body at ``HEM_COLUMNS``."""
    points = []
    for at in HEM_COLUMNS:
        x = int(halves["left"].hem[0] * (1 - at) + halves["right"].hem[0] * at)
        rows = np.flatnonzero(body[:, x])
        points.append((x, rows.max() if len(rows) else box.bottom))
    return np.array(points, np.float64)


def _symmetry(box: Silhouette) -> float:
    """Overlap (IoU) with the mirror image."""
    part = box.mask[box.top : box.bottom, box.left : box.right]
    mirrored = part[:, ::-1]
    return float((part & mirrored).sum() / max(1, (part | mirrored).sum()))


def _evened(halves: Mapping[Side, Half]) -> dict[Side, Half]:
    """Both halves' points averaged, mirrored at the middle between the shoulders; the sleeves stay as they lie."""
    left, right = halves["left"], halves["right"]
    middle = (left.shoulder[0] + right.shoulder[0]) / 2

    def mirrored(point: Point) -> Point:
        return np.array([2 * middle - point[0], point[1]])

    def half(like: Half, shoulder: Point, armpit: Point, gap: Point, hem: Point) -> Half:
        return replace(like, shoulder=shoulder, armpit=armpit, gap=gap, hem=hem)

    pairs = (
        (left.shoulder, right.shoulder),
        (left.armpit, right.armpit),
        (left.gap, right.gap),
        (left.hem, right.hem),
    )
    points = [(of_left + mirrored(of_right)) / 2 for of_left, of_right in pairs]
    return {"left": half(left, *points), "right": half(right, *(mirrored(point) for point in points))}


def _crotch(box: Silhouette) -> Point:
    """The lowest pixel of whichever of the middle columns ends highest above the bottom."""
    middle = (box.left + box.right) / 2.0
    above = box.mask[: box.bottom - int(0.04 * box.height)]
    best: tuple[int, int] | None = None
    for x in range(int(middle - 0.12 * box.width), int(middle + 0.12 * box.width)):
        rows = np.flatnonzero(above[:, x])
        if len(rows) and (best is None or rows.max() < best[1]):
            best = (x, int(rows.max()))
    if best is None:
        raise not_found(NO_TROUSERS, "the crotch")
    return np.array(best, np.float64)


def _waist_rows(box: Silhouette) -> Floats:
    """Both ends of each of ``WAIST_ROWS``."""
    middle = (box.left + box.right) / 2.0
    rows = []
    for share in WAIST_ROWS:
        y = box.row(share)
        ends = ends_at(box.mask, y, middle, NO_TROUSERS)
        rows.append(((ends["left"], y), (ends["right"], y)))
    return np.array(rows)


def _leg(box: Silhouette, crotch: Point, side: Side) -> Floats:
    """Outer and inner ends at ``LEG_ROWS``; where the legs touch, they part below the crotch."""
    rows = []
    for at in LEG_ROWS:
        y = crotch[1] + at * (box.bottom - crotch[1])
        ends = ends_at(box.mask, y, crotch[0] + OUTWARD[side] * 0.25 * box.width, NO_TROUSERS)
        if side == "left":
            rows.append(((ends["left"], y), (min(ends["right"], crotch[0]), y)))
        else:
            rows.append(((ends["right"], y), (max(ends["left"], crotch[0]), y)))
    return np.array(rows)
