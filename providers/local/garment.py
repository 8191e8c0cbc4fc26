"""Garment photo -> cut-out, whether somebody wears it, and what kind of garment it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

import cv2
import numpy as np

from ..errors import ImageUnusable
from .bottom import Bottom, find_bottom
from .imaging import (
    Bools,
    Floats,
    Mask,
    Picture,
    Point,
    blurred,
    coordinates,
    dilated,
    disc,
    eroded,
    filled,
    lab_of,
    largest,
    length,
    picture_of,
    shrunk,
    soft,
    window_of,
    without_holes,
)
from .nets import Nets
from .silhouette import run_at, symmetry_of
from .sleeve import has_sleeves
from .top import Top, find_top

Kind: TypeAlias = Literal["upper", "lower", "dress"]

# The numbers below were tuned by eye on about 40 catalogue photos. Lab is OpenCV's, 0 to 255 per channel.

CUT_SIDE: Final = 512
"""Pixels of the longer side at which the outline is found; finer does not cut better."""
GROUND_BORDER: Final = 0.03
"""Of the shorter side: so wide a frame of the photo shows the ground."""
PLAIN: Final = 8.0
"""Lab: the 80th percentile of how far that frame departs from an even ground; busier ones need the saliency net."""
LEAST_GROUND: Final = 0.55
"""Of the frame; where less of it fits an even ground, the garment is cropped or the ground is none."""
FAINT_CONTRAST: Final = 13.0
"""Lab: between garment and ground along the outline. Below it colour tells less than the saliency net."""
LEAST_DIFFERENCE: Final = 3.0
"""Lab: what differs less from an even ground is ground; noisier grounds have more."""
SHADOW_DEPTH: Final = 70.0
"""Lab lightness: a shadow is darker than its ground by less than this,"""
SHADOW_CHROMA: Final = 5.0
"""hardly coloured,"""
SHADOW_SLOPE: Final = 2.2
"""and changes by less than this per pixel."""
NARROW_SHADOW: Final = 19
WIDE_SHADOW: Final = 35
"""Pixels at ``CUT_SIDE``: a shadow in the outline is half as wide, of patterned and of plain cloth."""
PLAIN_CLOTH: Final = 22.0
"""Lab: the lightness of plain cloth deviates by no more, and its chroma by half of it."""
SHADOW_PIECE: Final = 0.004
"""Of the garment: a smaller piece is no shadow."""
CLOTH_NEARBY: Final = 2.0
"""Pixels of sigma: from how far the soft edge takes the colour of cloth."""
SMOOTH: Final = 0.0032
"""Of the longer side: the outline is smoothed so much, as stripes of the ground's colour leave notches in it."""
SMALLEST, LARGEST = 0.04, 0.93
"""Share of the photo that a garment covers."""
ELLIPSE: Final = 0.93
"""Overlap (IoU) of the outline with the ellipse that fits it best. Garments had 0.92 at most, most of them 0.85;"""
RECTANGLE: Final = 0.99
"""Share of the narrowest rectangle around it that it fills: garments, straight skirts and tubes too, 0.95 at most,
shirts cut off straight below the sleeves 0.984."""
LEGS_GAP: Final = 0.45
"""Share of the rows below the middle in which there is a gap between legs."""
BELOW_CROTCH: Final = 0.08
"""Of the height: so far below the beginning of that gap its width is measured, as a hem need not be straight."""
WIDEST_CROTCH: Final = 0.4
"""Of the width: between legs the gap had 0.17 at most there, between sleeves below a short hem 0.5 and more."""
STRAIGHT: Final = 0.05
"""Of the width of an upper edge, by which it may rise and fall; waistbands did by 0.04 at most, necklines by 0.02
and more."""
ARMHOLE: Final = 0.025
"""Of that width: sides that go inwards and out again by more have armholes. Skirts and shorts did by 0.011 at most,
sleeveless tops and dresses by 0.035 and more,"""
SIDE: Final = 0.8
"""so far down, in the same width."""
DRESS: Final = 2.75
"""Length over chest width; tunics have less, dresses that reach the knee more."""

