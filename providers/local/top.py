"""Where a top or a dress has its neck, shoulders, armpits, sleeves and hem, from the outline of its photo.

A garment is upright and nearly even left and right. Lengths are in pixels of the garment photo. The shares below were
found by looking at about 40 flat lays and ghost mannequins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .imaging import OUTWARD, SIDES, Floats, Mask, Picture, Point, Side, largest, length, polygon
from .neckline import Neckline, find_neckline
from .silhouette import NO_TOP, Silhouette, column_of, not_found, run_at, runs_of, silhouette_of

TORSO, LEFT_SLEEVE, RIGHT_SLEEVE = 1, 2, 3
SLEEVE_PARTS: Final[Mapping[Side, int]] = {"left": LEFT_SLEEVE, "right": RIGHT_SLEEVE}

STATIONS: Final = (0.06, 0.12, 0.18, 0.24, 0.3, 0.38, 0.5, 0.62, 0.76, 0.9, 1.0)
"""Shares of a sleeve's length at which its width is measured."""
WIDE_NECK: Final = 0.74
"""Of the whole width: an upper edge wider than this, between sleeves, leaves the shoulders bare."""
SYMMETRIC: Final = 0.93
"""Symmetry above which what differs between both halves is how it was laid, not how it was cut."""
SLEEVE_AREA: Final = 0.012
"""Of the whole garment; less is no sleeve."""
SLEEVE_TOP: Final = 0.30
"""A sleeve begins in the upper 30 %. What sticks out lower is the bust or the hips."""
NARROWEST_CHEST: Final = 0.26
"""Of the whole width, between the armpits: long sleeves that are spread out leave it 0.3."""
FURTHEST: Final = 99.0
"""Percentile of a distance, beyond which a sleeve's pixels make up a corner of its end."""
MOST_SLANTED: Final = 0.7
"""Cosine of the angle by which a sleeve's end may be cut aslant; beyond, its corners were not found."""
ARMHOLE_DEPTH: Final = 0.92
"""Of half the body's width: no armhole is deeper, whatever the sleeve hides."""


@dataclass(frozen=True, slots=True)
class Sleeve:
    """A sleeve lying flat."""

    sections: Floats
    """``(12, 2, 2)``: the outer and the inner point at the armhole and at each of ``STATIONS``."""
    length: float
    """Pixels along its middle, from the armhole."""
    mask: Mask


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a top."""

    neck: Point
    """Where the shoulder seam meets the neck, at the foot of a standing collar."""
    collar: Point
    """The upper end of the collar; the same as ``neck`` where none stands."""
    shoulder: Point
    """The upper end of the armhole."""
    armpit: Point
    """The lower end of the armhole."""
    hem: Point
    """The lower end of the side seam."""
    sleeve: Sleeve | None


@dataclass(frozen=True, slots=True)
class Top:
    """Whatever hangs from the shoulders: tops and dresses."""

    mask: Mask
    parts: Mask
    """``(H, W)`` uint8: 0, ``TORSO``, ``LEFT_SLEEVE`` or ``RIGHT_SLEEVE``."""
    centre: float
    """x of the middle."""
    top: float
    """y of the topmost row."""
    bottom: float
    """y of the lowest row of the body."""
    halves: Mapping[Side, Half]
    bare_shoulders: bool
    """Worn below the shoulders, on the upper arms."""
    symmetry: float
    """Overlap (IoU) of the outline and its mirror image, 0 to 1."""
    neckline: Neckline | None

    @property
    def shoulder_width(self) -> float:
        return float(self.halves["right"].shoulder[0] - self.halves["left"].shoulder[0])

    @property
    def chest_width(self) -> float:
        """Between the armpits."""
        return float(self.halves["right"].armpit[0] - self.halves["left"].armpit[0])

    @property
    def shoulder_y(self) -> float:
        return float(self.halves["right"].shoulder[1] + self.halves["left"].shoulder[1]) / 2

    @property
    def armpit_y(self) -> float:
        return float(self.halves["right"].armpit[1] + self.halves["left"].armpit[1]) / 2

    @property
    def length(self) -> float:
        """From the shoulders to the hem."""
        return self.bottom - self.shoulder_y

    def half_width(self, side: Side, y: float) -> float:
        """How far the body, without the sleeves, reaches from the middle in this row."""
        run = run_at((self.parts == TORSO).astype(np.uint8), y, self.centre)
        if run is None:
            return 0.0
        return max(0.0, (run[1] - self.centre) if side == "right" else (self.centre - run[0]))


def find_top(rgb: Picture, mask: Mask) -> Top:
    """The landmarks. Raise ``ImageUnusable`` where the outline is not a top's."""
    box = silhouette_of(mask.astype(np.float32), NO_TOP)
    lay = _Lay(box)
    gaps = {side: lay.gap(side) for side in SIDES}
    if box.width and lay.symmetry > 0.8 and (gaps["left"] is None) != (gaps["right"] is None):
        gaps = _mirrored(gaps, lay.centre)
    neck = _collar(lay)
    upper = np.flatnonzero(box.mask[int(box.row(0.035))])
    bare = upper.max() - upper.min() > WIDE_NECK * box.width and all(gap is not None for gap in gaps.values())
    halves = {side: _half(lay, side, gaps[side], neck[side], bare) for side in SIDES}
    if lay.symmetry > SYMMETRIC:
        halves = _evened(halves, lay.centre)
    parts = box.mask.copy()
    for side in SIDES:
        sleeve = halves[side].sleeve
        if sleeve is not None:
            parts[sleeve.mask > 0] = SLEEVE_PARTS[side]
    torso = largest(parts == TORSO)
    parts[(parts == TORSO) & (torso == 0)] = 0
    rows = np.flatnonzero(torso[:, int(lay.centre)])
    if not len(rows) or halves["right"].shoulder[0] - halves["left"].shoulder[0] < 0.1 * box.width:
        raise not_found(NO_TOP, "the shoulder line")
    sleeved = any(half.sleeve is not None for half in halves.values())
    if sleeved and halves["right"].armpit[0] - halves["left"].armpit[0] < NARROWEST_CHEST * box.width:
        raise not_found(NO_TOP, "the place of both armpits")
    ends = (halves["left"].collar, halves["right"].collar)
    return Top(
        mask=box.mask,
        parts=parts,
        centre=lay.centre,
        top=float(box.top),
        bottom=float(np.median([np.flatnonzero(torso[:, int(x)]).max() for x in _middle_columns(lay, halves, torso)])),
        halves=halves,
        bare_shoulders=bare,
        symmetry=lay.symmetry,
        neckline=None if bare else find_neckline(rgb, box.mask, ends),
    )


