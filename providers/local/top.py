"""Where a top or a dress has its neck, shoulders, armpits, side seams and hem, from the outline of its photo.

A garment is upright and nearly even left and right. Lengths are in pixels of the garment photo. The shares were found
by looking at about 40 flat lays and ghost mannequins, where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from .imaging import SIDES, Floats, Mask, Picture, Point, Side, largest, length
from .neckline import Neckline, find_neckline
from .silhouette import NO_TOP, Indices, Outline, column_of, not_found, run_at, silhouette_of
from .sleeve import Sleeve, find_gap, measure_sleeve, sleeve_mask

TORSO, LEFT_SLEEVE, RIGHT_SLEEVE = 1, 2, 3
SLEEVE_PARTS: Final[Mapping[Side, int]] = {"left": LEFT_SLEEVE, "right": RIGHT_SLEEVE}

ONE_GAP: Final = 0.8
"""Symmetry (IoU) from which the armpit of one side stands for that of the other, where none is seen."""
SYMMETRIC: Final = 0.93
"""Symmetry above which what differs between both halves is how it was laid, not how it was cut."""
NARROWEST_SHOULDERS: Final = 0.1
"""Of the whole width; less is no shoulder line."""
NARROWEST_CHEST: Final = 0.26
"""Of the whole width, between the armpits: long sleeves that are spread out leave it 0.3."""
ARMHOLE_DEPTH: Final = 0.92
"""Of half the body's width: no armhole is deeper, whatever the sleeve hides."""
SEAM_ABOVE, SEAM_BELOW = 3, 5
"""Pixels by which the cut between sleeve and body goes on above the shoulder and below the hem, so that it parts
them."""

WIDE_NECK: Final = 0.74
"""Of the whole width: an upper edge wider than this, between sleeves, leaves the shoulders bare."""
NECK_ROW: Final = 0.035
"""Of the height: where the width of the upper edge is measured for that."""
BARE_NECK: Final = 0.45
"""Of the way from a bare shoulder to the middle: where its neck is said to be."""
COLLAR_ROW: Final = 0.012
"""Of the height: so far below its highest point the ends of the collar are measured,"""
COLLAR_HEIGHT: Final = 1.2
"""or of so many widths, if that is less: the collar of a dress is no larger than that of a shirt."""
COLLAR_STANDS: Final = 0.03
"""Of the height: a collar that rises less above the shoulder does not stand."""
COLLAR_FOOT: Final = 0.02
"""Of the width: so deep is the corner between a standing collar and the shoulder, at least."""

ARMHOLE_WITHIN: Final = 0.6
"""Of the height: armholes without sleeves end above that,"""
ARMHOLE_WITHIN_WIDTHS: Final = 1.3
"""and above so many widths."""
ARMHOLE_SLOPE: Final = 1.0
"""Pixels outwards per pixel down: steeper is armhole, flatter is shoulder."""
ARMPIT_CORNER: Final = 0.01
"""Of the width: an outline that departs less from the straight line below the strap has no corner there;"""
ARMPIT_OF_STRAIGHT: Final = 0.2
"""its armpit is said to be so far down those rows."""
ABOVE_HEM: Final = 0.025
"""Of the height: so far above the hem the side seam of a top without sleeves ends, above its rounded corner."""

SLEEVE_BESIDE: Final = 1.6
"""Over the distance of the gap from the middle: what lies further out is no body, when the side seam is followed."""
SEAM_STEP: Final = 0.04
"""Of the width, from row to row: where the side leaps further, the side seam has ended,"""
SEAM_SURE: Final = 0.02
"""Of the height: but not so near to the armpit; and where no row is found, it ends so far above the hem."""
HEM_COLUMNS: Final = 9
"""So many columns tell the lowest row, by their median,"""
HEM_WITHIN: Final = (0.7, 0.3)
"""between the places that have such shares of the lower end of a side seam and of the middle."""


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
    """None where this side has none."""


