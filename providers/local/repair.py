"""What lies behind the old clothes where the new ones do not cover them: background, trousers and skin.

All of it is painted, not known: small areas look right, large ones do not, which ``judging`` minds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import cv2
import numpy as np

from .body import Body
from .imaging import (
    Bools,
    Floats,
    Mask,
    Side,
    blurred,
    dilated,
    eroded,
    filled,
    lab_of,
    over,
    soft,
)
from .parsing import Part
from .person import Person

MARGIN: Final = 40
"""Pixels around a hole that are looked at to fill it."""
FALLBACK: Final = np.array([200, 160, 140], np.float32)
"""RGB, where no skin is seen at all."""


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


def paint_skin(body: Body, picture: Floats, where: Bools, charts: Mapping[Side, tuple[Floats, Floats]]) -> Floats:
    """Bare skin in the person's own tone: carried on smoothly from the skin that is seen around it.

    ``charts`` has, for each arm, how far along and how far across it a pixel lies (``Limb.chart``).
    """
    person = body.person
    seen = _sure_skin(person) & ~where
    near = seen & (dilated(where, int(0.35 * body.unit)) > 0)
    tone = np.median(picture[near if near.sum() > 150 else seen], 0) if seen.any() else FALLBACK
    known = (near if near.sum() > 150 else seen).astype(np.float32)
    # Far from any skin that is seen the fill has nothing to go by but the tone.
    trust = np.clip(blurred(known, 0.10 * body.unit) * 6, 0, 1)[..., None]
    skin = filled(picture, known) * trust + tone * (1 - trust)
    light = np.ones(where.shape, np.float32)
    for distance, across in charts.values():
        on_arm = (np.abs(across) < 1.1) & (distance > 0.12 * body.unit)
        rounded = 1.0 - 0.30 * np.clip(np.abs(across), 0, 1) ** 3
        light = np.where(on_arm, np.minimum(light, rounded), light)
    light = blurred(light, 2.0)
    grain = np.random.default_rng(1).normal(0, 1.3, (*where.shape, 1)).astype(np.float32)
    return over(
        picture, soft(where, 1.2) * (dilated(where, 3) > 0), (skin * light[..., None] + grain).astype(np.float32)
    )


def _sure_skin(person: Person) -> Bools:
    """Skin without what the parsing may have got wrong, and without deep shade and glare."""
    lab, tone = lab_of(person.rgb), person.skin
    alike = (np.abs(lab[..., 1:] - tone[1:]).max(-1) < 18) & (np.abs(lab[..., 0] - tone[0]) < 62)
    return cast("Bools", (eroded(person.labels == Part.SKIN, 5) > 0) & alike & (eroded(1 - person.face, 3) > 0))
