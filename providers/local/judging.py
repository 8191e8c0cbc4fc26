"""How far a picture can be trusted, from what went into it and from how it came out.

Each finding lowers the confidence by a factor and is told in a plain sentence; below ``LEAST`` the picture is refused
with the sentence of the gravest, which says which photo to change and how. The bounds were set by eye on about 300
pairs of people and garments, many of them made hard on purpose: cropped, recoloured, cut to other shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from .body import Body
from .bottom import Bottom
from .cutout import TOUCHES_BORDERS
from .figure import EAR_L, EAR_R, Part
from .fitting import Fit
from .garment import LIKE_A_SKIRT, OTHER_KIND, Garment
from .imaging import OUTWARD, SIDES, Floats, dilated, lab_of, length, polygon
from .top import TORSO, Top
from .wearing import Worn

LEAST: Final = 0.40
"""Confidence below which no picture is given."""

SCORE: Final = (0.85, 0.5)
"""Of the pose net: of people clearly seen 0.9 and more."""
FRONT: Final = (0.40, 0.52)
"""Shoulder width over torso length: at the first the person is seen from the side, at the second from the front."""
STRETCH: Final = (1.45, 2.3)
"""The 95th percentile of how much longer one way than the other the cloth became, sleeves left aside."""
FOLDED: Final = (0.004, 0.05)
"""Share of the triangles that lie on their back."""
HOLES: Final = (0.03, 0.14)
"""Share of the trunk, from the armpits to the hem, where there is no cloth."""
TORN: Final = (0.02, 0.08)
"""Area of the dents and slits in the cloth before the trunk, in squares of the unit."""
NUDE: Final = (16.0, 8.0)
"""Lab, between the old clothes and the skin: where they hardly differ the parsing takes one for the other."""
SKIN: Final = (0.10, 0.50)
"""Painted skin over the area of the garment."""
GROUND: Final = (0.30, 0.90)
"""Painted background over the area of the garment."""
BESIDE: Final = (0.33, 0.60)
"""Share of the garment that hangs beside the person."""
LOOSE: Final = (0.02, 0.1)
"""Area of loose pieces, in squares of the unit: a hand has 0.08."""
LEFT: Final = (0.005, 0.025)
"""Area of what looks like the old clothes and was not changed, in squares of the unit."""
ENLARGED: Final = (1.8, 5.0)
"""Pixels of the picture to a pixel of the garment photo: it is too small."""
SMALL: Final = (50.0, 20.0)
"""Pixels between the shoulders: of somebody who fills a photo of 512 pixels from head to feet 70."""
UPRIGHT: Final = (0.75, 0.5)
"""Cosine between the spine and the vertical."""
UPSIDE_DOWN: Final = 1.15
"""Width of a top near its upper edge over that near its lower edge: 0.1 to 1.1 of 30 tops, most of them turned 1.2 to
4.3; with bare shoulders 1.4, but then the armpits lie lower than"""
HIGH_ARMPITS: Final = 0.3
"""of its height."""
SHORT_DRESS: Final = (1.9, 1.4)
"""Length over chest width of what is said to be a dress: of tops 1.1 to 1.8."""
UNLIKE: Final = (1.25, 1.6)
"""Length of one sleeve over the other's: of 14 tops at most 1.24, of a sleeve with a strip of the body 1.5."""
UNEVEN: Final = (0.955, 0.85)
"""Symmetry of the garment's outline."""
BESIDE_WAIST: Final = 0.1
"""Units above the new waistband in which old lower clothes would be seen."""
SKIN_TONES: Final = 18.0
"""Lab: chroma of a person's skin differs by no more from the face's."""
LIKELIER: Final = 8.0
"""Times: colours that are so much more frequent in the old clothes than in skin and hair are theirs,"""
LEAST_LIKELY: Final = 2e-4
"""if they are that frequent there at all."""
IS_OTHER_KIND, MAYBE_NO_SKIRT = 0.5, 0.75
"""Factors, where the outline is not that of the category, or is a skirt's or that of a top without straps."""
AT_THE_EDGE: Final = 0.8
"""Factor, where the garment photo is cropped tightly."""
HIPS_AT_THE_EDGE, HIPS_OUTSIDE = 0.7, 0.45
"""Factors, where the photo ends at the hips or above them."""
BELOW_HIPS: Final = (0.6, 0.15)
"""Units of the photo below the hip joints: of people seen to the knees 0.8 and more."""
SHORT_TORSO: Final = (1.15, 0.95)
"""Shoulders to hips, units: of people seen to the hips 1.39 to 1.73, of two selfies a guess of 0.56 and 0.93."""
LARGE_HEAD: Final = (0.50, 0.57)
"""Distance of the ears, units: 0.27 to 0.45, of those selfies 0.58 and 0.73."""
SHORT_ARM: Final = (1.30, 0.70)
"""Units from shoulder to wrist: an arm that looks shorter points at the camera or leaves the photo."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that lowers the confidence."""

    factor: float
    """0 to 1; 1 is no finding."""
    warning: str
    refusal: str


