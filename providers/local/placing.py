"""Placing a top on the body: where each of its keypoints goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from .body import Body
from .imaging import SIDES, Point, Side, along, length
from .keypoints import STATIONS, Sleeve, Top, run_at
from .parsing import Part
from .warping import Pins

EASE: Final = 0.90
"""Half the width of cloth laid flat becomes this much of it on a round body."""
HIDE_OLD_HEM: Final = 1.18
"""A top this much shorter than the old one is still pulled over its hem."""
LONG_SLEEVE: Final = 0.75
"""Of the arm; a longer sleeve reaches the wrist."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A top's torso on the body; lengths in pixels of the person photo."""

    pins: Pins
    scale: float
    """Pixels of the person photo per pixel of the garment photo."""
    origin: Point
    """Between the shoulder tips."""
    tips: Mapping[Side, Point]
    armpits: Mapping[Side, Point]
    hem: float
    """How far down the hem lies from ``origin``."""


@dataclass(frozen=True, slots=True)
class PlacedSleeve:
    """A sleeve on an arm."""

    pins: Pins
    is_long: bool
    reach: float
    """How far along the arm it ends, pixels from the shoulder."""


def place_torso(body: Body, top: Top) -> Placed:
    """Scaled by the shoulder width, so that the top keeps its own length and looseness."""
    tips = {side: body.shoulder_tips[side] + body.outward(side) * 0.02 * body.unit for side in SIDES}
    scale = length(tips["right"] - tips["left"]) / top.shoulder_width
    origin = (tips["left"] + tips["right"]) / 2
    natural = float(np.clip(top.length * scale, 0.75 * body.torso_length, 2.6 * body.torso_length))
    hem = _over_old_hem(body, origin, natural)
    placed = Placed(
        Pins(), scale, origin, tips, {side: _armpit(body, top, side, origin, scale) for side in SIDES}, hem
    )
    for side in SIDES:
        _pin_shoulder(body, top, side, placed)
        _pin_side_seam(body, top, side, placed)
    _pin_middle(body, top, placed)
    return placed


def _shoulder_height(top: Top) -> float:
    """y in the garment photo."""
    return float(top.halves["left"].shoulder[1] + top.halves["right"].shoulder[1]) / 2


def _over_old_hem(body: Body, origin: Point, hem: float) -> float:
    """A little further down where that hides the old hem."""
    labels, unit = body.person.labels, body.unit
    distance = along(body.shape, origin, -body.up)
    middle = np.abs(along(body.shape, origin, body.across)) < 0.35 * unit
    middle &= labels != Part.BACKGROUND
    rows = np.clip((distance / (0.02 * unit)).astype(int), 0, 400)
    count = np.bincount(rows[middle], minlength=401)
    upper = np.bincount(rows[middle & (labels == Part.UPPER)], minlength=401)
    covered = np.flatnonzero((upper / np.maximum(count, 1) > 0.5) & (count > 3))
    old_hem = float((covered.max() + 1) * 0.02 * unit) if len(covered) else hem
    return old_hem + 0.02 * unit if hem < old_hem <= hem * HIDE_OLD_HEM else hem


def _armpit(body: Body, top: Top, side: Side, origin: Point, scale: float) -> Point:
    armpit, unit = top.halves[side].armpit, body.unit
    half_width = np.clip(abs(armpit[0] - top.centre) * scale * EASE, 0.53 * unit, 0.74 * unit)
    point: Point = origin + body.down * _armpit_depth(body, top, side, scale) + body.outward(side) * half_width
    return point


def _armpit_depth(body: Body, top: Top, side: Side, scale: float) -> float:
    """Pixels below the shoulder tips."""
    depth = (top.halves[side].armpit[1] - _shoulder_height(top)) * scale
    return float(np.clip(depth, 0.32 * body.unit, 0.62 * body.unit))


def _pin_shoulder(body: Body, top: Top, side: Side, placed: Placed) -> None:
    """Neck, middle of the shoulder seam, and shoulder tip."""
    unit, scale, origin, tip = body.unit, placed.scale, placed.origin, placed.tips[side]
    neck, shoulder = top.neck[SIDES.index(side)], top.halves[side].shoulder
    natural = (body.neck[side] - origin) @ body.up
    rise = np.clip((_shoulder_height(top) - neck[1]) * scale, natural, natural + 0.16 * unit)
    apart = np.clip(abs(neck[0] - top.centre) * scale, 0.17 * unit, 0.36 * unit)
    target = origin + body.outward(side) * apart + body.up * rise
    placed.pins.add(neck, target)
    middle = neck * 0.5 + shoulder * 0.5
    column = np.flatnonzero(top.mask[:, int(np.clip(middle[0], 0, top.mask.shape[1] - 1))])
    if len(column):
        on_outline = np.array([middle[0], float(column.min())])
        above = (middle[1] - on_outline[1]) * scale * 0.6
        placed.pins.add(on_outline, target * 0.5 + tip * 0.5 + body.up * above)
    placed.pins.add(shoulder, tip)


