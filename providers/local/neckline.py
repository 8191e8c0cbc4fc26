"""The front edge of a top's neck opening, found in the photo of the garment.

The outline shows only the back of the collar. The front edge lies below it: of a family of symmetric curves, from a
boat neck to a deep V, the one along which inside and outside differ in the same way all along. A pattern has strong
edges too, but not such ones. Lengths are in radii, halves of the neck's width, where nothing else is said; Lab is
OpenCV's, 0 to 255 per channel. The numbers were tuned by eye on the tops of catalogue photos.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np

from .imaging import Floats, Mask, Picture, Point, blurred, lab_of, length

DEPTHS: Final = tuple(np.linspace(0.10, 2.0, 32))
"""Deeper necklines were not seen on a photo of a garment alone: they fall shut."""
EXPONENTS: Final = (1.0, 1.8, 3.0)
"""Of the curve: a V, a round and a nearly square neck."""
INSETS: Final = (0.0, 0.1)
"""How far the front edge begins inside of the collar's end, which is a ribbing's width."""
INSET_FALL: Final = 0.5
"""So far below the collar's end the front edge begins, over how far inside."""
CLOTH_BEHIND: Final = 0.08
"""At least so much of the back is seen above the middle of the front edge; or it is the upper edge of the back."""
POINTS: Final = 41
"""Along a curve."""
NEAR_OUTLINE: Final = 3
"""Points at both ends of a curve that are left out: there it runs along the outline."""
BESIDE_CURVE: Final = 0.05
"""How far inside and outside of the curve the colours are compared,"""
BESIDE_CURVE_PIXELS: Final = 2.0
"""but at least so many pixels, because the edge is soft."""
NOISE: Final = 0.02
"""Sigma of the blur before that, at least one pixel: it takes away the weave, not the edge."""
ON_CLOTH: Final = 0.97
"""Share of the points beside a curve that must lie on the garment."""
LEAST_CONTRAST: Final = 9.0
"""Lab; below it nothing is taken for an edge."""
AGREEING: Final = 0.35
"""Of the median difference: a point with so much of it differs in the same way."""
GOOD_ENOUGH: Final = 0.62
"""Of the best score: the shallowest curve with so much is taken, as an opening too small is hardly noticed and one
too large cuts into the print."""
AS_SHALLOW: Final = 0.12
"""Curves whose depths differ by less are as shallow as each other; of those the best one is taken."""
BESIDE: Final = (1.05, 1.5)
"""From the middle: where an edge that is seen below the neck as well is that of a stripe,"""
LIKE: Final = 0.5
"""if so much of its difference is found there,"""
SEEN_BESIDE: Final = 0.25
"""and so much of the way lies on the garment."""
SMALLEST: Final = 10
"""Pixels of the radius."""

INNER, OUTER = -1, 1
"""Sides of a curve: above it the back is seen, below it the front."""


@dataclass(frozen=True, slots=True)
class Neckline:
    """The front edge of the neck opening, from left to right."""

    x: Floats
    """``(N,)`` pixels."""
    y: Floats
    """``(N,)`` pixels."""
    depth: float
    """Of its lowest point below its ends, pixels."""


@dataclass(frozen=True, slots=True)
class _Collar:
    """The two ends of the upper edge, in pixels."""

    left: Point
    right: Point

    @property
    def radius(self) -> float:
        """Half the neck's width, pixels."""
        return length(self.right - self.left) / 2

    @property
    def middle(self) -> Point:
        return (self.left + self.right) / 2

    @property
    def beside(self) -> float:
        """Pixels from a curve to where its inside and outside are compared."""
        return max(BESIDE_CURVE_PIXELS, BESIDE_CURVE * self.radius)


@dataclass(frozen=True, slots=True)
class _Curve:
    """A front edge that may be."""

    x: Floats
    y: Floats
    depth: float
    """Pixels."""

    @classmethod
    def between(cls, collar: _Collar, depth: float, exponent: float, inset: float) -> _Curve:
        """The curve that hangs between the ends of the collar, as of ``DEPTHS``, ``EXPONENTS`` and ``INSETS``."""
        (middle_x, middle_y), radius = collar.middle, collar.radius
        across = np.linspace(-1, 1, POINTS)
        x = middle_x + across * radius * (1 - inset)
        fall = depth * radius * (1 - np.abs(across) ** exponent)
        y = middle_y + inset * INSET_FALL * radius + (collar.right[1] - collar.left[1]) / 2 * across + fall
        return cls(x, y, depth * radius)

    def beside(self, side: int, distance: float) -> tuple[Floats, Floats]:
        """x and y of the points so many pixels off the curve, square to it; ``INNER`` or ``OUTER``."""
        slope = np.gradient(self.y, self.x)
        size = np.hypot(1, slope)
        return self.x - side * slope / size * distance, self.y + side * distance / size


