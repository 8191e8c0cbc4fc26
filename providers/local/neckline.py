"""The front edge of a top's neck opening, found in the flat-lay photo itself.

The silhouette shows only the back of the collar. The front edge is the strongest U- or V-shaped edge below it: dynamic
programming finds the best one of each depth, then the colours on both sides tell which of them is the opening.
Depths are in units of half the neck's width; all other numbers were tuned by eye. Lab is OpenCV's, 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from .imaging import Bools, Floats, Mask, Picture, Point, blurred, lab_of

DEEPEST: Final = 2.3
"""The deepest opening looked for."""
DEPTHS: Final = ((0.12, 0.35), (0.35, 0.7), (0.7, 1.1), (1.1, 1.6), (1.6, DEEPEST))
"""From a boat neck to a deep V: in each of these ranges one edge is tried."""
CREW_DEPTH: Final = 0.62
"""Of the plain crew neck that is assumed where nothing is seen."""
LEAST_CONTRAST: Final = 5
"""Lab (sum of the channels), between the inside of the opening and the front; below, nothing is seen."""
SMALLEST: Final = 10
"""Pixels, of the search window."""
STEEPEST: Final = 9
"""Rows the edge may fall from one column to the next."""
FALL_COST: Final = 0.03
"""Per row; an edge column costs 0 to 1.5."""
TOP_EDGE: Final = 1.5
"""Where the strength of an edge is capped, in units of the window's 90th percentile."""
FORBIDDEN: Final = 9
"""Cost of a pixel where no neckline runs."""
UNREACHABLE: Final = 1e9


@dataclass(frozen=True, slots=True)
class Neckline:
    """The front edge of the neck opening, one point per column of the photo."""

    x: Floats
    """``(N,)`` pixels."""
    y: Floats
    """``(N,)`` pixels."""
    visible: bool
    """False: no edge was seen, and a plain crew neck is assumed."""


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of the photo below the collar; rows and columns count from its corner."""

    top: int
    left: int
    columns: int
    rows: int

    @property
    def radius(self) -> float:
        """Half the neck's width, pixels."""
        return self.columns / 2.0

    @property
    def across(self) -> Floats:
        """``(columns,)``, -1 to 1."""
        return np.linspace(-1, 1, self.columns)

    def slices(self, more_rows: int = 0) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.rows + more_rows), slice(self.left, self.left + self.columns)


@dataclass(frozen=True, slots=True)
class _Edge:
    """The best edge of one range of depths."""

    path: Floats
    """``(columns,)``, its row in each column of the window."""
    contrast: float
    score: float


def find_neckline(rgb: Picture, mask: Mask, neck: tuple[Point, Point]) -> Neckline | None:
    """The front edge between the two ends of the neck; None where the opening is too small to look into."""
    window = _window(mask, neck)
    if window.rows < SMALLEST or window.columns < SMALLEST:
        return None
    edges = _edges(rgb, mask, window)
    if not edges:
        return None
    best = max(edges, key=lambda edge: edge.score)
    visible = best.contrast >= LEAST_CONTRAST
    if visible:
        path = _smoothed(best.path, max(3, int(window.radius / 6)) | 1)
    else:
        path = CREW_DEPTH * window.radius * np.sqrt(np.clip(1 - window.across**2, 0, 1))
    columns = np.arange(window.left, window.left + window.columns, dtype=np.float64)
    return Neckline(columns, path + window.top, visible)


def _window(mask: Mask, neck: tuple[Point, Point]) -> _Window:
    left, right = int(np.ceil(neck[0][0])), int(np.floor(neck[1][0]))
    top = int(min(neck[0][1], neck[1][1]))
    columns = right - left + 1
    return _Window(top, left, columns, min(int(DEEPEST * (columns / 2.0)), len(mask) - top))


