"""A sleeve of a garment laid flat: how long it is, and how wide from the armhole to the cuff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from .imaging import OUTWARD, Floats, Mask, Point, Side, length
from .silhouette import NO_TOP, not_found

STATIONS: Final = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)
"""Shares of the length of a sleeve at which its width is measured."""


@dataclass(frozen=True, slots=True)
class Sleeve:
    """A sleeve lying flat."""

    sections: Floats
    """``(8, 2, 2)`` float64: the outer and the inner point at the armhole and at each of ``STATIONS``."""
    length: float
    """Pixels along its axis, from the middle of the armhole."""
    mask: Mask
    cuff: tuple[Point, Point] | None
    """The outer and the inner end of a short sleeve; None for a long one."""


def long_sleeve(mask: Mask, side: Side, shoulder: Point, armpit: Point) -> Sleeve:
    """Cut across at each station: first along the armhole, further out more and more square to the axis."""
    start = (shoulder + armpit) / 2
    axis, sleeve_length = _axis(mask, start)
    outer = np.array([axis[1], -axis[0]])
    if outer[0] * OUTWARD[side] < 0:
        outer = -outer
    armhole = (shoulder - armpit) / (length(shoulder - armpit) + 1e-6)
    sections = [(shoulder, armpit)]
    for station in STATIONS:
        middle = start + axis * (min(station, 0.985) * sleeve_length)
        square = min(1.0, station / 0.4)
        across = armhole * (1 - square) + outer * square
        across = across / length(across)
        reach = 0.6 * sleeve_length + 60
        sections.append((_last_inside(mask, middle, across, reach), _last_inside(mask, middle, -across, reach)))
    return Sleeve(np.array(sections), sleeve_length, mask, None)


def short_sleeve(mask: Mask, side: Side, shoulder: Point, armpit: Point) -> Sleeve:
    """Straight seams from shoulder and armpit to both ends of the cuff."""
    _, sleeve_length = _axis(mask, (shoulder + armpit) / 2)
    ys, xs = np.where(mask)
    hull = cv2.convexHull(np.c_[xs, ys].astype(np.int32))[:, 0].astype(np.float64)
    outer = hull[np.argmax(hull[:, 0] * OUTWARD[side])]
    seam = (outer - shoulder) / (length(outer - shoulder) + 1e-6)
    inwards = np.array([-seam[1], seam[0]])
    if inwards @ (armpit - shoulder) < 0:
        inwards = -inwards
    along_seam = (hull - shoulder) @ seam
    far = hull[along_seam > 0.45 * along_seam.max()]
    if not len(far):
        raise not_found(NO_TOP, f"the end of the {side} sleeve")
    inner = far[np.argmax((far - shoulder) @ inwards)]
    sections = [(shoulder * (1 - at) + outer * at, armpit * (1 - at) + inner * at) for at in (0.0, *STATIONS)]
    return Sleeve(np.array(sections), sleeve_length, mask, (outer, inner))


def _axis(mask: Mask, start: Point) -> tuple[Point, float]:
    """The unit vector from the armhole to the sleeve's end, and the length in pixels."""
    ys, xs = np.where(mask)
    pixels = np.c_[xs, ys].astype(np.float64)
    distance = np.hypot(*(pixels - start).T)
    tip = pixels[distance > np.percentile(distance, 93)] if len(pixels) else pixels
    if not len(tip) or length(tip.mean(0) - start) < 1:
        raise not_found(NO_TOP, "a whole sleeve")
    reach = tip.mean(0) - start
    axis = reach / (length(reach) + 1e-6)
    return axis, float(np.percentile((pixels - start) @ axis, 99.3))


def _last_inside(mask: Mask, start: Point, direction: Point, reach: float) -> Point:
    """The last point of the mask in this direction; gaps of up to 6 pixels are stepped over."""
    steps = np.arange(0.0, reach, 1.0)
    xs = np.rint(start[0] + direction[0] * steps).astype(int)
    ys = np.rint(start[1] + direction[1] * steps).astype(int)
    within = (xs >= 0) & (xs < mask.shape[1]) & (ys >= 0) & (ys < mask.shape[0])
    within[within] = mask[ys[within], xs[within]] > 0
    hits = np.r_[0, np.flatnonzero(within)]
    torn = np.flatnonzero(np.diff(hits) > 7)
    return start + direction * float(hits[torn[0]] if len(torn) else hits[-1])
