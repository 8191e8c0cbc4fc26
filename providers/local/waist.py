"""The line between upper and lower clothes, from side to side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from .figure import Figure, Part, Regions
from .imaging import Floats, Mask, blurred

ARM_PRIOR: Final = 2.0
"""What lower clothes cost on the arms."""
STEP: Final = 2
"""Rows by which the waist may rise or fall from one column to the next, at parsing size."""
BEND: Final = 10.0
"""Energy that such a row costs."""
TILTS: Final = tuple(np.linspace(-0.12, 0.12, 7).tolist())
"""Rows to a column by which a waist may slope as a whole."""
REACH: Final = 0.08
"""Units by which it may differ from a straight line. Where both clothes are of one cloth the colours tell nothing."""
FORBIDDEN: Final = 1e6
LOOKS_LOWER: Final = 1.5
"""Energy by which what hangs below the waist beside an arm is lower clothes rather than a sleeve."""
TEXTURES_APART: Final = 8.0
"""Lab lightness: where the local deviations of upper and lower clothes differ by so much, one has a pattern."""


def straighten_waist(
    labels: Mask, energies: Mapping[Part, Floats], lightness: Floats, figure: Figure, regions: Regions
) -> None:
    """One line between upper and lower clothes, from side to side: the cheapest by dynamic programming. In place.

    Pixel by pixel a pattern of the one is taken for the other wherever their colours meet.
    """
    if Part.LOWER not in energies:
        return
    trunk = ((labels == Part.UPPER) | (labels == Part.LOWER)) & (regions.arms == 0)
    top, bottom = figure.shoulders[1] + 0.3 * figure.unit, figure.hips[1] + 0.7 * figure.unit
    rows = slice(int(np.clip(top, 0, labels.shape[0] - 2)), int(np.clip(bottom, 2, labels.shape[0])))
    middle = np.abs(np.arange(labels.shape[1]) - (figure.shoulders[0] + figure.hips[0]) / 2) < 0.75 * figure.unit
    columns = np.flatnonzero(trunk[rows].any(0) & middle)
    if len(columns) < 5 or rows.stop - rows.start < 5:
        return
    preferred = np.clip(energies[Part.UPPER] - energies[Part.LOWER], -8, 8) + _by_texture(lightness, regions)
    gain = np.where(trunk[rows][:, columns], preferred[rows][:, columns], 0)
    # What it costs to begin the lower clothes at each row: everything above is upper.
    cost = np.concatenate([np.zeros((1, len(columns))), np.cumsum(gain, 0)])
    path = _cheapest(_near_a_line(cost, columns, REACH * figure.unit))
    row_numbers = np.arange(rows.start, rows.stop)[:, None]
    part = np.where(row_numbers < rows.start + path[None], Part.UPPER, Part.LOWER)
    window = labels[rows][:, columns]
    labels[rows.start : rows.stop, columns] = np.where(trunk[rows][:, columns], part, window)
    waist = np.interp(np.arange(labels.shape[1]), columns, rows.start + path)
    _clear_below(waist, labels, preferred + ARM_PRIOR * (regions.arms > 0))


def _clear_below(waist: Floats, labels: Mask, preferred: Floats) -> None:
    """Give upper pieces that hang below the waist to the lower clothes where they look like them. In place.

    ``preferred`` is how much each pixel speaks for the lower clothes.
    """
    below = np.arange(len(labels))[:, None] >= waist
    count, pieces = cv2.connectedComponents(((labels == Part.UPPER) & below).astype(np.uint8), connectivity=4)
    for index in range(1, count):
        piece = pieces == index
        if preferred[piece].mean() > LOOKS_LOWER:
            labels[piece] = Part.LOWER


def _by_texture(lightness: Floats, regions: Regions) -> Floats:
    """How much the texture speaks for the lower clothes, where it tells them from the upper ones."""
    mean = blurred(lightness, 4.0)
    texture = np.sqrt(np.maximum(blurred(lightness * lightness, 4.0) - mean * mean, 0))
    chest, thighs = texture[regions.chest > 0], texture[regions.thighs > 0]
    if not len(chest) or not len(thighs):
        return np.zeros_like(lightness)
    above, below = float(np.median(chest)), float(np.median(thighs))
    if abs(above - below) < TEXTURES_APART:
        return np.zeros_like(lightness)
    return np.clip((np.abs(texture - above) - np.abs(texture - below)) / 3, -6, 6)


def _near_a_line(cost: Floats, columns: NDArray[np.intp], reach: float) -> Floats:
    """The cost, forbidding what lies further than ``reach`` from the cheapest straight line."""
    rows, across = np.arange(len(cost)), np.arange(len(columns))
    lines = []
    for tilt in TILTS:
        offset = np.rint(tilt * (columns - columns.mean())).astype(np.intp)
        total = cost[np.clip(rows[:, None] + offset, 0, len(cost) - 1), across].sum(1)
        lines.append((float(total.min()), int(total.argmin()) + offset))
    line = min(lines, key=lambda each: each[0])[1]
    return np.where(np.abs(rows[:, None] - np.clip(line, 0, len(cost) - 1)) <= reach, cost, cost + FORBIDDEN)


def _cheapest(cost: Floats) -> NDArray[np.intp]:
    """The row of the cheapest path in each column, from the first column to the last."""
    count = cost.shape[1]
    total, back = cost[:, 0].copy(), np.zeros(cost.shape, np.intp)
    rows = np.arange(len(total))
    for column in range(1, count):
        best, origin = total.copy(), rows.copy()
        for step in (*range(-STEP, 0), *range(1, STEP + 1)):
            moved = np.full_like(total, np.inf)
            source = rows - step
            inside = (source >= 0) & (source < len(total))
            moved[inside] = total[source[inside]] + BEND * abs(step)
            better = moved < best
            best[better], origin[better] = moved[better], source[better]
        back[:, column] = origin
        total = best + cost[:, column]
    path = np.zeros(count, np.intp)
    path[-1] = int(np.argmin(total))
    for column in range(count - 1, 0, -1):
        path[column - 1] = back[path[column], column]
    return path
