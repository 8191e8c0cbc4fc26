"""A person wearing another top: warp it, light it, hide what is left of the old one, put head and hands in front."""

from __future__ import annotations

from typing import Final, cast

import cv2
import numpy as np

from . import light, repair
from .body import Body
from .garment import Garment
from .imaging import (
    SIDES,
    Bools,
    Floats,
    Mask,
    Picture,
    Side,
    along,
    blurred,
    dilated,
    dilated_round,
    disc,
    distance_to,
    filled,
    length,
    over,
    picture_of,
    polygon,
    soft,
    thick_line,
)
from .keypoints import Neckline, Top, find_top
from .parsing import Part
from .placing import Placed, PlacedSleeve, place_sleeve, place_torso
from .repair import is_one_of
from .warping import SLEEVE_STIFFNESS, Spline, polygon_layer, premultiplied, spline_of, straight, warped

LARGE_REPAIR: Final = 0.25
"""Background painted, in squares of the shoulder width. In close clothes 0.06 to 0.13, in a space suit 0.97."""
LITTLE_COVERED: Final = 0.55
"""New clothes over old, in pixels."""
ASKEW: Final = 0.88
"""Symmetry (IoU with the mirror image) below which the garment was not laid flat."""
FOLDED: Final = 0.02

LARGE_REPAIR_TEXT: Final = (
    "The old clothes are much wider than the new ones, so the background around them is painted."
)
LITTLE_COVERED_TEXT: Final = (
    "The new garment covers little of the old clothes; a photo in closer clothes works better."
)
ASKEW_TEXT: Final = "The garment does not lie flat and even; a photo of it laid out straight works better."
FOLDED_TEXT: Final = "The garment had to be bent a lot to fit the pose; arms hanging down work better."


def wear_top(body: Body, garment: Garment) -> tuple[Picture, list[str]]:
    """The picture, and plain sentences on what may look wrong. Raise ``ImageUnusable``."""
    return _Fitting(body, garment, find_top(garment.rgb, garment.alpha)).wear()


