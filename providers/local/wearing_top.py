"""A top or a dress on a body.

From below to above: the photo, in which the old garment's visible rest is painted over with whatever was behind it
(background, skin, the other garment); the new body; arms; the new sleeves; head, hair and hands.
"""

from __future__ import annotations

import functools
from typing import Final, cast

import cv2
import numpy as np

from . import repair
from .body import NECK, Body
from .figure import Part
from .fitting import LONG, WAIST, Fit
from .garment import Garment
from .imaging import (
    SIDES,
    Bools,
    Floats,
    Layer,
    Mask,
    Side,
    along,
    dilated,
    disc,
    filled,
    over,
    polygon,
    smooth,
    soft,
    thick_line,
    window_of,
)
from .top import SLEEVE_PARTS, TORSO, Top
from .wearing import COVERED, CUFF, EDGE, FEWEST, SEEN, Wearing, Worn, dents, holding

ROUND_SHOULDER: Final = 0.45
"""Units along an arm in which it is rounder than a sleeve, which lies straight there."""
EMERGES: Final = (0.30, 0.60)
"""Units along an arm: where it begins, and ends, to come out from beside the trunk."""
GUSSET: Final = 0.09
"""Units: half the width of a gap between body and sleeve that is filled with cloth."""
LONGEST_OVER_HIPS: Final = 0.8
"""Units that an old top hung down over the lower garment at most."""
GAP_UNDER_HEM: Final = 0.16
"""Units; a gap between the new hem and the old waistband up to here is filled with the lower garment, a larger one
with skin."""
ARM_REACH: Final = 1.5
"""Half widths of an arm from its middle: up to there what is seen of it may stand out."""
OUTER_REACH: Final = 2.4
"""As many on the outer side of a sleeve, where nothing but the arm can be."""
TRUNK_SIDE: Final = 0.62
"""Units from the spine to the side of the trunk, where"""
TRUNK_SHADE: Final = 0.14
"""of the light is lost; it falls off with the third power, which looks round."""
SLEEVE_SHADE: Final = 0.16
"""As much for a sleeve."""


def wear_top(body: Body, garment: Garment, top: Top, fit: Fit, *, dress: bool) -> Worn:
    """Put it on. A ``dress`` hides what was worn below the waist, too."""
    return _WearingTop(body, garment, top, fit, dress=dress).wear()