def symmetry_of(mask: Mask) -> float:
    """Overlap (IoU) of the outline with its mirror image, 0 to 1."""
    return _middle(silhouette_of(mask.astype(np.float32), NO_TOP))[1]


def has_sleeves(mask: Mask) -> bool:
    """Whether the outline has sleeves, quickly."""
    lay = _Lay(silhouette_of(mask.astype(np.float32), NO_TOP))
    return any(lay.gap(side) is not None for side in SIDES)


def _middle_columns(lay: _Lay, halves: Mapping[Side, Half], torso: Mask) -> list[float]:
    wanted = np.linspace(
        halves["left"].hem[0] * 0.7 + lay.centre * 0.3, halves["right"].hem[0] * 0.7 + lay.centre * 0.3, 9
    )
    return [x for x in wanted if torso[:, int(np.clip(x, 0, torso.shape[1] - 1))].any()] or [lay.centre]


class _Lay:
    """The outline, its middle, and how far it reaches to both sides."""

    def __init__(self, box: Silhouette) -> None:
        self.box = box
        self.centre, self.symmetry = _middle(box)
        rows = column_of(box.mask, self.centre)
        self.hem_y = float(rows.max())
        contours, _ = cv2.findContours(box.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        self.contour: NDArray[np.int32] = np.asarray(max(contours, key=cv2.contourArea), np.int32)
        self.outline = self.contour[:, 0, :].astype(np.float64)
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

    def edge(self, side: Side, y: float) -> float:
        """x of the end of the run that holds the middle, in this row."""
        row = int(np.clip(y - self.box.top, 0, len(self._ends) - 1))
        return float(self._ends[row, SIDES.index(side)])

    def furthest(self, side: Side, y: int, most: float) -> float:
        """How far out the garment reaches in this row, up to ``most``."""
        columns = np.flatnonzero(self.box.mask[y])
        out = (columns - self.centre) * OUTWARD[side]
        out = out[out <= most]
        return float(out.max()) if len(out) else 0.0

    def gap(self, side: Side) -> Point | None:
        """Where sleeve and body part, seen from below; None where there is no sleeve."""
        found = [point for point in (self._gap_by_rows(side), self._gap_by_hull(side)) if point is not None]
        real = [point for point in found if self._is_sleeve(side, point)]
        return min(real, key=lambda point: float(point[1])) if real else None

    def _is_sleeve(self, side: Side, gap: Point) -> bool:
        """Whether what lies beyond the gap begins near the top, and is large enough."""
        beyond = self.beyond(side, float(gap[0]))
        if beyond.sum() < SLEEVE_AREA * self.box.mask.sum():
            return False
        highest = np.flatnonzero(beyond.any(1)).min()
        begins = self.box.row(SLEEVE_TOP) if self.box.height < 2.2 * self.box.width else self.box.row(0.18)
        rows = gap[1] + np.linspace(0.02, 0.06, 9) * self.box.height
        below = float(np.median([self.out(side, self.edge(side, float(y))) for y in rows]))
        # Below a notch in the side the body goes on as wide as above it.
        parted = below < 1.05 * self.out(side, float(gap[0])) + 0.01 * self.box.width
        return bool(parted and highest < begins and gap[1] > highest + 0.06 * self.box.height)

    def beyond(self, side: Side, x: float) -> Mask:
        """The garment further out than x."""
        half = np.zeros_like(self.box.mask)
        half[:, slice(0, int(x)) if side == "left" else slice(int(x) + 1, None)] = 1
        return half & self.box.mask

    def _gap_by_rows(self, side: Side) -> Point | None:
        """The top of the empty wedge between sleeve and body, followed upwards row by row."""
        height, tops = self.box.height, []
        wedge: list[tuple[float, int]] = []
        for y in range(int(self.hem_y - 0.02 * height), int(self.box.row(0.12)), -1):
            x = self._gap_in_row(side, y)
            if x is None:
                continue
            if wedge and wedge[-1][1] - y > 0.02 * height:
                tops.append(wedge)
                wedge = []
            wedge.append((x, y))
        tall = [each for each in [*tops, wedge] if len(each) > 0.012 * height]
        return np.array(max(tall, key=len)[-1], np.float64) if tall else None

    def _gap_in_row(self, side: Side, y: int) -> float | None:
        """x of the middle between the body and what lies beside it, if that is wide enough for a sleeve."""
        starts, ends = runs_of(self.box.mask[y])
        bodies = np.flatnonzero((starts <= self.centre) & (self.centre <= ends))
        if not len(bodies):
            return None
        body = int(bodies[0])
        beside = body + OUTWARD[side]
        if not (0 <= beside < len(starts) and ends[beside] - starts[beside] > 0.03 * self.box.width):
            return None
        left, right = min(body, beside), max(body, beside)
        return float((ends[left] + starts[right]) / 2)

    def _gap_by_hull(self, side: Side) -> Point | None:
        """The deepest dent in the outline that opens downwards or outwards: sleeves that stick out."""
        best, deepest = None, 0
        for start, end, bottom, depth in _dents(self.contour):
            dent = self.outline[bottom]
            ends = (self.outline[start], self.outline[end])
            inner = min(ends, key=lambda point: self.out(side, float(point[0])))
            upper = min(ends, key=lambda point: float(point[1]))
            if (
                depth / 256 > 0.045 * self.box.width
                and self.out(side, float(dent[0])) > 0.08 * self.box.width
                and inner[1] > dent[1]
                and self.out(side, float(upper[0])) > self.out(side, float(dent[0])) + 0.02 * self.box.width
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
    return np.zeros((0, 4), np.int32) if dents is None else np.asarray(dents[:, 0], np.int32)


def _middle(box: Silhouette) -> tuple[float, float]:
    """x of the axis on which the outline is most even, and how even it is (IoU)."""
    best, most = (box.left + box.right) / 2, -1.0
    small = cv2.resize(box.mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) > 0
    reach = int(0.12 * (box.right - box.left) / 4)
    middle = round(best / 4)
    for twice in range(2 * (middle - reach), 2 * (middle + reach) + 1):
        # Mirrored at x = twice / 2.
        columns = np.arange(small.shape[1])
        from_columns = twice - columns
        inside = (from_columns >= 0) & (from_columns < small.shape[1])
        mirrored = np.zeros_like(small)
        mirrored[:, columns[inside]] = small[:, from_columns[inside]]
        overlap = float((small & mirrored).sum() / max(1, (small | mirrored).sum()))
        if overlap > most:
            best, most = twice * 2 + 2.0, overlap
    return float(best), most


def _mirrored(gaps: Mapping[Side, Point | None], centre: float) -> dict[Side, Point | None]:
    """The one gap, on both sides: where a sleeve lies against the body only its fellow shows the armpit."""
    [point] = [gap for gap in gaps.values() if gap is not None]
    return {side: np.array([centre + abs(point[0] - centre) * OUTWARD[side], point[1]]) for side in SIDES}


def _collar(lay: _Lay) -> dict[Side, Point]:
    """Both ends of the upper edge, measured a little below it; of two straps their outer ends."""
    ends: dict[Side, Point] = {}
    for side in SIDES:
        half = lay.beyond(side, lay.centre)
        rows = np.flatnonzero(half.any(1))
        if not len(rows):
            raise not_found(NO_TOP, "the whole outline")
        y = int(rows[0] + 0.012 * min(lay.box.height, 1.2 * lay.box.width))
        columns = np.flatnonzero(half[y])
        x = columns.min() if side == "left" else columns.max()
        ends[side] = np.array([float(x), float(y)])
    return ends


def _half(lay: _Lay, side: Side, gap: Point | None, collar: Point, bare: bool) -> Half:
    if gap is None:
        return _sleeveless(lay, side, collar)
    half_width = lay.out(side, float(gap[0]))
    shoulder = np.array([gap[0], float(column_of(lay.box.mask, float(gap[0])).min())])
    armpit = np.array([gap[0], min(gap[1], shoulder[1] + ARMHOLE_DEPTH * half_width)])
    hem = _side_hem(lay, side, gap)
    seam = [shoulder - np.array([0, 3]), armpit, gap, hem + np.array([0, 5])]
    mask = _sleeve_mask(lay, side, seam)
    if not mask.any():
        return _sleeveless(lay, side, collar)
    neck = collar if bare else _neck_foot(lay, side, collar, shoulder)
    if bare:
        neck = collar = shoulder + (np.array([lay.centre, shoulder[1]]) - shoulder) * 0.45
    return Half(neck, collar, shoulder, armpit, hem, _sleeve(mask, side, shoulder, armpit))


def _neck_foot(lay: _Lay, side: Side, collar: Point, shoulder: Point) -> Point:
    """The corner of the outline between shoulder and collar, if the collar stands."""
    ys = np.arange(int(collar[1]), int(shoulder[1]) + 1)
    if len(ys) < 0.03 * lay.box.height:
        return collar
    furthest = lay.out(side, float(shoulder[0]))
    out = np.array([lay.furthest(side, int(y), furthest) for y in ys])
    # How far the outline lies inside of the straight line from the collar to the shoulder.
    straight = np.interp(ys, [collar[1], shoulder[1]], [lay.out(side, float(collar[0])), furthest])
    deepest = int(np.argmax(straight - out))
    if straight[deepest] - out[deepest] < 0.02 * lay.box.width:
        return collar
    return np.array([lay.centre + out[deepest] * OUTWARD[side], float(ys[deepest])])


def _sleeveless(lay: _Lay, side: Side, collar: Point) -> Half:
    """The strap ends where the outline turns down into the armhole; the armpit is the next corner outwards."""
    box = lay.box
    reach = min(box.height * 0.6, 1.3 * box.width)
    ys = np.arange(box.top + 2, int(box.top + reach))
    out = np.array([lay.out(side, lay.edge(side, float(y))) for y in ys])
    highest = np.array([lay.out(side, float(collar[0])), collar[1]])
    # Steeper than 45 degrees is armhole, flatter is shoulder.
    strap = int(np.argmax(out[: max(2, len(out) // 2)] - 1.0 * (ys[: max(2, len(out) // 2)] - box.top)))
    tip = np.array([max(out[strap], highest[0]), float(ys[strap])])
    # The armpit: furthest from the straight line that runs from the tip to the side below.
    end = np.array([out[-1], float(ys[-1])])
    chord = end - tip
    away = ((out - tip[0]) * chord[1] - (ys - tip[1]) * chord[0]) / (length(chord) + 1e-6)
    away[: strap + 1] = -1
    corner = int(np.argmax(away))
    if away[corner] < 0.01 * box.width:
        corner = min(len(ys) - 1, strap + int(0.2 * len(ys)))
    armpit = np.array([lay.centre + out[corner] * OUTWARD[side], float(ys[corner])])
    shoulder = np.array([lay.centre + tip[0] * OUTWARD[side], tip[1]])
    hem_y = lay.hem_y - 0.025 * box.height
    hem = np.array([lay.edge(side, hem_y), hem_y])
    return Half(collar, collar, shoulder, armpit, hem, None)


def _side_hem(lay: _Lay, side: Side, gap: Point) -> Point:
    """The lower end of the side seam: the last row in which the body ends where the rows above lead to."""
    rows = np.arange(int(gap[1]) + 1, int(max(lay.hem_y, gap[1] + 2)) + 1)
    body = largest(lay.box.mask & (1 - lay.beyond(side, lay.centre + 1.6 * (gap[0] - lay.centre))))
    last = np.array([gap[0], max(gap[1], lay.hem_y - 0.02 * lay.box.height)])
    before = float(gap[0])
    for y in rows:
        run = run_at(body, float(y), lay.centre)
        if run is None:
            break
        x = run[SIDES.index(side)]
        if abs(x - before) < 0.04 * lay.box.width or y < gap[1] + 0.02 * lay.box.height:
            last, before = np.array([x, float(y)]), x
    return last


def _sleeve_mask(lay: _Lay, side: Side, seam: list[Point]) -> Mask:
    """What lies on this side beyond the seam, which runs from the shoulder down to the hem."""
    box, centre = lay.box, lay.centre
    below, above = box.bottom + 50, box.top - 50
    body = polygon(
        box.mask.shape, [*seam, (seam[-1][0], below), (centre, below), (centre, above), (seam[0][0], above)]
    )
    half = np.zeros_like(box.mask)
    half[:, slice(0, int(centre)) if side == "left" else slice(int(centre), None)] = 1
    return largest(box.mask & half & (1 - body))


def _sleeve(mask: Mask, side: Side, shoulder: Point, armpit: Point) -> Sleeve:
    """Cut across at each station: first along the armhole, then square to the axis, at last along the sleeve's end."""
    start = (shoulder + armpit) / 2
    ends = _end(mask, shoulder, armpit)
    reach = ends.mean(0) - start
    total = length(reach)
    if total < 1:
        raise not_found(NO_TOP, "a whole sleeve")
    axis = reach / total
    outer = np.array([axis[1], -axis[0]])
    if outer @ (shoulder - armpit) < 0:
        outer = -outer
    armhole = (shoulder - armpit) / (length(shoulder - armpit) + 1e-6)
    end = (ends[0] - ends[1]) / (length(ends[0] - ends[1]) + 1e-6)
    if end @ outer < MOST_SLANTED:
        end = outer
    sections = [(shoulder, armpit)]
    for station in STATIONS:
        middle = start + axis * (min(station, 0.985) * total)
        across = np.array(
            [np.interp(station, (0, 0.4, 0.6, 1), each) for each in zip(armhole, outer, outer, end, strict=True)]
        )
        sections.append(_across(mask, middle, across / length(across)))
    return Sleeve(np.array(sections), total, mask)


def _end(mask: Mask, shoulder: Point, armpit: Point) -> Floats:
    """The outer and the inner corner of the sleeve's end, ``(2, 2)``.

    The inner one lies furthest from the shoulder, the outer one furthest from the armpit, of what sticks out from the
    armhole.
    """
    pixels = np.argwhere(mask)[:, ::-1].astype(np.float64)
    armhole = (shoulder - armpit) / (length(shoulder - armpit) + 1e-6)
    away = np.abs((pixels - armpit) @ np.array([armhole[1], -armhole[0]]))
    corners = []
    for opposite, there in ((armpit, pixels[away >= away.max() / 2]), (shoulder, pixels)):
        distance = np.hypot(*(there - opposite).T)
        corners.append(there[distance >= np.percentile(distance, FURTHEST)].mean(0))
    return np.array(corners)


def _across(mask: Mask, middle: Point, direction: Point) -> tuple[Point, Point]:
    """Both ends of the mask on the line through ``middle``, of the piece that is nearest to it."""
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


def _evened(halves: Mapping[Side, Half], centre: float) -> dict[Side, Half]:
    """Both halves' points averaged, mirrored at the middle; the sleeves stay as they lie."""
    left, right = halves["left"], halves["right"]

    def mirrored(point: Point) -> Point:
        return np.array([2 * centre - point[0], point[1]])

    def half(like: Half, *points: Point) -> Half:
        neck, collar, shoulder, armpit, hem = points
        return replace(like, neck=neck, collar=collar, shoulder=shoulder, armpit=armpit, hem=hem)

    pairs = zip(_points(left), _points(right), strict=True)
    mean = [(of_left + mirrored(of_right)) / 2 for of_left, of_right in pairs]
    return {"left": half(left, *mean), "right": half(right, *(mirrored(point) for point in mean))}


def _points(half: Half) -> tuple[Point, ...]:
    return half.neck, half.collar, half.shoulder, half.armpit, half.hem