class _Fitting:
    """One top on one body. ``base`` is what lies below the top, ``colour`` and ``alpha`` are the top itself."""

    def __init__(self, body: Body, garment: Garment, top: Top) -> None:
        self.body, self.garment, self.top = body, garment, top
        self.unit, self.labels = body.unit, body.person.labels
        self.placed: Placed = place_torso(body, top)
        self.old = self.labels == Part.UPPER
        self.base: Floats = body.person.rgb.astype(np.float32)
        self.height = along(body.shape, self.placed.origin, body.up)
        self.depth = along(body.shape, self.placed.origin, body.down)
        self.lateral = along(body.shape, self.placed.origin, body.across) / (0.62 * self.unit)
        self.chin_height = float((body.person.chin - self.placed.origin) @ body.up)
        self.repaired = 0.0
        self.bare_arms: Floats | None = None

    def wear(self) -> tuple[Picture, list[str]]:
        self._warp()
        self._light()
        new = self.alpha > 0.5
        left = self.old & ~new
        self._bare_arms(left, new)
        neck = left & (self._inner_neck() > 0) & (self.height > 0.02 * self.unit)
        left &= ~neck
        left &= ~self._below_hem(left)
        self._grow_or_remove(left, new)
        self._paint_neck(neck)
        return picture_of(self._put_together()), self._doubts(new)

    # Warping

    def _warp(self) -> None:
        """Torso and sleeves go their own ways and share the seam."""
        shape, unit, placed = self.body.shape, self.unit, self.placed
        spline = spline_of(placed.pins)
        box = placed.pins.box(0.3 * unit)
        self.folded = spline.folded
        torso = premultiplied(self.garment.rgb, self.garment.alpha, dilated_round(self.top.body, 9).astype(np.float32))
        self.torso = warped(torso, spline, shape, box) * placed.pins.hull(shape, 0.10 * unit)[..., None]
        self.opening = self._opening(self.top.neckline, spline)
        self.sleeves: dict[Side, tuple[Floats, PlacedSleeve]] = {}
        for side in SIDES:
            sleeve = self.top.halves[side].sleeve
            if sleeve is None:
                continue
            fit = place_sleeve(self.body, self.top, sleeve, side, placed)
            part = premultiplied(
                self.garment.rgb, self.garment.alpha, dilated_round(sleeve.mask, 9).astype(np.float32)
            )
            layer = warped(part, spline_of(fit.pins, SLEEVE_STIFFNESS), shape, fit.pins.box(0.15 * unit))
            self.sleeves[side] = layer * fit.pins.hull(shape, 0.06 * unit)[..., None], fit

    def _opening(self, neckline: Neckline | None, spline: Spline) -> Floats | None:
        """Where the neck shows, ``(H, W)``."""
        if neckline is None:
            return None
        above = self.top.top - 8
        points = [(neckline.x[0], above), *zip(neckline.x, neckline.y, strict=True), (neckline.x[-1], above)]
        layer = polygon_layer(self.top.mask.shape, [np.array(point, np.float64) for point in points])
        return warped(layer, spline, self.body.shape, self.placed.pins.box(0.3 * self.unit))[..., 0]

    # Light

    def _light(self) -> None:
        """Rounded like a cylinder, shaded beside the arms, and lit as the old clothes were."""
        gain = light.gain(self.body.person)
        torso, alpha = straight(self.torso)
        self.torso_alpha = alpha
        colour = torso * ((1 - 0.16 * np.clip(np.abs(self.lateral), 0, 1.15) ** 3) * gain)[..., None]
        self.sleeve_alpha = np.zeros(self.body.shape, np.float32)
        for layer, _ in self.sleeves.values():
            self.sleeve_alpha = np.maximum(self.sleeve_alpha, np.clip(layer[..., 3], 0, 1))
        if self.sleeve_alpha.max() > 0:
            beside = 0.30 * blurred(self.sleeve_alpha, 0.045 * self.unit) * (np.abs(self.lateral) < 1.2)
            below_armpit = np.clip(self.depth / (0.5 * self.unit) - 0.5, 0, 1)
            colour = colour * (1 - beside * below_armpit)[..., None]
        for layer, _ in self.sleeves.values():
            sleeve, share = straight(layer)
            colour = over(colour, share, sleeve * gain)
            alpha = alpha + share - alpha * share
        self.colour = np.clip(colour * light.shading(self.body.person, self.old)[..., None], 0, 255)
        self.alpha = np.clip(alpha, 0, 1)

    # What is left of the old top

    def _bare_arms(self, left: Bools, new: Bools) -> None:
        """Arms that come out of short sleeves, or of none. Takes them out of ``left``."""
        zone = np.zeros(self.body.shape, np.uint8)
        bare_from: dict[Side, float] = {}
        for side in SIDES:
            fit = self.sleeves[side][1] if side in self.sleeves else None
            if fit is None or not fit.is_long:
                bare_from[side] = fit.reach - 0.08 * self.unit if fit else repair.BARE_FROM * self.unit
                arm = [self.body.shoulders[side], self.body.elbows[side], self.body.wrists[side]]
                zone |= thick_line(self.body.shape, arm, int(0.42 * self.unit))
        self.arm_zone = zone > 0
        sleeves = left & self.arm_zone
        if sleeves.any():
            self.base, self.bare_arms = repair.paint_arms(self.body, self.base, sleeves, new, bare_from)
            left &= ~((self.bare_arms > 0.5) | sleeves)

    def _inner_neck(self) -> Mask:
        """From the chin to a little above the shoulders, where there is surely nothing but neck."""
        chin, across, unit = self.body.person.chin, self.body.across, self.unit
        foot = self.placed.origin + self.body.up * 0.1 * unit
        corners = [
            chin - across * 0.17 * unit,
            chin + across * 0.17 * unit,
            foot + across * 0.19 * unit,
            foot - across * 0.19 * unit,
        ]
        return polygon(self.body.shape, corners)

    def _neck(self) -> Mask:
        """Neck and the skin below it down to the chest."""
        chin, across, unit = self.body.person.chin, self.body.across, self.unit
        chest = self.placed.origin - self.body.up * 0.25 * unit
        corners = [
            chin - across * 0.19 * unit,
            chin + across * 0.19 * unit,
            self.body.neck["right"] - across * 0.02 * unit,
            chest + across * 0.27 * unit,
            chest - across * 0.27 * unit,
            self.body.neck["left"] + across * 0.02 * unit,
        ]
        return polygon(self.body.shape, corners)

    def _below_hem(self, left: Bools) -> Bools:
        """Old clothes under the new hem become trousers; returns where."""
        reach = int(0.25 * self.unit)
        under = cv2.dilate(
            (self.torso_alpha > 0.5).astype(np.uint8), np.ones((reach, 1), np.uint8), anchor=(0, reach - 1)
        )
        below = self.depth > self.placed.hem - 2
        beside_sleeve = (dilated(self.sleeve_alpha > 0.5, 5) > 0) & ~below
        near = (self.depth > 0.8 * self.placed.hem) & (under > 0)
        where = left & (below | near) & ~self.arm_zone & ~beside_sleeve
        if where.sum() > 20:
            self.base = repair.extend_trousers(self.base, where, self.labels == Part.LOWER)
        return where

    def _grow_or_remove(self, left: Bools, new: Bools) -> None:
        """The garment reaches thin rims; wider remains become background."""
        near = distance_to(new) < 0.085 * self.unit
        grow = left & near & (self.height < self.chin_height - 0.12 * self.unit)
        if grow.any():
            fill = filled(self.colour, (self.alpha > 0.95).astype(np.float32))
            self.colour = over(fill, self.alpha, self.colour)
            self.alpha = np.maximum(self.alpha, np.minimum(soft(grow, 0.8), self.body.person.alpha))
        gone = left & ~grow & ~((self.height > -0.02 * self.unit) & (np.abs(self.lateral) < 0.75))
        gone |= (dilated(self.old, 5) > 0) & (self.labels == Part.BACKGROUND)
        if gone.sum() > 10:
            hole = dilated(gone, 3) * ~is_one_of(self.labels, Part.SKIN, Part.HAIR)
            person = ~is_one_of(self.labels, Part.BACKGROUND, Part.LOWER)
            self.base = repair.fill_background(self.base, hole, person)
            self.repaired = float(gone.sum() / self.unit**2)

    def _paint_neck(self, left: Bools) -> None:
        neck, skin = self._neck(), self.labels == Part.SKIN
        self.neck = neck > 0
        opening = self.opening > 0.5 if self.opening is not None else np.zeros(self.body.shape, bool)
        rim = dilated(self.old, 7) > 0
        low = self.height < self.chin_height - 0.06 * self.unit
        where = (opening & rim & self._may_show_skin()) | left | (rim & (self._inner_neck() > 0) & skin & low)
        if where.any():
            self.base = repair.paint_neck(self.body.person, self.base, where, neck)

    def _may_show_skin(self) -> Bools:
        """The neck, and the whole person behind a neckline that was not seen but assumed."""
        assumed = self.top.neckline is not None and not self.top.neckline.visible
        return cast("Bools", self.neck | (assumed & (self.labels != Part.BACKGROUND)))

    # Putting it together

    def _put_together(self) -> Floats:
        shadow = light.shadow_below(self.alpha, self.unit) * self.body.person.alpha
        base = self.base * (1 - 0.28 * np.clip(shadow, 0, 1) * (1 - self.alpha))[..., None]
        picture = over(base, self.alpha, self.colour)
        if self.opening is not None:
            shown = (self.opening > 0.5) & (is_one_of(self.labels, Part.SKIN, Part.HAIR) | self._may_show_skin())
            collar = ((self.opening < 0.5) & (self.alpha > 0.5)).astype(np.float32)
            shade = 1 - 0.22 * blurred(collar, 0.035 * self.unit)
            picture = over(picture, soft(shown, 1.0), base * shade[..., None])
        picture = over(picture, soft(self._in_front(), 0.9), base)
        if self.bare_arms is not None:
            covered = np.zeros(self.body.shape, bool)
            for layer, _ in self.sleeves.values():
                covered |= np.clip(layer[..., 3], 0, 1) > 0.5
            picture = over(picture, self.bare_arms * (1 - soft(covered, 0.8)), base)
        return picture

    def _in_front(self) -> Bools:
        """Head, long hair and hands."""
        skin, hair = self.labels == Part.SKIN, self.labels == Part.HAIR
        front = (skin | hair) & (self.height > self.chin_height - 0.02 * self.unit)
        front |= hair & (self.height > -0.9 * self.unit)
        for side in SIDES:
            wrist, finger = self.body.wrists[side], self.body.fingers[side]
            hand = finger - wrist
            around = disc(self.body.shape, (wrist + finger) / 2 + hand * 0.35, int(0.26 * self.unit)) > 0
            beyond_wrist = along(self.body.shape, wrist, hand) > -0.15 * length(hand) ** 2
            front |= around & skin & beyond_wrist
        return cast("Bools", front)

    def _doubts(self, new: Bools) -> list[str]:
        covered = (new & (self.labels != Part.BACKGROUND)).sum() / max(1, self.old.sum())
        findings = [
            (self.repaired > LARGE_REPAIR, LARGE_REPAIR_TEXT),
            (covered < LITTLE_COVERED, LITTLE_COVERED_TEXT),
            (self.top.symmetry < ASKEW, ASKEW_TEXT),
            (self.folded > FOLDED, FOLDED_TEXT),
        ]
        return [text for found, text in findings if found]
