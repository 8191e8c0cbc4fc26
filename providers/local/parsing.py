"""Which pixels of a person are skin, hair, clothes or shoes, without a parsing net.

One mixture of Gaussians per part (``cv2.ml.EM``) learns the part's colours where the joints say it must be; priors
tell how far from the joints it may reach; the guided filter lets the borders follow the edges of the photo.
The priors' weights were tuned by eye on eight people, in units of the shoulder width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import cv2
import numpy as np

from ..errors import ImageUnusable
from .figure import ARMS, FEET, LEGS, Figure, Part, Regions, limbs, regions_of
from .imaging import (
    Bools,
    Floats,
    Mask,
    Picture,
    Point,
    along,
    blurred,
    dilated,
    distance_to,
    grey_of,
    guided,
    lab_of,
    shrunk,
    skin_colours,
    soft,
    thick_line,
    window_around,
)
from .waist import ARM_PRIOR, straighten_waist

PARSING_SIDE: Final = 420
"""Pixels of the longer side; more costs time and parses no better."""
COLOURS: Final = {Part.SKIN: 2, Part.HAIR: 3, Part.UPPER: 4, Part.LOWER: 3, Part.SHOES: 3}
"""Gaussians in the mixture of each part."""
BARE_LEGS: Final = 0.4
"""Units of distance by which skin is less likely on legs than on arms."""
ISLAND: Final = 0.004
ISLAND_OF_SKIN: Final = 0.15
"""Squares of the unit: smaller pieces of a part belong to what lies around them."""
HAND_REACH: Final = 0.25
"""Units around the palm: no part of a hand lies further away."""
LARGEST_BAG: Final = 0.4
"""Squares of the unit; larger pieces may be thighs above boots."""
FOOT_REACH: Final = 0.25
"""Units around the joints of a foot that belong to it, where"""
SHIN: Final = 0.08
BARE_SHIN: Final = 0.6
"""of a line so wide, in units, from the calf to the ankle so much is skin."""
NECKLINE: Final = 0.5
"""Units from the middle of the shoulders: there are necklines, and no hands."""
COLLAR: Final = 0.04
"""Units from the upper clothes: up to there some of them may have been taken for skin, which is"""
MORE_LIKE: Final = 2.0
"""so many times more like them than like the skin beside it."""
COVERED: Final = 0.1
"""Share of the thighs that clothes cover at least."""
OTHER_TONE: Final = 4.0
"""Lab chroma: the legs' skin is more like the face's than that."""
SAME_TONE: Final = 3.0
"""Lab chroma: cloth in the light and in the shade is more alike than that."""
RATHER: Final = 3.0
"""What is so much less like skin than like the clothes is no hand before them."""
THINNEST: Final = 0.06
"""Units: what is thinner, below the chin, is a dark edge and no strand."""
STRAND: Final = 0.05
"""Units: hair that hangs below the chin is at least as broad where it comes from the head,"""
LONGEST_STRAND: Final = 1.2
"""and, for its breadth there, no longer, unless it is"""
BROAD_STRAND: Final = 0.15
"""broad."""
AFAR: Final = 99.0
"""Units."""
MAX_SAMPLES: Final = 2000
RANDOM_SEED: Final = 7
"""OpenCV's EM draws from a generator per thread; seeded anew, the same photo parses the same."""

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


