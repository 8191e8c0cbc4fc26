"""Which pixels of a person are skin, hair, clothes or shoes, without a parsing net.

One mixture of Gaussians per part (``cv2.ml.EM``) learns the part's colours where the joints say it must be; priors
tell how far from the joints it may reach; the guided filter lets the borders follow the edges of the photo.
The priors' weights were tuned by eye on eight people, in units of the shoulder width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageUnusable
from .imaging import (
    Bools,
    Floats,
    Mask,
    Picture,
    Point,
    Shape,
    along,
    blurred,
    dilated,
    disc,
    distance_to,
    grey_of,
    guided,
    lab_of,
    length,
    polygon,
    shrunk,
    soft,
    thick_line,
)


class Part(IntEnum):
    """What a pixel shows."""

    BACKGROUND = 0
    SKIN = 1
    HAIR = 2
    UPPER = 3
    """Clothes above the waist."""
    LOWER = 4
    """Clothes below it."""
    SHOES = 5


PARSING_SIDE: Final = 420
"""Pixels of the longer side; more costs time and parses no better."""
COLOURS: Final = {Part.SKIN: 2, Part.HAIR: 3, Part.UPPER: 4, Part.LOWER: 3, Part.SHOES: 3}
"""Gaussians in the mixture of each part."""
BARE_LEGS: Final = 0.4
"""Units of distance by which skin is less likely on legs than on arms."""
WAIST_STEP: Final = 2
"""Rows by which the waist may rise or fall from one column to the next, at parsing size."""
WAIST_BEND: Final = 10.0
"""Energy that such a row costs."""
WAIST_TILTS: Final = tuple(np.linspace(-0.12, 0.12, 7).tolist())
"""Rows to a column by which a waist may slope as a whole."""
WAIST_REACH: Final = 0.08
"""Units by which it may differ from a straight line. Where both clothes are of one cloth the colours tell nothing."""
FORBIDDEN: Final = 1e6
ARM_PRIOR: Final = 2.0
"""What lower clothes cost on the arms."""
LOOKS_LOWER: Final = 1.5
"""Energy by which what hangs below the waist beside an arm is lower clothes rather than a sleeve."""
TEXTURES_APART: Final = 8.0
"""Lab lightness: where the local deviations of upper and lower clothes differ by so much, one has a pattern."""
ISLAND: Final = 0.004
ISLAND_OF_SKIN: Final = 0.15
"""Squares of the unit: smaller pieces of a part belong to what lies around them."""
COVERED: Final = 0.1
"""Share of the thighs that clothes cover at least."""
OTHER_TONE: Final = 4.0
"""Lab chroma: the legs' skin is more like the face's than that."""
STRAND: Final = 0.05
"""Units: hair that hangs below the chin is at least as broad where it comes from the head,"""
LONGEST_STRAND: Final = 1.2
"""and, for its breadth there, no longer, unless it is"""
BROAD_STRAND: Final = 0.15
"""broad."""
MAX_SAMPLES: Final = 2000
RANDOM_SEED: Final = 7
"""OpenCV's EM draws from a generator per thread; seeded anew, the same photo parses the same."""

# Landmarks of BlazePose, for the parts that only parsing looks at.
NOSE, EAR_L, EAR_R, MOUTH_L, MOUTH_R = 0, 7, 8, 9, 10
SHOULDER_L, SHOULDER_R, HIP_L, HIP_R = 11, 12, 23, 24
ARMS: Final = ((11, 13, 15), (12, 14, 16))
HANDS: Final = ((15, 19, 17), (16, 20, 18))
"""Wrist, index finger, little finger."""
LEGS: Final = ((23, 25, 27), (24, 26, 28))
FEET: Final = ((29, 31), (30, 32))

Samples: TypeAlias = dict[Part, Floats]
"""Lab colours of a part, ``(N, 3)`` float32."""
Mixture: TypeAlias = tuple[Floats, Floats, Floats]
"""Weights ``(K,)``, means ``(K, 3)`` and variances ``(K, 3)``."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """The parts of a person, in pixels of the photo."""

    labels: Mask
    """``(H, W)`` uint8, of ``Part``."""
    face: Mask
    skin: Floats
    """``(3,)`` float32, the face's Lab."""
    chin: Point
    up: Point
    side: Point