def find_neckline(rgb: Picture, mask: Mask, ends: tuple[Point, Point]) -> Neckline | None:
    """The front edge between the two ends of the collar; None where no opening is seen.

    ``rgb`` is ``(H, W, 3)``, ``mask`` the garment, ``(H, W)`` of 0 and 1; ``ends`` are the left and the right one, in
    pixels.
    """
    collar = _Collar(*ends)
    if collar.radius < SMALLEST:
        return None
    lab = blurred(lab_of(rgb), max(1.0, NOISE * collar.radius))
    curves = (
        _Curve.between(collar, float(depth), exponent, inset)
        for inset, exponent, depth in itertools.product(INSETS, EXPONENTS, DEPTHS)
    )
    scores = [(curve, score) for curve in curves if (score := _score(curve, collar, lab, mask)) is not None]
    best = max((score for _, score in scores), default=0.0)
    if best < LEAST_CONTRAST:
        return None
    shallow, _ = min(
        (each for each in scores if each[1] > max(LEAST_CONTRAST, GOOD_ENOUGH * best)),
        key=lambda each: (round(each[0].depth / (AS_SHALLOW * collar.radius)), -each[1]),
    )
    return Neckline(shallow.x, shallow.y, shallow.depth)


def _score(curve: _Curve, collar: _Collar, lab: Floats, mask: Mask) -> float | None:
    """How much, in Lab, and how evenly inside and outside differ along it; None where it is no edge on the garment."""
    inner, outer = curve.beside(INNER, collar.beside), curve.beside(OUTER, collar.beside)
    core = slice(NEAR_OUTLINE, POINTS - NEAR_OUTLINE)
    middle_third = slice(POINTS // 3, POINTS - POINTS // 3)
    behind = inner[0][middle_third], inner[1][middle_third] - CLOTH_BEHIND * collar.radius
    if _on(mask, outer[0][core], outer[1][core]) < ON_CLOTH or _on(mask, *behind) < ON_CLOTH:
        return None
    difference = (_at(lab, *inner) - _at(lab, *outer))[core]
    median = np.median(difference, 0)
    if _goes_on(lab, mask, collar, float(curve.y.max()), median):
        return None
    contrast = float(np.linalg.norm(median))
    agreeing = (difference @ median > AGREEING * contrast * contrast).mean() if contrast else 0.0
    return contrast * float(agreeing) ** 2


def _goes_on(lab: Floats, mask: Mask, collar: _Collar, lowest: float, difference: Floats) -> bool:
    """Whether the same edge runs on to both sides of the neck, at the height of its lowest point: a stripe.

    ``difference`` is that of inside and outside, ``(3,)`` Lab; ``lowest`` the y of the point.
    """
    centre = collar.middle[0]
    beyond = collar.radius * np.linspace(*BESIDE, POINTS)
    above, below = np.full(POINTS, lowest - collar.beside), np.full(POINTS, lowest + collar.beside)
    for x in (centre - beyond, centre + beyond):
        seen = (_at(mask, x, above) > 0) & (_at(mask, x, below) > 0)
        if seen.sum() < POINTS * SEEN_BESIDE:
            return False
        there = np.median((_at(lab, x, above) - _at(lab, x, below))[seen], 0)
        if there @ difference < LIKE * float(difference @ difference):
            return False
    return True


def _at(values: Floats | Mask, x: Floats, y: Floats) -> Floats:
    """The values at the points, rounded to pixels and moved into the picture, as float32."""
    columns = np.clip(np.rint(x), 0, values.shape[1] - 1).astype(int)
    rows = np.clip(np.rint(y), 0, values.shape[0] - 1).astype(int)
    return np.asarray(values[rows, columns], np.float32)


def _on(mask: Mask, x: Floats, y: Floats) -> float:
    """The share of the points that lie on the mask."""
    return float((_at(mask, x, y) > 0).mean())