def confidence(findings: list[Finding]) -> float:
    """The product of all factors, to two digits."""
    return round(float(np.prod([finding.factor for finding in findings])), 2) if findings else 1.0


def warnings(findings: list[Finding]) -> tuple[str, ...]:
    """Of every finding that counts, the gravest first."""
    grave = sorted((finding for finding in findings if finding.factor < 0.93), key=lambda finding: finding.factor)
    return tuple(dict.fromkeys(finding.warning for finding in grave))


def refusal(findings: list[Finding]) -> str:
    """Why there is no picture; empty where there is one."""
    if confidence(findings) >= LEAST:
        return ""
    return min(findings, key=lambda finding: finding.factor).refusal


def judge(body: Body, garment: Garment, fit: Fit, worn: Worn) -> list[Finding]:
    """All findings about one picture."""
    return [finding for finding in _findings(body, garment, fit, worn) if finding.factor < 1]


def _findings(body: Body, garment: Garment, fit: Fit, worn: Worn) -> Iterator[Finding]:
    yield from _of_person(body, garment)
    yield from _of_garment(garment)
    yield from _of_cloth(garment, fit)
    yield from _of_picture(body, garment, fit, worn)


def _factor(value: float, bounds: tuple[float, float], worst: float = 0.3) -> float:
    """1 up to the first bound, ``worst`` from the second on; the bounds may fall."""
    return float(np.interp((value - bounds[0]) / (bounds[1] - bounds[0]), [0, 1], [1, worst]))


def _of_person(body: Body, garment: Garment) -> Iterator[Finding]:
    person = body.person
    yield Finding(
        _factor(float(-person.up[1]), UPRIGHT, 0.2),
        "The person does not stand upright in the photo.",
        "Person photo: it lies on its side or upside down. Turn it upright.",
    )
    yield Finding(
        _factor(person.score, SCORE, 0.5),
        "The person is hard to make out; a clearer photo works better.",
        "Person photo: the person is hard to make out. Use a clear photo of one person who faces the camera.",
    )
    yield Finding(
        1.0 if person.alone else 0.6,
        "Somebody else is in the photo; only one person is dressed.",
        "Person photo: it shows more than one person. Use a photo of one person alone.",
    )
    yield Finding(
        0.3 if person.from_behind else 1.0,
        "The person seems to be seen from behind; a photo from the front works better.",
        "Person photo: the person is seen from behind. Use a photo from the front.",
    )
    yield Finding(
        _factor(body.unit / (body.torso_length + 1e-6), (FRONT[1], FRONT[0])),
        "The person seems turned to the side; a photo from the front works better.",
        "Person photo: the person is turned to the side. Use a photo from the front.",
    )
    yield Finding(
        _factor(body.unit, SMALL),
        "The person is small in the photo, so the picture is coarse.",
        "Person photo: the person is too small in it. Use a larger photo, or one that shows less around the person.",
    )
    yield from _of_frame(body)
    if isinstance(garment.shape, Top):
        yield from _of_arms(body, garment.shape)


