"""Garment photo -> cut-out, whether somebody wears it, and what kind of garment it is.

The numbers were tuned by eye on about 40 catalogue photos, where nothing else is said. Lengths are in pixels of the
photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np

from ..errors import ImageUnusable
from .bottom import Bottom, find_bottom
from .cutout import cut_out, is_as_large_as_a_garment, matte, own_colours
from .figure import EAR_L, EAR_R, MOUTH_L, MOUTH_R, NOSE
from .imaging import Bools, Mask, Picture, Point, disc, length, skin_colours
from .nets import Nets, Pose
from .person import HIPS, INDEX_FINGERS, SHOULDERS, WRISTS
from .silhouette import SMALLEST, Indices, Silhouette, box_of, run_at
from .sleeve import has_sleeves
from .top import Top, find_top

Kind: TypeAlias = Literal["upper", "lower", "dress"]

CUT_OFF: Final = 0.15
"""Of the width: a garment that meets the upper or the lower edge so far is not whole; or somebody wears it."""
ELLIPSE: Final = 0.93
"""Overlap (IoU) of the outline with the ellipse that fits it best. Garments had 0.92 at most, most of them 0.85;"""
RECTANGLE: Final = 0.99
"""Share of the narrowest rectangle around it that it fills: garments, straight skirts and tubes too, 0.95 at most,
shirts cut off straight below the sleeves 0.984."""

LOWER_HALF: Final = (0.5, 0.96)
"""Of the height: between these rows legs part,"""
LEGS_WITHIN: Final = 0.10
"""so far, of the width, to both sides of the middle."""
LEGS_GAP: Final = 0.45
"""Share of those rows in which there must be a gap."""
LEAST_ABOVE: Final = 0.3
"""Of the height: a gap that begins higher is a neck's."""
BELOW_CROTCH: Final = 0.08
"""Of the height: so far below the beginning of that gap its width is measured, as a hem need not be straight."""
WIDEST_CROTCH: Final = 0.4
"""Of the width: between legs the gap had 0.17 at most there, between sleeves below a short hem 0.5 and more."""
WHOLE: Final = (0.06, 0.3)
"""Of the height: between these rows trousers are whole in the middle,"""
WHOLE_ROWS: Final = 0.9
"""in such a share of them."""

WAIST, BELOW_WAIST, FURTHER_BELOW = 0.03, 0.22, 0.6
"""Of the height: where the width of an upper edge is measured, and what it is compared with:"""
WAIST_OF_BELOW, WAIST_OF_FURTHER = 0.72, 0.45
"""it is at least so wide, over the width of the second and of the third row."""
WIDEST_SLIT: Final = 3
"""Pixels from one column to the next, in the second row; sleeves and arms leave wider gaps."""
EDGE: Final = (0.85, 0.15)
"""Weights of the two ends in the first column of an upper edge, and the other way round in the last one,"""
EDGE_COLUMNS: Final = 12
"""of so many, in which its height is measured: its corners are round."""
STRAIGHT: Final = 0.05
"""Of the width of an upper edge, by which it may rise and fall; waistbands did by 0.04 at most, necklines by 0.02
and more."""
ARMHOLE: Final = 0.025
"""Of that width: sides that go inwards and out again by more have armholes. Skirts and shorts did by 0.011 at most,
sleeveless tops and dresses by 0.035 and more,"""
SIDE: Final = 0.8
"""so far down, in the same width,"""
BELOW_EDGE: Final = 0.02
"""from so far below the edge on."""
DRESS: Final = 2.75
"""Length over chest width; tunics have less, dresses that reach the knee more."""

PERSON_SCORE: Final = 0.85
"""Pose score of the garment photo. People had 0.90 to 1.00, most garments alone less."""
PASSES: Final = 2
"""Of the pose net, each of which looks where the one before has found somebody; a wearer need not be found exactly."""
SURELY: Final = 0.95
"""Pose score with which a face alone is enough, without hands or neck."""
SURE_ENOUGH: Final = 0.93
"""Pose score with which arms are enough. Of 28 garments one had more, and skin's colours on its chest."""
HIGH_SHOULDERS: Final = 0.3
"""Of the height, from the upper edge: of wearers whose head is cut off 0.05 to 0.21, of a print on trousers 0.48."""
CHEST, CHEST_SKIN = 0.2, 0.1
"""Radius, in shoulder widths, of what is looked at of the chest, and the share of skin colours there: of wearers none,
unless they wear such cloth,"""
CHEST_AT: Final = (0.35, 0.6, 0.85)
"""so far on the way from the shoulders to the hips."""
WIDEST_HEAD: Final = 2.4
"""Width of what the nose lies on, over the distance of the ears: 1.3 to 2.0 of wearers, 2.8 and more of prints."""
LOWEST_HEAD: Final = 2.2
"""Distances of the ears from the top of the outline down to the nose: 0 to 1.4 of wearers, 2.3 and more of prints on
chest or belly; of those under a collar 0.8 to 1.2, which lie on wide cloth."""
LEAST_SKIN: Final = 0.015
"""Share of skin colours; of people in clothes from head to feet 0.04 and more."""
SKIN_SEEN: Final = 0.5
"""Share of skin colours in a place where a wearer would show skin:"""
HAND, FACE, NECK = 0.07, 0.12, 0.07
"""discs of such radii, in shoulder widths,"""
SMALLEST_DISC: Final = 2.0
"""and at least so many pixels."""
NECK_AT: Final = (0.225, 0.275)
"""Weights of each corner of the mouth and of each shoulder in the middle of the neck."""

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


