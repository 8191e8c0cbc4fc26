"""Trousers, shorts or a skirt on a body.

From below to above: the photo, in which the old garment's visible rest is painted over with background or skin; the
new garment; what is worn above the waist, arms and hair.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np

from . import light, repair
from .body import Body
from .bottom import Bottom
from .figure import Part
from .fitting import Fit
from .garment import Garment
from .imaging import SIDES, Bools, Floats, Layer, dilated, disc, over, smooth, soft, thick_line
from .wearing import COVERED, CUFF, EDGE, FEWEST, SEEN, Wearing, Worn, holding

SEAM: Final = 7
"""Pixels: so near to what is worn above the waist there is no background behind a person."""
ABOVE_CROTCH: Final = 0.15
"""Units below the hip joints: down to there a bottom is of one piece."""


def wear_bottom(body: Body, garment: Garment, bottom: Bottom, fit: Fit) -> Worn:
    """Put trousers or a skirt on; what is worn above the waist stays in front."""
    return _WearingBottom(body, garment, bottom, fit).wear()


class _WearingBottom(Wearing):
    def __init__(self, body: Body, garment: Garment, bottom: Bottom, fit: Fit) -> None:
        super().__init__(body, garment, fit)
        self.bottom = bottom
        self.legs = {side: body.legs[side].chart(self.shape) for side in SIDES}
        self.old, self.upper = self._old()
        self.hands = self._hands()
        self.arms = self._arms()

    def wear(self) -> Worn:
        colour: Layer = np.zeros_like(self.photo)
        alpha: Floats = np.zeros(self.shape, np.float32)
        for part in np.unique(self.bottom.parts[self.bottom.parts > 0]):
            cloth, share = self.layer(int(part), (self.bottom.parts == part).astype(np.uint8))
            colour, alpha = over(colour, share, cloth), np.maximum(alpha, share)
        front = self._front()
        alpha = (alpha * (1 - soft(front, EDGE))).astype(np.float32)
        base, skin, background = self._base(alpha, front)
        hem = light.shadow_below(soft(self.upper, 1), self.unit, 0.025, 0.025)
        picture = over(base, alpha, colour, self.light(self.old) * (1 - 0.25 * hem))
        changed = (alpha > SEEN) | skin | background
        changed &= ~(front & (self.hair | self.arms))  # the photo's, whatever the masks say
        hips = (self.depth > self.fit.waist) & (self.depth < self.body.torso_length + ABOVE_CROTCH * self.unit)
        return self.worn(
            picture,
            alpha,
            changed,
            front,
            painted_skin=skin,
            painted_background=background,
            torn=self.torn(alpha, hips & self.person & ~front),
        )

    def _old(self) -> tuple[Bools, Bools]:
        """What is taken off, and what is worn above it and stays.

        The new waistband lies before everything but arms and sleeves: tops are tucked in, and dresses cut at it.
        """
        clothes = (self.labels == Part.UPPER) | (self.labels == Part.LOWER)
        old = clothes & (self.depth > self.fit.waist) & ~(self.sleeves & (self.labels == Part.UPPER))
        return old, clothes & ~old

    @functools.cached_property
    def sleeves(self) -> Bools:
        """Where the sleeves are that stay."""
        sleeves = np.zeros(self.shape, bool)
        for side in SIDES:
            distance, across = self.charts[side]
            sleeves |= (np.abs(across) < 1.3) & (distance < self.old_sleeves[side] + CUFF * self.unit)
        return sleeves

    def _hands(self) -> Bools:
        """Where arms and hands may be."""
        hands = np.zeros(self.shape, bool)
        for side in SIDES:
            distance, across = self.charts[side]
            hands |= (np.abs(across) < 1.5) & (distance > 0)
            hands |= disc(self.shape, self.body.wrists[side], 0.5 * self.unit) > 0
        return hands

    def _arms(self) -> Bools:
        """Bare skin above the waist, and arms and hands: what hangs together with them, and no leg."""
        on_leg = np.minimum(*(np.abs(self.legs[side][1]) for side in SIDES)) < 1.15
        leg = on_leg & (self.depth > self.body.torso_length + 0.8 * self.unit)
        near = self.skin & self.hands & ~leg
        held = np.zeros(self.shape, bool)
        for side in SIDES:
            held |= holding(near, [self.body.elbows[side], self.body.wrists[side], self.body.fingers[side]])
        return held | (self.skin & (self.depth < self.fit.waist))

    def _front(self) -> Bools:
        """The upper clothes, arms and hair. A long hem falls over the shoes."""
        return smooth(self.upper | self.hair | self.arms, 1.2)

    def _base(self, alpha: Floats, front: Bools) -> tuple[Floats, Bools, Bools]:
        """The photo without the rest of the old clothes, and where skin and background were painted."""
        bare = self.skin & ~self.arms & ~self.below_hem(alpha)
        rest = ((dilated(self.old, self.rim) > 0) & ~front | bare) & (alpha < COVERED)
        legs = np.zeros(self.shape, bool)
        for side, (distance, across) in self.legs.items():
            legs |= (np.abs(across) < 0.95) & (distance > self.fit.hem - self.body.torso_length - 0.1 * self.unit)
            foot = [self.body.ankles[side], self.body.toes[side]]
            legs |= thick_line(self.shape, foot, self.body.legs[side].half_widths[-1]) > 0
        skin = rest & self.old & smooth(legs, 2.0) & (self.depth > self.fit.hem - 0.1 * self.unit)
        sleeve = self.sleeves & self.person & (alpha < 0.5) & ~self.old
        background = rest & ~skin & ~(self.skin & ~bare) & ~sleeve & ~(self.hands & self.skin)
        background &= self.labels != Part.SHOES
        background &= ~(self.person & (dilated(self.upper, SEAM) > 0))  # under the soft edge of the waistband
        base = self.photo
        if background.sum() > FEWEST:
            base = repair.fill_background(base, background.astype(np.uint8), self.person)
        if skin.sum() > FEWEST:
            base = repair.paint_skin(self.body, base, skin, self.legs)
        return base, skin, background