PERSON_SCORE: Final = 0.85
"""Pose score of the garment photo. People had 0.90 to 1.00, most garments alone less."""
SKIN_SEEN: Final = 0.5
"""Share of skin colours in a place where a wearer would show skin."""

LEAST_SKIN: Final = 0.015
"""Share of skin colours; of people in clothes from head to feet 0.04 and more."""
SURELY: Final = 0.95
WIDEST_HEAD: Final = 2.4
"""Width of what the nose lies on, over the distance of the ears: 1.3 to 2.0 of wearers, 2.8 and more of prints."""
LOWEST_HEAD: Final = 0.27
"""Of the height: noses of wearers lay at 0.20 or higher, of prints at 0.30 or lower."""
CUT_OFF: Final = 0.15
"""Of the width: a garment that meets the upper or the lower edge so far is not whole; or somebody wears it."""
UNEVEN: Final = 0.955
"""Symmetry (IoU) of the outline. Below it some of the garment may have been taken for ground."""
FAINT_RIM: Final = 0.45
"""Share of the outline with less than ``FAINT_CONTRAST``, likewise."""

TOUCHES_BORDERS: Final = "The garment photo is cropped tightly; one with some empty ground around it works better."
BUSY: Final = "The garment photo has a busy background; a plain one works better."
FAINT: Final = "The garment is nearly as bright as its background, so its outline may be soft."
WORN_BY_SOMEBODY: Final = (
    "Garment photo: it seems to show a person. Use a photo of the garment alone, laid flat on a plain ground."
)
NOT_WHOLE: Final = (
    "Garment photo: the garment is cut off at the edge of the photo, or somebody wears it. Use a photo of the whole "
    "garment alone, with some empty ground around it."
)
OPEN: Final = (
    "Garment photo: it seems to show an open garment, or one with legs and straps. Use a photo of a closed top, of a "
    "dress, or of trousers alone."
)
OTHER_KIND: Final = "The garment does not look like what the category says."
LIKE_A_SKIRT: Final = "The garment was taken for a skirt; if it is a top without straps, say so with the category."
NO_GARMENT: Final = (
    "Garment photo: no garment was found. Use a photo of one whole garment, laid flat on a plain ground of another "
    "colour."
)


