"""What lies behind the old clothes where the new ones do not cover them: background, trousers and skin.

All of it is painted, not known: small areas look right, large ones do not, which ``judging`` minds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import cv2
import numpy as np

from .body import Body
from .figure import Part
from .imaging import (
    OTHER,
    Bools,
    Floats,
    Mask,
    Picture,
    Side,
    Window,
    blurred,
    dilated,
    distance_to,
    eroded,
    filled,
    lab_of,
    over,
    soft,
    window_of,
)
from .person import Person

MARGIN: Final = 40
"""Pixels around a hole that are looked at to fill it."""
MIRROR: Final = 60
"""Pixels of the trousers, at most, that are mirrored to lengthen them."""
FALLBACK: Final = np.array([200, 160, 140], np.float32)
"""RGB, where no skin is seen at all."""
LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Of BT.601."""

# Of painted skin; tuned by eye on eight people. Lengths in units.

NEAR: Final = 0.35
"""Around a hole, skin that is looked at first."""
LEAST_SEEN: Final = 0.02
"""Squares of the unit; where less skin is near, all that is seen is looked at."""
LIT: Final = (50.0, 85.0)
"""Percentiles of lightness between which skin lies in the light: neither shade nor glare."""
REACH: Final = 0.25
"""How far a step at the edge of the hole is spread out."""
TOUCH: Final = 0.03
"""The same of a step to what may be the shade of a sleeve."""
TIGHT: Final = 8.0
"""Weight of the known pixels in the fill: with more of it, it meets them more closely."""
ACROSS: Final = np.linspace(-1, 1, 17, dtype=np.float32)
"""Where a limb's light is measured, from its inner to its outer edge."""
ROUND: Final = (1 - 0.3 * np.abs(ACROSS) ** 2.2).astype(np.float32)
"""The light on a limb that is not seen."""
SHOULDER: Final = 0.45
"""From its beginning an arm grows out of the trunk, and a leg out of the hips, for so long."""
GRAIN: Final = ((1.2, 1.0), (3.0, 0.5))
"""The bands of skin's texture, each from the sigma before to this one, in pixels; and how strong each is, in grey
levels, where too little skin is seen to tell."""
ENOUGH_GRAIN: Final = 400
"""Pixels of skin from which its texture can be told."""
MOST_GRAIN: Final = 1.2
"""Grey levels. More is hair, a fold or an edge."""

ROWS: Final = 30
"""Of a limb, to a unit of its length: in each the light is measured for itself."""
DARK: Final = 60.0
"""Grey levels; skin that differs from the tone by so much tells nothing of skin further off."""
DEEP: Final = 0.45
"""Of the tone; the shade of a sleeve is no darker."""

EVERYWHERE: Final[Window] = (slice(None), slice(None))
Chart: TypeAlias = tuple[Floats, Floats]
"""How far along a limb each pixel lies, and how far across it (``Limb.chart``)."""


def fill_background(picture: Floats, hole: Mask, person: Bools) -> Floats:
    """Paint the hole from background only, with Telea's method (2004).

    The person is replaced by a smooth fill first; otherwise the clothes would smear into the hole.
    """
    if not hole.any():
        return picture
    window = window_of(hole > 0, MARGIN)
    part = picture[window]
    ground = eroded(~person[window], 5)
    known = np.where(ground[..., None] > 0, part, filled(part, ground.astype(np.float32)))
    painted = cv2.inpaint(np.clip(known, 0, 255).astype(np.uint8), hole[window].astype(np.uint8), 5, cv2.INPAINT_TELEA)
    result = picture.copy()
    # A soft edge inside the hole would let the old clothes shine through.
    result[window] = over(part, soft(dilated(hole[window], 3), 1.0), painted.astype(np.float32))
    return result


def extend_trousers(picture: Floats, hole: Bools, trousers: Bools) -> Floats:
    """Fill between the new hem and the old one by mirroring the trousers upwards, column by column."""
    if not hole.any():
        return picture
    window = window_of(hole, MIRROR + 8)
    result = picture.copy()
    result[window] = _extended(picture[window], hole[window], trousers[window])
    return result


