"""Garment photo -> the garment's mask, its soft edge, and its colours without those of the ground.

The numbers were tuned by eye on about 40 catalogue photos. Lab is OpenCV's, 0 to 255 per channel. Sizes in pixels are
those of the photo shrunk to ``CUT_SIDE``, where nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np

from .imaging import (
    Bools,
    Floats,
    Mask,
    Picture,
    blurred,
    coordinates,
    dilated,
    eroded,
    filled,
    lab_of,
    largest,
    picture_of,
    shrunk,
    soft,
    window_of,
    without_holes,
)
from .nets import Nets
from .silhouette import symmetry_of

CUT_SIDE: Final = 512
"""Pixels of the longer side at which the outline is found; finer does not cut better."""
DENOISE: Final = 0.7
"""Pixels of sigma: takes away the noise of a JPEG."""
COLOURED: Final = 1.6
"""Weight of a and b over lightness in a distance: light and folds change the lightness of cloth and of ground."""
GROUND_BORDER: Final = 0.03
"""Of the shorter side: so wide a frame of the photo shows the ground,"""
NARROWEST_BORDER: Final = 4
"""at least so many pixels."""
GROUND_MARGIN: Final = 25
"""Lab, in any channel: what departs more from the frame's median is not asked for the ground, to begin with;"""
GROUND_FITS: Final = 4
"""it is fitted so many times, and each time without what departs from it by more than"""
OUTLIER: Final = 3.75
"""so many medians of what is left, but by no less than"""
LEAST_OUTLIER: Final = 3.0
"""so much Lab."""
NOISE_PERCENTILE: Final = 80
"""Of the residuals in the frame, Lab: how much the ground varies."""
PLAIN: Final = 8.0
"""Lab: a ground that varies more is busy, and needs the saliency net."""
LEAST_GROUND: Final = 0.55
"""Of the frame; where less of it fits an even ground, the garment is cropped or the ground is none."""
FAINT_CONTRAST: Final = 13.0
"""Lab: the median distance between garment and ground along the outline. Below it colour tells less than the saliency
net."""
LEAST_DIFFERENCE: Final = 3.0
"""Lab: what differs less from the ground is ground, and so is what differs less than"""
OVER_NOISE: Final = 3
"""times as much as the ground varies."""
SPECK: Final = 3
"""Pixels: narrower pieces are noise, and so are narrower gaps."""
SHADOW_DEPTH: Final = 70.0
"""Lab lightness: a shadow is darker than its ground by less than this,"""
SHADOW_CHROMA: Final = 5.0
"""hardly coloured,"""
SHADOW_SLOPE: Final = 2.2
"""and changes by less than this per pixel."""
SHADOW_RIM: Final = 19
WIDE_SHADOW_RIM: Final = 35
"""Pixels of the square by which the garment is eroded, if it is patterned, and if it is plain: within that of the
outline a shadow may lie against it;"""
PLAIN_CLOTH: Final = 22.0
"""Lab: the lightness of plain cloth deviates by no more, and its chroma by half of it;"""
SMALLEST_CORE: Final = 200
"""pixels of what is left, to know the cloth's colour by."""
RIM_CHROMA: Final = 8.0
"""Lab: there a shadow is hardly more coloured,"""
RIM_DARKER: Final = 5
"""darker than the ground by at least this, Lab lightness,"""
LIKE_GROUND: Final = 1.15
"""and so many times further from the cloth than from the ground."""
STRIPE: Final = 12.0
"""Lab: what differs less from the nearest cloth is a stripe that goes on."""
SHADOW_PIECE: Final = 0.004
"""Of the garment: a smaller piece is no shadow."""
LEFT_OVER: Final = 5
"""Pixels: narrower pieces of what is left without the shadow go with it."""