@dataclass(frozen=True, slots=True)
class Garment:
    """A garment cut out of its photo."""

    colour: Picture
    """``(H, W, 3)`` uint8: its colours carried on over its edge, so that none of the ground comes along."""
    alpha: Mask
    """``(H, W)`` uint8, 0 to 255."""
    kind: Kind
    shape: Top | Bottom
    """Its landmarks."""
    certainty: float
    """How well it was told from its ground, 0 to 1."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    mask: Mask
    certainty: float
    warnings: tuple[str, ...]


def analyse(nets: Nets, rgb: Picture, kind: Kind | None = None) -> Garment:
    """Cut the garment out and find its landmarks. Raise ``ImageUnusable`` where there is none, or somebody wears it.

    ``kind`` is what the client says it is; None looks at the outline.
    """
    if min(rgb.shape[:2]) < 32:
        raise ImageUnusable(NO_GARMENT)
    cut = cut_out(nets, rgb)
    if not SMALLEST < cut.mask.mean() < LARGEST or is_plain_shape(cut.mask):
        raise ImageUnusable(NO_GARMENT)
    if max(cut.mask[0].mean(), cut.mask[-1].mean()) > CUT_OFF:
        raise ImageUnusable(NOT_WHOLE)
    if _is_worn(nets, rgb, cut.mask):
        raise ImageUnusable(WORN_BY_SOMEBODY)
    alpha = _matte(cut.mask)
    kind, shape, doubt = _shape(rgb, cut.mask, kind)
    if kind == "upper" and isinstance(shape, Top) and shape.length > DRESS * shape.chest_width:
        kind = "dress"
    warnings = (*cut.warnings, doubt) if doubt else cut.warnings
    certainty = cut.certainty * {OTHER_KIND: 0.5, LIKE_A_SKIRT: 0.75}.get(doubt, 1.0)
    return Garment(_own_colours(rgb, alpha), np.rint(alpha * 255).astype(np.uint8), kind, shape, certainty, warnings)


def _shape(rgb: Picture, mask: Mask, told: Kind | None) -> tuple[Kind, Top | Bottom, str]:
    """What it is, its landmarks, and what is doubtful about it; a guess that does not fit is taken back."""
    seen = kind_of(mask)
    kind = told or seen
    if kind == "lower":
        try:
            doubt = OTHER_KIND if seen != "lower" else "" if told or _legs_apart(mask) else LIKE_A_SKIRT
            return kind, find_bottom(mask), doubt
        except ImageUnusable:
            if told:
                raise
            kind = "upper"
    if _legs_apart(mask):
        raise ImageUnusable(OPEN)
    return kind, find_top(rgb, mask), OTHER_KIND if told and seen == "lower" else ""


def is_plain_shape(mask: Mask) -> bool:
    """Whether the outline is an ellipse or a rectangle, however it is turned: a ball, a plate, a book, a box."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=cv2.contourArea)
    width, height = cv2.minAreaRect(outline)[1]
    if cv2.contourArea(outline) > RECTANGLE * width * height:
        return True
    ellipse = np.zeros_like(mask)
    cv2.ellipse(ellipse, cv2.fitEllipse(outline), (1,), -1)
    return bool((ellipse & mask).sum() > ELLIPSE * (ellipse | mask).sum())


def kind_of(mask: Mask) -> Kind:
    """Whether it hangs from the shoulders or from the waist."""
    top, _, height, middle, _ = _box(mask)
    if _legs_apart(mask) and _whole_above(mask, top, height, middle):
        return "lower"
    return "lower" if _has_waistband(mask, top, height) and not has_sleeves(mask) else "upper"


def _box(mask: Mask) -> tuple[int, int, int, int, int]:
    """Top, left, height, middle column and width of the outline."""
    ys, xs = np.where(mask)
    left, right, top, bottom = int(xs.min()), int(xs.max()), int(ys.min()), int(ys.max())
    return top, left, bottom - top, (left + right) // 2, right - left


def _legs_apart(mask: Mask) -> bool:
    """Whether there is a gap in the middle of the lower half: between legs, or the fronts of an open garment."""
    top, _, height, middle, width = _box(mask)
    reach = max(1, int(0.10 * width))
    below = mask[int(top + 0.5 * height) : int(top + 0.96 * height), middle - reach : middle + reach + 1]
    if not below.size or float((below.min(1) == 0).mean()) <= LEGS_GAP:
        return False
    # Legs part in a point; between sleeves that hang below a short hem there is the whole width.
    open_rows = np.flatnonzero((mask[top : top + int(0.96 * height), middle - reach : middle + reach + 1] == 0).any(1))
    crotch = top + int(open_rows[open_rows > 0.3 * height][0])
    gaps = np.diff(np.flatnonzero(mask[int(min(crotch + BELOW_CROTCH * height, top + 0.96 * height))]))
    return bool(len(gaps)) and int(gaps.max()) < WIDEST_CROTCH * width


def _whole_above(mask: Mask, top: int, height: int, middle: int) -> bool:
    """Whether the upper third is whole: a top's sleeves hang beside its body, not below it."""
    rows = mask[int(top + 0.06 * height) : int(top + 0.3 * height), middle]
    return bool(rows.mean() > 0.9)


