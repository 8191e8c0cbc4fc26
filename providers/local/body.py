"""The body in the photo as something that clothes can be hung on: a spine, two arms, two legs, and how wide they are.

Lengths are in pixels of the photo, or in shoulder widths where a name or a docstring says "units". Sides are those of
the image. ``depth`` is how far below the shoulders a point lies along the spine, ``lateral`` how far from it.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from .figure import Part
from .imaging import OTHER, OUTWARD, SIDES, Bools, Floats, Mask, Point, Shape, Side, along, lab_of, length
from .person import ANKLES, ELBOWS, HIPS, INDEX_FINGERS, KNEES, SHOULDERS, TOES, WRISTS, Person

# Units, from anthropometric tables (Drillis and Contini 1966) and looking at about 30 people.

TIP: Final = 0.075
"""The end of the shoulder lies so far outside of the joint."""
TIP_TO_EDGE: Final = 0.13
"""and so far inside of the outer edge of a bare arm,"""
TIP_HEIGHT: Final = (0.04, 0.20)
"""and between so far above it."""
NECK: Final = 0.205
"""Half the width of the neck at its foot."""
NECK_HEIGHT: Final = (0.12, 0.30)
"""The foot of the neck lies between so far above the joints."""
ROUND_SHOULDER: Final = 0.09
"""A shoulder may rise so far above the straight line from its end to the neck."""
ARMPIT: Final = 0.36
"""The armpit lies so far below the joints."""
ARM: Final = (0.205, 0.175, 0.145, 0.130, 0.085)
"""Half the width of a bare arm: at the shoulder, halfway to the elbow, at the elbow, below it, at the wrist."""
ARM_AT: Final = (0.0, 0.25, 0.5, 0.65, 1.0)
"""Where these are, as shares of the arm's length."""
ARM_LENGTH: Final = 1.72
"""From the shoulder joint to the wrist. An arm that is shorter in the photo points towards the camera."""
LEG: Final = (0.34, 0.27, 0.185, 0.20, 0.10)
"""Half the width of a bare leg at ``LEG_AT``."""
LEG_AT: Final = (0.0, 0.22, 0.5, 0.68, 1.0)
TRUNK: Final = (0.50, 0.45, 0.50, 0.60)
"""Half the width of the trunk at the depths of ``TRUNK_AT``, where arms or hair hide it."""
TRUNK_AT: Final = (0.3, 0.9, 1.25, 1.6)
BARE: Final = 0.3
"""Share of skin on the outer half of an arm from which on no sleeve covers it."""
STEPS: Final = 48
"""Points along a limb or the spine at which widths are measured."""
FURTHEST, NEAR = 2.4, 0.8
"""Usual half widths from the net's line to the middle of a limb, at most, where both its edges are seen, or one."""