def parse(rgb: Picture, mask: Mask, joints: Floats, shoulder_width: float) -> Parsed:
    """Label every pixel of the person. Raise ``ImageUnusable`` where neither face nor neck, or no torso, is seen."""
    small = shrunk(rgb, PARSING_SIDE)
    scale = min(1.0, PARSING_SIDE / max(rgb.shape[:2]))
    lab = lab_of(cast("Picture", cv2.GaussianBlur(small, (0, 0), 0.8)))
    shape = (lab.shape[0], lab.shape[1])
    person = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_AREA) > 0
    figure = Figure(joints * scale, shoulder_width * scale, shape)
    regions = regions_of(figure)
    skin = _skin_of_face(lab[(regions.face > 0) & person])
    if skin is None:  # the photo ends below it
        elsewhere = (regions.neck | regions.hands) > 0
        skin = _skin_of_face(lab[elsewhere & person & skin_colours(small)])
    if skin is None:
        raise ImageUnusable(
            "Person photo: neither face nor neck are visible. Use a photo that shows the person from the front, from "
            "the chin down at least."
        )
    samples = _samples(lab, person, figure, regions, skin)
    energies = _energies(samples, _priors(figure, regions), lab)
    labels = _most_likely(energies, grey_of(small))
    straighten_waist(labels, energies, lab[..., 0], figure, regions)
    labels[~person] = Part.BACKGROUND
    _join_islands(labels, person, list(samples), figure, regions)
    _drop_carried(labels, person, figure, regions)
    _find_shoes(labels, figure, regions)
    _drop_hair_specks(labels, energies, figure)
    height, width = mask.shape
    labels = _full_size(labels, mask, sorted({*samples, Part.SHOES}), 1.2 / scale)
    _sharpen_collar(labels, rgb, figure.shoulders / scale, shoulder_width)
    return Parsed(
        labels=labels,
        face=cast("Mask", cv2.resize(regions.face, (width, height), interpolation=cv2.INTER_NEAREST)),
        skin=np.median(skin, 0),
        chin=figure.chin / scale,
        up=figure.up,
        side=figure.side,
    )


def _skin_of_face(colours: Floats) -> Floats | None:
    """The face's Lab colours without eyes, mouth and beard; None of hardly any."""
    if len(colours) < 20:
        return None
    median = np.median(colours, 0)
    usual = (np.abs(colours[:, 0] - median[0]) < 35) & (np.abs(colours[:, 1:] - median[1:]).max(1) < 14)
    return colours[usual] if usual.sum() > 20 else colours


def _samples(lab: Floats, person: Bools, figure: Figure, regions: Regions, skin: Floats) -> Samples:
    """Colours of each part from where it must be; a part that is not seen is left out."""
    tone = np.median(skin, 0)
    skinlike = (np.abs(lab[..., 1:] - tone[1:]).max(-1) < 14) & (np.abs(lab[..., 0] - tone[0]) < 60)
    chest, thighs = ((region > 0) & person for region in (regions.chest, regions.thighs))
    hands = _without(lab[(regions.hands > 0) & person & skinlike], tone, [lab[chest], lab[thighs]])
    samples: Samples = {Part.SKIN: np.vstack([skin, hands]) if len(hands) > 10 else skin}
    height = along(figure.shape, figure.ears, figure.up)
    lateral = along(figure.shape, figure.ears, figure.side)
    hair = lab[person & (height > 0.75 * figure.head_width) & (np.abs(lateral) < figure.head_width)]
    if len(hair) <= 15:  # the photo ends below the top of the head
        beside = person & (regions.head > 0) & (regions.face == 0) & (height > -0.5 * figure.head_width) & ~skinlike
        hair = lab[beside]
    if len(hair) > 15:
        samples[Part.HAIR] = hair
    samples[Part.UPPER] = lab[chest]
    if len(samples[Part.UPPER]) < 30:
        raise ImageUnusable(
            "Person photo: the upper body is not visible. Use an upright photo that shows the person from the front, "
            "down to the hips at least."
        )
    lower = _clothed(lab[thighs & skinlike], lab[thighs & ~skinlike], tone)
    shoes = lab[(regions.feet > 0) & person & ~skinlike]
    for part, colours, least in ((Part.LOWER, lower, 40), (Part.SHOES, shoes, 30)):
        if len(colours) > least:
            samples[part] = colours
    return samples


def _without(hands: Floats, tone: Floats, clothes: list[Floats]) -> Floats:
    """The colours of hands but for those that are rather of the clothes beside them."""
    for colours in clothes:
        if len(colours):
            apart = np.linalg.norm(hands - np.median(colours, 0), axis=1)
            hands = hands[np.linalg.norm(hands - tone, axis=1) < RATHER * apart]
    return hands