def _has_waistband(mask: Mask, top: int, height: int) -> bool:
    """A straight upper edge nearly as wide as what hangs from it, and nothing at its sides: a skirt, or shorts."""

    def width(share: float) -> float:
        columns = np.flatnonzero(mask[int(top + share * height)])
        return float(columns[-1] - columns[0] + 1) if len(columns) else 0.0

    waist, below = width(0.03), width(0.22)
    edge = [np.flatnonzero(mask[:, x]).min() for x in _inner_columns(mask, int(top + 0.03 * height))]
    straight = bool(edge) and float(np.ptp(edge)) < STRAIGHT * waist
    holes = np.diff(np.flatnonzero(mask[int(top + 0.22 * height)]))
    wide = waist > 0.72 * below and waist > 0.45 * width(0.6)
    return bool(straight and wide and (holes <= 3).all()) and _armhole_depth(mask, top, waist) < ARMHOLE * waist


def _armhole_depth(mask: Mask, top: int, waist: float) -> float:
    """Pixels by which a side goes inwards and out again near the top, the mean of both sides."""
    rows = mask[top + int(0.02 * waist) : top + int(SIDE * waist)]
    columns = [each for row in rows if len(each := np.flatnonzero(row))]
    depths = []
    for out in (np.array([-each[0] for each in columns]), np.array([each[-1] for each in columns])):
        above, below = np.maximum.accumulate(out), np.maximum.accumulate(out[::-1])[::-1]
        depths.append(np.max(np.minimum(above, below) - out, initial=0))
    return float(np.mean(depths))


def _inner_columns(mask: Mask, row: int) -> list[int]:
    columns = np.flatnonzero(mask[row])
    if not len(columns):
        return []
    return [
        int(x) for x in np.linspace(columns[0] * 0.85 + columns[-1] * 0.15, columns[0] * 0.15 + columns[-1] * 0.85, 12)
    ]