RIM: Final = 13
"""Pixels of the square by which the garment is eroded; what that takes is compared with the ground."""
FAINT_RIM: Final = 0.45
"""Share of the outline with less than ``FAINT_CONTRAST``, above which some of the garment may be missing,"""
UNEVEN: Final = 0.955
"""and symmetry (IoU) of the outline below which it may."""
SURE, SURE_MARGIN = 0.8, 5
"""Saliency that belongs to the garment, where it lies against it, without so many pixels of its edge;"""
SURER, SURER_MARGIN = 0.9, 9
"""and anywhere."""
AGAINST: Final = 9
"""Pixels of the square by which the garment is dilated for that."""
BY_SALIENCY: Final = (0.55, 0.4)
"""Certainty of what the saliency net alone has found, and what full agreement (IoU) with colour
adds."""
JOINED, MOST_JOINED = 2.0, 0.3
"""The share that the net has added, times the first, is taken from the certainty, at most the second."""
TOUCHES: Final = 0.03
"""Share of an edge of the photo which a garment must cover to run out of it."""
COVERED: Final = (0.04, 0.93)
"""Shares of the photo that a garment covers, the smallest and the largest."""
SMOOTH: Final = 0.0032
"""Of the longer side: the outline is smoothed so much, as stripes of the ground's colour leave notches in it."""

# In pixels of the photo as it came:

INWARDS: Final = 5
"""Pixels of the square by which the mask is eroded: two inwards, so that the ground leaves no seam of light."""
FEATHER: Final = 0.8
"""Pixels of sigma of the soft edge."""
SOLID: Final = 0.98
"""Alpha above which a pixel is cloth,"""
SOLID_MARGIN: Final = 5
"""and, eroded by a square of so many pixels, nothing but cloth."""
CLOTH_NEARBY: Final = 2.0
"""Pixels of sigma: from how far the soft edge takes the colour of cloth."""

TOUCHES_BORDERS: Final = "The garment photo is cropped tightly; one with some empty ground around it works better."
BUSY: Final = "The garment photo has a busy background; a plain one works better."
FAINT: Final = "The garment is nearly as bright as its background, so its outline may be soft."


@dataclass(frozen=True, slots=True)
class Cut:
    """A garment told from its ground."""

    mask: Mask
    """``(H, W)`` uint8, 0 and 1."""
    certainty: float
    """How sure that is, 0 to 1."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Contrast:
    """How a photo differs from its ground."""

    lab: Floats
    """``(H, W, 3)`` float32."""
    difference: Floats
    """Lab minus the ground's, ``(H, W, 3)`` float32."""
    distance: Floats
    """Its length, with ``COLOURED``, ``(H, W)`` float32."""
    noise: float
    """How much the ground varies, Lab."""
    share: float
    """How much of the frame the ground is, 0 to 1."""


def cut_out(nets: Nets, rgb: Picture) -> Cut:
    """The garment in its photo, ``(H, W, 3)``; the mask is as large, and empty where nothing differs from the ground.

    Catalogues show garments on an even ground, from which colour alone tells them; the saliency net is only asked
    where ground or contrast say that it does not.
    """
    small = shrunk(rgb, CUT_SIDE)
    contrast = _contrast_of(small)
    mask = _by_colour(contrast)
    rim = (mask - eroded(mask, RIM)) > 0
    busy = contrast.noise > PLAIN or contrast.share < LEAST_GROUND
    faint = not rim.any() or float(np.median(contrast.distance[rim])) < FAINT_CONTRAST
    warnings: tuple[str, ...] = (BUSY,) if busy else (FAINT,) if faint else ()
    certainty = 1.0
    if busy or faint or not is_as_large_as_a_garment(mask):
        mask, certainty = _by_saliency(nets, small, mask)
    elif _may_lack(mask, contrast.distance, rim):
        mask, certainty = _completed(nets, small, mask)
    mask = _without_shadow(largest(mask), contrast)
    mask = without_holes(largest(mask))
    if _touches(mask):
        warnings = (*warnings, TOUCHES_BORDERS)
    return Cut(_enlarged(mask, rgb), certainty, warnings)


def is_as_large_as_a_garment(mask: Mask) -> bool:
    """Whether it covers neither next to nothing of the photo nor nearly all of it."""
    least, most = COVERED
    return bool(least < mask.mean() < most)