def _pin_side_seam(body: Body, top: Top, side: Side, placed: Placed) -> None:
    """From the armpit to the hem, out to the old silhouette where that ends at the background.

    This hides most of the old clothes, and matters more than anything else.
    """
    half, unit = top.halves[side], body.unit
    armpit = placed.armpits[side]
    depth = _armpit_depth(body, top, side, placed.scale)
    arms = body.lower_arms()
    placed.pins.add(half.armpit, armpit)
    for share in (0.33, 0.66, 1.0):
        seam = half.armpit * (1 - share) + half.hem * share
        row = run_at(top.body, min(seam[1], top.body.shape[0] - 1), top.centre)
        if row is not None and share > 0.4:
            seam = np.array([row[SIDES.index(side)], seam[1]])
        progress = (seam[1] - half.armpit[1]) / (top.hem[:, 1].mean() - half.armpit[1] + 1e-6)
        centre = placed.origin + body.down * (depth + (placed.hem - depth) * progress)
        width = float(np.clip(abs(seam[0] - top.centre) * placed.scale * EASE, 0.48 * unit, 0.85 * unit))
        edge = body.edge(centre, body.outward(side), 0.85 * width, 1.25 * width, arms)
        if edge is not None:
            width = max(width, edge + 0.01 * unit)
        placed.pins.add(seam, centre + body.outward(side) * width)


def _pin_middle(body: Body, top: Top, placed: Placed) -> None:
    """Hem and centre line."""
    shoulders, stretch = _shoulder_height(top), placed.hem / top.length
    for x, y in top.hem[1:-1]:
        beside = (x - top.centre) * placed.scale * 0.92
        target = placed.origin + body.down * (y - shoulders) * stretch + body.across * beside
        placed.pins.add((x, y), target)
    for share in (0.25, 0.5, 0.75):
        source = (top.centre, shoulders + share * top.length)
        placed.pins.add(source, placed.origin + body.down * share * placed.hem)


@dataclass(frozen=True, slots=True)
class _Armhole:
    """Where a sleeve begins."""

    tip: Point
    armpit: Point
    direction: Point
    """Unit vector along the upper arm."""
    start: float
    """Pixels along the arm."""

    @property
    def middle(self) -> Point:
        return (self.tip + self.armpit) / 2

    @property
    def half_width(self) -> float:
        return length(self.tip - self.armpit) / 2


def place_sleeve(body: Body, top: Top, sleeve: Sleeve, side: Side, placed: Placed) -> PlacedSleeve:
    """Along the arm; it shares the seam from shoulder to armpit with the torso."""
    tip, armpit = placed.tips[side], placed.armpits[side]
    bone = body.elbows[side] - body.shoulders[side]
    direction = bone / (length(bone) + 1e-6)
    start = ((tip + armpit) / 2 - body.shoulders[side]) @ direction
    armhole = _Armhole(tip, armpit, direction, float(np.clip(start, 0.0, 0.3 * body.unit)))
    if sleeve.cuff is not None:
        return _place_short(body, top, sleeve.cuff, side, armhole, placed.scale)
    return _place_along_arm(body, top, sleeve, side, armhole, placed.scale)


def _place_short(
    body: Body, top: Top, cuff: tuple[Point, Point], side: Side, armhole: _Armhole, scale: float
) -> PlacedSleeve:
    """A ruled patch between the outer and the inner seam."""
    half, unit = top.halves[side], body.unit
    (outer_from, outer_to), (inner_from, inner_to) = _short_seams(body, top, cuff, side, armhole, scale)
    cuff_width = float(np.clip(length(cuff[0] - cuff[1]) * scale * 0.5 * 0.82, 0.18 * unit, 0.27 * unit))
    normal = body.arm_at(side, 0.1 * unit)[1]
    outer_offset = float((armhole.tip - body.arm_at(side, max(0, outer_from))[0]) @ normal)
    inner_offset = float((body.arm_at(side, max(0, inner_from))[0] - armhole.armpit) @ normal)
    pins = Pins()
    pins.add(half.shoulder, armhole.tip)
    pins.add(half.armpit, armhole.armpit)
    for share in STATIONS:
        outer, outer_normal = body.arm_at(side, max(0, outer_from + (outer_to - outer_from) * share))
        inner, inner_normal = body.arm_at(side, max(0, inner_from + (inner_to - inner_from) * share))
        eased = min(1, share / 0.5)
        outward = outer_offset * (1 - eased) + max(cuff_width, 0.9 * outer_offset) * eased
        edge = body.edge(outer, outer_normal, 0.6 * cuff_width, 1.5 * cuff_width)
        if edge is not None and share > 0.3:
            outward = max(outward, edge)
        pins.add(half.shoulder * (1 - share) + cuff[0] * share, outer + outer_normal * outward)
        inward = inner_offset * (1 - eased) + cuff_width * eased
        pins.add(half.armpit * (1 - share) + cuff[1] * share, inner - inner_normal * inward)
    return PlacedSleeve(pins, False, (outer_to + inner_to) / 2)