@dataclass(frozen=True, slots=True)
class Limb:
    """An arm or a leg as a path with a width."""

    points: Floats
    """``(STEPS, 2)``: its middle, evenly spaced from the trunk to the wrist or the ankle."""
    normals: Floats
    """``(STEPS, 2)``: unit vectors across it, away from the body."""
    half_widths: Floats
    """``(STEPS,)``."""
    length: float

    def at(self, distance: float) -> tuple[Point, Point, float]:
        """Middle, normal and half width so far along; beyond the ends it goes on straight."""
        share = distance / (self.length + 1e-6) * (STEPS - 1)
        index = int(np.clip(share, 0, STEPS - 2))
        part = share - index
        middle = self.points[index] + (self.points[index + 1] - self.points[index]) * part
        inside = float(np.clip(part, 0, 1))
        normal = self.normals[index] * (1 - inside) + self.normals[index + 1] * inside
        width = float(self.half_widths[index] * (1 - inside) + self.half_widths[index + 1] * inside)
        return middle, normal / (length(normal) + 1e-6), width

    def chart(self, shape: Shape) -> tuple[Floats, Floats]:
        """For each pixel: how far along the limb it lies, and how far across in half widths; ``(H, W)`` float32."""
        height, width = shape
        reach = float(self.half_widths.max()) * 2.5
        left, top = np.maximum(self.points.min(0) - reach, 0).astype(int)
        right, bottom = np.minimum(self.points.max(0) + reach, (width, height)).astype(int)
        distance, across = np.zeros(shape, np.float32), np.full(shape, 9.0, np.float32)
        if right <= left or bottom <= top:
            return distance, across
        # The nearest step of every pixel at a quarter of the size, then exactly within that step.
        ys, xs = np.mgrid[top:bottom, left:right].astype(np.float32)
        coarse_y, coarse_x = ys[::4, ::4], xs[::4, ::4]
        squared = (coarse_x[..., None] - self.points[:, 0]) ** 2 + (coarse_y[..., None] - self.points[:, 1]) ** 2
        nearest = cv2.resize(squared.argmin(-1).astype(np.float32), xs.shape[::-1], interpolation=cv2.INTER_LINEAR)
        index = np.clip(nearest.astype(int), 0, STEPS - 2)
        bone = (self.points[1:] - self.points[:-1]).astype(np.float32)
        size = np.hypot(*bone.T) + 1e-6
        dx, dy = xs - self.points[index, 0].astype(np.float32), ys - self.points[index, 1].astype(np.float32)
        share = (dx * bone[index, 0] + dy * bone[index, 1]) / size[index] ** 2
        normal = self.normals.astype(np.float32)
        sideways = dx * normal[index, 0] + dy * normal[index, 1]
        beyond = np.where(index == 0, np.minimum(share, 0), 0) + np.where(
            index == STEPS - 2, np.maximum(share - 1, 0), 0
        )
        widths = self.half_widths.astype(np.float32)
        offset = np.hypot(sideways, beyond * size[index])
        across[top:bottom, left:right] = np.sign(sideways) * offset / widths[index]
        distance[top:bottom, left:right] = (index + np.clip(share, 0, 1)) * (self.length / (STEPS - 1))
        return distance, across


