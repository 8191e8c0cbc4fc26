"""How a garment is hung on a body: which of its points go where, and the sheet that follows them.

The garment keeps its own length and looseness as far as a photo tells them: its scale comes from shoulders and chest,
then its edges are let out where the body, or the old clothes on it, are wider. "Units" are the body's shoulder widths.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, cast

import numpy as np

from .body import ARM_LENGTH, ARMPIT, NECK, Body
from .bottom import LEFT_LEG, LEG_PARTS, LEG_ROWS, RIGHT_LEG, Bottom
from .imaging import OUTWARD, SIDES, Floats, Point, Side, length
from .mesh import Pins, Posed, Sheet, distance_to_segment, pose, sheet_of
from .sleeve import STATIONS, Sleeve
from .top import SLEEVE_PARTS, TORSO, Half, Top

# Tuned by eye on the pairs of about 14 people with 16 garments.

ROUND: Final = 0.93
"""A half of cloth lying flat is seen so wide on a body, which is round."""
EASE: Final = 1.03
"""Cloth is wider than the body in it."""
MOST_LET_OUT: Final = 1.28
"""Of its own width; beyond, a print would be seen to be stretched."""
MOST_FLARE: Final = 1.25
"""Of the body's width: cloth that is wider hangs in folds."""
SNUG: Final = 1.07
"""A sleeve's width over the arm's."""
WIDEST_SLEEVE: Final = 2.1
"""Over the arm's width; puffed sleeves lying flat are wider than they look when worn."""
LONG: Final = 0.86
"""Of the arm; a longer sleeve is meant to reach the wrist."""
NEARLY_AT_THE_WAIST: Final = 1.12
"""A hem that ends so little above the old waistband is pulled down to it."""

THICK: Final = 0.02
"""Units: cloth lies so far above the skin of the shoulders."""
SEAM: Final = 0.22
"""Units: so far from the armhole a sleeve has its own width and length."""
TUNIC: Final = 2.3
"""Length over chest width; what is longer is meant to hang below the hips."""
BELOW_HIPS: Final = 0.22
"""Units: where the hem of an ordinary top ends at the lowest."""
SHORTEST: Final = 0.84
"""Of its own proportions."""
BELOW_SHOULDERS: Final = 0.10
"""Units below the joints: where a neckline that leaves the shoulders bare holds on the arms."""

STIFF, FIRM, LOOSE = 6.0, 2.0, 0.7
"""Weights of pins."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A garment on a body."""

    posed: Posed
    scale: float
    """Pixels of the person photo per pixel of the garment photo."""
    waist: float
    """Depth of the waistband, pixels; of a top, of its shoulders."""
    hem: float
    """Depth of the hem, pixels."""
    sleeve_ends: dict[Side, float]
    """How far along the arm each sleeve ends, pixels; 0 without one."""
    long_sleeves: bool


def fit_top(body: Body, top: Top, waist: float | None) -> Fit:
    """Hang a top or a dress on the shoulders. ``waist`` is the depth of the old waistband, pixels, if there is one."""
    return _TopFit(body, top, waist).fit()