@dataclass(frozen=True, slots=True)
class Top:
    """Whatever hangs from the shoulders: tops and dresses."""

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
        """Between the shoulders, pixels."""
        return float(self.halves["right"].shoulder[0] - self.halves["left"].shoulder[0])

    @property
    def chest_width(self) -> float:
        """Between the armpits, pixels."""
        return float(self.halves["right"].armpit[0] - self.halves["left"].armpit[0])

    @property
    def shoulder_y(self) -> float:
        """y of the shoulders, the mean of both."""
        return float(self.halves["right"].shoulder[1] + self.halves["left"].shoulder[1]) / 2

    @property
    def armpit_y(self) -> float:
        """y of the armpits, the mean of both."""
        return float(self.halves["right"].armpit[1] + self.halves["left"].armpit[1]) / 2

    @property
    def length(self) -> float:
        """From the shoulders to the hem, pixels."""
        return self.bottom - self.shoulder_y

    def half_width(self, side: Side, y: float) -> float:
        """Pixels by which the body, without the sleeves, reaches from the middle in this row; 0 where it has none."""
        run = run_at((self.parts == TORSO).astype(np.uint8), y, self.centre)
        if run is None:
            return 0.0
        return max(0.0, (run[1] - self.centre) if side == "right" else (self.centre - run[0]))


def find_top(rgb: Picture, mask: Mask) -> Top:
    """The landmarks of the largest piece of the mask. Raise ``ImageUnusable`` where its outline is not a top's.

    ``rgb`` is ``(H, W, 3)`` and ``mask`` ``(H, W)``, of 0 and 1; the photo only tells the front edge of the neck.
    """
    outline = Outline(silhouette_of(mask, NO_TOP))
    gaps = _gaps(outline)
    collar = _collar(outline)
    bare = all(gap is not None for gap in gaps.values()) and _has_wide_neck(outline)
    found = {side: _half(outline, side, gaps[side], collar[side], bare=bare) for side in SIDES}
    halves = {side: half for side, (half, _) in found.items()}
    if outline.symmetry > SYMMETRIC:
        halves = _evened(outline, halves)
    parts = _parts(outline.box.mask, {side: sleeve for side, (_, sleeve) in found.items()})
    _check(outline, halves, parts)
    ends = (halves["left"].collar, halves["right"].collar)
    return Top(
        parts=parts,
        centre=outline.centre,
        top=float(outline.box.top),
        bottom=_lowest_row(outline, halves, parts),
        halves=halves,
        bare_shoulders=bare,
        symmetry=outline.symmetry,
        neckline=None if bare else find_neckline(rgb, outline.box.mask, ends),
    )


def _gaps(outline: Outline) -> dict[Side, Point | None]:
    """Where sleeve and body part, by side.

    Where a sleeve lies against the body, only its fellow shows the armpit: of an even garment it stands for both.
    """
    gaps = {side: find_gap(outline, side) for side in SIDES}
    seen = [gap for gap in gaps.values() if gap is not None]
    if len(seen) == 1 and outline.symmetry > ONE_GAP:
        [(x, y)] = seen
        return {side: outline.point(side, abs(x - outline.centre), y) for side in SIDES}
    return gaps


def _has_wide_neck(outline: Outline) -> bool:
    """Whether the upper edge is too wide to lie between two shoulders."""
    upper = np.flatnonzero(outline.box.mask[int(outline.box.row(NECK_ROW))])
    return bool(upper.max() - upper.min() > WIDE_NECK * outline.box.width)


def _collar(outline: Outline) -> dict[Side, Point]:
    """Both ends of the upper edge, measured a little below it; of two straps their outer ends."""
    below = COLLAR_ROW * min(outline.box.height, COLLAR_HEIGHT * outline.box.width)
    ends: dict[Side, Point] = {}
    for side in SIDES:
        half = outline.beyond(side, outline.centre)
        rows = np.flatnonzero(half.any(1))
        if not len(rows):
            raise not_found(NO_TOP, "the whole outline")
        y = int(rows[0] + below)
        columns = np.flatnonzero(half[y])
        x = columns.min() if side == "left" else columns.max()
        ends[side] = np.array([float(x), float(y)])
    return ends


