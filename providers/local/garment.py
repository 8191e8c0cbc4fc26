"""Garment photo -> cut-out, and what kind of garment it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

import cv2
import numpy as np

from ..errors import ImageUnusable
from .imaging import (
    Bools,
    Floats,
    Mask,
    Picture,
    Point,
    blurred,
    coordinates,
    dilated,
    eroded,
    lab_of,
    largest,
    matte_of,
    soft,
    without_holes,
)
from .nets import Nets

Kind: TypeAlias = Literal["upper", "lower", "dress"]

# The numbers below were tuned by eye on about 30 flat lays with light grounds. Lab is OpenCV's, 0 to 255 per channel.

BUSY_GROUND: Final = 14
"""Lab: the 90th percentile of how far the ground departs from a plane."""
FAINT_CONTRAST: Final = 14
"""Lab: between garment and ground; below, colour tells less than the saliency net does."""
SAME_CUT: Final = 0.85
"""Overlap (IoU) of the colour cut and the saliency below which the colour cut is not believed."""
PERSON_IN_PHOTO: Final = 0.9
"""Pose score of the garment photo. Two models had 0.98 and 1.00, flat lays up to 0.35, a studded jacket 0.85."""
GRABCUT_SIDE: Final = 512
"""Pixels, of the longer side; finer does not cut better."""
RANDOM_SEED: Final = 7
"""OpenCV draws from a generator per thread; seeded anew, the same photo gives the same cut."""

TOUCHES_BORDERS: Final = "The garment photo is cropped tightly; one with some empty ground around it works better."
BUSY: Final = "The garment photo has a busy background; a plain one works better."
FAINT: Final = "The garment is nearly as bright as its background, so its outline may be soft."
UNSURE_CUT: Final = "The garment was hard to tell from its background; a plain, different-coloured one works better."


@dataclass(frozen=True, slots=True)
class Garment:
    """A garment cut out of its photo."""

    rgb: Picture
    alpha: Floats
    """``(H, W)`` float32, 0 to 1."""
    kind: Kind
    """As the silhouette has it; whoever knows the category knows better."""
    warnings: tuple[str, ...]


def analyse(nets: Nets, rgb: Picture) -> Garment:
    """Cut the garment out. Raise ``ImageUnusable`` where there is none, or somebody wears it."""
    alpha, warnings = cut_out(nets, rgb)
    mask = (alpha > 0.5).astype(np.uint8)
    if nets.pose(rgb, alpha, passes=2).score > PERSON_IN_PHOTO:
        raise ImageUnusable(
            "Garment photo: it seems to show a person. Use a photo of the garment alone, laid flat on a plain ground."
        )
    if not 0.06 < mask.mean() < 0.92:
        raise ImageUnusable(
            "Garment photo: no garment was found. Use a photo of one whole garment, laid flat on a plain ground of "
            "another colour."
        )
    return Garment(rgb, alpha, kind_of(mask), tuple(warnings))


def kind_of(mask: Mask) -> Kind:
    """What the silhouette looks like."""
    ys, xs = np.where(mask)
    left, right, top, bottom = xs.min(), xs.max(), ys.min(), ys.max()
    height, width = bottom - top, right - left
    middle = (left + right) / 2
    between_legs = mask[
        int(top + 0.55 * height) : int(top + 0.97 * height),
        int(middle - 0.03 * width) : int(middle + 0.03 * width) + 1,
    ]
    if between_legs.size and between_legs.mean() < 0.45 and height > 1.1 * width:
        return "lower"
    return "dress" if height > 1.55 * width else "upper"


def cut_out(nets: Nets, rgb: Picture) -> tuple[Floats, list[str]]:
    """Alpha of the garment, ``(H, W)`` float32, and warnings.

    The saliency net says roughly where; grabCut (Rother et al. 2004) follows the colours; the guided filter makes
    the edge soft.
    """
    saliency = nets.saliency(rgb)
    ground = _ground_border(saliency)
    if ground.sum() < 50:
        return np.clip(saliency, 0, 1), [TOUCHES_BORDERS]
    lab = lab_of(rgb)
    difference, noise = _difference_to_ground(lab, ground)
    mask = (saliency > 0.5).astype(np.uint8)
    contrast = _contrast(difference, mask)
    faint, busy = contrast < FAINT_CONTRAST, noise > BUSY_GROUND
    warnings = [text for found, text in ((busy, BUSY), (faint, FAINT)) if found]
    if not (faint or busy):
        by_colour = _cut_by_colour(rgb, saliency, difference)
        if by_colour is not None and _overlap(by_colour, mask) > SAME_CUT:
            mask = by_colour
        elif by_colour is not None:
            warnings.append(UNSURE_CUT)
    mask = _without_shadow(mask, lab, difference)
    opened = cast("Mask", cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)))
    mask = without_holes(largest(opened))
    mask = (soft(mask, 5.0 if faint else 2.0) > 0.5).astype(np.uint8)
    return matte_of(rgb, mask, radius=4, eps=1e-4, band=5), warnings


def _ground_border(saliency: Floats) -> Bools:
    """The ground as far as it is seen along the picture's border."""
    width = max(4, int(0.02 * min(saliency.shape)))
    border = np.ones(saliency.shape, bool)
    border[width:-width, width:-width] = False
    return border & (saliency < 0.3)