class Body:
    """Frame, limbs and widths of one person."""

    def __init__(self, person: Person) -> None:
        def joint(indices: tuple[int, int]) -> dict[Side, Point]:
            return dict(zip(SIDES, person.joints[list(indices)], strict=True))

        self.person = person
        self.labels: Mask = person.labels
        self.unit = person.shoulder_width
        self.up = person.up
        self.across: Point = -person.side if person.side[0] < 0 else person.side
        self.shoulders, self.elbows, self.wrists = joint(SHOULDERS), joint(ELBOWS), joint(WRISTS)
        self.fingers = joint(INDEX_FINGERS)
        self.hips, self.knees, self.ankles, self.toes = joint(HIPS), joint(KNEES), joint(ANKLES), joint(TOES)
        self.shoulder_middle: Point = (self.shoulders["left"] + self.shoulders["right"]) / 2
        self.hip_middle: Point = (self.hips["left"] + self.hips["right"]) / 2
        self.torso_length = length(self.shoulder_middle - self.hip_middle)
        self.down: Point = (self.hip_middle - self.shoulder_middle) / (self.torso_length + 1e-6)
        self.arms = self._arms()
        self.tips = {side: self._tip(side) for side in SIDES}
        self.necks = {side: self._neck(side) for side in SIDES}
        self.legs = self._legs()
        self._depths, self._trunk = self._measured_trunk()

    @property
    def shape(self) -> Shape:
        height, width = self.labels.shape
        return height, width

    def outward(self, side: Side) -> Point:
        """Unit vector away from the spine."""
        return self.across * OUTWARD[side]

    def at(self, depth: float, lateral: float = 0.0) -> Point:
        """The point so far below the shoulders, and so far to the image's right."""
        if depth <= self.torso_length:
            return self.shoulder_middle + self.down * depth + self.across * lateral
        knees = (self.knees["left"] + self.knees["right"]) / 2
        legs = knees - self.hip_middle
        # Legs apart or bent change where clothes hang less than where the feet are.
        direction = self.down + 0.6 * legs / (length(legs) + 1e-6)
        direction = direction / length(direction)
        return self.hip_middle + direction * (depth - self.torso_length) + self.across * lateral

    def trunk(self, side: Side, depth: float) -> float:
        """Half the width of trunk and hips, clothes included."""
        return float(np.interp(depth, self._depths, self._trunk[side]))

    def ankle_depth(self) -> float:
        """Depth of the ankles, the mean of both, pixels."""
        return float(np.mean([(self.ankles[side] - self.shoulder_middle) @ self.down for side in SIDES]))

    def leg_edge(self, side: Side, depth: float) -> float:
        """How far from the middle the outer edge of a leg is, at the hips, the ankles, or a depth between."""
        leg = self.legs[side]
        reach = float((self.ankles[side] - self.hip_middle) @ self.down)
        share = float(np.clip((depth - self.torso_length) / (reach + 1e-6), 0, 1))
        middle, normal, width = leg.at(share * leg.length)
        return float((middle + normal * width - self.at(depth)) @ self.outward(side))

    def shoulder_height(self, side: Side, lateral: float) -> float:
        """How far above the line between the joints the shoulder lies, so far from the spine."""
        neck, tip = self._in_frame(self.necks[side]), self._in_frame(self.tips[side])
        straight = float(np.interp(abs(lateral), [abs(neck[0]), abs(tip[0])], [neck[1], tip[1]]))
        if not abs(neck[0]) < abs(lateral) < abs(tip[0]):
            return straight
        foot = self.at(0.0, OUTWARD[side] * abs(lateral))
        seen = self._to_outline(foot, straight / self.unit, straight / self.unit + ROUND_SHOULDER)
        return max(straight, seen)

    def _in_frame(self, point: Point) -> tuple[float, float]:
        """Lateral, and height above the joints."""
        offset = point - self.shoulder_middle
        return float(offset @ self.across), float(offset @ -self.down)

    def armpit(self, side: Side) -> Point:
        """Where an arm leaves the trunk."""
        depth = ARMPIT * self.unit
        return self.at(depth, OUTWARD[side] * min(self.trunk(side, depth), 0.62 * self.unit))

    def _tip(self, side: Side) -> Point:
        outward = self.outward(side)
        beyond = TIP * self.unit
        edge = self._bare_edge(side)
        if edge is not None:  # the net puts the joints of whoever is turned too far inside
            inside = edge - TIP_TO_EDGE * self.unit
            beyond = float(np.clip(inside - self.shoulders[side] @ outward, beyond, 3 * beyond))
        point = self.shoulders[side] + outward * beyond
        return point + self.up * self._to_outline(point, *TIP_HEIGHT)

    def _bare_edge(self, side: Side) -> float | None:
        """How far outward a bare upper arm reaches, pixels; None where it is clothed."""
        outward = self.outward(side)
        middle, normal, width = self.arms[side].at(0.2 * self.unit)
        x, y = np.rint(middle + normal * (0.7 * width)).astype(int)
        height, width_ = self.shape
        if not (0 <= x < width_ and 0 <= y < height) or self.labels[y, x] != Part.SKIN:
            return None
        return float((middle + normal * width) @ outward)

    def _neck(self, side: Side) -> Point:
        point = self.shoulder_middle + self.outward(side) * NECK * self.unit
        return point + self.up * self._to_outline(point, *NECK_HEIGHT)

    def _to_outline(self, point: Point, least: float, most: float) -> float:
        """How far the person reaches upwards, hair left aside, between so many units."""
        height, width = self.shape
        distance = 0.0
        while distance < most * self.unit:
            x, y = (round(float(value)) for value in point + self.up * distance)
            if not (0 <= y < height and 0 <= x < width and self.labels[y, x] not in (Part.BACKGROUND, Part.HAIR)):
                break
            distance += 1.0
        return float(np.clip(distance, least * self.unit, most * self.unit))

    # Widths

    def _arms(self) -> dict[Side, Limb]:
        paths = {side: [self.shoulders[side], self.elbows[side], self.wrists[side]] for side in SIDES}
        usual = np.interp(np.linspace(0, 1, STEPS), ARM_AT, ARM) * self.unit
        return self._limbs(paths, usual, 2.4, (Part.SKIN, Part.UPPER), loosest=1.55)

    def _legs(self) -> dict[Side, Limb]:
        paths = {side: [self.hips[side], self.knees[side], self.ankles[side]] for side in SIDES}
        usual = np.interp(np.linspace(0, 1, STEPS), LEG_AT, LEG) * self.unit
        return self._limbs(paths, usual, 2.2, (Part.SKIN, Part.LOWER, Part.UPPER), loosest=1.4)

    def _limbs(
        self, paths: dict[Side, list[Point]], usual: Floats, most: float, parts: tuple[Part, ...], *, loosest: float
    ) -> dict[Side, Limb]:
        """Widths from the outline where it is seen on both sides, else those of the other limb, else the usual ones.

        ``most`` and ``loosest`` are how many times the usual a limb may reach to a side, and be wide.
        """
        lines = {side: _resampled(path, self.outward(side), self.up) for side, path in paths.items()}
        edges, widths = {}, {}
        for side, (points, normals, _) in lines.items():
            outer, inner = self._edges(points, normals, most * usual, parts)
            width = (outer + inner) / 2
            width[(width < 0.5 * usual) | (width > loosest * usual)] = np.nan
            edges[side], widths[side] = (outer, inner), width
        scales = {side: _scale(widths[side], widths[OTHER[side]], usual) for side in SIDES}
        return {side: _limb(*lines[side], usual * scales[side], *edges[side], widths[side]) for side in SIDES}

    def _edges(self, points: Floats, normals: Floats, most: Floats, parts: tuple[Part, ...]) -> tuple[Floats, Floats]:
        """How far the limb reaches from each point outwards and inwards; not a number where no edge of it is seen."""
        outer, inner = np.full((2, len(points)), np.nan)
        for index, (point, normal, limit) in enumerate(zip(points, normals, most, strict=True)):
            outwards, inwards = self._ray(point, normal, 2 * limit), self._ray(point, -normal, limit)
            within = outwards[: len(inwards)]
            outer[index], inner[index] = _edge(within, parts), _edge(inwards, parts)
            start = _start(within, parts, on_trunk=bool(np.isnan(inner[index])))
            if start is None:
                outer[index] = inner[index] = np.nan
            elif start:
                outer[index], inner[index] = start + _edge(outwards[start:], parts), -start
        return outer, inner

    def _ray(self, point: Point, direction: Point, most: float) -> Mask:
        """The labels along a line; outside of the photo the last one goes on."""
        steps = np.arange(0.0, max(2.0, most))
        height, width = self.shape
        xs = np.rint(point[0] + direction[0] * steps).astype(int)
        ys = np.rint(point[1] + direction[1] * steps).astype(int)
        labels: Mask = self.labels[ys.clip(0, height - 1), xs.clip(0, width - 1)].copy()
        outside = (xs < 0) | (xs >= width)
        if outside.any():
            labels[outside] = 255
        return labels

    def _measured_trunk(self) -> tuple[Floats, dict[Side, Floats]]:
        """Depths, and half the width of the trunk at each, by side."""
        unit = self.unit
        depths = np.linspace(0.3 * unit, max(self.torso_length + 0.35 * unit, 1.5 * unit), STEPS)
        usual = np.interp(depths / unit, TRUNK_AT, TRUNK) * unit
        arms = self._arm_zone()
        measured = {}
        for side in SIDES:
            found = np.full(STEPS, np.nan)
            for index, depth in enumerate(depths):
                found[index] = self._trunk_edge(self.at(float(depth)), self.outward(side), arms)
            found[(found < 0.55 * usual) | (found > 1.9 * usual)] = np.nan
            measured[side] = found
        return depths, {side: _completed(measured[side], measured[OTHER[side]], usual) for side in SIDES}

    def _trunk_edge(self, point: Point, outward: Point, arms: Bools) -> float:
        """How far the trunk reaches; not a number where an arm lies before its edge."""
        height, width = self.shape
        labels = self._ray(point, outward, 1.2 * self.unit)
        ends = np.flatnonzero(~_is_any(labels, (Part.UPPER, Part.LOWER)))
        if not len(ends) or ends[0] < 3:
            return float("nan")
        edge = float(ends[0])
        x, y = np.rint(point + outward * (edge - 2)).astype(int)
        if not (0 <= x < width and 0 <= y < height):
            return float("nan")
        # Cloth that ends at the background may be the sleeve's; cloth that ends at skin ends at the arm.
        return float("nan") if arms[y, x] and labels[ends[0]] == Part.BACKGROUND else edge

    def _arm_zone(self) -> Bools:
        zone = np.zeros(self.shape, np.uint8)
        for arm in self.arms.values():
            for start, end in itertools.pairwise(np.round(arm.points).astype(int)):
                cv2.line(
                    zone, tuple(start.tolist()), tuple(end.tolist()), (1,), max(2, int(2.0 * arm.half_widths.mean()))
                )
        return zone > 0

    def waist(self) -> float | None:
        """Depth of the upper edge of what is worn below the waist, pixels; None where it is not seen."""
        lower = self.labels == Part.LOWER
        middle = self.hip_middle[0]
        columns = np.arange(
            *np.clip((middle - 0.3 * self.unit, middle + 0.3 * self.unit), 0, self.shape[1]).astype(int)
        )
        edges = []
        for x in columns:
            rows = np.flatnonzero(lower[:, x])
            if len(rows) > 4 and rows[0] > 0 and self.labels[rows[0] - 1, x] in (Part.UPPER, Part.SKIN):
                edges.append(float((np.array([x, rows[0]]) - self.shoulder_middle) @ self.down))
        return float(np.median(edges)) if len(edges) > 0.4 * max(1, len(columns)) else None

    @functools.cached_property
    def _one_piece(self) -> bool:
        lab = lab_of(self.person.rgb)
        upper, lower = (lab[self.labels == part] for part in (Part.UPPER, Part.LOWER))
        if len(upper) < 200 or len(lower) < 200:
            return False
        apart = np.abs(np.percentile(upper, (20, 50, 80), 0) - np.percentile(lower, (20, 50, 80), 0))
        return bool(apart[:, 1:].max() < 7 and apart[:, 0].max() < 40)

    @functools.cached_property
    def nude(self) -> float:
        """Lab distance between what is worn above the waist and the person's skin."""
        upper = lab_of(self.person.rgb)[self.labels == Part.UPPER]
        if not len(upper):
            return 99.0
        return float(np.linalg.norm(np.median(upper, 0) - self.person.skin))

    def one_piece(self) -> bool:
        """Whether upper and lower clothes look like one garment: a dress."""
        return self._one_piece

    def sleeve_end(self, side: Side, chart: tuple[Floats, Floats]) -> float:
        """How far along an arm, whose chart is given, the old sleeve reaches, pixels: up to there no skin is seen."""
        arm, (distance, across) = self.arms[side], chart
        on_arm = (across > 0) & (across < 1)  # on the inner half the trunk may lie before it
        section = np.minimum((distance[on_arm] / (arm.length + 1e-6) * STEPS).astype(int), STEPS - 1)
        seen = np.bincount(section, minlength=STEPS)
        bare = np.bincount(section, self.labels[on_arm] == Part.SKIN, STEPS) > BARE * seen
        # The end is where most sections before are clothed, and most behind are bare.
        clothed = np.concatenate([[0], np.cumsum(np.where(bare, -1, seen > 0))])
        return float(np.argmax(clothed)) / STEPS * arm.length

    def arm_charts(self) -> dict[Side, tuple[Floats, Floats]]:
        """How far along and across each arm every pixel lies, as ``Limb.chart`` has it."""
        return {side: self.arms[side].chart(self.shape) for side in SIDES}

    def height_map(self) -> Floats:
        """How far above the shoulder joints each pixel lies, ``(H, W)``."""
        return along(self.shape, self.shoulder_middle, -self.down)