def _extended(picture: Floats, hole: Bools, trousers: Bools) -> Floats:
    height = hole.shape[0]
    result, done = picture.copy(), np.zeros(hole.shape, bool)
    for x in np.flatnonzero(hole.any(0)):
        ys, cloth = np.flatnonzero(hole[:, x]), np.flatnonzero(trousers[:, x])
        cloth = cloth[cloth > ys.min()]
        if len(cloth) < 4:
            continue
        waist = cloth[0] + 3
        depth = max(6, min(len(cloth) - 4, MIRROR))
        mirrored = waist + np.abs(((waist - ys + depth) % (2 * depth)) - depth)
        mirrored = np.clip(mirrored, 0, height - 1)
        good = trousers[mirrored, x]
        result[ys[good], x] = picture[mirrored[good], x]
        done[ys[good], x] = True
    rest = hole & ~done
    known = ((trousers | done) & ~rest).astype(np.float32)
    result[rest] = filled(result, known)[rest]
    result[hole] = cv2.GaussianBlur(result, (3, 3), 0)[hole]
    return result


def paint_skin(body: Body, picture: Floats, where: Bools, charts: Mapping[Side, Chart]) -> Floats:
    """Bare skin as the person's own goes on: its tone, the light across the limbs, its grain, no step where they meet.

    ``charts`` has those of both arms, or of both legs. All but the grain is smooth and found at half the size.
    """
    if not where.any():
        return picture
    window = window_of(where, int(NEAR * body.unit))
    part, hole = picture[window], where[window]
    size = (part.shape[1], part.shape[0])
    limbs = {side: (_half(distance[window]), _half(across[window])) for side, (distance, across) in charts.items()}
    small = cast("Floats", cv2.resize(part, _half_size(part), interpolation=cv2.INTER_AREA))
    seen = _sure_skin(body.person, window) & ~_half(dilated(hole, 3) > 0)
    tone = _tone(body.person, small, seen, body.unit / 2)
    shade = _shade(small @ LUMA, seen, limbs, body.unit)
    maybe = (_half(body.labels[window]) == Part.SKIN) & ~_half(hole) & (small @ LUMA > DEEP * float(tone @ LUMA))
    skin = _continued(small, seen, maybe, tone, shade, body.unit / 2)
    skin = cast("Floats", cv2.resize(skin, size, interpolation=cv2.INTER_LINEAR))
    at_full_size = cv2.resize(seen.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    skin += _grain(part @ LUMA, at_full_size)[..., None]
    result = picture.copy()
    result[window] = _laid_in(part, body.person, window, hole, skin)
    return result


def _half_size(values: Floats | Mask | Bools | Picture) -> tuple[int, int]:
    """Width and height."""
    return (values.shape[1] + 1) // 2, (values.shape[0] + 1) // 2


def _half(values: Any) -> Any:
    """Every second row and column."""
    return values[::2, ::2]


def _sure_skin(person: Person, window: Window) -> Bools:
    """Skin without what the parsing may have got wrong, and without deep shade and glare; half the size."""
    rgb = person.rgb[window]
    lab, tone = lab_of(cast("Picture", cv2.resize(rgb, _half_size(rgb), interpolation=cv2.INTER_AREA))), person.skin
    alike = (np.abs(lab[..., 1:] - tone[1:]).max(-1) < 18) & (np.abs(lab[..., 0] - tone[0]) < 62)
    skin = eroded(_half(person.labels[window] == Part.SKIN), 3) > 0
    return cast("Bools", skin & alike & (dilated(_half(person.face[window]), 3) == 0))


def _tone(person: Person, small: Floats, seen: Bools, unit: float) -> Floats:
    """RGB of the skin in the light: the mean of what lies between ``LIT``. Lengths at the size of ``small``."""
    colours = small[seen]
    if len(colours) < LEAST_SEEN * unit**2:
        everywhere = _sure_skin(person, EVERYWHERE)
        colours = (
            cast("Floats", _half(person.rgb)[everywhere].astype(np.float32)) if everywhere.any() else FALLBACK[None]
        )
    lightness = colours @ LUMA
    low, high = np.percentile(lightness, LIT)
    return cast("Floats", colours[(lightness >= low) & (lightness <= high)].mean(0))


def _shade(lightness: Floats, seen: Bools, limbs: Mapping[Side, Chart], unit: float) -> Floats:
    """The light across the limbs as a factor, ``(H, W)`` float32: what it is where the limb is seen.

    A limb of which too little is seen borrows from the other one, mirrored, as the light comes from one side.
    """
    profiles = {side: _profile(lightness, seen, chart, unit) for side, chart in limbs.items()}
    result = np.ones(lightness.shape, np.float32)
    for side, (distance, across) in limbs.items():
        profile, other = profiles[side], profiles[OTHER[side]]
        if profile is None:
            profile = ROUND if other is None else other[::-1]
        factor = np.interp(across, ACROSS, profile).astype(np.float32)
        # Outside a limb is round from where it begins, inside the trunk passes over into it.
        begins = np.where(across > 0, 0, SHOULDER * unit / 2)
        share = np.clip((distance - begins) / (SHOULDER * unit), 0, 1) * (np.abs(across) < 1.3)
        result = np.minimum(result, 1 + (factor - 1) * (share * share * (3 - 2 * share)).astype(np.float32))
    return blurred(result, 1.5)


def _profile(lightness: Floats, seen: Bools, chart: Chart, unit: float) -> Floats | None:
    """The light at ``ACROSS``, 1 where it is brightest; None where too little of the limb is seen."""
    distance, across = chart
    on = seen & (np.abs(across) < 1) & (distance > SHOULDER * unit)
    if on.sum() < LEAST_SEEN * unit**2:
        return None
    rows = (distance[on] * (ROWS / unit)).astype(np.intp)
    values = lightness[on]
    mean = np.bincount(rows, values) / np.maximum(np.bincount(rows), 1)
    share = values / mean[rows]
    at = np.rint((across[on] + 1) / 2 * (len(ACROSS) - 1)).astype(np.intp)
    counts = np.bincount(at, minlength=len(ACROSS))
    found = counts > 0.2 * counts.mean()
    if found.sum() < len(ACROSS) // 2:
        return None
    medians = [float(np.median(share[at == index])) for index in np.flatnonzero(found)]
    profile = np.interp(np.arange(len(ACROSS)), np.flatnonzero(found), medians)
    profile = np.convolve(np.pad(profile, 1, mode="edge"), (0.25, 0.5, 0.25), "valid")
    return cast("Floats", np.clip(profile / profile.max(), 0.5, 1).astype(np.float32))


def _continued(picture: Floats, seen: Bools, skin: Bools, tone: Floats, shade: Floats, unit: float) -> Floats:
    """Skin everywhere, ``(H, W, 3)`` float32: that around the hole goes on, and passes into the tone far from it.

    What differs from the photo at the edge is spread out as a membrane would (Farbman et al. 2009), so that no step
    is left: far from the skin that is ``seen`` for sure, hardly from all that may be ``skin``.
    """
    known = seen.astype(np.float32)
    lit = picture / shade[..., None]
    in_light = np.clip(1 - np.abs(lit @ LUMA - float(tone @ LUMA)) / DARK, 0.05, 1)
    trust = np.clip(blurred(known, NEAR / 3 * unit) * 6, 0, 1)[..., None]
    result = (filled(lit, known * in_light) * trust + tone * (1 - trust)) * shade[..., None]
    for edge, reach in ((seen, REACH), (skin, TOUCH)):
        if not edge.any():
            continue
        step = filled(picture - result, TIGHT * edge.astype(np.float32))
        result += step * np.exp(-((distance_to(edge) / (reach * unit)) ** 2))[..., None]
    return cast("Floats", result)


def _grain(lightness: Floats, seen: Bools) -> Floats:
    """Noise as strong as the texture of the skin that is seen, band by band, ``(H, W)`` float32."""
    noise = np.random.default_rng(1).standard_normal(lightness.shape, np.float32)
    enough = seen.sum() > ENOUGH_GRAIN
    grain = np.zeros(lightness.shape, np.float32)
    for sigma, usual in GRAIN:
        finer, smoother = blurred(noise, sigma), blurred(lightness, sigma)
        band = noise - finer
        strength = usual
        if enough:
            # The median is not moved by moles, folds and edges.
            strength = min(MOST_GRAIN, float(np.median(np.abs((lightness - smoother)[seen]))) * 1.48)
        grain += band * (strength / (float(band.std()) + 1e-6))
        noise, lightness = finer, smoother
    return grain


def _laid_in(part: Floats, person: Person, window: Window, hole: Bools, skin: Floats) -> Floats:
    """The skin with a soft edge, in which nothing of the old clothes shines through."""
    outside = (~hole).astype(np.float32)
    share = cv2.boxFilter(outside, -1, (5, 5))[..., None]
    around = cv2.boxFilter(part * outside[..., None], -1, (5, 5)) / np.maximum(share, 1e-3)
    beside = np.where(hole[..., None] & (share > 1e-3), around, part)
    clothes = (person.labels[window] == Part.UPPER) | (person.labels[window] == Part.LOWER)
    clothes &= (part == person.rgb[window]).all(-1)
    solid = hole | clothes
    return over(beside, soft(solid, 1.2) * (dilated(hole, 3) > 0), skin)
