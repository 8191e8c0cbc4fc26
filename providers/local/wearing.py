"""A garment on a body, drawn: what ``wearing_top`` and ``wearing_bottom`` have in common.

Only pixels of the old and the new garment are ever written, so everything else is the photo, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from . import light
from .body import Body
from .figure import Part
from .fitting import Fit
from .garment import Garment
from .imaging import (
    SIDES,
    Bools,
    Floats,
    Layer,
    Mask,
    Picture,
    Point,
    dilated,
    dilated_round,
    length,
    picture_of,
    thick_line,
    window_of,
)

CUFF: Final = 0.1
"""Units: so far beyond its measured end an old sleeve is still looked for."""
TEAR: Final = 0.11
"""Units."""
RIM: Final = 0.03
"""Units around the old garment that hold some of its colour, and at least ``LEAST_RIM`` pixels."""
LEAST_RIM: Final = 5
ROUND_HEM: Final = 0.35
"""Units: how much higher a hem that is cut round ends at the sides."""
COVERED: Final = 0.98
"""Alpha from which nothing below shows through."""
SEEN: Final = 0.004
"""Alpha from which a layer changes the picture: one grey level of 255."""
EDGE: Final = 0.8
"""Pixels of sigma: the softness of an edge between layers."""
FEWEST: Final = 10
"""Pixels: fewer are not worth painting."""


@dataclass(frozen=True, slots=True)
class Worn:
    """A picture, and what is known of how it came about. Areas are shares of the new garment's."""

    picture: Picture
    changed: Bools
    """``(H, W)``: where it may differ from the photo."""
    alpha: Floats
    """``(H, W)`` float32: the new garment as far as it is seen."""
    painted_skin: float
    painted_background: float
    torn: float
    """Area of the dents and slits in the new garment, in squares of the unit."""
    loose: float
    """Area of what hangs together neither with the person nor with the garment, in squares of the unit: a hand without
    an arm, half a bag."""
    in_front: Bools
    """``(H, W)``: head, hair, arms and hands, and what else is kept before the garment."""
    outside: float
    """Share of the new garment that hangs beside the person."""


class Wearing:
    """A garment on a body: what tops and bottoms have in common."""

    def __init__(self, body: Body, garment: Garment, fit: Fit) -> None:
        self.body, self.garment, self.fit = body, garment, fit
        self.unit, self.labels, self.shape = body.unit, body.labels, body.shape
        self.photo: Floats = body.person.rgb.astype(np.float32)
        self.person: Bools = self.labels != Part.BACKGROUND
        self.skin: Bools = self.labels == Part.SKIN
        self.hair: Bools = self.labels == Part.HAIR
        self.depth: Floats = -body.height_map()
        self.charts = body.arm_charts()
        self.old_sleeves = {side: body.sleeve_end(side, self.charts[side]) for side in SIDES}
        """How far along the arms they reach, pixels."""
        self.rim = max(LEAST_RIM, round(RIM * self.unit)) | 1

    def layer(self, part: int, mask: Mask) -> tuple[Layer, Floats]:
        """Colour and alpha of a part of the garment where it is worn; ``mask`` is the part in the garment photo."""
        window, at, where = self.fit.posed.sources(part, self.shape)
        share = self.garment.alpha * dilated_round(mask, 5)
        seen = cv2.remap(share, at[..., 0], at[..., 1], cv2.INTER_LINEAR).astype(np.float32) / 255
        # A small photo enlarged would bring a wide, soft rim along.
        seen = np.clip((seen - 0.5) * max(1.0, self.fit.scale) + 0.5, 0, 1)
        colour, alpha = np.zeros((*self.shape, 3), np.uint8), np.zeros(self.shape, np.float32)
        colour[window] = cv2.remap(
            self.garment.colour, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        alpha[window] = seen * where
        return colour, alpha

    def on_arms(self, width: float) -> Bools:
        """Where an arm lies, up to so many of its half widths from its middle."""
        return np.minimum(*(np.abs(self.charts[side][1]) for side in SIDES)) < width

    def light(self, old: Bools) -> Floats:
        """The light on the old clothes as a factor for the new, ``(H, W)``."""
        return light.shading(self.body.person, old) * light.gain(self.body.person)

    def below_hem(self, alpha: Floats) -> Bools:
        """Below the hem, which may be cut round, so that it ends higher at the sides."""
        cloth = alpha > 0.5
        under = np.cumsum(cloth[::-1], axis=0, dtype=np.int32)[::-1] == 0
        at_sides = under & cloth.any(0) & (self.depth > self.fit.hem - ROUND_HEM * self.unit)
        return cast("Bools", at_sides | (self.depth > self.fit.hem - 0.05 * self.unit))

    def worn(
        self,
        picture: Floats,
        alpha: Floats,
        changed: Bools,
        in_front: Bools,
        *,
        painted_skin: Bools,
        painted_background: Bools,
        torn: float = 0.0,
    ) -> Worn:
        """The picture where it was changed, the photo elsewhere."""
        area = max(1.0, float(alpha.sum()))
        return Worn(
            picture=np.where(changed[..., None], picture_of(picture), self.body.person.rgb),
            changed=changed,
            alpha=alpha,
            painted_skin=float(painted_skin.sum() / area),
            painted_background=float(painted_background.sum() / area),
            torn=torn,
            loose=_loose((alpha > 0.5) | (self.person & ~painted_background)) / self.unit**2,
            in_front=in_front,
            outside=float((alpha * ~self.person).sum() / area),
        )

    def torn(self, alpha: Floats, where: Bools) -> float:
        """Area of the dents and slits there that are narrower than ``TEAR``, in squares of the unit."""
        return float((dents(alpha, TEAR * self.unit) & where).sum() / self.unit**2)


def dents(alpha: Floats, size: float) -> Bools:
    """What of a shape's surroundings a disc of ``size`` pixels across does not reach."""
    solid, dents = (alpha > 0.5).astype(np.uint8), np.zeros(alpha.shape, bool)
    if solid.any():
        across = int(size) | 1
        window, element = window_of(solid, across), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (across, across))
        dents[window] = cv2.morphologyEx(solid[window], cv2.MORPH_CLOSE, element) > solid[window]
    return dents


def _loose(shown: Bools) -> int:
    """Pixels of all pieces but the largest; gaps of a few pixels part nothing."""
    _, pieces = cv2.connectedComponents(dilated(shown, 5), connectivity=8)
    areas = np.bincount(pieces[shown])
    return int(areas.sum() - areas.max()) if len(areas) else 0


def holding(mask: Bools, path: list[Point]) -> Bools:
    """The pieces of the mask that lie on the path, such as a hand, and not cloth of its colour."""
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    width = max(3, 0.3 * length(path[-1] - path[-2]))
    way = thick_line((mask.shape[0], mask.shape[1]), path, width) > 0
    return np.isin(pieces, np.unique(pieces[way & mask])) & mask