def _start(outwards: Mask, parts: tuple[Part, ...], *, on_trunk: bool) -> int | None:
    """Where a limb begins along a line: the net puts an arm that hangs before or beside the body too far inside."""
    bare = np.flatnonzero(outwards == Part.SKIN)
    if outwards[0] == Part.UPPER:
        return int(bare[0]) if on_trunk and len(bare) else 0
    within = np.flatnonzero(_is_any(outwards, parts))
    return int(within[0]) if len(within) else None


def _edge(labels: Mask, parts: tuple[Part, ...]) -> float:
    """Where a limb ends along a line that begins in it; not a number where that is not seen."""
    # Bare skin ends at cloth as well; cloth that ends at cloth has no edge to be seen, but sleeves end at a skirt.
    bare = labels[0] == Part.SKIN
    ends = np.flatnonzero(labels != Part.SKIN if bare else ~_is_any(labels, parts))
    seen = len(ends) and labels[ends[0]] <= Part.SHOES and (bare or labels[ends[0]] in (Part.BACKGROUND, Part.LOWER))
    return float(ends[0]) if seen else float("nan")


def _is_any(labels: Mask, parts: tuple[Part, ...]) -> Bools:
    """``np.isin`` for a handful of labels, many times as fast."""
    return functools.reduce(np.logical_or, [labels == part for part in parts])