def cut_out(nets: Nets, rgb: Picture) -> _Cut:
    """The garment's mask, ``(H, W)`` uint8, how sure that is, and warnings.

    Catalogues show garments on an even ground, from which colour alone tells them; the saliency net is only asked
    where ground or contrast say that it does not.
    """
    small = shrunk(rgb, CUT_SIDE)
    lab = lab_of(np.asarray(cv2.GaussianBlur(small, (0, 0), 0.7), np.uint8))
    difference, noise, share = _difference_to_ground(lab)
    distance = np.sqrt(difference[..., 0] ** 2 + (1.6 * difference[..., 1]) ** 2 + (1.6 * difference[..., 2]) ** 2)
    mask = _by_colour(lab, difference, distance, noise)
    rim = (mask - eroded(mask, 13)) > 0
    contrast = float(np.median(distance[rim])) if rim.any() else 0.0
    busy, faint = noise > PLAIN or share < LEAST_GROUND, contrast < FAINT_CONTRAST
    warnings: tuple[str, ...] = tuple(text for found, text in ((busy, BUSY), (faint and not busy, FAINT)) if found)
    certainty = 1.0
    if busy or faint or not SMALLEST < mask.mean() < LARGEST:
        salient = (nets.saliency(small) > 0.5).astype(np.uint8)
        overlap = float((mask & salient).sum() / max(1, (mask | salient).sum()))
        mask, certainty = salient, 0.55 + 0.4 * overlap
    elif _may_lack(mask, distance, rim):
        saliency = nets.saliency(small)
        # Light cloth on a light ground: what the net is sure of belongs to it.
        more = mask | (eroded(saliency > 0.8, 5) & dilated(mask, 9)) | eroded(saliency > 0.9, 9)
        joined = largest(np.asarray(more, np.uint8))
        certainty = 1.0 - min(0.3, 2.0 * float((joined & (1 - mask)).sum() / max(1, mask.sum())))
        mask = joined
    mask = _without_shadow(largest(mask), difference, distance)
    mask = without_holes(largest(mask))
    if _touches(mask):
        warnings = (*warnings, TOUCHES_BORDERS)
    size = (rgb.shape[1], rgb.shape[0])
    large = cast("Floats", cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
    return _Cut((blurred(large, SMOOTH * max(rgb.shape[:2])) > 0.5).astype(np.uint8), certainty, warnings)


def _may_lack(mask: Mask, distance: Floats, rim: Bools) -> bool:
    """Whether a part of the garment may be missing."""
    faint = float((distance[rim] < FAINT_CONTRAST).mean()) if rim.any() else 1.0
    return faint > FAINT_RIM or symmetry_of(mask) < UNEVEN


def _difference_to_ground(lab: Floats) -> tuple[Floats, float, float]:
    """Lab minus the ground's, ``(H, W, 3)`` float32; how much the ground varies; how much of the frame it is.

    The ground is a plane per channel, because studio light falls off across a picture.
    """
    height, width = lab.shape[:2]
    border = max(4, int(GROUND_BORDER * min(height, width)))
    frame = np.ones((height, width), bool)
    frame[border:-border, border:-border] = False
    ys, xs = np.where(frame)
    values, at = lab[frame], np.c_[xs / width, ys / height, np.ones(len(xs))]
    keep = np.abs(values - np.median(values, 0)).max(1) < 25
    residual = np.zeros(len(xs))
    plane = np.zeros((3, 3))
    for _ in range(4):
        plane = np.linalg.lstsq(at[keep], values[keep], rcond=None)[0]
        residual = np.abs(values - at @ plane).max(1)
        keep = residual < max(3.0, 3.75 * float(np.median(residual[keep])))
    x, y = coordinates((height, width))
    level = np.stack([plane[0, c] * x / width + plane[1, c] * y / height + plane[2, c] for c in range(3)], -1)
    return lab - level.astype(np.float32), float(np.percentile(residual, 80)), float(keep.mean())


def _by_colour(lab: Floats, difference: Floats, distance: Floats, noise: float) -> Mask:
    """What differs from the ground and is no shadow."""
    slope = np.hypot(cv2.Sobel(lab[..., 0], cv2.CV_32F, 1, 0) / 8, cv2.Sobel(lab[..., 0], cv2.CV_32F, 0, 1) / 8)
    darker = (difference[..., 0] < 0) & (difference[..., 0] > -SHADOW_DEPTH)
    shadow = darker & (np.abs(difference[..., 1:]).max(-1) < SHADOW_CHROMA) & (slope < SHADOW_SLOPE)
    ground = (distance < max(LEAST_DIFFERENCE, 3 * noise)) | shadow
    framed = cv2.copyMakeBorder(ground.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(1,))
    _, pieces = cv2.connectedComponents(framed, connectivity=4)
    mask = (pieces != pieces[0, 0])[1:-1, 1:-1].astype(np.uint8)
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)
    return np.asarray(cv2.morphologyEx(largest(mask), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)), np.uint8)


def _without_shadow(mask: Mask, difference: Floats, distance: Floats) -> Mask:
    """Without the rim of shadow that lies against the garment: grey, and more like the ground than like the cloth."""
    core = eroded(mask, NARROW_SHADOW)
    if core.sum() < 200:
        return mask
    deep, deepest = eroded(mask, WIDE_SHADOW), SHADOW_DEPTH
    spread = difference[core > 0].std(0)
    if deep.sum() >= 200 and spread[0] < PLAIN_CLOTH and spread[1:].max() < 0.5 * PLAIN_CLOTH:
        # Cloth without a pattern has nothing that could be taken for a shadow, so wide and deep ones may be sought.
        core, deepest = deep, float("inf")
    cloth = filled(difference.astype(np.float32), core.astype(np.float32))
    to_cloth = np.sqrt(((difference - cloth) ** 2 * np.array([1, 2.56, 2.56], np.float32)).sum(-1))
    rim = (mask > 0) & (core == 0)
    grey = (np.abs(difference[..., 1:]).max(-1) < 1.6 * SHADOW_CHROMA) & (difference[..., 0] < -5)
    shadow = rim & grey & (to_cloth > 1.15 * distance) & (distance < deepest)
    # A shadow is one long piece; light stripes that end at the rim are many short ones.
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(shadow.astype(np.uint8), connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] > SHADOW_PIECE * mask.sum()
    large[0] = False
    left = largest((mask > 0) & ~large[pieces])
    return np.asarray(cv2.morphologyEx(left, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)), np.uint8)