def _clothed(skinlike: Floats, other: Floats, tone: Floats) -> Floats:
    """The colours of cloth on the thighs, which may look like skin."""
    every = np.vstack([skinlike, other])
    if not len(skinlike) or np.abs(np.median(every, 0) - tone)[1:].max() <= OTHER_TONE:
        return other
    every = np.asarray(every[np.abs(every - tone)[:, 1:].max(1) > OTHER_TONE])
    if len(other) < COVERED * len(every):  # no skirt is that short
        return every
    # Cloth of one colour has the same tone in the light and in the shade.
    apart = np.median(skinlike, 0) - np.median(other, 0)
    spread = np.ptp(np.percentile(skinlike, (25, 75), 0), 0)
    return every if max(np.abs(apart[1:]).max(), spread[1:].max()) <= SAME_TONE else other


def _priors(figure: Figure, regions: Regions) -> dict[Part, Floats]:
    """What it costs to give a part to a pixel there, in units of the mixtures' energy."""
    height = along(figure.shape, figure.ears, figure.up)
    above_shoulders = along(figure.shape, figure.shoulders, figure.up) / figure.unit
    below_hips = np.maximum(along(figure.shape, figure.hips, -figure.up) / figure.unit, -9)
    face, neck, hands, arms, legs = regions.face, regions.neck, regions.hands, regions.arms, regions.legs

    def beyond(region: Mask, free: float) -> Floats:
        """Distance to the region in shoulder widths, of which some is free; at most ``AFAR``, if there is none."""
        return cast("Floats", np.clip(distance_to(region) / figure.unit - free, 0, AFAR))

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


def _join_islands(labels: Mask, person: Bools, parts: list[Part], figure: Figure, regions: Regions) -> None:
    """Give small pieces to what surrounds them; in place."""
    bodily = _bodily(figure, regions) | regions.hands
    for part in sorted(parts):
        for area, piece in _pieces(labels == part, figure.unit):
            # Of skin larger ones, too, where no skin must be: prints in its colours.
            if area < ISLAND or (part == Part.SKIN and area < ISLAND_OF_SKIN and not (piece & (bodily > 0)).any()):
                _give_to_neighbour(labels, piece, person)


def _drop_carried(labels: Mask, person: Bools, figure: Figure, regions: Regions) -> None:
    """Skin that hangs together with nothing but a hand, out of its reach, is what it carries: a bag. In place."""
    in_reach = dilated(regions.hands, 2 * int(HAND_REACH * figure.unit) + 1) > 0
    bodily = _bodily(figure, regions) > 0
    for area, piece in _pieces((labels == Part.SKIN) & ~in_reach, figure.unit):
        if ISLAND < area < LARGEST_BAG and not (piece & bodily).any():
            _give_to_neighbour(labels, piece, person & ~in_reach)


def _find_shoes(labels: Mask, figure: Figure, regions: Regions) -> None:
    """On feet, what has the colours of a skirt or of trousers, but does not hang together with them; in place."""
    thighs = regions.thighs > 0
    loose = np.zeros(labels.shape, bool)
    for _, piece in _pieces(labels == Part.LOWER, figure.unit):
        if not (piece & thighs).any():
            loose |= piece
    for (_, knee, ankle), (heel, toe) in zip(LEGS, FEET, strict=True):
        joints = figure.joints
        foot = limbs(figure.shape, [joints[[ankle, heel, toe]]], FOOT_REACH * figure.unit) > 0
        shin = thick_line(figure.shape, [(joints[knee] + joints[ankle]) / 2, joints[ankle]], SHIN * figure.unit)
        bare = (labels[shin > 0] == Part.SKIN).sum() > BARE_SHIN * shin.sum()
        labels[foot & (loose | bare) & (labels == Part.LOWER)] = Part.SHOES


def _bodily(figure: Figure, regions: Regions) -> Mask:
    """Where skin must be if it is bare, but for the hands."""
    # Bare thighs hang together with shins, or leave the photo.
    lines = [*(figure.joints[list(arm)] for arm in ARMS), *(figure.joints[list(leg[1:])] for leg in LEGS)]
    bodily = regions.face | regions.neck | limbs(figure.shape, lines, 1)
    bodily[-2:] = 1
    return bodily