@dataclass(frozen=True, slots=True)
class _Figure:
    """The joints at parsing size, and a frame on the body."""

    joints: Floats
    unit: float
    """The shoulder width."""
    shape: Shape

    @property
    def shoulders(self) -> Point:
        return cast("Point", (self.joints[SHOULDER_L] + self.joints[SHOULDER_R]) / 2)

    @property
    def hips(self) -> Point:
        return cast("Point", (self.joints[HIP_L] + self.joints[HIP_R]) / 2)

    @property
    def up(self) -> Point:
        up = self.shoulders - self.hips
        return up / (length(up) + 1e-6)

    @property
    def side(self) -> Point:
        """Towards the person's left."""
        side = np.array([-self.up[1], self.up[0]])
        return -side if side @ (self.joints[SHOULDER_L] - self.joints[SHOULDER_R]) < 0 else side

    @property
    def head_width(self) -> float:
        return max(length(self.joints[EAR_L] - self.joints[EAR_R]), 0.3 * self.unit)

    @property
    def ears(self) -> Point:
        return cast("Point", (self.joints[EAR_L] + self.joints[EAR_R]) / 2)

    @property
    def chin(self) -> Point:
        return cast("Point", (self.joints[MOUTH_L] + self.joints[MOUTH_R]) / 2 - self.up * 0.38 * self.head_width)


@dataclass(frozen=True, slots=True)
class _Regions:
    """Where the joints say that something must be; masks at parsing size."""

    face: Mask
    head: Mask
    neck: Mask
    hands: Mask
    arms: Mask
    torso: Mask
    chest: Mask
    """Surely the upper clothes: no further down than 55 % of the torso, or cropped jackets swallow the jeans."""
    legs: Mask
    thighs: Mask
    """Surely the lower clothes."""
    feet: Mask


def parse(rgb: Picture, mask: Mask, joints: Floats, shoulder_width: float) -> Parsed:
    """Label every pixel of the person. Raise ``ImageUnusable`` where face or torso are hidden."""
    small = shrunk(rgb, PARSING_SIDE)
    scale = min(1.0, PARSING_SIDE / max(rgb.shape[:2]))
    lab = lab_of(cast("Picture", cv2.GaussianBlur(small, (0, 0), 0.8)))
    shape = (lab.shape[0], lab.shape[1])
    person = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA) > 0
    figure = _Figure(joints * scale, shoulder_width * scale, shape)
    regions = _regions(figure)
    skin = _skin_of_face(lab[(regions.face > 0) & person])
    samples = _samples(lab, person, figure, regions, skin)
    energies = _energies(samples, _priors(figure, regions), lab)
    labels = _most_likely(energies, grey_of(small))
    _straighten_waist(labels, energies, lab[..., 0], figure, regions)
    labels[~person] = Part.BACKGROUND
    _join_islands(labels, person, list(samples), figure, regions)
    _drop_hair_specks(labels, energies, figure)
    height, width = mask.shape
    return Parsed(
        labels=_full_size(labels, mask, sorted(samples), 1.2 / scale),
        face=cast("Mask", cv2.resize(regions.face, (width, height), interpolation=cv2.INTER_NEAREST)),
        skin=np.median(skin, 0),
        chin=figure.chin / scale,
        up=figure.up,
        side=figure.side,
    )


