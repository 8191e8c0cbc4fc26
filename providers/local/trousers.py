"""A person wearing other trousers. Skirts and bare legs are not drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from . import light, repair
from .body import Body, along_path
from .garment import Garment
from .imaging import (
    OUTWARD,
    SIDES,
    Bools,
    Floats,
    Picture,
    Point,
    Side,
    along,
    dilated,
    distance_to,
    filled,
    length,
    over,
    picture_of,
    soft,
)
from .keypoints import WAIST_ROWS, Trousers, find_trousers
from .parsing import Part
from .repair import is_one_of
from .warping import SLEEVE_STIFFNESS, Pins, premultiplied, spline_of, straight, warped

WAIST: Final = 0.28
"""Of the trousers above the hip joints, in shoulder widths."""
EASE: Final = 0.92
"""Half the width of cloth laid flat becomes this much of it on a round body."""
LONG: Final = 0.62
"""Of the leg; longer trousers reach the ankle."""

SHORTS_TEXT: Final = "Bare legs are not drawn: below short trousers the old ones may show."


@dataclass(frozen=True, slots=True)
class _Fit:
    """How the trousers hang; lengths in pixels of the person photo."""

    waist: Point
    crotch: Point
    scale: float
    """Pixels of the person photo per pixel of the garment photo, across."""
    stretch: float
    """The same, downwards."""
    total: float
    """From waist to hem."""
    leg: float
    """From hip over knee to ankle."""
    is_long: bool


def wear_trousers(body: Body, garment: Garment) -> tuple[Picture, list[str]]:
    """The picture, and plain sentences on what may look wrong. Raise ``ImageUnusable``."""
    trousers = find_trousers(garment.alpha)
    fit = _fit(body, trousers)
    colour, alpha = _warped(body, garment, trousers, fit)
    old = body.person.labels == Part.LOWER
    lit = colour * light.gain(body.person) * light.shading(body.person, old)[..., None]
    picture = _put_together(body, fit, *_grown(body, fit, np.clip(lit, 0, 255), alpha))
    return picture_of(picture), [] if fit.is_long else [SHORTS_TEXT]


def _fit(body: Body, trousers: Trousers) -> _Fit:
    legs = [
        length(body.knees[side] - body.hips[side]) + length(body.ankles[side] - body.knees[side]) for side in SIDES
    ]
    leg, unit = float(np.mean(legs)), body.unit
    hips = length(body.hips["left"] - body.hips["right"])
    widest = trousers.rows[2][1][0] - trousers.rows[2][0][0]
    scale = max(1.02 * unit, 1.75 * hips) / (widest * EASE)
    height = trousers.bottom - trousers.top
    full = leg + (WAIST + 0.06) * unit
    is_long = height * scale > LONG * full
    total = full if is_long else float(np.clip(height * scale, 0.3 * full, LONG * full))
    drop = (trousers.crotch[1] - trousers.top) * total / height - WAIST * unit
    return _Fit(
        waist=body.hip_middle - body.down * WAIST * unit,
        crotch=body.hip_middle + body.down * np.clip(drop, 0.28 * unit, 0.62 * unit),
        scale=scale,
        stretch=total / height,
        total=total,
        leg=leg,
        is_long=is_long,
    )


def _warped(body: Body, garment: Garment, trousers: Trousers, fit: _Fit) -> tuple[Floats, Floats]:
    """Both halves on the legs: colour and alpha."""
    colour: Floats = np.zeros((*body.shape, 3), np.float32)
    alpha: Floats = np.zeros(body.shape, np.float32)
    middle = int(trousers.crotch[0])
    for side in SIDES:
        half = np.zeros(trousers.mask.shape, np.float32)
        half[:, slice(None, middle + 2) if side == "left" else slice(middle - 1, None)] = 1
        pins = Pins()
        _pin_hips(body, trousers, fit, side, pins)
        _pin_leg(body, trousers, fit, side, pins)
        layer = premultiplied(garment.rgb, garment.alpha, half)
        leg, share = straight(warped(layer, spline_of(pins, SLEEVE_STIFFNESS), body.shape, pins.box(20)))
        colour = over(colour, share, leg)
        alpha = alpha + share - alpha * share
    return colour, alpha


def _pin_hips(body: Body, trousers: Trousers, fit: _Fit, side: Side, pins: Pins) -> None:
    labels = body.person.labels
    height, width = labels.shape
    for ends, share in zip(trousers.rows, WAIST_ROWS, strict=True):
        outer = ends[SIDES.index(side)]
        centre = fit.waist + body.down * share * fit.total
        reach = abs(outer[0] - trousers.crotch[0]) * fit.scale * EASE
        edge = body.edge(centre, body.outward(side), 0.7 * reach, 1.35 * reach)
        column, row = int(np.clip(centre[0], 0, width - 1)), int(np.clip(centre[1], 0, height - 1))
        if edge is not None and labels[row, column] == Part.LOWER:
            reach = max(reach, edge)
        pins.add(outer, centre + body.outward(side) * reach)
        pins.add((trousers.crotch[0], outer[1]), centre)
    pins.add(trousers.crotch, fit.crotch)


def _pin_leg(body: Body, trousers: Trousers, fit: _Fit, side: Side, pins: Pins) -> None:
    ankle = body.ankles[side]
    toe = ankle + (ankle - body.knees[side]) * 0.3
    path = [body.hips[side], body.knees[side], ankle, toe]
    below_crotch = fit.total - (fit.crotch - fit.waist) @ body.down
    start = (fit.crotch - body.hips[side]) @ body.down
    for outer, inner in trousers.legs[side]:
        share = (outer[1] - trousers.crotch[1]) / (trousers.bottom - trousers.crotch[1])
        point, direction = along_path(path, start + share * below_crotch)
        normal = np.array([direction[1], -direction[0]])
        if normal @ body.across * OUTWARD[side] < 0:
            normal = -normal
        cloth = abs(outer[0] - inner[0]) * fit.scale * 0.5 * EASE
        reach = float(np.clip(cloth, 0.10 * body.unit, 0.42 * body.unit))
        outer_edge = body.edge(point, normal, 0.5 * reach, 1.5 * reach)
        inner_edge = body.edge(point, -normal, 0.4 * reach, 1.5 * reach)
        pins.add(outer, point + normal * max(reach, outer_edge or 0))
        pins.add(inner, point - normal * max(reach, inner_edge or 0))


def _grown(body: Body, fit: _Fit, colour: Floats, alpha: Floats) -> tuple[Floats, Floats, Bools]:
    """The trousers grown over thin rims of the old ones, and what is still left of those."""
    person, unit = body.person, body.unit
    new = alpha > 0.5
    left = (person.labels == Part.LOWER) & ~new
    on_shin = along(body.shape, body.hip_middle, body.down) > 0.7 * fit.leg
    grow = left & (distance_to(new) < np.where(on_shin & fit.is_long, 0.32 * unit, 0.09 * unit))
    if grow.any():
        colour = over(filled(colour, (alpha > 0.95).astype(np.float32)), alpha, colour)
        alpha = np.maximum(alpha, np.minimum(soft(grow, 0.8), person.alpha))
    return colour, alpha, left & ~grow


def _put_together(body: Body, fit: _Fit, colour: Floats, alpha: Floats, left: Bools) -> Floats:
    labels, unit = body.person.labels, body.unit
    photo = body.person.rgb.astype(np.float32)
    base = photo
    if left.sum() > 10:
        base = repair.fill_background(base, dilated(left, 5), labels != Part.BACKGROUND)
    shadow = light.shadow_below(alpha, unit)
    base = base * (1 - 0.2 * shadow * (1 - alpha) * (labels != Part.BACKGROUND))[..., None]
    kept = _in_front(body, fit)
    picture = over(over(base, alpha, colour), kept, photo)
    hem = light.shadow_below(soft(labels == Part.UPPER, 1), unit, 0.025, 0.025)
    shaded = (alpha > 0.5) & (kept < 0.5)
    return np.where(shaded[..., None], picture * (1 - 0.3 * hem)[..., None], picture)


def _in_front(body: Body, fit: _Fit) -> Floats:
    """Top, head, hands and shoes, ``(H, W)``."""
    labels = body.person.labels
    low = along(body.shape, body.hip_middle, body.down) > 0.75 * fit.leg
    upper = soft(is_one_of(labels, Part.UPPER, Part.SKIN, Part.HAIR), 0.9) * ~low
    shoes = (labels == Part.SHOES) & low & (dilated(labels == Part.LOWER, 3) == 0)
    return np.maximum(upper, soft(shoes, 0.9))