def _edges(rgb: Picture, mask: Mask, window: _Window) -> list[_Edge]:
    """The best edge of each range of depths, where there is one with enough cloth on both sides."""
    cost = _cost(_edge_strength(rgb, window), window)
    middle, start = window.columns // 2, int(0.25 * window.radius) + 1
    # Both halves end in the middle column, which so counts twice.
    left, left_falls = _descend(cost[:, : middle + 1], start)
    right, right_falls = _descend(cost[:, middle:][:, ::-1], start)
    total = left + right
    view = window.slices(int(0.5 * window.radius))
    lab = cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB), (0, 0), 2).astype(np.float32)[view]
    cloth = mask[view] > 0
    edges = []
    for shallow, deep in DEPTHS:
        first, last = int(shallow * window.radius), min(window.rows, int(deep * window.radius))
        if last - first < 3:
            continue
        lowest = first + int(np.argmin(total[first:last]))
        path = np.r_[_trace(left_falls, lowest), _trace(right_falls, lowest)[::-1][1:]]
        contrast = _contrast(lab, cloth, path, window.radius)
        if contrast is not None:
            strength = TOP_EDGE - float(total[lowest]) / (window.columns + 1)
            score = 0.6 * strength + min(contrast, 30) / 20 + 0.12 * min(lowest / window.radius, 1.5)
            edges.append(_Edge(path, contrast, score))
    return edges


def _edge_strength(rgb: Picture, window: _Window) -> Floats:
    """How much the colour changes from above to below each pixel, 0 to 1.5; ``(rows, columns)`` float32."""
    lab = blurred(lab_of(rgb), max(1.0, window.radius / 30))
    reach = max(2, int(window.radius / 14))
    padded = cast("Floats", cv2.copyMakeBorder(lab, reach, reach, 0, 0, cv2.BORDER_REPLICATE))
    change = padded[2 * reach :] - padded[: -2 * reach]
    lightness, a, b = change[..., 0], change[..., 1], change[..., 2]
    # The inside of the opening lies in the shade: growing lighter downwards counts more.
    edge = np.abs(lightness) + 0.6 * np.maximum(lightness, 0) + np.abs(a) + np.abs(b)
    edge = edge[window.slices()]
    return np.minimum(edge / (np.percentile(edge, 90) + 1e-6), TOP_EDGE)


def _cost(strength: Floats, window: _Window) -> Floats:
    """What it costs the neckline to run through each pixel, ``(rows, columns)`` float32."""
    across, radius = window.across, window.radius
    row = np.arange(window.rows)[:, None]
    cost = TOP_EDGE - strength
    cost += 0.35 * (row < 0.18 * radius * (1 - across**2))  # there runs the back of the collar
    deepest = (DEEPEST * radius) * np.sqrt(np.clip(1 - np.abs(across), 0, 1)) + 0.15 * radius
    return np.where(row <= deepest, cost, FORBIDDEN)


def _descend(cost: Floats, start: int) -> tuple[Floats, NDArray[np.int32]]:
    """The cheapest ways that never climb, from the first ``start`` rows of the first column to the last column.

    ``cost`` is ``(rows, columns)``. Returns the cost of the way to each row of the last column, ``(rows,)``, and the
    rows that the way to each pixel falls from the column before, ``(rows, columns)``.
    """
    rows, columns = cost.shape
    falls = np.zeros((rows, columns), np.int32)
    energy: Floats = np.full(rows, UNREACHABLE, np.float32)
    energy[:start] = cost[:start, 0]
    for column in range(1, columns):
        ways = np.full((STEEPEST + 1, rows), UNREACHABLE, np.float32)
        for fall in range(STEEPEST + 1):
            ways[fall, fall:] = energy[: rows - fall] + FALL_COST * fall
        falls[:, column] = ways.argmin(0)
        energy = ways.min(0) + cost[:, column]
    return energy, falls


def _trace(falls: NDArray[np.int32], row: int) -> Floats:
    """The cheapest way to this row of the last column: its row in each column, ``(columns,)``."""
    path = np.zeros(falls.shape[1])
    for column in range(falls.shape[1] - 1, -1, -1):
        path[column] = row
        row -= int(falls[row, column])
    return path


def _contrast(lab: Floats, cloth: Bools, path: Floats, radius: float) -> float | None:
    """Lab difference between the cloth above the path and below it; None where there is too little of either."""
    row = np.arange(lab.shape[0])[:, None]
    inside = (row < path - 2) & cloth & (row > 0.06 * radius)
    front = (row > path + 2) & (row < path + 0.45 * radius) & cloth
    if inside.sum() < 20 or front.sum() < 20:
        return None
    return float(np.abs(np.median(lab[inside], 0) - np.median(lab[front], 0)).sum())


def _smoothed(path: Floats, width: int) -> Floats:
    """Moving mean; ``width`` in columns, odd."""
    return np.convolve(np.pad(path, width // 2, mode="edge"), np.ones(width) / width, "valid")