def _regions(figure: _Figure) -> _Regions:
    joints, unit, shape = figure.joints, figure.unit, figure.shape
    up, side, head_width = figure.up, figure.side, figure.head_width
    face = np.zeros(shape, np.uint8)
    middle = joints[NOSE] + up * 0.05 * head_width
    axes = (int(0.36 * head_width), int(0.5 * head_width))
    cv2.ellipse(face, (int(middle[0]), int(middle[1])), axes, 0, 0, 360, (1,), -1)
    hands = np.zeros(shape, np.uint8)
    for wrist, index, little in HANDS:
        knuckles = (joints[index] + joints[little]) / 2
        centre = (joints[wrist] + joints[index] + joints[little]) / 3 + 0.35 * (knuckles - joints[wrist])
        hands |= disc(shape, centre, max(2, int(0.14 * unit)))
    legs = _limbs(shape, [joints[list(leg)] for leg in LEGS], 0.2 * unit)
    legs[: int(max(0, figure.hips[1] - 0.05 * unit))] = 0
    thighs = [np.array([joints[hip] * 0.75 + joints[knee] * 0.25, joints[knee]]) for hip, knee, _ in LEGS]
    return _Regions(
        face=face,
        head=disc(shape, figure.ears + up * 0.2 * head_width, int(0.95 * head_width)),
        neck=polygon(
            shape,
            [
                figure.chin + side * 0.16 * unit,
                figure.chin - side * 0.16 * unit,
                figure.shoulders - side * 0.2 * unit + up * 0.08 * unit,
                figure.shoulders + side * 0.2 * unit + up * 0.08 * unit,
            ],
        ),
        hands=hands,
        arms=_limbs(shape, [joints[list(arm)] for arm in ARMS], 0.16 * unit),
        torso=polygon(
            shape,
            [
                joints[SHOULDER_R] - side * 0.1 * unit + up * 0.1 * unit,
                joints[SHOULDER_L] + side * 0.1 * unit + up * 0.1 * unit,
                joints[HIP_L] + side * 0.1 * unit,
                joints[HIP_R] - side * 0.1 * unit,
            ],
        ),
        chest=polygon(
            shape,
            [
                joints[SHOULDER_R] + side * 0.08 * unit - up * 0.12 * unit,
                joints[SHOULDER_L] - side * 0.08 * unit - up * 0.12 * unit,
                joints[HIP_L] * 0.55 + joints[SHOULDER_L] * 0.45 - side * 0.05 * unit,
                joints[HIP_R] * 0.55 + joints[SHOULDER_R] * 0.45 + side * 0.05 * unit,
            ],
        )
        & (1 - dilated(hands, 5)),
        legs=legs,
        thighs=_limbs(shape, thighs, 0.09 * unit),
        feet=_limbs(shape, [joints[list(foot)] for foot in FEET], 0.09 * unit),
    )


def _limbs(shape: Shape, limbs: list[Floats], radius: float) -> Mask:
    """Thick lines with round ends and joints."""
    mask = np.zeros(shape, np.uint8)
    for limb in limbs:
        points = np.round(limb)
        mask |= thick_line(shape, points, max(1, int(2 * radius)))
        for point in points:
            mask |= disc(shape, point, radius)
    return mask


def _skin_of_face(colours: Floats) -> Floats:
    """The face's Lab colours without eyes, mouth and beard."""
    if len(colours) < 20:
        raise ImageUnusable(
            "Person photo: the face is not visible. Use an upright photo that shows the whole person from the front."
        )
    median = np.median(colours, 0)
    usual = (np.abs(colours[:, 0] - median[0]) < 35) & (np.abs(colours[:, 1:] - median[1:]).max(1) < 14)
    return colours[usual] if usual.sum() > 20 else colours


def _samples(lab: Floats, person: Bools, figure: _Figure, regions: _Regions, skin: Floats) -> Samples:
    """Colours of each part from where it must be; a part that is not seen is left out."""
    tone = np.median(skin, 0)
    skinlike = (np.abs(lab[..., 1:] - tone[1:]).max(-1) < 14) & (np.abs(lab[..., 0] - tone[0]) < 60)
    hands = lab[(regions.hands > 0) & person & skinlike]
    samples: Samples = {Part.SKIN: np.vstack([skin, hands]) if len(hands) > 10 else skin}
    height = along(figure.shape, figure.ears, figure.up)
    lateral = along(figure.shape, figure.ears, figure.side)
    hair = lab[person & (height > 0.75 * figure.head_width) & (np.abs(lateral) < figure.head_width)]
    if len(hair) <= 15:  # the photo ends below the top of the head
        beside = person & (regions.head > 0) & (regions.face == 0) & (height > -0.5 * figure.head_width) & ~skinlike
        hair = lab[beside]
    if len(hair) > 15:
        samples[Part.HAIR] = hair
    samples[Part.UPPER] = lab[(regions.chest > 0) & person]
    if len(samples[Part.UPPER]) < 30:
        raise ImageUnusable(
            "Person photo: the upper body is not visible. Use an upright photo that shows the whole person from the "
            "front."
        )
    for part, region, least in ((Part.LOWER, regions.thighs, 40), (Part.SHOES, regions.feet, 30)):
        whole = (region > 0) & person
        colours = lab[whole & ~skinlike]
        if part == Part.LOWER and len(colours) < COVERED * whole.sum():
            # No skirt is that short: cloth in skin's colours, unless it is the face's own.
            every = lab[whole]
            if np.abs(np.median(every, 0) - tone)[1:].max() > OTHER_TONE:
                colours = every
        if len(colours) > least:
            samples[part] = colours
    return samples