def _touches(mask: Mask) -> bool:
    """Whether the garment runs out of the photo."""
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return any(edge.mean() > 0.03 for edge in edges)


def _matte(mask: Mask) -> Floats:
    """Alpha of a mask."""
    # Not the guided filter: on a white ground it takes the white stripes of a shirt for ground.
    # Two pixels inwards, so that the ground leaves no seam of light.
    return soft(eroded(mask, 5), 0.8)


def _own_colours(rgb: Picture, alpha: Floats) -> Picture:
    """Where it is not solid, the colour of the nearest cloth."""
    solid = eroded(alpha > 0.98, 5).astype(np.float32)
    if not solid.any():
        return rgb
    window = window_of(alpha > 0, 2)
    near = blurred(solid[window], CLOTH_NEARBY)[..., None]
    spread = blurred(rgb[window] * solid[window][..., None], CLOTH_NEARBY) / np.maximum(near, 1e-6)
    result = rgb.copy()
    result[window] = np.where((solid[window][..., None] > 0) | (near < 1e-4), rgb[window], picture_of(spread))
    return result


def _is_worn(nets: Nets, rgb: Picture, mask: Mask) -> bool:
    """Whether the photo shows a wearer: a body's pose, and skin where a body shows it.

    A print with a face lies in the middle of cloth; patterned or ripped cloth now and then passes for a pose.
    """
    skin = _skin_colours(rgb)
    if (skin & (mask > 0)).sum() < LEAST_SKIN * mask.sum():
        return False  # and the net need not be asked
    pose = nets.pose(rgb, mask.astype(np.float32), passes=2)
    joints = pose.joints
    if pose.score < PERSON_SCORE:
        return False
    unit, head = length(joints[11] - joints[12]), length(joints[7] - joints[8])

    def shows(at: Point, radius: float) -> bool:
        return _share(skin, at, max(2.0, radius * unit)) > SKIN_SEEN

    nose = joints[0]
    run = run_at(mask, float(nose[1]), float(nose[0]))
    # A head stands out at the top; a print lies in the middle of cloth.
    if run is None or run[1] - run[0] > WIDEST_HEAD * head or nose[1] > LOWEST_HEAD * rgb.shape[0]:
        return False
    hands = sum(shows((joints[wrist] + joints[finger]) / 2, 0.07) for wrist, finger in ((15, 19), (16, 20)))
    face = shows((nose + joints[9] + joints[10]) / 3, 0.12)
    neck = shows((joints[9] + joints[10]) * 0.225 + (joints[11] + joints[12]) * 0.275, 0.07)
    return face and (neck or hands > 0 or pose.score > SURELY)


def _skin_colours(rgb: Picture) -> Bools:
    """Skin of any tone in the plane of Cr and Cb: Chai and Ngan (1999), a little wider."""
    ycc = cv2.cvtColor(cv2.GaussianBlur(rgb, (0, 0), 2), cv2.COLOR_RGB2YCrCb)
    luma, red, blue = ycc[..., 0], ycc[..., 1], ycc[..., 2]
    return np.asarray((luma > 40) & (red >= 135) & (red <= 180) & (blue >= 85) & (blue <= 130))


def _share(where: Bools, at: Point, radius: float) -> float:
    around = disc((where.shape[0], where.shape[1]), at, radius) > 0
    return float(where[around].mean()) if around.any() else 0.0