def _resampled(path: list[Point], outward: Point, up: Point) -> tuple[Floats, Floats, float]:
    """A path evenly cut, its normals away from the body, and its length; corners are rounded."""
    lengths = [length(end - start) for start, end in itertools.pairwise(path)]
    total = sum(lengths)
    at = np.concatenate([[0.0], np.cumsum(lengths)])
    wanted = np.linspace(0, total, STEPS)
    points = np.stack([np.interp(wanted, at, [point[axis] for point in path]) for axis in (0, 1)], 1)
    points[2:-2] = np.stack([np.convolve(points[:, axis], np.ones(5) / 5, "valid") for axis in (0, 1)], 1)
    tangents = np.gradient(points, axis=0)
    tangents /= np.hypot(*tangents.T)[:, None] + 1e-9
    normals = np.stack([tangents[:, 1], -tangents[:, 0]], 1)
    # One sign for the whole limb, or a sleeve would twist at a bent elbow.
    facing = float(normals[: STEPS // 2].mean(0) @ (outward + 0.35 * up))
    return points, normals if facing >= 0 else -normals, float(total)


def _scale(own: Floats, other: Floats, usual: Floats) -> float:
    """How many times as wide as usual a limb is; one of which little is seen is no wider than the other."""
    (own_scale, well_seen), (other_scale, other_seen) = (_measured(widths / usual) for widths in (own, other))
    if well_seen:
        return own_scale
    cautious = float(np.clip(own_scale, 0.85, 1.15))
    return min(cautious, other_scale) if other_seen else cautious


def _measured(scales: Floats) -> tuple[float, bool]:
    """The median, and whether it stands on enough of the limb."""
    known = scales[~np.isnan(scales)]
    return (float(np.median(known)) if len(known) else 1.0), len(known) >= STEPS // 4


def _limb(
    points: Floats, normals: Floats, total: float, usual: Floats, outer: Floats, inner: Floats, width: Floats
) -> Limb:
    """``usual`` are its widths where none is known.

    The joints of the net do not lie in the middle of the limb: where both edges are seen, the middle is moved.
    """
    known = ~np.isnan(width)
    filled = np.where(known, width, usual)
    only_outer = ~known & ~np.isnan(outer)
    shift = np.where(known, (outer - inner) / 2, np.where(only_outer, outer - filled, np.nan))
    shift = np.where(np.abs(shift) < np.where(known, FURTHEST, NEAR) * usual, shift, np.nan)
    shift = _smooth(np.interp(np.arange(STEPS), *_known(shift)) if (~np.isnan(shift)).any() else np.zeros(STEPS))
    return Limb(points + normals * shift[:, None], normals, _smooth(filled), total)


def _known(values: Floats) -> tuple[Floats, Floats]:
    index = np.flatnonzero(~np.isnan(values))
    return index.astype(np.float64), values[index]


def _smooth(values: Floats) -> Floats:
    padded = np.pad(values, 4, mode="edge")
    return np.convolve(padded, np.ones(9) / 9, "valid")


def _completed(own: Floats, other: Floats, usual: Floats) -> Floats:
    """Widths without gaps: from the other side, then from between, then the usual ones to scale."""
    widths = np.where(np.isnan(own), other, own)
    known = ~np.isnan(widths)
    if known.sum() < 4:
        return usual
    scale = np.interp(np.arange(STEPS), np.flatnonzero(known), (widths / usual)[known])
    median = np.array([np.median(scale[max(0, i - 3) : i + 4]) for i in range(STEPS)])
    return _smooth(usual * median)