def analyse(nets: Nets, rgb: Picture, kind: Kind | None = None) -> Garment:
    """Cut the garment out and find its landmarks. Raise ``ImageUnusable`` where there is none, or somebody wears it.

    ``kind`` is what the client says it is; None looks at the outline.
    """
    if min(rgb.shape[:2]) < SMALLEST:
        raise ImageUnusable(NO_GARMENT)
    cut = cut_out(nets, rgb)
    if not is_as_large_as_a_garment(cut.mask) or is_plain_shape(cut.mask):
        raise ImageUnusable(NO_GARMENT)
    if max(cut.mask[0].mean(), cut.mask[-1].mean()) > CUT_OFF:
        raise ImageUnusable(NOT_WHOLE)
    if _is_worn(nets, rgb, cut.mask):
        raise ImageUnusable(WORN_BY_SOMEBODY)
    alpha = matte(cut.mask)
    kind, shape, doubt = shape_of(rgb, cut.mask, kind)
    if kind == "upper" and isinstance(shape, Top) and shape.length > DRESS * shape.chest_width:
        kind = "dress"
    warnings = (*cut.warnings, doubt) if doubt else cut.warnings
    solid = np.rint(alpha * 255).astype(np.uint8)
    return Garment(own_colours(rgb, alpha), solid, kind, shape, cut.certainty, warnings)


def shape_of(rgb: Picture, mask: Mask, told: Kind | None) -> tuple[Kind, Top | Bottom, str]:
    """What it is, its landmarks, and what is doubtful about it; a guess that does not fit is taken back.

    ``told`` is what the client says it is; the doubt is ``OTHER_KIND``, ``LIKE_A_SKIRT`` or empty. Raise
    ``ImageUnusable`` where the outline is of neither kind, or not of the kind that was told.
    """
    seen, legs = kind_of(mask), _legs_apart(box_of(mask))
    kind = told or seen
    if kind == "lower":
        try:
            doubt = OTHER_KIND if seen != "lower" else "" if told or legs else LIKE_A_SKIRT
            return kind, find_bottom(mask), doubt
        except ImageUnusable:
            if told:
                raise
            kind = "upper"
    if legs:
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
    """Whether it hangs from the shoulders, "upper", or from the waist, "lower".

    ``mask`` must have something. Raise ``ImageUnusable`` where it is too small to tell.
    """
    box = box_of(mask)
    if _legs_apart(box) and _whole_above(box):
        return "lower"
    return "lower" if _has_waistband(box) and not has_sleeves(mask) else "upper"


def _legs_apart(box: Silhouette) -> bool:
    """Whether there is a gap in the middle of the lower half: between legs, or the fronts of an open garment."""
    middle, reach = _middle_column(box), max(1, int(LEGS_WITHIN * box.width))
    first, last = LOWER_HALF
    around = box.mask[:, middle - reach : middle + reach + 1]
    below = around[int(box.row(first)) : int(box.row(last))]
    if not below.size or float((below.min(1) == 0).mean()) <= LEGS_GAP:
        return False
    # Legs part in a point; between sleeves that hang below a short hem there is the whole width.
    open_rows = np.flatnonzero((around[box.top : box.top + int(last * box.height)] == 0).any(1))
    crotch = box.top + int(open_rows[open_rows > LEAST_ABOVE * box.height][0])
    gaps = np.diff(np.flatnonzero(box.mask[int(min(crotch + BELOW_CROTCH * box.height, box.row(last)))]))
    return bool(len(gaps)) and int(gaps.max()) < WIDEST_CROTCH * box.width


def _middle_column(box: Silhouette) -> int:
    return (box.left + box.right) // 2


def _whole_above(box: Silhouette) -> bool:
    """Whether the upper third is whole: a top's sleeves hang beside its body, not below it."""
    first, last = WHOLE
    return bool(box.mask[int(box.row(first)) : int(box.row(last)), _middle_column(box)].mean() > WHOLE_ROWS)


def _has_waistband(box: Silhouette) -> bool:
    """A straight upper edge nearly as wide as what hangs from it, and nothing at its sides: a skirt, or shorts."""

    def columns(share: float) -> Indices:
        return np.flatnonzero(box.mask[int(box.row(share))])

    def width(share: float) -> float:
        row = columns(share)
        return float(row[-1] - row[0] + 1) if len(row) else 0.0

    waist = width(WAIST)
    edge = [np.flatnonzero(box.mask[:, x]).min() for x in _inner_columns(columns(WAIST))]
    straight = bool(edge) and float(np.ptp(edge)) < STRAIGHT * waist
    wide = waist > WAIST_OF_BELOW * width(BELOW_WAIST) and waist > WAIST_OF_FURTHER * width(FURTHER_BELOW)
    whole = (np.diff(columns(BELOW_WAIST)) <= WIDEST_SLIT).all()
    return bool(straight and wide and whole) and _armhole_depth(box, waist) < ARMHOLE * waist


