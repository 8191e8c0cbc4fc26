"""Garment picture -> person picture: thin-plate splines (Bookstein 1989) that do not fold.

"Source" is the garment photo, "target" the person photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

import cv2
import numpy as np

from .imaging import Bools, Floats, Mask, Picture, Point, Shape, dilated_round, filled, soft

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

STIFFNESS: Final = 1e-3
"""Regularisation of a spline that passes near its pins rather than through them."""
SLEEVE_STIFFNESS: Final = 3e-3
MOST_FOLDED: Final = 0.01
"""Share of a spline's cells that may fold before it is made stiffer."""
STEP: Final = 6
"""Pixels between the points at which a spline is evaluated; between them it is linear."""
SOLID: Final = 0.9
"""Alpha above which a pixel shows the garment's own colour and none of the ground's."""


@dataclass(slots=True)
class Pins:
    """Pairs of points that belong together."""

    source: list[Point] = field(default_factory=list)
    target: list[Point] = field(default_factory=list)

    def add(self, source: Sequence[float] | Point, target: Point) -> None:
        self.source.append(np.asarray(source, np.float64))
        self.target.append(target)

    def box(self, margin: float) -> Box:
        """Around the targets."""
        points = np.array(self.target)
        (left, top), (right, bottom) = points.min(0) - margin, points.max(0) + margin
        return left, top, right, bottom

    def hull(self, shape: Shape, margin: float) -> Floats:
        """The convex hull of the targets with a soft edge: beyond it a spline only guesses. ``(H, W)``, 0 to 1."""
        mask = np.zeros(shape, np.uint8)
        corners = np.round(np.array(self.target)).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(corners), (1,))
        return soft(dilated_round(mask, int(margin) * 2 + 1), 1.0)


@dataclass(frozen=True, slots=True)
class Spline:
    """Carries target points to source points."""

    weights: Floats
    """``(N + 3, 2)`` float64."""
    nodes: Floats
    """``(N, 2)`` float64, the targets around 0 with deviation 1."""
    centre: Point
    deviation: float
    folded: float = 0.0
    """Share of its cells that fold, 0 to 1."""

    def __call__(self, points: Floats) -> Floats:
        """``(M, 2)`` to ``(M, 2)``, pixels."""
        at = (points - self.centre) / self.deviation
        count = len(self.nodes)
        return cast("Floats", _kernel(at, self.nodes) @ self.weights[:count] + _affine(at) @ self.weights[count:])

    def map(self, left: int, top: int, right: int, bottom: int) -> Floats:
        """The source point of every target pixel of a box, ``(bottom - top, right - left, 2)`` float32."""
        xs, ys = np.arange(left, right + STEP, STEP), np.arange(top, bottom + STEP, STEP)
        coarse = self(np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.float64))
        coarse = coarse.reshape(len(ys), len(xs), 2).astype(np.float32)
        x, y = np.meshgrid(
            np.arange(right - left, dtype=np.float32) / STEP, np.arange(bottom - top, dtype=np.float32) / STEP
        )
        return cast("Floats", cv2.remap(coarse, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def spline_of(pins: Pins, stiffness: float = STIFFNESS) -> Spline:
    """A spline without the pins that nearly coincide, made stiffer until it does not fold."""
    source, target = _distinct(np.array(pins.source), np.array(pins.target))
    grid, inside = _cells(target)
    for _ in range(6):
        spline = _fit(source, target, stiffness)
        mapped = spline(grid.reshape(-1, 2)).reshape(grid.shape)
        across, down = np.gradient(mapped, axis=1), np.gradient(mapped, axis=0)
        area = across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0]
        folded = float((area[inside] <= 0.08 * np.median(area[inside])).mean())
        if folded < MOST_FOLDED:
            break
        stiffness *= 5
    return Spline(spline.weights, spline.nodes, spline.centre, spline.deviation, folded)


def premultiplied(rgb: Picture, alpha: Floats, part: Floats) -> Floats:
    """``(H, W, 4)`` float32, of the part of the garment only.

    The garment's colour is spread outwards first, so that its edge does not bring the old ground along.
    """
    solid = alpha > SOLID
    colour = np.where(
        solid[..., None], rgb.astype(np.float32), filled(rgb.astype(np.float32), solid.astype(np.float32))
    )
    share = alpha * part
    return np.dstack([colour * share[..., None], share]).astype(np.float32)


def straight(layer: Floats) -> tuple[Floats, Floats]:
    """Colour ``(H, W, 3)`` and alpha ``(H, W)`` of a premultiplied layer."""
    return layer[..., :3] / np.maximum(layer[..., 3:], 1e-3), np.clip(layer[..., 3], 0, 1)


def warped(source: Floats, spline: Spline, shape: Shape, box: Box) -> Floats:
    """``source`` carried into a picture of ``shape``, nothing outside of ``box``; float32, as many channels."""
    result = np.zeros((*shape, source.shape[2]), np.float32)
    left, top = max(0, int(box[0])), max(0, int(box[1]))
    right, bottom = min(shape[1], int(box[2])), min(shape[0], int(box[3]))
    if right > left and bottom > top:
        at = spline.map(left, top, right, bottom)
        result[top:bottom, left:right] = cv2.remap(
            source, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
    return result


def polygon_layer(shape: Shape, corners: Sequence[Point]) -> Floats:
    """The inside of a polygon as a layer of two equal channels, which is the least that can be warped alike."""
    mask: Mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(corners)).astype(np.int32).reshape(-1, 1, 2)], (1,))
    return np.dstack([mask.astype(np.float32)] * 2)


def _kernel(points: Floats, nodes: Floats) -> Floats:
    squared = ((points[:, None] - nodes[None]) ** 2).sum(-1)
    return np.where(squared > 0, squared * np.log(squared + 1e-12), 0)


def _affine(points: Floats) -> Floats:
    return cast("Floats", np.c_[np.ones(len(points)), points])


def _fit(source: Floats, target: Floats, stiffness: float) -> Spline:
    centre, deviation = target.mean(0), float(target.std()) + 1e-9
    nodes = (target - centre) / deviation
    count = len(nodes)
    system, wanted = np.zeros((count + 3, count + 3)), np.zeros((count + 3, 2))
    system[:count, :count] = _kernel(nodes, nodes) + np.eye(count) * stiffness * count * 0.05
    system[:count, count:] = _affine(nodes)
    system[count:, :count] = _affine(nodes).T
    wanted[:count] = source
    return Spline(np.linalg.solve(system, wanted), nodes, centre, deviation)


def _distinct(source: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Without the pins that lie within 8 pixels of another in the garment photo, or 5 on the person."""
    kept: list[int] = []
    for i in range(len(source)):
        apart_in_target = np.hypot(*(target[kept] - target[i]).T) > 5
        apart_in_source = np.hypot(*(source[kept] - source[i]).T) > 8
        if (apart_in_target & apart_in_source).all():
            kept.append(i)
    return source[kept], target[kept]


def _cells(target: Floats) -> tuple[Floats, Bools]:
    """A grid over the targets, ``(28, 28, 2)``, and which of its points lie within their hull."""
    (left, top), (right, bottom) = target.min(0) - 4, target.max(0) + 4
    grid = np.stack(np.meshgrid(np.linspace(left, right, 28), np.linspace(top, bottom, 28)), -1)
    hull = cv2.convexHull(target.astype(np.float32))
    inside = [cv2.pointPolygonTest(hull, (float(x), float(y)), False) >= 0 for x, y in grid.reshape(-1, 2)]
    return grid, np.array(inside).reshape(grid.shape[:2])