def _of_frame(body: Body) -> Iterator[Finding]:
    """How much of the person the photo shows."""
    person = body.person
    yield Finding(
        min(
            _factor(body.torso_length / body.unit, SHORT_TORSO),
            _factor(length(person.joints[EAR_L] - person.joints[EAR_R]) / body.unit, LARGE_HEAD),
        ),
        "The photo shows little more than head and shoulders; one that shows the hips works better.",
        "Person photo: it shows little more than head and shoulders. Use a photo that shows the person down to the "
        "hips at least.",
    )
    below_hips = (body.shape[0] - max(float(body.hips[side][1]) for side in SIDES)) / body.unit
    if below_hips < 0:
        factor = HIPS_OUTSIDE
    else:
        factor = _factor(below_hips, BELOW_HIPS, HIPS_AT_THE_EDGE) if person.hips_seen else HIPS_AT_THE_EDGE
    yield Finding(
        factor,
        "The person's hips are not in the photo; one that shows them works better.",
        "Person photo: it ends above the hips. Use a photo that shows the person down to the knees at least.",
    )


def _of_arms(body: Body, top: Top) -> Iterator[Finding]:
    """Whether the sleeves have arms to lie on."""
    height, width = body.shape
    sleeved = [side for side in SIDES if top.halves[side].sleeve is not None]
    hands = [body.fingers[side] for side in sleeved]
    yield Finding(
        1.0 if all(0 <= x < width and 0 <= y < height for x, y in hands) else 0.6,
        "A hand is not in the photo, so a sleeve may look wrong.",
        "Person photo: a hand is not in the photo. Use a photo that shows the person down to the knees.",
    )
    yield Finding(
        _factor(min(body.arms[side].length for side in SIDES) / body.unit, SHORT_ARM, 0.55 if sleeved else 0.8),
        "An arm points towards the camera or leaves the photo; arms hanging down work better.",
        "Person photo: an arm points towards the camera or leaves the photo. Use a photo with both arms hanging.",
    )


def _of_garment(garment: Garment) -> Iterator[Finding]:
    yield Finding(
        garment.certainty,
        "The garment was hard to tell from its background; a plain, different-coloured one works better.",
        "Garment photo: the garment was hard to tell from its background. Use a photo of it on a plain ground of "
        "another colour.",
    )
    yield Finding(
        AT_THE_EDGE if TOUCHES_BORDERS in garment.warnings else 1.0,
        TOUCHES_BORDERS,
        "Garment photo: the garment runs out of the photo. Use a photo that shows all of it.",
    )
    yield Finding(
        IS_OTHER_KIND if OTHER_KIND in garment.warnings else 1.0,
        OTHER_KIND,
        "Garment photo: it does not look like what the category says. Use another photo, or another category.",
    )
    yield Finding(
        MAYBE_NO_SKIRT if LIKE_A_SKIRT in garment.warnings else 1.0,
        LIKE_A_SKIRT,
        "Garment photo: it was taken for a skirt. Use the category to say if it is a top without straps.",
    )
    if isinstance(garment.shape, Top):
        yield from _of_top(garment, garment.shape)


def _of_top(garment: Garment, top: Top) -> Iterator[Finding]:
    yield Finding(
        _factor(top.symmetry, UNEVEN, 0.45),
        "The garment does not lie flat and even; a photo of it laid out straight works better.",
        "Garment photo: the garment does not lie flat and even. Use a photo of it laid out straight, seen from "
        "above or from the front.",
    )
    yield Finding(
        0.3 if _upside_down(garment, top) else 1.0,
        "The garment seems to lie upside down.",
        "Garment photo: the garment seems to lie upside down. Turn the photo, so that its shoulders are at the top.",
    )
    yield Finding(
        _factor(_unlike_sleeves(top), UNLIKE, 0.45),
        "One sleeve was found longer than the other; a photo of the garment laid out straight works better.",
        "Garment photo: its two sleeves do not look alike. Use a photo of it laid out straight, seen from above or "
        "from the front.",
    )
    if garment.kind == "dress":
        yield Finding(
            _factor(top.length / top.chest_width, SHORT_DRESS, 0.6),
            "The garment looks too short for a dress; if it is a top, say so with the category.",
            "Garment photo: it does not show a dress. Use another photo, or another category.",
        )