def _half(outline: Outline, side: Side, gap: Point | None, collar: Point, *, bare: bool) -> tuple[Half, Mask | None]:
    """The points of one side, and its sleeve, if there is a gap and a sleeve beyond it."""
    if gap is None:
        return _sleeveless(outline, side, collar), None
    shoulder = np.array([gap[0], float(column_of(outline.box.mask, float(gap[0])).min())])
    depth = ARMHOLE_DEPTH * outline.out(side, float(gap[0]))
    armpit = np.array([gap[0], min(gap[1], shoulder[1] + depth)])
    hem = _side_hem(outline, side, gap)
    seam = [shoulder - np.array([0, SEAM_ABOVE]), armpit, gap, hem + np.array([0, SEAM_BELOW])]
    mask = sleeve_mask(outline, side, seam)
    if not mask.any():
        return _sleeveless(outline, side, collar), None
    if bare:
        neck = collar = shoulder + (np.array([outline.centre, shoulder[1]]) - shoulder) * BARE_NECK
    else:
        neck = _neck_foot(outline, side, collar, shoulder)
    return Half(neck, collar, shoulder, armpit, hem, measure_sleeve(mask, shoulder, armpit)), mask


def _neck_foot(outline: Outline, side: Side, collar: Point, shoulder: Point) -> Point:
    """The corner of the outline between shoulder and collar, if the collar stands."""
    ys = np.arange(int(collar[1]), int(shoulder[1]) + 1)
    if len(ys) < COLLAR_STANDS * outline.box.height:
        return collar
    furthest = outline.out(side, float(shoulder[0]))
    out = np.array([outline.furthest(side, int(y), furthest) for y in ys])
    # How far the outline lies inside of the straight line from the collar to the shoulder.
    straight = np.interp(ys, [collar[1], shoulder[1]], [outline.out(side, float(collar[0])), furthest])
    deepest = int(np.argmax(straight - out))
    if straight[deepest] - out[deepest] < COLLAR_FOOT * outline.box.width:
        return collar
    return outline.point(side, out[deepest], float(ys[deepest]))