def _contrast_of(small: Picture) -> _Contrast:
    """The ground is a plane per channel, because studio light falls off across a picture; the frame of it shows it."""
    lab = lab_of(np.asarray(cv2.GaussianBlur(small, (0, 0), DENOISE), np.uint8))
    height, width = lab.shape[:2]
    border = max(NARROWEST_BORDER, int(GROUND_BORDER * min(height, width)))
    frame = np.ones((height, width), bool)
    frame[border:-border, border:-border] = False
    ys, xs = np.where(frame)
    plane, residual, share = _plane_through(np.c_[xs / width, ys / height, np.ones(len(xs))], lab[frame])
    x, y = coordinates((height, width))
    level = np.stack([plane[0, c] * x / width + plane[1, c] * y / height + plane[2, c] for c in range(3)], -1)
    difference = lab - level.astype(np.float32)
    lightness, a, b = (difference[..., channel] for channel in range(3))
    distance = np.sqrt(lightness**2 + (COLOURED * a) ** 2 + (COLOURED * b) ** 2)
    return _Contrast(lab, difference, distance, float(np.percentile(residual, NOISE_PERCENTILE)), share)


def _plane_through(at: Floats, values: Floats) -> tuple[Floats, Floats, float]:
    """The plane per channel, ``(3, 3)``, the residuals of all values, ``(N,)`` Lab, and the share that fits it.

    ``at`` is ``(N, 3)``: x and y as shares of the photo, and 1; ``values`` are ``(N, 3)`` Lab. What lies off the
    plane is left out, step by step.
    """
    keep = np.abs(values - np.median(values, 0)).max(1) < GROUND_MARGIN
    residual, plane = np.zeros(len(values)), np.zeros((3, 3))
    for _ in range(GROUND_FITS):
        plane = np.linalg.lstsq(at[keep], values[keep], rcond=None)[0]
        residual = np.abs(values - at @ plane).max(1)
        keep = residual < max(LEAST_OUTLIER, OUTLIER * float(np.median(residual[keep])))
    return plane, residual, float(keep.mean())


def _by_colour(contrast: _Contrast) -> Mask:
    """What differs from the ground and is no shadow; holes that show the ground are filled."""
    lightness = contrast.lab[..., 0]
    # Sobel's kernel adds up eight differences between neighbours.
    slope = np.hypot(cv2.Sobel(lightness, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(lightness, cv2.CV_32F, 0, 1) / 8)
    lighter, chroma = contrast.difference[..., 0], np.abs(contrast.difference[..., 1:]).max(-1)
    shadow = (lighter < 0) & (lighter > -SHADOW_DEPTH) & (chroma < SHADOW_CHROMA) & (slope < SHADOW_SLOPE)
    ground = (contrast.distance < max(LEAST_DIFFERENCE, OVER_NOISE * contrast.noise)) | shadow
    # All ground that hangs together with the frame.
    framed = cv2.copyMakeBorder(ground.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(1,))
    _, pieces = cv2.connectedComponents(framed, connectivity=4)
    mask = _opened((pieces != pieces[0, 0])[1:-1, 1:-1], SPECK)
    return np.asarray(cv2.morphologyEx(largest(mask), cv2.MORPH_CLOSE, np.ones((SPECK, SPECK), np.uint8)), np.uint8)


def _opened(mask: Mask | Bools, size: int) -> Mask:
    """Without what is narrower than ``size`` pixels."""
    kernel = np.ones((size, size), np.uint8)
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel), np.uint8)


def _by_saliency(nets: Nets, small: Picture, mask: Mask) -> tuple[Mask, float]:
    """What the net takes for the garment, and a certainty; ``mask`` is what colour takes for it."""
    salient = (nets.saliency(small) > 0.5).astype(np.uint8)
    overlap = float((mask & salient).sum() / max(1, (mask | salient).sum()))
    alone, agreed = BY_SALIENCY
    return salient, alone + agreed * overlap


def _may_lack(mask: Mask, distance: Floats, rim: Bools) -> bool:
    """Whether a part of the garment may be missing. Raise ``ImageUnusable`` where the mask is tiny."""
    faint = float((distance[rim] < FAINT_CONTRAST).mean()) if rim.any() else 1.0
    return faint > FAINT_RIM or symmetry_of(mask) < UNEVEN