def _armhole_depth(box: Silhouette, waist: float) -> float:
    """Pixels by which a side goes inwards and out again near the top, the mean of both sides."""
    rows = box.mask[box.top + int(BELOW_EDGE * waist) : box.top + int(SIDE * waist)]
    columns = [each for row in rows if len(each := np.flatnonzero(row))]
    depths = []
    for out in (np.array([-each[0] for each in columns]), np.array([each[-1] for each in columns])):
        above, below = np.maximum.accumulate(out), np.maximum.accumulate(out[::-1])[::-1]
        depths.append(np.max(np.minimum(above, below) - out, initial=0))
    return float(np.mean(depths))


def _inner_columns(row: Indices) -> list[int]:
    """Some of the columns of a row, evenly spread, without those near its ends; none of an empty row."""
    if not len(row):
        return []
    near, far = EDGE
    ends = row[0] * near + row[-1] * far, row[0] * far + row[-1] * near
    return [int(x) for x in np.linspace(*ends, EDGE_COLUMNS)]


def _is_worn(nets: Nets, rgb: Picture, mask: Mask) -> bool:
    """Whether the photo shows a wearer: a body's pose, and skin where a body shows it.

    A print with a face lies in the middle of cloth; patterned or ripped cloth now and then passes for a pose. The head
    may be cut off.
    """
    skin = skin_colours(rgb)
    if (skin & (mask > 0)).sum() < LEAST_SKIN * mask.sum():
        return False  # and the net need not be asked
    pose = nets.pose(rgb, mask.astype(np.float32), passes=PASSES)
    if pose.score < PERSON_SCORE:
        return False
    return (_has_head(pose, mask) and _shows_skin(pose, skin)) or _has_arms(pose, mask, skin)


def _has_head(pose: Pose, mask: Mask) -> bool:
    """Whether the head stands out at the top; a print lies in the middle of cloth."""
    x, y = (float(each) for each in pose.joints[NOSE])
    run = run_at(mask, y, x)
    ears = length(pose.joints[EAR_L] - pose.joints[EAR_R])
    above = y - float(np.flatnonzero(mask.any(1))[0])
    return run is not None and run[1] - run[0] <= WIDEST_HEAD * ears and above <= LOWEST_HEAD * ears


def _shows_skin(pose: Pose, skin: Bools) -> bool:
    """Whether there is skin in the face, and on the neck or a hand, unless the pose is sure."""
    face = (pose.joints[NOSE] + pose.joints[MOUTH_L] + pose.joints[MOUTH_R]) / 3
    if _skin_at(pose, skin, face, FACE) <= SKIN_SEEN:
        return False
    return pose.score > SURELY or max(_skin_of_neck(pose, skin), *_skin_of_hands(pose, skin)) > SKIN_SEEN


def _has_arms(pose: Pose, mask: Mask, skin: Bools) -> bool:
    """Whether a sure pose at the upper edge has skin on both hands, and none on the chest: cloth may look like it."""
    shoulders, hips = (pose.joints[list(pair)].mean(0) for pair in (SHOULDERS, HIPS))
    chest = max(_skin_at(pose, skin, shoulders + (hips - shoulders) * share, CHEST) for share in CHEST_AT)
    rows = np.flatnonzero(mask.any(1))
    if pose.score < SURE_ENOUGH or shoulders[1] - rows[0] > HIGH_SHOULDERS * (rows[-1] - rows[0]):
        return False
    return min(_skin_of_hands(pose, skin)) > SKIN_SEEN and chest < CHEST_SKIN


def _skin_of_neck(pose: Pose, skin: Bools) -> float:
    of_mouth, of_shoulders = NECK_AT
    joints, (left, right) = pose.joints, SHOULDERS
    neck = (joints[MOUTH_L] + joints[MOUTH_R]) * of_mouth + (joints[left] + joints[right]) * of_shoulders
    return _skin_at(pose, skin, neck, NECK)


def _skin_of_hands(pose: Pose, skin: Bools) -> list[float]:
    hands = zip(WRISTS, INDEX_FINGERS, strict=True)
    return [_skin_at(pose, skin, (pose.joints[wrist] + pose.joints[finger]) / 2, HAND) for wrist, finger in hands]


def _skin_at(pose: Pose, skin: Bools, at: Point, radius: float) -> float:
    """The share of skin colours in a disc; ``radius`` in shoulder widths."""
    left, right = SHOULDERS
    unit = length(pose.joints[left] - pose.joints[right])
    return _share(skin, at, max(SMALLEST_DISC, radius * unit))


def _share(where: Bools, at: Point, radius: float) -> float:
    """The share of a disc that is true; 0 outside of the photo."""
    around = disc((where.shape[0], where.shape[1]), at, radius) > 0
    return float(where[around].mean()) if around.any() else 0.0
