"""How far a picture can be trusted, from what went into it and from how it came out.

Each finding lowers the confidence by a factor and is told in a plain sentence; below ``LEAST`` the picture is refused
with the sentence of the gravest, which says which photo to change and how. The bounds were set by eye on about 300
pairs of people and garments, many of them made hard on purpose: cropped, recoloured, cut to other shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from .body import Body
from .bottom import Bottom
from .fitting import Fit
from .garment import Garment
from .imaging import OUTWARD, SIDES, length, polygon
from .parsing import EAR_L, EAR_R, Part
from .top import TORSO, Top
from .wearing import Worn

LEAST: Final = 0.40
"""Confidence below which no picture is given."""

FRONT: Final = (0.40, 0.52)
"""Shoulder width over torso length: at the first the person is seen from the side, at the second from the front."""
STRETCH: Final = (1.45, 2.3)
"""The 95th percentile of how much the cloth of the body is stretched or squeezed."""
FOLDED: Final = (0.004, 0.05)
"""Share of the triangles that lie on their back."""
HOLES: Final = (0.03, 0.14)
"""Share of the trunk, from the armpits to the hem, where there is no cloth."""
TORN: Final = (0.02, 0.08)
"""Area of the dents and slits in the cloth before the trunk, in squares of the unit."""
NUDE: Final = (16.0, 8.0)
"""Lab, between the old clothes and the skin: where they hardly differ the parsing takes one for the other."""
SKIN: Final = (0.18, 0.55)
"""Painted skin over the area of the garment."""
GROUND: Final = (0.30, 0.90)
"""Painted background over the area of the garment."""
BESIDE: Final = (0.33, 0.60)
"""Share of the garment that hangs beside the person."""
UNEVEN: Final = (0.955, 0.85)
"""Symmetry of the garment's outline."""
HIPS_AT_THE_EDGE, HIPS_OUTSIDE = 0.75, 0.45
"""Factors, where the photo ends at the hips or above them."""
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
        _factor(person.score, (0.85, 0.5), 0.5),
        "The person is hard to make out; a clearer photo works better.",
        "Person photo: the person is hard to make out. Use a clear photo of one person who faces the camera.",
    )
    yield Finding(
        _factor(body.unit / (body.torso_length + 1e-6), (FRONT[1], FRONT[0])),
        "The person seems turned to the side; a photo from the front works better.",
        "Person photo: the person is turned to the side. Use a photo from the front.",
    )
    yield Finding(
        min(
            _factor(body.torso_length / body.unit, SHORT_TORSO),
            _factor(length(person.joints[EAR_L] - person.joints[EAR_R]) / body.unit, LARGE_HEAD),
        ),
        "The photo shows little more than head and shoulders; one that shows the hips works better.",
        "Person photo: it shows little more than head and shoulders. Use a photo that shows the person down to the "
        "hips at least.",
    )
    if person.from_behind:
        yield Finding(
            0.3,
            "The person seems to be seen from behind; a photo from the front works better.",
            "Person photo: the person is seen from behind. Use a photo from the front.",
        )
    if isinstance(garment.shape, Top):
        arms = min(body.arms[side].length for side in SIDES) / body.unit
        sides = [side for side in SIDES if garment.shape.halves[side].sleeve is not None]
        height, width = body.shape
        out = [
            side for side in sides if not (0 <= body.wrists[side][0] < width and 0 <= body.wrists[side][1] < height)
        ]
        if out:
            yield Finding(
                0.6,
                "A hand is not in the photo, so a sleeve may look wrong.",
                "Person photo: a hand is not in the photo. Use a photo that shows the person down to the knees.",
            )
        sleeved = any(half.sleeve is not None for half in garment.shape.halves.values())
        yield Finding(
            _factor(arms, SHORT_ARM, 0.55 if sleeved else 0.8),
            "An arm points towards the camera or leaves the photo; arms hanging down work better.",
            "Person photo: an arm points towards the camera or leaves the photo. Use a photo with both arms hanging.",
        )
    outside = max(float(body.hips[side][1]) for side in SIDES) > body.shape[0]
    yield Finding(
        1.0 if person.hips_seen else HIPS_OUTSIDE if outside else HIPS_AT_THE_EDGE,
        "The person's hips are not in the photo; one that shows them works better.",
        "Person photo: it ends above the hips. Use a photo that shows the person down to the knees at least.",
    )


def _of_garment(garment: Garment) -> Iterator[Finding]:
    yield Finding(
        garment.certainty,
        "The garment was hard to tell from its background; a plain, different-coloured one works better.",
        "Garment photo: the garment was hard to tell from its background. Use a photo of it on a plain ground of "
        "another colour.",
    )
    if isinstance(garment.shape, Top):
        yield Finding(
            _factor(garment.shape.symmetry, UNEVEN, 0.45),
            "The garment does not lie flat and even; a photo of it laid out straight works better.",
            "Garment photo: the garment does not lie flat and even. Use a photo of it laid out straight, seen from "
            "above or from the front.",
        )


def _of_cloth(garment: Garment, fit: Fit) -> Iterator[Finding]:
    stretch, parts = fit.posed.stretch(), fit.posed.sheet.parts
    torso = parts == TORSO if isinstance(garment.shape, Top) else np.ones(len(parts), bool)
    most = max(float(np.percentile(stretch[torso, 0], 95)), float(1 / max(1e-3, np.percentile(stretch[torso, 1], 5))))
    yield Finding(
        _factor(most, STRETCH, 0.45),
        "The garment had to be stretched a lot to fit the body, so its print may look wrong.",
        "Garment photo: the garment could not be fitted to this body without distorting it. Use a photo of it laid "
        "flat and spread out.",
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
