"""The light of the person's photo, for the new clothes."""

from __future__ import annotations

from typing import Final, cast

import cv2
import numpy as np

from .imaging import Bools, Floats, blurred, eroded, lab_of, local_mean, window_of
from .person import Person

BESIDE: Final = 0.15
"""Units: so far beyond the old clothes their light fades to nothing."""


def gain(person: Person) -> float:
    """How bright studio colours become in the photo, from its brightest surfaces and the face: 0.72 to 1.02."""
    lightness = lab_of(np.ascontiguousarray(person.rgb[::2, ::2]))[..., 0]
    face = lightness[person.face[::2, ::2] > 0]
    skin = np.median(face) if len(face) else 170
    return float(np.clip(0.5 * np.percentile(lightness, 95) / 240 + 0.5 * (skin + 60) / 230, 0.72, 1.02))


def shading(person: Person, old_clothes: Bools) -> Floats:
    """Light and folds on the old clothes as a factor on the new, ``(H, W)``; 1 is neutral.

    Only the low and the middle frequencies of the lightness, and less of them the more the old clothes are dark or
    patterned: their pattern is no light. They are found around the old clothes alone, at half the size.
    """
    factor: Floats = np.ones(old_clothes.shape, np.float32)
    inner = eroded(old_clothes, 3)
    if inner.sum() < 200:
        return factor
    unit = person.shoulder_width
    window = window_of(inner > 0, BESIDE * unit)
    lab = lab_of(np.ascontiguousarray(person.rgb[window][::2, ::2]))
    found = _shading(lab, inner[window][::2, ::2].astype(np.float32), unit / 2)
    height, width = factor[window].shape
    factor[window] = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    return factor


def _shading(lab: Floats, inner: Floats, unit: float) -> Floats:
    lightness, cloth = lab[..., 0], lab[inner > 0]
    spread = float(np.std(cloth[:, 0]) + 1.5 * np.std(cloth[:, 1:], 0).sum())
    plain = float(np.clip((34 - spread) / 18, 0, 1))
    low, middle = local_mean(lightness, inner, 0.10 * unit), local_mean(lightness, inner, 0.018 * unit)
    median = float(np.median(cloth[:, 0]))
    trust_low = float(np.clip((median - 20) / 70, 0.2, 1))
    trust_middle = float(np.clip((median - 60) / 60, 0.0, 1))
    light = np.clip((low + 20) / (median + 20), 0.72, 1.2) ** (0.8 * plain * trust_low)
    folds = np.clip((middle + 25) / (low + 25), 0.8, 1.2) ** (0.9 * plain * trust_middle)
    share = np.clip(blurred(inner, 0.03 * unit) * 1.5, 0, 1)
    return cast("Floats", light * folds * share + (1 - share))


def shadow_below(alpha: Floats, unit: float, sigma: float = 0.03, offset: float = 0.02) -> Floats:
    """The soft shadow that a layer throws a little downwards, ``(H, W)``, 0 to 1; lengths in shoulder widths."""
    shift = np.array([[1, 0, 0], [0, 1, int(offset * unit)]], np.float32)
    height, width = alpha.shape
    moved = cv2.warpAffine(blurred(alpha, sigma * unit), shift, (width, height), flags=cv2.INTER_NEAREST)
    return np.asarray(moved)