def _unlike_sleeves(top: Top) -> float:
    """Length of the longer sleeve over that of the shorter one; of what has one sleeve only, 1."""
    lengths = [half.sleeve.length for half in top.halves.values() if half.sleeve is not None]
    return max(lengths) / (min(lengths) + 1e-6) if len(lengths) == 2 else 1.0


def _upside_down(garment: Garment, top: Top) -> bool:
    """Whether a top is widest at its upper edge, where no neckline is."""
    mask = garment.alpha > 127
    rows = np.flatnonzero(mask.any(1))
    first, height = int(rows[0]), int(rows[-1] - rows[0])
    if top.neckline is not None or top.armpit_y - first > HIGH_ARMPITS * height:
        return False
    upper, lower = (float(np.ptp(np.flatnonzero(mask[first + int(share * height)]))) for share in (0.05, 0.95))
    return upper > UPSIDE_DOWN * lower


def _of_cloth(garment: Garment, fit: Fit) -> Iterator[Finding]:
    distortion, parts = fit.posed.distortion(), fit.posed.sheet.parts
    torso = parts == TORSO if isinstance(garment.shape, Top) else np.ones(len(parts), bool)
    most = float(np.percentile(distortion[torso], 95))
    yield Finding(
        _factor(most, STRETCH, 0.45),
        "The garment had to be stretched a lot to fit the body, so its print may look wrong.",
        "Garment photo: the garment could not be fitted to this body without distorting it. Use a photo of it laid "
        "flat and spread out.",
    )
    yield Finding(
        _factor(fit.scale, ENLARGED),
        "The garment photo is small, so the garment looks blurred.",
        "Garment photo: it is too small. Use one of at least as many pixels as the photo of the person.",
    )
    yield Finding(
        _factor(float(fit.posed.folded().mean()), FOLDED),
        "The garment had to be bent a lot to fit the pose; arms hanging down work better.",
        "Person photo: the garment could not be bent to this pose. Use a photo with both arms hanging, seen from the "
        "front.",
    )


def _of_picture(body: Body, garment: Garment, fit: Fit, worn: Worn) -> Iterator[Finding]:
    yield Finding(
        _factor(_holes(body, garment, fit, worn), HOLES),
        "The new garment does not cover the whole body.",
        "Garment photo: the garment does not cover the body. Use a photo of one whole garment, laid flat.",
    )
    yield Finding(
        _factor(worn.torn, TORN),
        "Something may show through the garment, or a piece of it may be missing.",
        "Person photo: hands, hair or old clothes could not be told apart. Use a photo with both arms hanging beside "
        "the body, in plain clothes.",
    )
    yield Finding(
        _factor(worn.loose, LOOSE, 0.5),
        "A hand, or something else of the person, hangs loose.",
        "Person photo: an arm could not be told from the old clothes or the background. Use a photo with both arms "
        "hanging, in plain clothes.",
    )
    yield Finding(
        _factor(_left_over(body, garment, fit, worn), LEFT, 0.4),
        "Some of the old clothes may be left.",
        "Person photo: the old clothes could not be told from the rest of the person. Use a photo in plain clothes "
        "whose colour is not that of skin, hair or the other clothes.",
    )
    yield Finding(
        _factor(body.nude, NUDE, 0.45),
        "The old clothes have nearly the colour of the skin, so some of them may be left.",
        "Person photo: the clothes have nearly the colour of the skin. Use a photo in clothes of another colour.",
    )
    yield Finding(
        _factor(worn.painted_skin, SKIN, 0.45),
        "Skin that the old clothes hid is painted, so it may look smooth.",
        "Person photo: the old clothes hide too much of the skin that this garment shows. Use a photo with short "
        "sleeves or bare arms.",
    )
    yield Finding(
        _factor(worn.painted_background, GROUND, 0.45),
        "The old clothes are much wider than the new ones, so the background around them is painted.",
        "Person photo: the old clothes are much wider than the new ones. Use a photo in closer clothes.",
    )
    yield Finding(
        _factor(worn.outside, BESIDE, 0.45),
        "Much of the garment hangs beside the person.",
        "Person photo: the garment does not lie on the body. Use a photo of one person who faces the camera.",
    )


