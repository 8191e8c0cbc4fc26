"""Small operations on pictures that every step uses, with the types that OpenCV leaves out.

Pictures are ``(H, W, 3)``, RGB unless said otherwise; masks are ``(H, W)`` uint8 of 0 and 1; points are ``(x, y)`` in
pixels, y down.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Picture: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.uint8]
Bools: TypeAlias = NDArray[np.bool_]
Floats: TypeAlias = NDArray[np.floating[Any]]
Layer: TypeAlias = NDArray[np.uint8] | NDArray[np.floating[Any]]
"""Colours ``(H, W, 3)``, 0 to 255, of either type."""
Point: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = tuple[int, int]
"""Height and width."""

Side: TypeAlias = Literal["left", "right"]
"""Of the image, not of the person."""
Window: TypeAlias = tuple[slice, slice]
"""Rows and columns."""
SIDES: Final[tuple[Side, Side]] = ("left", "right")
OTHER: Final[Mapping[Side, Side]] = {"left": "right", "right": "left"}
OUTWARD: Final[Mapping[Side, int]] = {"left": -1, "right": 1}
"""The sign of x away from the middle."""


WIDE_BLUR: Final = 7.0
"""Pixels of sigma."""
SKIN_BLUR: Final = 2
"""Pixels of sigma: a print's dots are not looked at one by one."""
DARKEST_SKIN: Final = 40
"""Luma, 0 to 255; darker, the colour is noise."""
SKIN_RED, SKIN_BLUE = (135, 180), (85, 130)
"""Cr and Cb of skin of any tone: Chai and Ngan (1999) have 133 to 173 and 77 to 127."""


def shrunk(rgb: Picture, longest: int) -> Picture:
    """The picture with its longer side at most ``longest`` pixels; never enlarged."""
    scale = longest / max(rgb.shape[:2])
    if scale >= 1:
        return rgb
    return cast("Picture", cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def lab_of(rgb: Picture) -> Floats:
    """CIE Lab as OpenCV scales it for 8 bits, all three channels 0 to 255, as float32."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)


def grey_of(rgb: Picture) -> Floats:
    """Luma 0 to 1, ``(H, W)`` float32."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def blurred(values: Floats, sigma: float) -> Floats:
    """Gaussian blur; ``sigma`` in pixels. A wide one is taken at a quarter of the size, where it looks the same."""
    if sigma < WIDE_BLUR:
        return cast("Floats", cv2.GaussianBlur(values, (0, 0), sigma))
    height, width = values.shape[:2]
    small = cv2.resize(values, (max(1, width // 4), max(1, height // 4)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / 4)
    return cast("Floats", cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def soft(mask: Mask | Bools, sigma: float = 1.0) -> Floats:
    """A mask with a feathered edge, float32 0 to 1."""
    return blurred(mask.astype(np.float32), sigma)


def smooth(mask: Mask | Bools, sigma: float) -> Bools:
    """A mask without what is smaller than about ``sigma`` pixels, in both directions."""
    return soft(mask, sigma) > 0.5


def local_mean(values: Floats, weight: Floats, sigma: float) -> Floats:
    """Blur that looks only at where ``weight`` is."""
    return blurred(values * weight, sigma) / (blurred(weight, sigma) + 1e-3)


def eroded(mask: Mask | Bools, size: int) -> Mask:
    """Shrunk by a square of ``size`` pixels."""
    return cast("Mask", cv2.erode(mask.astype(np.uint8), np.ones((size, size), np.uint8)))


def dilated(mask: Mask | Bools, size: int) -> Mask:
    """Grown by a square of ``size`` pixels."""
    return cast("Mask", cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)))


def dilated_round(mask: Mask, size: int) -> Mask:
    """Grown by a disc of ``size`` pixels across."""
    return cast("Mask", cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))))


def distance_to(mask: Mask | Bools) -> Floats:
    """Pixels from each pixel to the nearest one of the mask, float32."""
    return cast("Floats", cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, 5))


