"""What lies behind the old clothes where the new ones do not cover them: background, trousers, neck and arms.

All of it is painted, not known: small areas look right, large ones do not (``tops.LARGE_REPAIR``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from .body import Body
from .imaging import (
    SIDES,
    Bools,
    Floats,
    Mask,
    Point,
    Side,
    blurred,
    dilated,
    disc,
    eroded,
    filled,
    lab_of,
    local_mean,
    over,
    soft,
)
from .parsing import Part
from .person import Person

MARGIN: Final = 40
"""Pixels around a hole that are looked at to fill it."""
ARM_RADII: Final = (0.155, 0.122, 0.088, 0.10)
"""Of a bare arm at shoulder, elbow, wrist and palm, in shoulder widths."""
BARE_FROM: Final = 0.42
"""Where an arm without any sleeve lies in front of the torso, in shoulder widths along it."""


def is_one_of(labels: Mask, *parts: Part) -> Bools:
    """Where the labels are one of these parts."""
    return np.isin(labels, parts)


def fill_background(picture: Floats, hole: Mask, person: Bools) -> Floats:
    """Paint the hole from background only, with Telea's method (2004).

    The person is replaced by a smooth fill first; otherwise the clothes would smear into the hole.
    """
    ys, xs = np.where(hole > 0)
    if not len(ys):
        return picture
    height, width = hole.shape
    window = (
        slice(max(0, ys.min() - MARGIN), min(height, ys.max() + MARGIN)),
        slice(max(0, xs.min() - MARGIN), min(width, xs.max() + MARGIN)),
    )
    part = picture[window]
    ground = eroded(~person[window], 5)
    known = np.where(ground[..., None] > 0, part, filled(part, ground.astype(np.float32)))
    painted = cv2.inpaint(np.clip(known, 0, 255).astype(np.uint8), hole[window].astype(np.uint8), 5, cv2.INPAINT_TELEA)
    result = picture.copy()
    result[window] = over(part, soft(hole[window], 1.0), painted.astype(np.float32))
    return result


def extend_trousers(picture: Floats, hole: Bools, trousers: Bools) -> Floats:
    """Fill between the new hem and the old one by mirroring the trousers upwards, column by column."""
    height = hole.shape[0]
    result, done = picture.copy(), np.zeros(hole.shape, bool)
    for x in np.flatnonzero(hole.any(0)):
        ys, cloth = np.flatnonzero(hole[:, x]), np.flatnonzero(trousers[:, x])
        cloth = cloth[cloth > ys.min()]
        if len(cloth) < 4:
            continue
        waist = cloth[0] + 3
        depth = max(6, min(len(cloth) - 4, 60))
        mirrored = waist + np.abs(((waist - ys + depth) % (2 * depth)) - depth)
        mirrored = np.clip(mirrored, 0, height - 1)
        good = trousers[mirrored, x]
        result[ys[good], x] = picture[mirrored[good], x]
        done[ys[good], x] = True
    rest = hole & ~done
    known = ((trousers | done) & ~rest).astype(np.float32)
    result[rest] = filled(result, known)[rest]
    result[hole] = cv2.GaussianBlur(result, (3, 3), 0)[hole]
    return result


def paint_neck(person: Person, picture: Floats, where: Bools, neck: Mask) -> Floats:
    """Smooth skin, from what is seen of the neck, else from the face."""
    lab, labels, tone = lab_of(person.rgb), person.labels, person.skin
    departure = np.abs(lab[..., 1:] - tone[1:]).max(-1)
    seen = (labels == Part.SKIN) & ~where & (dilated(neck, 3) > 0)
    good = (eroded(seen, 3) > 0) & (departure < 16) & (np.abs(lab[..., 0] - tone[0]) < 60)
    if good.sum() < 40:
        face = (person.face > 0) & (labels == Part.SKIN)
        good = face & (departure < 12) & (np.abs(lab[..., 0] - tone[0]) < 30)
    median = np.median(picture[good], 0) if good.any() else np.array([200, 160, 140], np.float32)
    skin = 0.5 * filled(picture, good.astype(np.float32)) + 0.5 * median
    grain = np.random.default_rng(1).normal(0, 1.6, (*where.shape, 1))
    return over(picture, soft(where, 1.5), (skin + grain).astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Arm:
    """A bare arm as a row of cones; all ``(H, W)`` float32."""

    alpha: Floats
    across: Floats
    """-1 at one rim, 1 at the other."""
    reach: Floats
    """Pixels along the arm."""


def paint_arms(
    body: Body, picture: Floats, sleeves: Bools, clothes: Bools, bare_from: Mapping[Side, float]
) -> tuple[Floats, Floats]:
    """Bare arms where the photo has ``sleeves``: the face's tone, a cylinder's shading, the sleeve's own light.

    An arm is slimmer than its sleeve, so there is background beside it. ``bare_from`` has the arms to paint, and
    how far along each it comes out of the new sleeve, in pixels. Returns the picture and the alpha of what lies in
    front of the torso, ``(H, W)``.
    """
    labels, unit = body.person.labels, body.unit
    hands = _hands(body) & (labels == Part.SKIN)
    alpha = np.zeros(labels.shape, np.float32)
    across, front = alpha.copy(), alpha.copy()
    for side, start in bare_from.items():
        arm = _arm(body, side)
        more = arm.alpha > alpha
        alpha[more], across[more] = arm.alpha[more], arm.across[more]
        front = np.maximum(front, arm.alpha * np.clip((arm.reach - start) / (0.03 * unit), 0, 1))
    alpha *= np.clip(soft(sleeves | (labels == Part.SKIN) | clothes, 1.0), 0, 1) * soft(body.person.mask, 1.0)
    beside = dilated(sleeves & (alpha < 0.9), 5) * (1 - dilated(hands, 3))
    alpha *= 1 - soft(hands, 1.2)
    skin = _skin(body.person, hands, sleeves, across)
    known = (labels != Part.BACKGROUND) & (labels != Part.LOWER)
    return over(fill_background(picture, beside, known), alpha, skin), np.minimum(alpha, front)


def _hands(body: Body) -> Bools:
    mask = np.zeros(body.shape, np.uint8)
    for side in SIDES:
        mask |= disc(body.shape, (body.wrists[side] + body.fingers[side]) / 2, int(0.17 * body.unit))
    return mask > 0


def _arm(body: Body, side: Side) -> _Arm:
    wrist = body.wrists[side]
    palm = wrist + (body.fingers[side] - wrist) * 0.6
    points: list[Point] = [body.shoulders[side], body.elbows[side], wrist, palm]
    radii = [radius * body.unit for radius in ARM_RADII]
    height, width = body.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    nearest = np.full(body.shape, 1e9, np.float32)
    across, reach, before = np.zeros_like(nearest), np.zeros_like(nearest), 0.0
    for start, end, first, last in zip(points, points[1:], radii, radii[1:], strict=False):
        bone = end - start
        squared = float(bone @ bone) + 1e-6
        share = np.clip(((x - start[0]) * bone[0] + (y - start[1]) * bone[1]) / squared, 0, 1)
        dx, dy = x - (start[0] + share * bone[0]), y - (start[1] + share * bone[1])
        radius = first + (last - first) * share
        distance = np.sqrt(dx * dx + dy * dy) / radius
        closer = distance < nearest
        nearest[closer] = distance[closer]
        across[closer] = ((dx * bone[1] - dy * bone[0]) / (np.sqrt(squared) * radius))[closer]
        reach[closer] = before + share[closer] * np.sqrt(squared)
        before += np.sqrt(squared)
    alpha = np.clip((1.0 - nearest) * 0.11 * body.unit / 1.2 + 0.5, 0, 1)
    return _Arm(alpha, across, reach)


def _skin(person: Person, hands: Bools, sleeves: Bools, across: Floats) -> Floats:
    """Colour of the arms, ``(H, W, 3)`` float32: darker towards both rims, lit as the old sleeves were."""
    lab, labels = lab_of(person.rgb), person.labels
    seen = hands if hands.sum() > 60 else (person.face > 0) & (labels == Part.SKIN)
    hand = np.median(lab[seen], 0) if seen.any() else person.skin
    tone = 0.2 * hand + 0.8 * person.skin - np.array([6, 0, 0], np.float32)
    cloth = ((labels == Part.UPPER) & sleeves).astype(np.float32)
    lightness = lab[..., 0]
    median = float(np.median(lightness[cloth > 0])) if cloth.any() else 128.0
    light = np.clip((local_mean(lightness, cloth, 0.09 * person.shoulder_width) - median) * 0.25, -10, 10)
    round_off = 4 * (1 - np.minimum(across**2, 1)) - 26 * np.clip(np.abs(across), 0, 1) ** 3
    grain = np.random.default_rng(2).normal(0, 1, across.shape).astype(np.float32)
    lightness = np.clip(tone[0] + round_off + light + blurred(grain, 1.2) * 4, 0, 255)
    colour = np.dstack([lightness, tone[1] + 1.5 * np.abs(across), np.full(across.shape, tone[2])])
    rgb = cv2.cvtColor(np.clip(colour, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB)
    return cast("Floats", rgb.astype(np.float32))