def _difference_to_ground(lab: Floats, ground: Bools) -> tuple[Floats, float]:
    """Lab minus the ground's, ``(H, W, 3)`` float32, and how much the ground varies.

    The ground is a plane per channel, because studio light falls off across a picture.
    """
    height, width = ground.shape
    ys, xs = np.where(ground)
    at = np.c_[xs / width, ys / height, np.ones(len(xs))]
    plane = np.linalg.lstsq(at, lab[ground], rcond=None)[0]
    x, y = coordinates((height, width))
    level = np.stack([plane[0, c] * x / width + plane[1, c] * y / height + plane[2, c] for c in range(3)], -1)
    residual = np.abs(lab[ground] - level[ground]).max(1)
    return lab - level, float(np.percentile(residual, 90))


def _contrast(difference: Floats, mask: Mask) -> float:
    """Lab distance to the ground of the 12 pixels inside of the outline."""
    rim = (mask - eroded(mask, 25)) > 0
    return float(np.median(np.sqrt((difference[rim] ** 2).sum(-1)))) if rim.any() else 99.0


def _overlap(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def _cut_by_colour(rgb: Picture, saliency: Floats, difference: Floats) -> Mask | None:
    """grabCut, started from the saliency; None where it cannot start."""
    core = eroded(saliency > 0.9, 9)
    if core.sum() <= 100:
        return None
    guess = np.full(saliency.shape, cv2.GC_PR_BGD, np.uint8)
    guess[saliency > 0.5] = cv2.GC_PR_FGD
    guess[core > 0] = cv2.GC_FGD
    guess[dilated(saliency > 0.2, 25) == 0] = cv2.GC_BGD
    height, width = saliency.shape
    scale = GRABCUT_SIDE / max(height, width)
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    size = (small.shape[1], small.shape[0])
    guess = cast("Mask", cv2.resize(guess, size, interpolation=cv2.INTER_NEAREST))
    # A shadow is darker than the ground but hardly coloured: lightness counts less.
    weighted = [0.55 * difference[..., 0], 1.6 * difference[..., 1], 1.6 * difference[..., 2]]
    distance = np.sqrt(weighted[0] ** 2 + weighted[1] ** 2 + weighted[2] ** 2)
    unlike = cv2.resize(distance, size, interpolation=cv2.INTER_AREA) > 40
    salient = cv2.resize(saliency, size, interpolation=cv2.INTER_AREA) > 0.3
    guess[unlike & salient] = cv2.GC_FGD
    cv2.setRNGSeed(RANDOM_SEED)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    try:
        bgr = np.ascontiguousarray(small[:, :, ::-1])
        cv2.grabCut(bgr, guess, (0, 0, 0, 0), *models, 3, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # every pixel is already decided
        return None
    cut = ((guess == cv2.GC_FGD) | (guess == cv2.GC_PR_FGD)).astype(np.uint8) * 255
    return cast("Mask", (cv2.resize(cut, (width, height), interpolation=cv2.INTER_CUBIC) > 127).astype(np.uint8))


def _without_shadow(mask: Mask, lab: Floats, difference: Floats) -> Mask:
    """Cut the garment's shadow off: darker than the ground, of its hue, and unlike the cloth right inside of it.

    Only where the cloth itself does not look like a shadow.
    """
    core = eroded(mask, 41).astype(np.float32)
    if core.sum() <= 500:
        return mask
    cloth: Point = np.median(difference[core > 0], 0)
    if np.abs(cloth[1:]).max() <= 7 and cloth[0] >= -95:
        return mask
    inside = blurred(lab * core[..., None], 14) / (blurred(core, 14) + 1e-3)[..., None]
    darker, coloured = difference[..., 0], np.abs(difference[..., 1:]).max(-1)
    unlike_shadow = coloured * 2.0
    unlike_cloth = np.sqrt(
        (0.6 * (lab[..., 0] - inside[..., 0])) ** 2 + ((lab[..., 1:] - inside[..., 1:]) ** 2).sum(-1) * 2.5
    )
    shadow = (darker < -4) & (darker > -90) & (coloured < 5) & (unlike_shadow + 3 < unlike_cloth)
    return cast("Mask", ((mask > 0) & ~(shadow & (core == 0))).astype(np.uint8))