def _completed(nets: Nets, small: Picture, mask: Mask) -> tuple[Mask, float]:
    """The mask with what the net is sure of, light cloth on a light ground, and a certainty."""
    saliency = nets.saliency(small)
    beside = eroded(saliency > SURE, SURE_MARGIN) & dilated(mask, AGAINST)
    joined = largest(np.asarray(mask | beside | eroded(saliency > SURER, SURER_MARGIN), np.uint8))
    added = float((joined & (1 - mask)).sum() / max(1, mask.sum()))
    return joined, 1.0 - min(MOST_JOINED, JOINED * added)


def _without_shadow(mask: Mask, contrast: _Contrast) -> Mask:
    """Without the rim of shadow that lies against the garment: grey, and more like the ground than like the cloth."""
    inside = np.pad(mask[1:-1, 1:-1], 1)  # a shadow may run out of the photo
    core, deepest = eroded(inside, SHADOW_RIM), SHADOW_DEPTH
    if core.sum() < SMALLEST_CORE:
        return mask
    deep, spread = eroded(inside, WIDE_SHADOW_RIM), contrast.difference[core > 0].std(0)
    if deep.sum() >= SMALLEST_CORE and spread[0] < PLAIN_CLOTH and spread[1:].max() < 0.5 * PLAIN_CLOTH:
        # Cloth without a pattern has nothing that could be taken for a shadow, so wide and deep ones may be sought.
        core, deepest = deep, float("inf")
    difference, distance = contrast.difference, contrast.distance
    cloth = filled(difference.astype(np.float32), core.astype(np.float32))
    weights = np.array([1, COLOURED**2, COLOURED**2], np.float32)
    to_cloth = np.sqrt(((difference - cloth) ** 2 * weights).sum(-1))
    to_nearest = np.sqrt(((difference - _nearest(difference, core)) ** 2 * weights).sum(-1))
    rim = (mask > 0) & (core == 0)
    grey = (np.abs(difference[..., 1:]).max(-1) < RIM_CHROMA) & (difference[..., 0] < -RIM_DARKER)
    shadow = rim & grey & (to_cloth > LIKE_GROUND * distance) & (distance < deepest)
    # A shadow is one long piece; light stripes that end at the rim are many short ones.
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(shadow.astype(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    cloth_like = np.bincount(pieces.ravel(), (to_nearest < STRIPE).ravel(), len(areas)) > 0.5 * areas
    large = (areas > SHADOW_PIECE * mask.sum()) & ~cloth_like
    large[0] = False
    return _opened(largest((mask > 0) & ~large[pieces]), LEFT_OVER)


def _nearest(values: Floats, mask: Mask) -> Floats:
    """For each pixel the value of the nearest one of the mask."""
    _, labels = cv2.distanceTransformWithLabels(1 - mask, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros((int(labels.max()) + 1, *values.shape[2:]), values.dtype)
    of_label[labels[mask > 0]] = values[mask > 0]
    return cast("Floats", of_label[labels])


def _touches(mask: Mask) -> bool:
    """Whether the garment runs out of the photo."""
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return any(edge.mean() > TOUCHES for edge in edges)


def _enlarged(mask: Mask, rgb: Picture) -> Mask:
    """The mask in the size of the photo, with a smooth outline."""
    size = (rgb.shape[1], rgb.shape[0])
    large = cast("Floats", cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
    return (blurred(large, SMOOTH * max(rgb.shape[:2])) > 0.5).astype(np.uint8)


def matte(mask: Mask) -> Floats:
    """Alpha of a mask, ``(H, W)`` float32, 0 to 1."""
    # Not the guided filter: on a white ground it takes the white stripes of a shirt for ground.
    return soft(eroded(mask, INWARDS), FEATHER)


def own_colours(rgb: Picture, alpha: Floats) -> Picture:
    """The photo; where ``alpha`` is not solid, the colour of the nearest cloth."""
    solid = eroded(alpha > SOLID, SOLID_MARGIN).astype(np.float32)
    if not solid.any():
        return rgb
    window = window_of(alpha > 0, 2)
    near = blurred(solid[window], CLOTH_NEARBY)[..., None]
    spread = blurred(rgb[window] * solid[window][..., None], CLOTH_NEARBY) / np.maximum(near, 1e-6)
    result = rgb.copy()
    result[window] = np.where((solid[window][..., None] > 0) | (near < 1e-4), rgb[window], picture_of(spread))
    return result