class _WearingTop(Wearing):
    def __init__(self, body: Body, garment: Garment, top: Top, fit: Fit, *, dress: bool) -> None:
        super().__init__(body, garment, fit)
        self.top, self.dress = top, dress

    def wear(self) -> Worn:
        torso, torso_alpha = self._layer(TORSO)
        sleeves = {side: self._layer(SLEEVE_PARTS[side]) for side in SIDES if side in self.fit.sleeve_ends}
        old = self._old()
        torso, torso_alpha = self._closed(torso, torso_alpha, sleeves, old)
        arms, on_arm = self._arms(old)
        front = self.front
        alpha = torso_alpha * (1 - soft(arms, EDGE))
        for _, share in sleeves.values():
            alpha = np.maximum(alpha, share)
        alpha = alpha * (1 - soft(front, EDGE) * front)
        base, painted = self._base(old, alpha, on_arm)
        shade = self.light(self.labels == Part.UPPER)
        picture = over(base, torso_alpha, torso, shade * self._round_body())
        bare = arms & ~front
        picture = over(picture, soft(bare, EDGE) * (dilated(bare, 3) > 0), base)
        for side, (cloth, share) in sleeves.items():
            share = share * (1 - torso_alpha * (1 - soft(self._before(side), 1.0)))
            picture = over(picture, share, cloth, shade * self._round_sleeve(side))
        shown = front & ~(old & ~(self.skin | self.hair))
        picture = over(picture, soft(shown, EDGE), self.photo)
        changed = (alpha > SEEN) | painted["any"]
        changed &= ~front | old  # head, hair and hands are the photo's, whatever the masks say
        return self.worn(
            picture,
            alpha,
            changed,
            front | arms,
            painted_skin=painted["skin"],
            painted_background=painted["background"],
            torn=self.torn(alpha, self._breast() & ~arms),
        )

    # The new garment

    def _layer(self, part: int) -> tuple[Layer, Floats]:
        """Colour and alpha of a part of the garment where it is worn."""
        mine = (self.top.parts == part).astype(np.uint8)
        if part == TORSO and self.top.neckline is not None:
            mine &= ~(self._opening() > 0)
        return self.layer(part, mine)

    def _opening(self) -> Mask:
        """What of the garment photo shows the inside of the back, ``(H, W)``."""
        line = self.top.neckline
        if line is None:
            return np.zeros_like(self.top.parts)
        above = self.top.top - 8
        corners = [(line.x[0], above), *zip(line.x, line.y, strict=True), (line.x[-1], above)]
        return polygon((self.top.parts.shape[0], self.top.parts.shape[1]), corners)

    def _closed(
        self, torso: Layer, alpha: Floats, sleeves: dict[Side, tuple[Layer, Floats]], old: Bools
    ) -> tuple[Layer, Floats]:
        """The body with the gaps filled that open at the armpits when arms are raised: there is more cloth in a sleeve
        than its photo shows."""
        colour: Layer = torso
        union = alpha
        for cloth, share in sleeves.values():
            colour, union = over(colour, share, cloth), np.maximum(union, share)
        gaps = dents(union, 2 * GUSSET * self.unit) & self.person & (self.depth > 0) & (self.depth < self.fit.hem)
        gaps &= old | self.hidden_skin
        if gaps.sum() < FEWEST:
            return torso, alpha
        window, share = window_of(gaps, int(0.5 * self.unit)), soft(gaps, 1.0)
        cloth = torso.astype(np.float32)
        cloth[window] = filled(colour[window].astype(np.float32), (union[window] > 0.95).astype(np.float32))
        return over(torso, np.where(alpha > 0.95, 0, np.clip(share * 2, 0, 1)), cloth), np.maximum(alpha, share)

    def _round_body(self) -> Floats:
        """How light falls off to the sides of the trunk, ``(H, W)``."""
        lateral = along(self.shape, self.body.shoulder_middle, self.body.across) / (TRUNK_SIDE * self.unit)
        return cast("Floats", 1 - TRUNK_SHADE * np.clip(np.abs(lateral), 0, 1.15) ** 3)

    def _round_sleeve(self, side: Side) -> Floats:
        """How light falls off to the sides of a sleeve, ``(H, W)``."""
        return cast("Floats", 1 - SLEEVE_SHADE * np.clip(np.abs(self.charts[side][1]) / 1.25, 0, 1) ** 3)

    # The person

    def _old(self) -> Bools:
        """The garment that is taken off."""
        old = self.labels == Part.UPPER
        if self.body.one_piece() and not self.dress:
            # Of a dress the skirt stays: what hangs below the new hem was never a top.
            old &= (self.depth < self.fit.hem) | self.on_arms(1.3)
        if self.dress:
            old |= (self.labels == Part.LOWER) & ((self.depth < self.fit.hem) | self.body.one_piece())
        return cast("Bools", old)

    def _arms(self, old: Bools) -> tuple[Bools, dict[Side, Bools]]:
        """Bare arms in front of the body of the garment, as far as no sleeve hides them; and whole arms by side."""
        shown = np.zeros(self.shape, bool)
        whole: dict[Side, Bools] = {}
        for side in SIDES:
            distance, across = self.charts[side]
            # Of an arm that was bare, old clothes in its place are the trunk's.
            whole[side] = (np.abs(across) < 1.0) & (distance < self.old_sleeves[side] + CUFF * self.unit)
            before = self._before(side)
            below = distance > self.fit.sleeve_ends.get(side, 0.0) - 0.02 * self.unit
            shown |= before & (across < ARM_REACH) & self.skin & below
            shown |= before & whole[side] & old & below
            if self.old_sleeves[side] > LONG * self.body.arms[side].length:
                # A long sleeve that is taken off ended on the hand, maybe beyond a new one.
                wrist, hand = self.body.wrists[side], self.body.fingers[side] - self.body.wrists[side]
                new_is_long = side in self.fit.sleeve_ends and self.fit.long_sleeves
                start = wrist + hand * (0.15 if new_is_long else 0.0)
                back = thick_line(self.shape, [start, wrist + hand * 0.7], 0.18 * self.unit) > 0
                whole[side] |= back
                shown |= back & old
        return smooth(shown, 3.0), whole

    def _before(self, side: Side) -> Bools:
        """Where an arm lies before the trunk: at the armpit it comes out from beside it."""
        distance, across = self.charts[side]
        emerged = np.clip((distance - EMERGES[0] * self.unit) / ((EMERGES[1] - EMERGES[0]) * self.unit), 0, 1)
        return cast("Bools", (across > 0.4 - 1.3 * emerged) & (emerged > 0))

    @functools.cached_property
    def front(self) -> Bools:
        """Head, hair and hands."""
        chin = float((self.body.person.chin - self.body.shoulder_middle) @ -self.body.down)
        front = (self.skin | self.hair) & (self.depth < 0.03 * self.unit - chin)
        front |= self.hair
        # Where a sleeve ended on a hand there is some of its colour on the skin.
        clean = self.skin & (dilated(self.labels == Part.UPPER, self.rim) == 0)
        for side in SIDES:
            wrist, finger = self.body.wrists[side], self.body.fingers[side]
            hand = finger - wrist
            beyond = along(self.shape, wrist, hand) > -0.1 * float(hand @ hand)
            near = clean & beyond & (disc(self.shape, wrist, 0.55 * self.unit) > 0)
            front |= holding(near, [wrist, finger])
        return front

    # What is painted

    def _base(self, old: Bools, alpha: Floats, arms: dict[Side, Bools]) -> tuple[Floats, dict[str, Bools]]:
        """The photo without the rest of the old garment."""
        keep = self.front & ~old
        rest = (dilated(old, self.rim) > 0) & ~keep & (alpha < COVERED)
        rest |= (dilated(self.hidden_skin & self.skin & ~old, self.rim) > 0) & ~keep & (alpha < COVERED)
        neck = self._neck_zone()
        skin = rest & (old | (self.skin & ~self.hidden_skin)) & (self._skin_zone(arms) | neck)
        below = rest & self.below_hem(alpha) & self.person & ~skin
        cloth = below & self._under_hem(old)
        skin |= below & ~cloth & old & self._midriff()
        background = rest & ~skin & ~cloth & (old | ~self.person | self.skin) & ~(neck & self.person)
        background &= ~(self.skin & ~old & ~self.hidden_skin)
        result = self.photo
        lower = self.labels == Part.LOWER
        if background.sum() > FEWEST:
            result = repair.fill_background(result, background.astype(np.uint8), self.person)
        if cloth.sum() > FEWEST:
            result = repair.extend_trousers(result, cloth, lower)
        if skin.sum() > FEWEST:
            result = repair.paint_skin(self.body, result, skin, self.charts)
        return result, {"skin": skin, "cloth": cloth, "background": background, "any": skin | cloth | background}

    @functools.cached_property
    def hidden_skin(self) -> Bools:
        """Arms that a sleeve was drawn over: what of them looks out beside it is background."""
        hidden = np.zeros(self.shape, bool)
        for side, end in self.fit.sleeve_ends.items():
            distance, across = self.charts[side]
            if not self.top.bare_shoulders:
                shoulder = (across > 0.2) & (distance < min(end, ROUND_SHOULDER * self.unit))
                hidden |= shoulder & (across < ARM_REACH)
            if self.fit.long_sleeves or end > 0.5 * self.body.arms[side].length:
                under = (distance > EMERGES[0] * self.unit) & (distance < end - 0.03 * self.unit)
                hidden |= under & (across > -ARM_REACH) & (across < OUTER_REACH)
        return hidden & ~self.front

    def _skin_zone(self, arms: dict[Side, Bools]) -> Bools:
        """Where a body would be seen if nothing were worn above the waist: neck, shoulders, chest and arms."""
        body, unit = self.body, self.unit
        chest = polygon(
            self.shape,
            [
                body.person.chin - body.across * 0.2 * unit,
                body.necks["left"],
                body.tips["left"],
                body.armpit("left"),
                body.at(self.fit.hem, -0.2 * unit),
                body.at(self.fit.hem, 0.2 * unit),
                body.armpit("right"),
                body.tips["right"],
                body.necks["right"],
                body.person.chin + body.across * 0.2 * unit,
            ],
        )
        zone = chest > 0
        for side, whole in arms.items():
            # Under a sleeve no arm is seen: what stands out beside it is background.
            distance = self.charts[side][0]
            bare = distance > self.fit.sleeve_ends.get(side, 0.0) - 0.1 * unit
            if self.top.bare_shoulders:
                bare |= distance < EMERGES[0] * unit
            zone |= whole & bare
        if self.fit.sleeve_ends and not self.top.bare_shoulders:
            # Shoulders are covered: what stood out above them was the old garment's.
            lateral = np.abs(along(self.shape, body.shoulder_middle, body.across))
            zone &= ~((self.depth < 0.05 * unit) & (lateral > max(self._neck_reach(), 1.1 * NECK * unit)))
        if self.dress and body.one_piece():
            for side in SIDES:
                distance, across = body.legs[side].chart(self.shape)
                zone |= (np.abs(across) < 0.95) & (distance > self.fit.hem - body.torso_length - 0.1 * unit)
        return smooth(zone, 0.03 * unit)

    def _neck_zone(self) -> Bools:
        """Below the chin there is never background, whatever the parsing took its shade for."""
        body, unit = self.body, self.unit
        chin = body.person.chin + body.up * 0.22 * unit
        wide = body.across * 0.22 * unit
        return polygon(self.shape, [chin - wide, chin + wide, body.necks["right"], body.necks["left"]]) > 0

    def _neck_reach(self) -> float:
        """How far from the spine the new garment begins on the shoulders, pixels."""
        return max(abs(float(half.neck[0]) - self.top.centre) for half in self.top.halves.values()) * self.fit.scale

    def _breast(self) -> Bools:
        """The trunk between its sides, from the armpits to the new hem."""
        lateral = np.abs(along(self.shape, self.body.shoulder_middle, self.body.across))
        width = 0.75 * min(self.body.trunk(side, 0.8 * self.unit) for side in SIDES)
        return (lateral < width) & (self.depth > 0.3 * self.unit) & (self.depth < self.fit.hem - 0.05 * self.unit)

    def _midriff(self) -> Bools:
        lateral = np.abs(along(self.shape, self.body.shoulder_middle, self.body.across))
        width = max(self.body.trunk(side, self.fit.hem + 0.1 * self.unit) for side in SIDES)
        return lateral < width

    def _under_hem(self, old: Bools) -> Bools:
        """Where the lower garment reaches up to the new hem: it begins at the waist, whatever hung over it."""
        lower = (self.labels == Part.LOWER).astype(np.uint8)

        def above(units: float) -> Bools:
            return cv2.dilate(lower, np.ones((int(units * self.unit) + 1, 1), np.uint8), anchor=(0, 0)) > 0

        near = above(GAP_UNDER_HEM + 0.35)
        rows = self.depth[old & near]
        gap = float(np.percentile(rows, 98) - self.fit.hem) if len(rows) else 0.0
        hips = self.depth > self.body.torso_length - WAIST * self.unit
        return (near & (gap < (GAP_UNDER_HEM + 0.2) * self.unit)) | (hips & above(LONGEST_OVER_HIPS))