def _pieces(mask: Bools, unit: float) -> Iterator[tuple[float, Bools]]:
    """The connected pieces, and their areas in squares of the unit."""
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    for index in range(1, count):
        yield stats[index, cv2.CC_STAT_AREA] / unit**2, pieces == index


def _give_to_neighbour(labels: Mask, piece: Bools, person: Bools) -> None:
    """Label the piece as most of what lies around it; in place."""
    ring = (dilated(piece, 3) > 0) & ~piece & person
    if ring.any():
        labels[piece] = np.bincount(labels[ring]).argmax()


def _drop_hair_specks(labels: Mask, energies: Mapping[Part, Floats], figure: Figure) -> None:
    """Below the chin only strands that come from the head are hair; else it is a collar, or a shadow. In place."""
    hair = labels == Part.HAIR
    above = along(figure.shape, figure.chin, figure.up) > 0
    thin = int(THINNEST * figure.unit) | 1
    strands = cv2.morphologyEx((hair & ~above).astype(np.uint8), cv2.MORPH_OPEN, np.ones((thin, thin), np.uint8))
    rim = hair & ~above & (dilated(np.asarray(strands, np.uint8), 3) == 0)
    labels[rim] = np.where(energies[Part.SKIN] < energies[Part.UPPER], Part.SKIN, Part.UPPER)[rim]
    hair &= ~rim
    head = dilated(hair & above, 3) > 0
    head[:2] = True  # or the photo ends below
    count, pieces = cv2.connectedComponents((hair & ~above).astype(np.uint8), connectivity=8)
    for index in range(1, count):
        piece = pieces == index
        root = float((piece & head).sum()) / figure.unit
        # A hood is much larger than the few pixels by which it touches a beard.
        hangs = float(piece.sum()) / figure.unit**2 < LONGEST_STRAND * root
        if root < STRAND or (root < BROAD_STRAND and not hangs):
            _give_to_likeliest(labels, piece, energies)
    for area, piece in _pieces(labels == Part.HAIR, figure.unit):
        if area < ISLAND:
            _give_to_likeliest(labels, piece, energies)


def _give_to_likeliest(labels: Mask, piece: Bools, energies: Mapping[Part, Floats]) -> None:
    """Label what is no hair as skin or as clothes; in place."""
    costs = {part: float(energies[part][piece].mean()) for part in (Part.SKIN, Part.UPPER)}
    labels[piece] = min(costs, key=costs.__getitem__)


def _sharpen_collar(labels: Mask, rgb: Picture, shoulders: Point, unit: float) -> None:
    """What is skin beside the neckline, but has the clothes' colours there, is clothes; in place."""
    reach = max(2, round(COLLAR * unit))
    window = window_around(shoulders[None], (labels.shape[0], labels.shape[1]), NECKLINE * unit)
    near, lab = labels[window], lab_of(rgb[window])
    rim = (near == Part.SKIN) & (dilated(near == Part.UPPER, 2 * reach + 1) > 0)
    to_skin, to_upper = (
        np.linalg.norm(lab - _around(lab, part, 2.0 * reach), axis=-1)
        for part in ((near == Part.SKIN) & ~rim, near == Part.UPPER)
    )
    clothes = rim & (to_upper * MORE_LIKE < to_skin)
    # On the outline half of a pixel's colour is the background's.
    outline = (dilated(near == Part.BACKGROUND, 5) & dilated(clothes, 5)) > 0
    near[clothes | (rim & outline)] = Part.UPPER


def _around(lab: Floats, part: Bools, sigma: float) -> Floats:
    """The part's mean colour around each pixel; that of nothing where there is none of it."""
    share = blurred(part.astype(np.float32), sigma)[..., None]
    return cast("Floats", blurred(lab * part[..., None], sigma) / np.maximum(share, 1e-4))


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