def _priors(figure: _Figure, regions: _Regions) -> dict[Part, Floats]:
    """What it costs to give a part to a pixel there, in units of the mixtures' energy."""
    height = along(figure.shape, figure.ears, figure.up)
    above_shoulders = along(figure.shape, figure.shoulders, figure.up) / figure.unit
    below_hips = np.maximum(along(figure.shape, figure.hips, -figure.up) / figure.unit, -9)
    face, neck, hands, arms, legs = regions.face, regions.neck, regions.hands, regions.arms, regions.legs

    def beyond(region: Mask, free: float) -> Floats:
        """Distance to the region in shoulder widths, of which some is free."""
        return cast("Floats", np.maximum(distance_to(region) / figure.unit - free, 0))

    return {
        Part.SKIN: 9 * np.minimum(beyond(face | neck | hands | arms, 0.03), beyond(legs, 0.02) + BARE_LEGS)
        + 3.5 * (regions.torso > 0) * (1 - arms) * (1 - dilated(neck, 9)),
        Part.HAIR: 6 * beyond(regions.head, 0.0) + 6 * (face > 0) * (height < 0.2 * figure.head_width),
        Part.UPPER: 9 * beyond(regions.torso | arms, 0.06)
        + 8 * np.maximum(above_shoulders - 0.15, 0)
        + 25 * np.maximum(below_hips - 0.25, 0)
        + 5 * (face > 0)
        + 2.5 * (hands > 0)
        + 1.5 * (neck > 0),
        Part.LOWER: 9 * beyond(regions.legs, 0.08)
        + 25 * np.maximum(-below_hips - 0.25, 0)
        + 3 * (hands > 0)
        + ARM_PRIOR * (arms > 0),
        Part.SHOES: 25 * beyond(regions.feet, 0.06) + 100 * (beyond(regions.feet, 0.4) > 0),
    }


def _energies(samples: Samples, priors: Mapping[Part, Floats], lab: Floats) -> dict[Part, Floats]:
    """How badly each part suits each pixel, by its colour and its place; ``(H, W)``."""
    cv2.setRNGSeed(RANDOM_SEED)
    pixels = lab.reshape(-1, 3)
    shape = lab.shape[:2]
    energies = {}
    for part, colours in samples.items():
        energy = _energy(_mixture(colours, COLOURS[part]), pixels).reshape(shape)
        energies[part] = (np.clip(energy, -5, 40) + priors[part]).astype(np.float32)
    return energies


def _most_likely(energies: Mapping[Part, Floats], grey: Floats) -> Mask:
    """The part of the least energy at every pixel, after smoothing along the photo's edges."""
    parts = sorted(energies)
    energy = np.stack([energies[part] for part in parts])
    energy -= energy.min(0)
    likely = np.exp(-0.6 * np.minimum(energy, 30))
    likely /= likely.sum(0)
    smooth = np.stack([guided(grey, plane.astype(np.float32), 3, 1e-3) for plane in likely])
    return cast("Mask", np.array(parts, np.uint8)[np.argmax(smooth, 0)])


def _straighten_waist(
    labels: Mask, energies: Mapping[Part, Floats], lightness: Floats, figure: _Figure, regions: _Regions
) -> None:
    """One line between upper and lower clothes, from side to side: the cheapest by dynamic programming. In place.

    Pixel by pixel a pattern of the one is taken for the other wherever their colours meet.
    """
    if Part.LOWER not in energies:
        return
    trunk = ((labels == Part.UPPER) | (labels == Part.LOWER)) & (regions.arms == 0)
    top, bottom = figure.shoulders[1] + 0.3 * figure.unit, figure.hips[1] + 0.7 * figure.unit
    rows = slice(int(np.clip(top, 0, labels.shape[0] - 2)), int(np.clip(bottom, 2, labels.shape[0])))
    middle = np.abs(np.arange(labels.shape[1]) - (figure.shoulders[0] + figure.hips[0]) / 2) < 0.75 * figure.unit
    columns = np.flatnonzero(trunk[rows].any(0) & middle)
    if len(columns) < 5 or rows.stop - rows.start < 5:
        return
    preferred = np.clip(energies[Part.UPPER] - energies[Part.LOWER], -8, 8) + _by_texture(lightness, regions)
    gain = np.where(trunk[rows][:, columns], preferred[rows][:, columns], 0)
    # What it costs to begin the lower clothes at each row: everything above is upper.
    cost = np.concatenate([np.zeros((1, len(columns))), np.cumsum(gain, 0)])
    path = _cheapest(_near_a_line(cost, columns, WAIST_REACH * figure.unit))
    row_numbers = np.arange(rows.start, rows.stop)[:, None]
    part = np.where(row_numbers < rows.start + path[None], Part.UPPER, Part.LOWER)
    window = labels[rows][:, columns]
    labels[rows.start : rows.stop, columns] = np.where(trunk[rows][:, columns], part, window)
    waist = np.interp(np.arange(labels.shape[1]), columns, rows.start + path)
    _clear_below(waist, labels, preferred + ARM_PRIOR * (regions.arms > 0))