def _short_seams(
    body: Body, top: Top, cuff: tuple[Point, Point], side: Side, armhole: _Armhole, scale: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the outer and the inner seam begin and end along the arm, in pixels."""
    half, unit, arm = top.halves[side], body.unit, body.arm_length(side)

    def start(point: Point) -> float:
        return float(np.clip((point - body.shoulders[side]) @ armhole.direction, -0.2 * unit, 0.8 * unit))

    outer, inner = start(armhole.tip), start(armhole.armpit)
    outer_end = outer + float(np.clip(length(cuff[0] - half.shoulder) * scale, 0.3 * unit, 0.85 * arm))
    inner_end = inner + float(np.clip(length(cuff[1] - half.armpit) * scale, 0.06 * unit, 0.6 * arm))
    # Laid flat a cuff is slanted; on a hanging arm it is nearly square to it.
    middle = (outer_end + inner_end) / 2
    outer_end, inner_end = middle + 0.45 * (outer_end - middle), middle + 0.45 * (inner_end - middle)
    return (outer, max(outer_end, outer + 0.2 * unit)), (inner, max(inner_end, inner + 0.05 * unit))


def _place_along_arm(
    body: Body, top: Top, sleeve: Sleeve, side: Side, armhole: _Armhole, scale: float
) -> PlacedSleeve:
    """Sections of the sleeve on sections of the arm."""
    half, arm = top.halves[side], body.arm_length(side)
    room = arm - armhole.start
    is_long = sleeve.length * scale > LONG_SLEEVE * room
    reach = room * 1.04 if is_long else float(np.clip(sleeve.length * scale, 0.3 * room, LONG_SLEEVE * room))
    offset = armhole.middle - body.arm_at(side, armhole.start)[0]
    across = (armhole.tip - armhole.armpit) / (2 * armhole.half_width + 1e-6)
    # The width of the cloth relative to its armhole, carried to the body's armhole.
    at_armhole = armhole.half_width / (length(half.shoulder - half.armpit) / 2 + 1e-6)
    on_arm = scale * (0.80 if is_long else 0.92)
    pins = Pins()
    pins.add(half.shoulder, armhole.tip)
    pins.add(half.armpit, armhole.armpit)
    pins.add((half.shoulder + half.armpit) / 2, armhole.middle)
    for share, (outer, inner) in zip(STATIONS, sleeve.sections[1:], strict=True):
        point, arm_normal = body.arm_at(side, armhole.start + share * reach)
        point = point + offset * max(0.0, 1 - share / 0.55)
        eased = min(1.0, share / 0.4)
        normal = across * (1 - eased) + arm_normal * eased
        normal = normal / length(normal)
        least = (0.15 - 0.055 * (armhole.start + share * reach) / arm) * body.unit
        cloth = length(outer - inner) * 0.5 * (at_armhole * (1 - eased) + on_arm * eased)
        width = float(np.clip(cloth, least, 0.30 * body.unit))
        outer_width, inner_width = _to_silhouette(body, point, normal, width) if share >= 0.3 else (width, width)
        outer_target, inner_target = point + normal * outer_width, point - normal * inner_width
        pins.add(outer, outer_target)
        pins.add(inner, inner_target)
        pins.add((outer + inner) / 2, (outer_target + inner_target) / 2)
    return PlacedSleeve(pins, is_long, reach + armhole.start)


def _to_silhouette(body: Body, point: Point, normal: Point, width: float) -> tuple[float, float]:
    """Outer and inner half width, following the old sleeve where its edge is seen."""
    outer = inner = width
    edge, ease = body.edge(point, normal, 0.55 * width, 1.6 * width), 0.008 * body.unit
    if edge is not None:
        outer = float(np.clip(edge + ease, 0.85 * width, 1.5 * width))
    edge = body.edge(point, -normal, 0.5 * width, 1.5 * width)
    if edge is not None:
        inner = float(np.clip(edge + ease, 0.8 * width, 1.45 * width))
    return outer, inner