def _holes(body: Body, garment: Garment, fit: Fit, worn: Worn) -> float:
    """Share of the trunk that the garment should hide and does not."""
    if isinstance(garment.shape, Bottom):
        start, end = body.torso_length, min(fit.hem, body.torso_length + 0.3 * body.unit)
    else:
        start, end = 0.42 * body.unit, min(fit.hem - 0.05 * body.unit, body.torso_length)
    if end <= start:
        return 0.0
    rows = np.linspace(start, end, 12)
    left = [body.at(float(depth), OUTWARD["left"] * 0.72 * body.trunk("left", float(depth))) for depth in rows]
    right = [body.at(float(depth), OUTWARD["right"] * 0.72 * body.trunk("right", float(depth))) for depth in rows]
    trunk = polygon(body.shape, [*left, *right[::-1]]) > 0
    # Hands and arms before the body are no holes.
    trunk &= body.labels != Part.SKIN
    return float((trunk & (worn.alpha < 0.5) & ~worn.in_front).sum() / max(1, trunk.sum()))


def _left_over(body: Body, garment: Garment, fit: Fit, worn: Worn) -> float:
    """Area of what was not changed where the old clothes were and has their colours, in squares of the unit."""
    labels, depth = body.labels, -body.height_map()
    chin = float((body.person.chin - body.shoulder_middle) @ body.down)
    skin, hair = labels == Part.SKIN, labels == Part.HAIR
    if isinstance(garment.shape, Bottom):
        old = labels == Part.LOWER
        zone = (old | skin) & (depth > fit.waist - BESIDE_WAIST * body.unit)
        others = (labels == Part.UPPER) & (depth < fit.waist)
    else:
        old = labels == Part.UPPER
        zone = (old | skin | hair) & (depth > chin)
        others = hair & (depth < chin)
    zone &= (depth < fit.hem) & ~worn.changed
    if not zone.any():
        return 0.0
    lab = lab_of(body.person.rgb)
    alike = np.abs(lab[..., 1:] - body.person.skin[1:]).max(-1) < SKIN_TONES
    sure_skin = skin & ((body.person.face > 0) | ((dilated(old, 15) == 0) & alike))
    usual, own = np.maximum(_colours(lab[sure_skin]), _colours(lab[others])), _colours(lab[old])
    at = _bins(lab[zone])
    left = np.zeros(zone.shape, np.uint8)
    left[zone] = (own[at] > LIKELIER * usual[at]) & (own[at] > LEAST_LIKELY)
    return float(cv2.morphologyEx(left, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).sum() / body.unit**2)


def _bins(lab: Floats) -> NDArray[np.intp]:
    """Which of the 16 x 16 x 16 bins of Lab each colour ``(N, 3)`` lies in."""
    lightness, a, b = (lab // 16).astype(np.intp).T
    return cast("NDArray[np.intp]", lightness * 256 + a * 16 + b)


def _colours(lab: Floats) -> Floats:
    """How often each of those bins occurs, ``(4096,)``, smoothed to its neighbours; nowhere if there are none."""
    counts = np.bincount(_bins(lab), minlength=4096).astype(np.float64).reshape(16, 16, 16)
    for axis in range(3):
        counts = (np.roll(counts, 1, axis) + 2 * counts + np.roll(counts, -1, axis)) / 4
    return cast("Floats", (counts / max(1.0, counts.sum())).ravel())