def _clear_below(waist: Floats, labels: Mask, preferred: Floats) -> None:
    """Give upper pieces that hang below the waist to the lower clothes where they look like them. In place.

    ``preferred`` is how much each pixel speaks for the lower clothes.
    """
    below = np.arange(len(labels))[:, None] >= waist
    count, pieces = cv2.connectedComponents(((labels == Part.UPPER) & below).astype(np.uint8), connectivity=4)
    for index in range(1, count):
        piece = pieces == index
        if preferred[piece].mean() > LOOKS_LOWER:
            labels[piece] = Part.LOWER


def _by_texture(lightness: Floats, regions: _Regions) -> Floats:
    """How much the texture speaks for the lower clothes, where it tells them from the upper ones."""
    mean = blurred(lightness, 4.0)
    texture = np.sqrt(np.maximum(blurred(lightness * lightness, 4.0) - mean * mean, 0))
    chest, thighs = texture[regions.chest > 0], texture[regions.thighs > 0]
    if not len(chest) or not len(thighs):
        return np.zeros_like(lightness)
    above, below = float(np.median(chest)), float(np.median(thighs))
    if abs(above - below) < TEXTURES_APART:
        return np.zeros_like(lightness)
    return np.clip((np.abs(texture - above) - np.abs(texture - below)) / 3, -6, 6)


def _near_a_line(cost: Floats, columns: NDArray[np.intp], reach: float) -> Floats:
    """The cost, forbidding what lies further than ``reach`` from the cheapest straight line."""
    rows, across = np.arange(len(cost)), np.arange(len(columns))
    lines = []
    for tilt in WAIST_TILTS:
        offset = np.rint(tilt * (columns - columns.mean())).astype(np.intp)
        total = cost[np.clip(rows[:, None] + offset, 0, len(cost) - 1), across].sum(1)
        lines.append((float(total.min()), int(total.argmin()) + offset))
    line = min(lines, key=lambda each: each[0])[1]
    return np.where(np.abs(rows[:, None] - np.clip(line, 0, len(cost) - 1)) <= reach, cost, cost + FORBIDDEN)


def _cheapest(cost: Floats) -> NDArray[np.intp]:
    """The row of the cheapest path in each column, from the first column to the last."""
    count = cost.shape[1]
    total, back = cost[:, 0].copy(), np.zeros(cost.shape, np.intp)
    rows = np.arange(len(total))
    for column in range(1, count):
        best, origin = total.copy(), rows.copy()
        for step in (*range(-WAIST_STEP, 0), *range(1, WAIST_STEP + 1)):
            moved = np.full_like(total, np.inf)
            source = rows - step
            inside = (source >= 0) & (source < len(total))
            moved[inside] = total[source[inside]] + WAIST_BEND * abs(step)
            better = moved < best
            best[better], origin[better] = moved[better], source[better]
        back[:, column] = origin
        total = best + cost[:, column]
    path = np.zeros(count, np.intp)
    path[-1] = int(np.argmin(total))
    for column in range(count - 1, 0, -1):
        path[column - 1] = back[path[column], column]
    return path