class _TopFit:
    def __init__(self, body: Body, top: Top, waist: float | None) -> None:
        self.body, self.top, self.unit = body, top, body.unit
        self.sleeved = any(half.sleeve is not None for half in top.halves.values())
        self.scale = self._scale()
        self.down_scale = self.scale * self._pull(waist) * self._lift()
        self.pins = Pins()
        self.sleeve_ends: dict[Side, float] = {}
        self.sleeve_scales: dict[Side, tuple[float, float]] = {}
        self.long = False

    def _scale(self) -> float:
        body, top = self.body, self.top
        tips = length(body.tips["right"] - body.tips["left"])
        depth = ARMPIT * self.unit
        chest = sum(min(body.trunk(side, depth), 0.66 * self.unit) for side in SIDES)
        by_chest = 1.04 * chest / (ROUND * top.chest_width)
        if top.bare_shoulders or not self.sleeved:
            return by_chest
        by_shoulders = tips / top.shoulder_width
        return float(np.clip(by_chest, by_shoulders * 0.96, by_shoulders * 1.1))

    def _pull(self, waist: float | None) -> float:
        if waist is None or self.top.length <= 0:
            return 1.0
        wanted = (waist + 0.03 * self.unit - self.top_depth) / (self.top.length * self.scale)
        return float(wanted) if 1.0 < wanted < NEARLY_AT_THE_WAIST else 1.0

    def _lift(self) -> float:
        """Tops end at the hips, dresses at the ankles: one that would hang lower is of a cloth that the body stretches
        sideways."""
        top = self.top
        lowest = self.body.torso_length + BELOW_HIPS * self.unit
        if top.length > TUNIC * top.chest_width:
            lowest = self.body.ankle_depth()
        wanted = (lowest - self.top_depth) / (top.length * self.scale)
        return float(np.clip(wanted, SHORTEST, 1.0))

    @functools.cached_property
    def top_depth(self) -> float:
        """Depth of the garment's shoulders; negative above the joints."""
        body, top = self.body, self.top
        if top.bare_shoulders:
            own = ARMPIT * self.unit - (top.armpit_y - top.shoulder_y) * self.scale
            return max(own, BELOW_SHOULDERS * self.unit)
        laterals = [self._lateral(side, top.halves[side].shoulder) for side in SIDES]
        return -float(np.mean([body.shoulder_height(side, at) for side, at in zip(SIDES, laterals, strict=True)]))

    def depth(self, y: float) -> float:
        """Depth on the body of a row of the garment."""
        return self.top_depth + (y - self.top.shoulder_y) * self.down_scale

    def _lateral(self, side: Side, point: Point) -> float:
        """How far from the spine the garment's own width puts a point."""
        reach = abs(float(point[0]) - self.top.centre) * self.scale
        tips = {
            each: abs(float((self.body.tips[each] - self.body.shoulder_middle) @ self.body.across)) for each in SIDES
        }
        if self.sleeved and not self.top.bare_shoulders:
            # Whoever stands a little turned shows more of one shoulder.
            return reach * tips[side] / (sum(tips.values()) / 2)
        return min(reach, 0.97 * tips[side])

    def fit(self) -> Fit:
        for side in SIDES:
            self._pin_shoulder(side, self.top.halves[side])
            self._pin_side(side, self.top.halves[side])
        self._pin_spine()
        for side in SIDES:
            sleeve = self.top.halves[side].sleeve
            if sleeve is not None:
                self._pin_sleeve(side, self.top.halves[side], sleeve)
        seams = {
            SLEEVE_PARTS[side]: (half.shoulder, half.armpit)
            for side, half in self.top.halves.items()
            if half.sleeve is not None
        }
        sheet = sheet_of(self.top.parts, seams, TORSO)
        scale = np.array([self.scale, self.down_scale])
        centre = np.array([self.top.centre, self.top.shoulder_y])
        rest = (sheet.rest - centre) * scale
        for side, (along, across) in self.sleeve_scales.items():
            self._resize_sleeve(side, sheet, rest, centre, along, across)
        start = self.body.at(self.top_depth) + rest[:, :1] * self.body.across + rest[:, 1:] * self.body.down
        posed = pose(sheet, rest, self.pins, start)
        return Fit(
            posed,
            self.scale,
            self.top_depth,
            self.depth(self.top.bottom),
            self.sleeve_ends,
            self.long,
        )

    def _pin_shoulder(self, side: Side, half: Half) -> None:
        body, top, pins = self.body, self.top, self.pins
        outward = OUTWARD[side]
        if top.bare_shoulders:
            depth = self.depth(half.shoulder[1])
            reach = max(abs(half.shoulder[0] - top.centre) * self.scale, body.trunk(side, ARMPIT * self.unit))
            pins.add(half.shoulder, body.at(depth, outward * reach), weight=FIRM, part=TORSO)
        else:
            self._pin_on_shoulder(side, half.shoulder, STIFF)
            if length(half.neck - half.shoulder) > 4:
                self._pin_on_shoulder(side, half.neck, STIFF)
                for share in (0.25, 0.5, 0.75):
                    self._pin_on_shoulder(side, half.neck + (half.shoulder - half.neck) * share, FIRM)
            if half.neck[1] - half.collar[1] > 2:
                self._pin_collar(side, half)
        pins.add(half.armpit, self._armpit(side, half), weight=FIRM, part=TORSO)

    def _pin_on_shoulder(self, side: Side, point: Point, weight: float) -> None:
        body = self.body
        lateral = max(self._lateral(side, point), NECK * self.unit)
        # Below the seam of the shoulder a strap lies on the chest.
        below = max(0.0, float(point[1] - self.top.halves[side].neck[1])) if not self.sleeved else 0.0
        own = below * self.down_scale if abs(point[0] - self.top.centre) * self.scale > lateral else 0.0
        height = body.shoulder_height(side, lateral) + THICK * self.unit - min(own, 0.2 * self.unit)
        self.pins.add(point, body.at(-height, OUTWARD[side] * lateral), weight=weight, part=TORSO)

    def _pin_collar(self, side: Side, half: Half) -> None:
        body = self.body
        height = (half.neck[1] - half.collar[1]) * self.scale
        foot = body.shoulder_height(side, NECK * self.unit)
        chin = float((body.person.chin - body.shoulder_middle) @ -body.down)
        height = min(height, max(0.04 * self.unit, 0.8 * (chin - foot)))
        own = abs(half.collar[0] - self.top.centre) * self.scale
        lateral = float(np.clip(own, 0.85 * NECK * self.unit, 1.3 * NECK * self.unit))
        self.pins.add(half.collar, body.at(-foot - height, OUTWARD[side] * lateral), weight=FIRM, part=TORSO)

    def _armpit(self, side: Side, half: Half) -> Point:
        body = self.body
        lowest = 0.80 if self.top.bare_shoulders else 0.52
        depth = float(np.clip(self.depth(half.armpit[1]), 0.30 * self.unit, lowest * self.unit))
        reach = abs(half.armpit[0] - self.top.centre) * self.scale * ROUND
        wide = body.trunk(side, ARMPIT * self.unit) * EASE
        reach = float(np.clip(reach, min(wide, reach * MOST_LET_OUT), 1.12 * wide))
        return body.at(depth, OUTWARD[side] * reach)

    def _pin_side(self, side: Side, half: Half) -> None:
        """Down the side seam."""
        body, top = self.body, self.top
        rows = np.linspace(half.armpit[1], top.bottom - 0.012 * top.length, 9)[1:]
        widest = 0.0
        for y in rows:
            own = top.half_width(side, float(y)) * self.scale
            widest = max(widest, own)
            if own < 0.85 * widest or own <= 0:  # a hem that is cut round
                continue
            depth = self.depth(float(y))
            hips = depth < body.torso_length + 0.35 * self.unit
            wide = body.trunk(side, depth) * EASE if hips else 0.0
            # What is wider falls in folds, down to the hips.
            own_worn = min(own * ROUND, max(MOST_FLARE * wide, 0.8 * own)) if wide else own * ROUND
            if not hips:
                wide = body.leg_edge(side, depth) * EASE
            reach = max(own_worn, min(wide, own * MOST_LET_OUT))
            rest = np.array([top.centre + OUTWARD[side] * own / self.scale, float(y)])
            self.pins.add(rest, body.at(depth, OUTWARD[side] * reach), weight=LOOSE, part=TORSO)

    def _pin_spine(self) -> None:
        top = self.top
        if top.bare_shoulders:
            rest = np.array([top.centre, top.shoulder_y + 0.02 * top.length])
            self.pins.add(rest, self.body.at(self.depth(float(rest[1]))), weight=FIRM, part=TORSO)
        for y in np.linspace(top.armpit_y, top.bottom - 0.012 * top.length, 6):
            rest = np.array([top.centre, float(y)])
            self.pins.add(rest, self.body.at(self.depth(float(y))), weight=LOOSE, part=TORSO)

    def _pin_sleeve(self, side: Side, half: Half, sleeve: Sleeve) -> None:
        body, part = self.body, SLEEVE_PARTS[side]
        arm = body.arms[side]
        armpit = self._armpit(side, half)
        inner_start = float(
            np.clip((armpit - arm.points[0]) @ _direction(arm.points), 0.2 * self.unit, 0.6 * self.unit)
        )
        outer_start = self.top_depth + 0.02 * self.unit if self.top.bare_shoulders else 0.0
        outer_start = max(0.0, outer_start)
        end = self._sleeve_end(side, sleeve, (inner_start + outer_start) / 2)
        self.sleeve_ends[side] = end
        inner_end = max(end, inner_start + 0.06 * self.unit)
        widths: list[float] = []
        outers, inners = _shares(sleeve.sections[:, 0]), _shares(sleeve.sections[:, 1])
        for index in range(1, len(sleeve.sections)):
            outer, inner = sleeve.sections[index]
            own = length(outer - inner) * 0.5 * self.scale * ROUND
            at_outer = outer_start + outers[index] * (end - outer_start)
            at_inner = inner_start + inners[index] * (inner_end - inner_start)
            _, _, width = arm.at(at_outer)
            # Cloth that is wider than the arm hangs down from it, so it shows on the inner side.
            beyond = float(np.clip(own, SNUG * width, (SNUG + 0.45 * outers[index]) * width))
            within = float(np.clip(2 * own - beyond, SNUG * width, WIDEST_SLEEVE * width))
            edges = [(outer, at_outer, beyond), (inner, at_inner, -within)]
            if STATIONS[index - 1] < 0.25 and not self.top.bare_shoulders:
                edges.pop()  # on the inner side these sections lie in the body
            for rest, distance, reach in edges:
                middle, normal, _ = arm.at(distance)
                self.pins.add(rest, middle + normal * reach, weight=FIRM, part=part)
            if STATIONS[index - 1] > 0.25:
                widths.append((beyond + within) / (2 * own / ROUND + 1e-6))
        along = (end - (inner_start + outer_start) / 2) / (sleeve.length * self.scale)
        self.sleeve_scales[side] = float(np.clip(along, 0.5, 1.25)), float(np.clip(np.median(widths), 0.7, 1.3))

    def _resize_sleeve(
        self, side: Side, sheet: Sheet, rest: Floats, centre: Point, along: float, across: float
    ) -> None:
        """Give the sleeve the length and width at which it is worn, so that none is left over to bulge; in place."""
        half = self.top.halves[side]
        assert half.sleeve is not None  # noqa: S101 - only sleeves have scales
        mine = np.setdiff1d(sheet.triangles[sheet.parts == SLEEVE_PARTS[side]], sheet.triangles[sheet.parts == TORSO])
        armhole = ((half.shoulder + half.armpit) / 2 - centre) * self.scale
        end = (half.sleeve.sections[-1].mean(0) - centre) * self.scale
        axis = (end - armhole) / (length(end - armhole) + 1e-6)
        normal = np.array([axis[1], -axis[0]])
        offset = rest[mine] - armhole
        reach, sideways = offset @ axis, offset @ normal
        resized = armhole + (reach * along)[:, None] * axis + (sideways * across)[:, None] * normal
        # Not at the armhole: there the sleeve is sewn to the body.
        seam = (half.shoulder - centre) * self.scale, (half.armpit - centre) * self.scale
        away = np.clip(distance_to_segment(rest[mine], *seam) / (SEAM * self.unit), 0, 1)[:, None]
        rest[mine] += (resized - rest[mine]) * away

    def _sleeve_end(self, side: Side, sleeve: Sleeve, start: float) -> float:
        """How far along the arm the sleeve ends; an arm that points to the camera shortens its sleeve too."""
        arm = self.body.arms[side]
        real = max(arm.length, ARM_LENGTH * self.unit)
        share = (start + sleeve.length * self.scale) / real
        if share > LONG:
            self.long = True
            return arm.length * 1.01
        return float(share * arm.length)


