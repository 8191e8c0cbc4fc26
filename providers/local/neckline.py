"""The front edge of a top's neck opening, found in the photo of the garment.

The outline shows only the back of the collar. The front edge lies below it: of a family of symmetric curves, from a
boat neck to a deep V, the one along which inside and outside differ in the same way all along. A pattern has strong
edges too, but not such ones. Depths are in units of half the neck's width; Lab is OpenCV's, 0 to 255 per channel.
"""

from __future__ import annotations

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
CLOTH_BEHIND: Final = 0.08
"""At least so much of the back is seen above the middle of the front edge; or it is the upper edge of the back."""
POINTS: Final = 41
"""Along a curve."""
LEAST_CONTRAST: Final = 9.0
"""Lab; below it nothing is taken for an edge."""
GOOD_ENOUGH: Final = 0.62
"""Of the best score: the shallowest curve with so much is taken, as an opening too small is hardly noticed and one
too large cuts into the print."""
BESIDE: Final = (1.05, 1.5)
"""Half widths from the middle: where an edge that is seen below the neck as well is that of a stripe,"""
LIKE: Final = 0.5
"""if so much of its difference is found there."""
SMALLEST: Final = 10
"""Pixels of half the neck's width."""


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
class _Curve:
    x: Floats
    y: Floats
    depth: float
    score: float


def find_neckline(rgb: Picture, mask: Mask, ends: tuple[Point, Point]) -> Neckline | None:
    """The front edge between the two ends of the collar; None where no opening is seen."""
    left, right = ends
    radius = length(right - left) / 2
    if radius < SMALLEST:
        return None
    lab = blurred(lab_of(rgb), max(1.0, 0.02 * radius))
    curves = [
        curve
        for inset in INSETS
        for exponent in EXPONENTS
        for depth in DEPTHS
        if (curve := _curve(lab, mask, left, right, float(depth), exponent, inset)) is not None
    ]
    best = max((curve.score for curve in curves), default=0.0)
    if best < LEAST_CONTRAST:
        return None
    shallow = min(
        (curve for curve in curves if curve.score > max(LEAST_CONTRAST, GOOD_ENOUGH * best)),
        key=lambda curve: (round(curve.depth / (0.12 * radius)), -curve.score),
    )
    return Neckline(shallow.x, shallow.y, shallow.depth)


def _curve(
    lab: Floats, mask: Mask, left: Point, right: Point, depth: float, exponent: float, inset: float
) -> _Curve | None:
    """A curve and how much inside and outside differ along it; None where it leaves the garment."""
    radius, middle = length(right - left) / 2, (left + right) / 2
    across = np.linspace(-1, 1, POINTS)
    x = middle[0] + across * radius * (1 - inset)
    fall = depth * radius * (1 - np.abs(across) ** exponent)
    y = middle[1] + inset * 0.5 * radius + (right[1] - left[1]) / 2 * across + fall
    slope = np.gradient(y, x)
    size = np.hypot(1, slope)
    reach = max(2.0, 0.05 * radius)
    inner = x + slope / size * reach, y - reach / size
    outer = x - slope / size * reach, y + reach / size
    core = slice(3, POINTS - 3)  # at its ends the curve runs along the outline
    middle_third = slice(POINTS // 3, POINTS - POINTS // 3)
    cloth_behind = inner[0][middle_third], inner[1][middle_third] - CLOTH_BEHIND * radius
    if _on(mask, outer[0][core], outer[1][core]) < 0.97 or _on(mask, *cloth_behind) < 0.97:
        return None
    difference = (_at(lab, *inner) - _at(lab, *outer))[core]
    mean = np.median(difference, 0)
    contrast = float(np.linalg.norm(mean))
    if _goes_on(lab, mask, middle[0], radius, float(y.max()), reach, mean):
        return None
    agreeing = (difference @ mean > 0.35 * contrast * contrast).mean() if contrast else 0.0
    return _Curve(x, y, depth * radius, contrast * float(agreeing) ** 2)


def _goes_on(
    lab: Floats, mask: Mask, centre: float, radius: float, lowest: float, reach: float, difference: Floats
) -> bool:
    """Whether the same edge runs on to both sides of the neck, at the height of its lowest point: a stripe."""
    beyond = radius * np.linspace(*BESIDE, POINTS)
    for x in (centre - beyond, centre + beyond):
        above, below = np.full(POINTS, lowest - reach), np.full(POINTS, lowest + reach)
        seen = (_at(mask, x, above) > 0) & (_at(mask, x, below) > 0)
        if seen.sum() < POINTS / 4:
            return False
        there = np.median((_at(lab, x, above) - _at(lab, x, below))[seen], 0)
        if there @ difference < LIKE * float(difference @ difference):
            return False
    return True


def _at(values: Floats | Mask, x: Floats, y: Floats) -> Floats:
    columns = np.clip(np.rint(x), 0, values.shape[1] - 1).astype(int)
    rows = np.clip(np.rint(y), 0, values.shape[0] - 1).astype(int)
    return np.asarray(values[rows, columns], np.float32)


def _on(mask: Mask, x: Floats, y: Floats) -> float:
    """The share of the points that lie on the mask."""
    return float((_at(mask, x, y) > 0).mean())