def _mixture(colours: Floats, count: int) -> Mixture:
    em = cv2.ml.EM.create()
    em.setClustersNumber(int(max(1, min(count, len(colours) // 30))))
    em.setCovarianceMatrixType(cv2.ml.EM_COV_MAT_DIAGONAL)
    em.setTermCriteria((cv2.TERM_CRITERIA_COUNT, 10, 0.1))
    if len(colours) > MAX_SAMPLES:
        colours = colours[np.random.default_rng(0).choice(len(colours), MAX_SAMPLES, replace=False)]
    em.trainEM(np.ascontiguousarray(colours, np.float64))
    variances = np.stack([np.diag(np.asarray(covariance)) for covariance in em.getCovs()]) + 9.0
    return cast("Floats", em.getWeights().ravel()), cast("Floats", em.getMeans()), variances


def _energy(mixture: Mixture, pixels: Floats) -> Floats:
    """Negative log likelihood, ``(N,)``, up to a constant."""
    weights, means, variances = mixture
    inverse = (1 / variances).astype(np.float32)
    # The square of the difference, multiplied out: one product of matrices for all Gaussians.
    squared = pixels**2 @ inverse.T - 2 * pixels @ (means * inverse).T.astype(np.float32)
    constant = np.log(weights + 1e-6) - 0.5 * ((means**2 * inverse) + np.log(variances)).sum(1)
    likelihoods = constant.astype(np.float32) - 0.5 * squared
    most = likelihoods.max(1)
    return cast("Floats", -most - np.log(np.exp(likelihoods - most[:, None]).sum(1)))


def _join_islands(labels: Mask, person: Bools, parts: list[Part], figure: _Figure, regions: _Regions) -> None:
    """Give small pieces to what surrounds them; in place."""
    # Bare thighs hang together with shins, or leave the photo.
    limbs = [*(figure.joints[list(arm)] for arm in ARMS), *(figure.joints[list(leg[1:])] for leg in LEGS)]
    bodily = regions.face | regions.neck | regions.hands | _limbs(figure.shape, limbs, 1)
    bodily[-2:] = 1
    for part in sorted(parts):
        count, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == part).astype(np.uint8), connectivity=4)
        for index in range(1, count):
            area, piece = stats[index, cv2.CC_STAT_AREA] / figure.unit**2, pieces == index
            # Of skin larger ones, too, where no skin must be: prints in its colours.
            if area < ISLAND or (part == Part.SKIN and area < ISLAND_OF_SKIN and not (piece & (bodily > 0)).any()):
                ring = (dilated(piece, 3) > 0) & ~piece & person
                if ring.any():
                    labels[piece] = np.bincount(labels[ring]).argmax()


def _drop_hair_specks(labels: Mask, energies: Mapping[Part, Floats], figure: _Figure) -> None:
    """Below the chin only strands that come from the head are hair; else it is a collar, or a shadow. In place."""
    hair = labels == Part.HAIR
    above = along(figure.shape, figure.chin, figure.up) > 0
    head = dilated(hair & above, 3) > 0
    head[:2] = True  # or the photo ends below
    count, pieces = cv2.connectedComponents((hair & ~above).astype(np.uint8), connectivity=8)
    for index in range(1, count):
        piece = pieces == index
        root = float((piece & head).sum()) / figure.unit
        # A hood is much larger than the few pixels by which it touches a beard.
        hangs = float(piece.sum()) / figure.unit**2 < LONGEST_STRAND * root
        if root < STRAND or (root < BROAD_STRAND and not hangs):
            costs = {part: float(energies[part][piece].mean()) for part in (Part.SKIN, Part.UPPER)}
            labels[piece] = min(costs, key=costs.__getitem__)


def _full_size(labels: Mask, mask: Mask, parts: list[Part], sigma: float) -> Mask:
    """Labels at the photo's size, with smooth borders; the mask's rim takes the nearest label."""
    height, width = mask.shape
    coarse = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    best, result = np.full((height, width), -1, np.float32), np.zeros((height, width), np.uint8)
    for part in [Part.BACKGROUND, *parts]:
        share = soft(coarse == part, sigma)
        more = share > best
        result[more], best[more] = part, share[more]
    result[mask == 0] = Part.BACKGROUND
    bare = (mask > 0) & (result == Part.BACKGROUND)
    if bare.any():
        labelled = result != Part.BACKGROUND
        _, nearest = cv2.distanceTransformWithLabels(
            (~labelled).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        part_of = np.zeros(int(nearest.max()) + 1, np.uint8)
        part_of[nearest[labelled]] = result[labelled]
        result[bare] = part_of[nearest[bare]]
    return result