WAIST: Final = 0.30
"""Units from the hip joints up to a waistband, where the old one is not seen."""
FULL_LENGTH: Final = 0.80
"""Of the way from the waist to the ankles; longer trousers are meant to reach them."""


def fit_bottom(body: Body, bottom: Bottom, waist: float | None) -> Fit:
    """Hang trousers or a skirt on the hips. ``waist`` is the depth of the old waistband, pixels, if it is seen."""
    return _BottomFit(body, bottom, waist).fit()


class _BottomFit:
    def __init__(self, body: Body, bottom: Bottom, waist: float | None) -> None:
        self.body, self.bottom, self.unit = body, bottom, body.unit
        usual = body.torso_length - WAIST * self.unit
        hidden = waist is None or body.one_piece() or abs(waist - usual) > 0.35 * self.unit
        self.waist = usual if hidden or waist is None else waist
        self.waist -= 0.09 * self.unit
        hips = sum(body.trunk(side, body.torso_length) for side in SIDES)
        self.scale = EASE * hips / (bottom.hip_width * ROUND)
        full = body.ankle_depth() - self.waist
        own = bottom.height * self.scale
        self.is_long = bottom.crotch is not None and own > FULL_LENGTH * full
        self.length = full * 1.015 if self.is_long else own
        self.down_scale = self.length / bottom.height
        self.pins = Pins()
        self.hems: list[float] = []
        """Depth at which each leg ends, pixels."""

    def depth(self, y: float) -> float:
        return self.waist + (y - self.bottom.top) * self.down_scale

    def fit(self) -> Fit:
        bottom, body = self.bottom, self.body
        for side in SIDES:
            self._pin_hips(side)
            if bottom.crotch is not None:
                self._pin_leg(side, bottom.crotch)
            else:
                self._pin_skirt(side)
        top = np.array([bottom.centre, bottom.top])
        seam = (top, bottom.crotch if bottom.crotch is not None else np.array([bottom.centre, bottom.bottom]))
        sheet = sheet_of(bottom.parts, {RIGHT_LEG: seam}, LEFT_LEG)
        rest = (sheet.rest - top) * np.array([self.scale, self.down_scale])
        start = body.at(self.waist) + rest[:, :1] * body.across + rest[:, 1:] * body.down
        posed = pose(sheet, rest, self.pins, start)
        hem = float(np.mean(self.hems)) if self.hems else self.depth(bottom.bottom)
        return Fit(posed, self.scale, self.waist, hem, {}, False)

    def _part(self, side: Side) -> int:
        return LEG_PARTS[side] if self.bottom.crotch is not None else LEFT_LEG

    def _pin_hips(self, side: Side) -> None:
        body, bottom = self.body, self.bottom
        for index, ends in enumerate(bottom.waist):
            y = float(ends[0][1])
            own = abs(ends[SIDES.index(side)][0] - bottom.centre) * self.scale
            depth = self.depth(y)
            wide = body.trunk(side, depth) * EASE
            reach = float(np.clip(wide, own * 0.8, own * MOST_LET_OUT))
            weight = FIRM if index == 0 else LOOSE
            self.pins.add(
                ends[SIDES.index(side)], body.at(depth, OUTWARD[side] * reach), weight=weight, part=self._part(side)
            )
            self.pins.add(np.array([bottom.centre, y]), body.at(depth), weight=LOOSE, part=self._part(side))

    def _pin_leg(self, side: Side, crotch: Point) -> None:
        body = self.body
        leg = body.legs[side]
        start = float(np.clip(self.depth(crotch[1]) - body.torso_length, 0.2 * self.unit, 0.95 * self.unit))
        self.pins.add(crotch, body.at(body.torso_length + start), weight=LOOSE, part=LEG_PARTS[side])
        end = leg.length * 1.02 if self.is_long else start + (self.bottom.bottom - crotch[1]) * self.down_scale
        self.hems.append(float((leg.at(end)[0] - body.shoulder_middle) @ body.down))
        for share, (outer, inner) in zip(LEG_ROWS, self.bottom.legs[side], strict=True):
            middle, normal, width = leg.at(start + share * (end - start))
            own = abs(outer[0] - inner[0]) * 0.5 * self.scale * ROUND
            reach = max(own, min(EASE * width, own * MOST_LET_OUT))
            self.pins.add(outer, middle + normal * reach, weight=LOOSE, part=LEG_PARTS[side])
            self.pins.add(inner, middle - normal * reach, weight=LOOSE, part=LEG_PARTS[side])

    def _pin_skirt(self, side: Side) -> None:
        body, bottom = self.body, self.bottom
        for outer, _inner in bottom.legs[side]:
            depth = self.depth(float(outer[1]))
            own = abs(outer[0] - bottom.centre) * self.scale
            wide = body.trunk(side, depth) * EASE if depth < body.torso_length + 0.3 * self.unit else 0.0
            reach = max(own * ROUND, min(wide, own * MOST_LET_OUT))
            self.pins.add(outer, body.at(depth, OUTWARD[side] * reach), weight=LOOSE, part=LEFT_LEG)
            self.pins.add(np.array([bottom.centre, outer[1]]), body.at(depth), weight=LOOSE, part=LEFT_LEG)


def _shares(points: Floats) -> Floats:
    """How far along a seam each of its points lies, 0 to 1."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    return cast("Floats", way / (way[-1] + 1e-6))


def _direction(points: Floats) -> Point:
    """Of the first half of a limb."""
    reach = points[len(points) // 2] - points[0]
    return np.asarray(reach / (length(reach) + 1e-6), np.float64)