def _sleeveless(outline: Outline, side: Side, collar: Point) -> Half:
    """The points of a side without a sleeve.

    The strap ends where the outline turns down into the armhole; the armpit is the next corner outwards.
    """
    box = outline.box
    ys = np.arange(box.top + 2, int(box.top + min(box.height * ARMHOLE_WITHIN, ARMHOLE_WITHIN_WIDTHS * box.width)))
    out = np.array([outline.out(side, outline.edge(side, float(y))) for y in ys])
    upper = slice(max(2, len(out) // 2))
    strap = int(np.argmax(out[upper] - ARMHOLE_SLOPE * (ys[upper] - box.top)))
    tip = np.array([max(out[strap], outline.out(side, float(collar[0]))), float(ys[strap])])
    corner = _armpit_row(ys, out, strap, tip, box.width)
    shoulder = outline.point(side, tip[0], tip[1])
    armpit = outline.point(side, out[corner], float(ys[corner]))
    hem_y = outline.hem_y - ABOVE_HEM * box.height
    hem = np.array([outline.edge(side, hem_y), hem_y])
    return Half(collar, collar, shoulder, armpit, hem, None)


def _armpit_row(ys: Indices, out: Floats, strap: int, tip: Point, width: float) -> int:
    """Index of the armpit: below the strap, furthest from the straight line that runs from its tip to the side below.

    ``ys`` and ``out``, ``(N,)``, are the rows and how far out the garment reaches in each; ``tip`` is ``(out, y)``.
    """
    chord = np.array([out[-1], float(ys[-1])]) - tip
    away = ((out - tip[0]) * chord[1] - (ys - tip[1]) * chord[0]) / (length(chord) + 1e-6)
    away[: strap + 1] = -1
    corner = int(np.argmax(away))
    if away[corner] < ARMPIT_CORNER * width:
        return min(len(ys) - 1, strap + int(ARMPIT_OF_STRAIGHT * len(ys)))
    return corner


def _side_hem(outline: Outline, side: Side, gap: Point) -> Point:
    """The lower end of the side seam: the last row in which the body ends where the rows above lead to."""
    box = outline.box
    body = largest(box.mask & (1 - outline.beyond(side, outline.centre + SLEEVE_BESIDE * (gap[0] - outline.centre))))
    last = np.array([gap[0], max(gap[1], outline.hem_y - SEAM_SURE * box.height)])
    before = float(gap[0])
    for y in range(int(gap[1]) + 1, int(max(outline.hem_y, gap[1] + 2)) + 1):
        run = run_at(body, y, outline.centre)
        if run is None:
            break
        x = run[SIDES.index(side)]
        if abs(x - before) < SEAM_STEP * box.width or y < gap[1] + SEAM_SURE * box.height:
            last, before = np.array([x, float(y)]), x
    return last


def _evened(outline: Outline, halves: Mapping[Side, Half]) -> dict[Side, Half]:
    """Both halves' points averaged, mirrored at the middle; the sleeves stay as they lie."""
    left, right = halves["left"], halves["right"]
    mean: dict[str, Any] = {
        name: (getattr(left, name) + _mirrored(getattr(right, name), outline.centre)) / 2
        for name in ("neck", "collar", "shoulder", "armpit", "hem")
    }
    mirrored: dict[str, Any] = {name: _mirrored(point, outline.centre) for name, point in mean.items()}
    return {"left": replace(left, **mean), "right": replace(right, **mirrored)}


def _mirrored(point: Point, centre: float) -> Point:
    return np.array([2 * centre - point[0], point[1]])


def _parts(mask: Mask, sleeves: Mapping[Side, Mask | None]) -> Mask:
    """``Top.parts``: the sleeves, and the largest piece of the rest as the body."""
    parts = mask.copy()
    for side in SIDES:
        sleeve = sleeves[side]
        if sleeve is not None:
            parts[sleeve > 0] = SLEEVE_PARTS[side]
    torso = largest(parts == TORSO)
    parts[(parts == TORSO) & (torso == 0)] = 0
    return parts


def _check(outline: Outline, halves: Mapping[Side, Half], parts: Mask) -> None:
    """Raise ``ImageUnusable`` where the landmarks cannot be those of a top."""
    left, right = halves["left"], halves["right"]
    nothing = not (parts[:, int(outline.centre)] == TORSO).any()
    if nothing or right.shoulder[0] - left.shoulder[0] < NARROWEST_SHOULDERS * outline.box.width:
        raise not_found(NO_TOP, "the shoulder line")
    sleeved = left.sleeve is not None or right.sleeve is not None
    if sleeved and right.armpit[0] - left.armpit[0] < NARROWEST_CHEST * outline.box.width:
        raise not_found(NO_TOP, "the place of both armpits")


def _lowest_row(outline: Outline, halves: Mapping[Side, Half], parts: Mask) -> float:
    """y of the lowest row of the body, the median of some columns around the middle."""
    of_seam, of_middle = HEM_WITHIN
    left, right = (halves[side].hem[0] * of_seam + outline.centre * of_middle for side in SIDES)
    torso = parts == TORSO
    columns = np.clip(np.linspace(left, right, HEM_COLUMNS), 0, torso.shape[1] - 1).astype(int)
    some = [x for x in columns if torso[:, x].any()] or [int(outline.centre)]
    return float(np.median([np.flatnonzero(torso[:, x]).max() for x in some]))
