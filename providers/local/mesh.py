"""A garment as a sheet of triangles that bends with the body and stretches as little as it can.

The sheet is moved by pins and otherwise kept as rigid as possible: Sorkine and Alexa, "As-Rigid-As-Possible Surface
Modeling" (2007), in the plane. A print keeps its proportions because every triangle wants to keep its shape; nothing
folds as long as the pins are sane, and whether it did can be read off the triangles.

"Rest" is the garment photo at the size at which it will be worn, "posed" the person photo; both in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from .imaging import Bools, Floats, Mask, Point, Shape, Window, dilated, window_around

Triangles: TypeAlias = NDArray[np.int32]

CELLS: Final = 30
"""Cells along the longer side of the garment. Half as many bend visibly in steps, twice as many look no different."""
ROUNDS: Final = 24
"""Of fitting rotations, then positions; later ones move nothing by a pixel."""
EDGE: Final = 1.0
"""Weight of an edge of the sheet; that of a pin is given with it."""


@dataclass(slots=True)
class Pins:
    """Places of the garment that are wanted at places of the person, and how much."""

    rest: list[Point] = field(default_factory=list)
    posed: list[Point] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)

    def add(self, rest: Point, posed: Point, *, weight: float = 1.0, part: int) -> None:
        self.rest.append(np.asarray(rest, np.float64))
        self.posed.append(np.asarray(posed, np.float64))
        self.weights.append(weight)
        self.parts.append(part)


@dataclass(frozen=True, slots=True)
class Sheet:
    """The triangles of a garment before it is worn."""

    rest: Floats
    """``(N, 2)`` float64, pixels of the garment photo."""
    triangles: Triangles
    """``(T, 3)``, indices into ``rest``."""
    parts: NDArray[np.int32]
    """``(T,)``: the part of the garment that a triangle belongs to."""


def sheet_of(parts: Mask, seams: Mapping[int, tuple[Point, Point]], torso: int) -> Sheet:
    """Cover the parts with triangles.

    ``parts`` is ``(H, W)`` uint8, 0 where there is no garment. Each part is a sheet of its own, and is sewn to the
    ``torso`` along its seam only: a sleeve that lies against the body does not stick to it.
    """
    ys, xs = np.where(parts > 0)
    left, right, top, bottom = xs.min() - 2.0, xs.max() + 2.0, ys.min() - 2.0, ys.max() + 2.0
    step = max(right - left, bottom - top) / CELLS
    columns, rows = int(np.ceil((right - left) / step)), int(np.ceil((bottom - top) / step))
    grid = np.stack(np.meshgrid(left + np.arange(columns + 1) * step, top + np.arange(rows + 1) * step), -1)
    sewn = {
        part: distance_to_segment(grid.reshape(-1, 2), *seam).reshape(grid.shape[:2]) < 0.75 * step
        for part, seam in seams.items()
    }
    nodes: dict[tuple[int, int, int], int] = {}
    points: list[Point] = []
    triangles: list[tuple[int, int, int]] = []
    owners: list[int] = []

    def node(column: int, row: int, part: int) -> int:
        key = (column, row, torso if part != torso and sewn[part][row, column] else part)
        if key not in nodes:
            nodes[key] = len(points)
            points.append(grid[row, column])
        return nodes[key]

    for part in sorted(int(value) for value in np.unique(parts) if value):
        # Two pixels more than the part, so that its own soft edge lies on the sheet.
        covered = _cells(dilated(parts == part, 5), left, top, step, columns, rows)
        for row, column in zip(*np.where(covered), strict=True):
            corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
            a, b, c, d = (node(x, y, part) for x, y in corners)
            # Diagonals in turn, so that the sheet is as stiff one way as the other.
            halves = ((a, b, c), (a, c, d)) if (row + column) % 2 else ((a, b, d), (b, c, d))
            triangles += halves
            owners += [part, part]
    return Sheet(np.array(points), np.array(triangles, np.int32), np.array(owners, np.int32))


def _cells(mask: Mask, left: float, top: float, step: float, columns: int, rows: int) -> Bools:
    """Which cells hold some of the mask, ``(rows, columns)``."""
    height, width = mask.shape
    first_rows = np.clip(np.ceil(top + np.arange(rows) * step), 0, height - 1).astype(int)
    first_columns = np.clip(np.ceil(left + np.arange(columns) * step), 0, width - 1).astype(int)
    by_row = np.maximum.reduceat(mask, first_rows, axis=0)
    return np.maximum.reduceat(by_row, first_columns, axis=1) > 0


def distance_to_segment(points: Floats, start: Point, end: Point) -> Floats:
    """Of each of the points ``(N, 2)``, pixels."""
    bone = end - start
    share = np.clip((points - start) @ bone / (bone @ bone + 1e-9), 0, 1)
    nearest = start + share[:, None] * bone
    return np.asarray(np.hypot(*(nearest - points).T))


@dataclass(frozen=True, slots=True)
class Posed:
    """A sheet on the body."""

    sheet: Sheet
    rest: Floats
    """``(N, 2)`` float64: the sheet at the size at which it is worn."""
    points: Floats
    """``(N, 2)`` float64, pixels of the person photo."""

    def stretch(self) -> Floats:
        """``(T, 2)``: the larger and the smaller factor by which each triangle became longer."""
        return np.linalg.svd(self._jacobians(), compute_uv=False)

    def distortion(self) -> Floats:
        """``(T,)``: how many times longer each triangle became one way than the other, against the garment photo."""
        longer, shorter = np.linalg.svd(
            _edges(self.points, self.sheet) @ np.linalg.inv(_edges(self.sheet.rest, self.sheet)), compute_uv=False
        ).T
        return np.asarray(longer / np.maximum(shorter, 1e-3))

    def folded(self) -> Bools:
        """``(T,)``: which triangles lie on their back."""
        return np.asarray(np.linalg.det(self._jacobians()) <= 0)

    def _jacobians(self) -> Floats:
        rest, posed = _edges(self.rest, self.sheet), _edges(self.points, self.sheet)
        return posed @ np.linalg.inv(rest)

    def sources(self, part: int, shape: Shape) -> tuple[Window, Floats, Bools]:
        """The window of the picture that this part lies in; which pixel of the garment photo each pixel of the window
        shows, ``(H, W, 2)`` float32; and where there is one."""
        triangles = self.sheet.triangles[self.sheet.parts == part]
        posed, photo = self.points[triangles], self.sheet.rest[triangles]
        window = window_around(posed.reshape(-1, 2), shape)
        left, top = window[1].start, window[0].start
        index = np.full((window[0].stop - top, window[1].stop - left), -1, np.int32)
        for number, corners in enumerate(np.round((posed - (left, top)) * 16).astype(np.int32)):
            cv2.fillConvexPoly(index, corners, (number,), cv2.LINE_8, 4)
        where = index >= 0
        ys, xs = np.where(where)
        affine = _homogeneous(photo) @ np.linalg.inv(_homogeneous(posed - (left, top)) + np.eye(3) * 1e-9)
        chosen = affine.astype(np.float32)[index[where], :2]
        at = np.full((*index.shape, 2), -9.0, np.float32)
        at[where] = chosen[:, :, 0] * xs[:, None] + chosen[:, :, 1] * ys[:, None] + chosen[:, :, 2]
        return window, at, where


def pose(sheet: Sheet, rest: Floats, pins: Pins, start: Floats) -> Posed:
    """Move the sheet to its pins.

    ``rest`` is ``(N, 2)``, the shape that it keeps as far as it can; ``start`` is ``(N, 2)``, a first guess.
    """
    first, second = _neighbours(sheet.triangles)
    count = len(rest)
    system = np.zeros((count, count))
    np.add.at(system, (first, first), EDGE)
    np.add.at(system, (first, second), -EDGE)
    holds, wanted = _pinned(sheet, pins)
    system += holds.T @ holds
    inverse = np.linalg.inv(system + np.eye(count) * 1e-9)
    pulled = holds.T @ wanted
    edges = rest[first] - rest[second]
    points = start.copy()
    for _ in range(ROUNDS):
        turned = _turned(edges, points[first] - points[second], first, count)
        pushed = np.zeros((count, 2))
        # Half of each end's rotation, as in equation 8 of the paper.
        np.add.at(pushed, first, EDGE * 0.5 * turned)
        np.add.at(pushed, second, -EDGE * 0.5 * turned)
        points = inverse @ (pushed + pulled)
    return Posed(sheet, rest, points)


def _turned(rest: Floats, posed: Floats, first: Triangles, count: int) -> Floats:
    """The rest edges, each turned as the neighbourhood of its first end is; ``(E, 2)``."""
    cos, sin = np.zeros(count), np.zeros(count)
    np.add.at(cos, first, (rest * posed).sum(1))
    np.add.at(sin, first, rest[:, 0] * posed[:, 1] - rest[:, 1] * posed[:, 0])
    size = np.hypot(cos, sin) + 1e-12
    cos, sin = cos[first] / size[first], sin[first] / size[first]
    return np.stack([cos * rest[:, 0] - sin * rest[:, 1], sin * rest[:, 0] + cos * rest[:, 1]], 1)


def _neighbours(triangles: Triangles) -> tuple[Triangles, Triangles]:
    """Both ends of every edge, in both directions."""
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    edges = np.unique(np.sort(edges, 1), axis=0)
    edges = np.concatenate([edges, edges[:, ::-1]])
    return edges[:, 0], edges[:, 1]


def _pinned(sheet: Sheet, pins: Pins) -> tuple[Floats, Floats]:
    """Rows of weighted barycentric coordinates ``(P, N)`` and where they are wanted, ``(P, 2)``."""
    rows, wanted = np.zeros((len(pins.rest), len(sheet.rest))), np.zeros((len(pins.rest), 2))
    for index, (rest, posed, weight, part) in enumerate(
        zip(pins.rest, pins.posed, pins.weights, pins.parts, strict=True)
    ):
        mine = np.flatnonzero(sheet.parts == part)
        corners = sheet.rest[sheet.triangles[mine]]
        shares = np.linalg.solve(_homogeneous(corners), np.array([*rest, 1.0])[:, None])[..., 0]
        nearest = int(np.argmax(shares.min(1)))  # outside of the sheet: carried on from the nearest triangle
        strength = float(np.sqrt(weight))
        rows[index, sheet.triangles[mine[nearest]]] = strength * shares[nearest]
        wanted[index] = strength * posed
    return rows, wanted


def _homogeneous(corners: Floats) -> Floats:
    """``(T, 3, 2)`` to ``(T, 3, 3)``: a column ``(x, y, 1)`` per corner."""
    return np.concatenate([corners, np.ones((*corners.shape[:2], 1))], 2).transpose(0, 2, 1)


def _edges(points: Floats, sheet: Sheet) -> Floats:
    """Two edges of each triangle as columns, ``(T, 2, 2)``."""
    corners = points[sheet.triangles]
    return np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], 2)