def largest(mask: Mask | Bools) -> Mask:
    """The largest connected piece."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 1:
        return mask.astype(np.uint8)
    return cast("Mask", (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8))


def without_holes(mask: Mask) -> Mask:
    """Everything that cannot be reached from outside."""
    height, width = mask.shape
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    cv2.floodFill(framed, np.zeros((height + 4, width + 4), np.uint8), (0, 0), (2,))
    return cast("Mask", (framed[1:-1, 1:-1] != 2).astype(np.uint8))


def guided(guide: Floats, values: Floats, radius: int, eps: float) -> Floats:
    """Edge-aware smoothing: the guided filter of He, Sun and Tang (2010) with a grey guide, both float32."""
    window = (2 * radius + 1, 2 * radius + 1)

    def mean(plane: Floats) -> Floats:
        return cast("Floats", cv2.boxFilter(plane, -1, window))

    mean_guide, mean_values = mean(guide), mean(values)
    covariance = mean(guide * values) - mean_guide * mean_values
    variance = mean(guide * guide) - mean_guide * mean_guide
    slope = covariance / (variance + eps)
    offset = mean_values - slope * mean_guide
    return mean(slope) * guide + mean(offset)


def filled(picture: Floats, known: Floats) -> Floats:
    """Smooth fill of the unknown pixels from the known ones, by a pyramid (push-pull, Gortler et al. 1996).

    ``picture`` is ``(H, W, 3)`` float32; ``known`` its ``(H, W)`` weight, 0 to 1.
    """
    levels: list[tuple[Floats, Floats]] = [(picture * known[..., None], known.astype(np.float32))]
    while min(levels[-1][1].shape) > 2:
        colour, weight = levels[-1]
        levels.append((cast("Floats", cv2.pyrDown(colour)), cast("Floats", cv2.pyrDown(weight))))
    result = levels[-1][0] / np.maximum(levels[-1][1], 1e-4)[..., None]
    for colour, weight in levels[-2::-1]:
        size = (weight.shape[1], weight.shape[0])
        coarse = cast("Floats", cv2.resize(result, size, interpolation=cv2.INTER_LINEAR))
        share = np.clip(weight, 0, 1)[..., None]
        mixed = colour / np.maximum(weight, 1e-3)[..., None] * share + coarse * (1 - share)
        result = np.where(weight[..., None] > 1e-3, mixed, coarse)
    return result


def picture_of(values: Floats) -> Picture:
    """Rounded, because truncation would darken what was only multiplied by one."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def over(below: Layer, alpha: Floats, above: Layer, light: Floats | None = None) -> Floats:
    """``above``, times ``light``, laid on ``below``; ``alpha`` and ``light`` are ``(H, W)``."""
    result = below.astype(np.float32)
    if not alpha.any():
        return result
    window = window_of(alpha > 0, 0)
    part, added = result[window], above[window].astype(np.float32)
    if light is not None:
        added *= light[window][..., None]
    added -= part
    added *= alpha[window][..., None]
    part += added
    return result


def window_around(points: Floats, shape: Shape, margin: float = 1) -> Window:
    """The part of a picture that holds the points ``(N, 2)`` and some pixels around them; never empty."""
    height, width = shape
    left, top = np.clip(np.floor(points.min(0)) - margin, 0, (width - 1, height - 1)).astype(int)
    right, bottom = np.clip(np.ceil(points.max(0)) + margin + 1, (left + 1, top + 1), (width, height)).astype(int)
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def window_of(mask: Mask | Bools, margin: float) -> Window:
    """The part of a picture that holds what the mask has, which must be something, and some pixels around it."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    corners = np.array([[x, y], [x + width - 1, y + height - 1]])
    return window_around(corners, (mask.shape[0], mask.shape[1]), margin)


def polygon(shape: Shape, points: Iterable[Iterable[float]]) -> Mask:
    """The inside of a polygon."""
    mask = np.zeros(shape, np.uint8)
    corners = np.round(np.array([list(point) for point in points])).astype(np.int32)
    cv2.fillPoly(mask, [corners.reshape(-1, 1, 2)], (1,))
    return mask


def disc(shape: Shape, centre: Point, radius: float) -> Mask:
    """A filled circle."""
    mask = np.zeros(shape, np.uint8)
    cv2.circle(mask, (int(centre[0]), int(centre[1])), int(radius), (1,), -1)
    return mask


def thick_line(shape: Shape, points: Iterable[Point], width: float) -> Mask:
    """A line through the points, ``width`` pixels across."""
    mask = np.zeros(shape, np.uint8)
    corners = np.array(list(points)).astype(np.int32)
    cv2.polylines(mask, [corners.reshape(-1, 1, 2)], False, (1,), int(width))
    return mask


@functools.lru_cache(maxsize=4)
def _coordinates(shape: Shape) -> tuple[Floats, Floats]:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def coordinates(shape: Shape) -> tuple[Floats, Floats]:
    """The x and the y of every pixel, ``(H, W)`` float32, read-only."""
    return _coordinates(shape)


def along(shape: Shape, origin: Point, direction: Point) -> Floats:
    """How far each pixel lies from ``origin`` in ``direction``, in pixels if that has length 1; ``(H, W)`` float32."""
    x = (np.arange(shape[1], dtype=np.float32) - np.float32(origin[0])) * np.float32(direction[0])
    y = (np.arange(shape[0], dtype=np.float32) - np.float32(origin[1])) * np.float32(direction[1])
    return cast("Floats", x[None, :] + y[:, None])


def length(vector: Point) -> float:
    """Of a vector, in pixels."""
    return float(np.hypot(vector[0], vector[1]))


def skin_colours(rgb: Picture) -> Bools:
    """Whether each pixel has the colour of skin, ``(H, W)``, in the plane of Cr and Cb."""
    ycc = cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), SKIN_BLUR), cv2.COLOR_RGB2YCrCb)
    luma, red, blue = ycc[..., 0], ycc[..., 1], ycc[..., 2]
    skin = (red >= SKIN_RED[0]) & (red <= SKIN_RED[1]) & (blue >= SKIN_BLUE[0]) & (blue <= SKIN_BLUE[1])
    return np.asarray((luma > DARKEST_SKIN) & skin)
