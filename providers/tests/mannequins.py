"""Drawn people and garments whose right answer is known, for the offline provider. No nets.

People are measured in units, the distance between the shoulder joints; garments in pixels of their photo.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np

from providers.local.body import Body
from providers.local.bottom import Bottom, find_bottom
from providers.local.cutout import matte, own_colours
from providers.local.figure import Part
from providers.local.fitting import Fit, fit_bottom, fit_top
from providers.local.garment import Garment, Kind
from providers.local.imaging import OUTWARD, SIDES, Bools, Floats, Mask, Picture, Point, Shape, Side, lab_of
from providers.local.person import Person
from providers.local.top import Top, find_top
from providers.local.wearing import Worn
from providers.local.wearing_bottom import wear_bottom
from providers.local.wearing_top import wear_top

Colour: TypeAlias = tuple[int, int, int]
Corners: TypeAlias = Sequence[tuple[float, float]]

# People.

ArmPose: TypeAlias = Literal["hanging", "bent", "spread", "one bent", "one before"]

UNIT: Final = 90.0
"""Pixels."""
WIDTH: Final = 6.0
"""Units, of the photo."""
SHOULDERS_Y: Final = 1.45
"""Units from the photo's upper edge to the shoulder joints."""
TORSO: Final = 1.5
TIP: Final = (0.60, -0.08)
"""Lateral and depth of the end of the shoulder, in units."""
NECK: Final = (0.205, -0.20)
"""Of the foot of the neck."""
TRUNK: Final = ((0.36, 0.50), (0.9, 0.45), (1.25, 0.50), (1.5, 0.57), (1.9, 0.60))
"""Depth and half the width of the trunk."""
UPPER_ARM, FOREARM, HAND = 0.88, 0.84, 0.32
ARM: Final = (0.20, 0.17, 0.145, 0.13, 0.085)
ARM_AT: Final = (0.0, 0.25, 0.5, 0.65, 1.0)
LEG: Final = (0.32, 0.26, 0.185, 0.19, 0.10)
LEG_AT: Final = (0.0, 0.22, 0.5, 0.68, 1.0)
WAISTBAND: Final = 1.2
"""Depth at which the lower clothes begin."""
ANGLES: Final[Mapping[str, tuple[float, float]]] = {
    "hanging": (15, 8),
    "bent": (42, -38),
    "spread": (65, 60),
    "before": (20, -70),
}
"""Degrees, outwards from straight down: upper arm, forearm. "One" is the arm on the image's right, the other hangs."""

SKIN: Final[Colour] = (205, 160, 135)
HAIR: Final[Colour] = (70, 45, 30)
LOUD: Final[Colour] = (230, 0, 200)
"""Nothing else has this colour: of it no pixel may be left."""
NAVY: Final[Colour] = (45, 55, 85)
SHOES: Final[Colour] = (25, 25, 25)


@dataclass(frozen=True)
class Figure:
    """How a person stands, and what they wear."""

    arms: ArmPose = "hanging"
    build: float = 1.0
    """Factor of the widths of trunk and limbs."""
    sleeves: float = 0.35
    """Of the arm, that the upper clothes cover; 0 has none, negative: the whole upper body is bare."""
    hem: float = 1.35
    """Depth at which the upper clothes end."""
    legs: float = 0.98
    """Of the leg, that the lower clothes cover; negative: there are none."""
    long_hair: bool = False
    """Over the shoulders, down to the chest."""
    upper: Colour = LOUD
    lower: Colour = NAVY
    cropped: bool = False
    """The photo ends a little below the hips."""
    looseness: float = 1.05
    """Of the clothes over the body."""


def body_of(figure: Figure) -> Body:
    """The body, measured; the same object for the same figure."""
    return _body_of(figure)


@functools.cache
def _body_of(figure: Figure) -> Body:
    return Body(person_of(figure))


def place(lateral: float, depth: float) -> Point:
    """Pixels of the photo, from units."""
    return np.array([round(WIDTH * UNIT) / 2 + lateral * UNIT, (SHOULDERS_Y + depth) * UNIT])


def arm_of(figure: Figure, side: Side) -> list[Point]:
    """Shoulder, elbow, wrist and finger tip, pixels."""
    _, one, other = figure.arms.rpartition("one ")
    pose = "hanging" if one and side == "left" else other
    points = [place(0.5 * OUTWARD[side], 0.0)]
    upper, lower = (np.radians(angle) for angle in ANGLES[pose])
    for angle, size in ((upper, UPPER_ARM), (lower, FOREARM), (lower, HAND)):
        points.append(points[-1] + size * UNIT * np.array([OUTWARD[side] * np.sin(angle), np.cos(angle)]))
    return points


def leg_of(side: Side) -> list[Point]:
    """Hip, knee and ankle, pixels."""
    return [place(OUTWARD[side] * lateral, depth) for lateral, depth in ((0.27, TORSO), (0.32, 2.85), (0.36, 4.1))]


def trunk_width(figure: Figure, depth: float) -> float:
    """Half the width of the bare trunk, units."""
    return float(np.interp(depth, [at for at, _ in TRUNK], [width for _, width in TRUNK])) * figure.build


def person_of(figure: Figure) -> Person:
    """Labels, joints and picture, as the nets and the parsing would have found them."""
    labels = labels_of(figure)
    rgb = _painted(labels, figure)
    joints = np.zeros((39, 2))
    joints[0] = place(0, -0.72)
    joints[[9, 10]] = place(0.1, -0.55), place(-0.1, -0.55)
    joints[[7, 8]] = place(0.2, -0.72), place(-0.2, -0.72)
    for odd, side in enumerate(reversed(SIDES)):  # the person's left is the image's right
        shoulder, elbow, wrist, finger = arm_of(figure, side)
        hip, knee, ankle = leg_of(side)
        for index, point in zip(
            (11, 13, 15, 17, 19, 21), (shoulder, elbow, wrist, finger, finger, finger), strict=True
        ):
            joints[index + odd] = point
        for index, point in zip((23, 25, 27, 29, 31), (hip, knee, ankle, ankle, ankle), strict=True):
            joints[index + odd] = point
    joints[33], joints[34] = place(0, TORSO), place(0, -1.4)
    face = _ellipse(labels.shape, place(0, -0.72), 0.19, 0.27)
    return Person(
        rgb=rgb,
        labels=labels,
        joints=joints,
        shoulder_width=UNIT,
        torso_length=TORSO * UNIT,
        up=np.array([0.0, -1.0]),
        side=np.array([1.0, 0.0]),
        chin=place(0, -0.345),
        face=face,
        skin=np.median(lab_of(rgb)[face > 0], 0),
        score=1.0,
        from_behind=False,
        hips_seen=True,
        alone=True,
    )


def stripped(figure: Figure) -> Person:
    """The same person without upper and lower clothes: what is behind them."""
    return _stripped(figure)


@functools.cache
def _stripped(figure: Figure) -> Person:
    return person_of(replace(figure, sleeves=-1.0, legs=-1.0))


def background() -> Picture:
    """What is behind everybody: a wall with a soft light and some grain."""
    height, width = round(6.0 * UNIT), round(WIDTH * UNIT)
    ramp = np.linspace(0, 14, width)[None, :, None] + np.linspace(10, 0, height)[:, None, None]
    grain = np.random.default_rng(3).normal(0, 1.0, (height, width, 1))
    return np.clip(np.rint(np.array([205.0, 212.0, 215.0]) + ramp + grain), 0, 255).astype(np.uint8)


def labels_of(figure: Figure) -> Mask:
    """Of ``Part``; from behind to front."""
    shape = (round(6.0 * UNIT), round(WIDTH * UNIT))
    labels = np.zeros(shape, np.uint8)
    for side in SIDES:
        hip, knee, ankle = leg_of(side)
        labels[_limb(shape, [hip, knee, ankle], LEG_AT, LEG, figure.build)] = Part.SKIN
        foot = _ellipse(shape, ankle + np.array([0, 0.12 * UNIT]), 0.13, 0.12) > 0
        labels[foot] = Part.SHOES
    labels[_trunk(shape, figure, 1.0, 1.9)] = Part.SKIN
    labels[_polygon(shape, [(-0.18, -0.4), (0.18, -0.4), NECK, (-NECK[0], NECK[1])])] = Part.SKIN
    if figure.legs >= 0:
        for side in SIDES:
            worn = _limb(shape, leg_of(side), LEG_AT, LEG, figure.build * figure.looseness, figure.legs)
            labels[worn & (labels != Part.SHOES)] = Part.LOWER
        trunk = _trunk(shape, figure, 1.02, 1.9)
        labels[trunk & (_depths(shape) > WAISTBAND)] = Part.LOWER
    arms = [arm_of(figure, side) for side in SIDES]
    for arm in arms:
        labels[_limb(shape, arm[:3], ARM_AT, ARM, figure.build)] = Part.SKIN
    if figure.sleeves >= 0:
        worn = _trunk(shape, figure, figure.looseness, figure.hem)
        worn &= _ellipse(shape, place(0, -0.2), NECK[0], 0.34) == 0
        before = _limbs_beyond(shape, arms, figure)
        labels[worn & ~before] = Part.UPPER
        if figure.sleeves:
            for arm in arms:
                sleeve = _limb(shape, arm[:3], ARM_AT, ARM, figure.build * 1.07 * figure.looseness, figure.sleeves)
                labels[sleeve & (_ellipse(shape, place(0, -0.2), NECK[0], 0.34) == 0)] = Part.UPPER
    for arm in arms:
        labels[_limb(shape, arm[2:], (0.0, 0.5, 1.0), (0.085, 0.12, 0.07), 1.0)] = Part.SKIN
    labels[_ellipse(shape, place(0, -0.82), 0.33, 0.40) > 0] = Part.HAIR
    if figure.long_hair:
        for side in SIDES:
            strand = [(0.15, -0.6), (0.33, -0.8), (0.44, -0.1), (0.40, 0.55), (0.22, 0.5), (0.19, -0.2)]
            labels[_polygon(shape, [(OUTWARD[side] * x, y) for x, y in strand])] = Part.HAIR
    labels[_ellipse(shape, place(0, -0.70), 0.25, 0.36) > 0] = Part.SKIN
    return labels[: round((SHOULDERS_Y + TORSO + 0.25) * UNIT)].copy() if figure.cropped else labels


def _painted(labels: Mask, figure: Figure) -> Picture:
    rgb = background()[: len(labels)].copy()
    colours = {
        Part.SKIN: SKIN,
        Part.HAIR: HAIR,
        Part.UPPER: figure.upper,
        Part.LOWER: figure.lower,
        Part.SHOES: SHOES,
    }
    grain = np.random.default_rng(4).integers(-2, 3, (*labels.shape, 1))
    for part, colour in colours.items():
        where = labels == part
        rgb[where] = np.clip(np.array(colour) + grain[where], 0, 255)
    return rgb


def _depths(shape: Shape) -> Floats:
    """Units below the shoulder joints, ``(H, 1)``."""
    return (np.arange(shape[0])[:, None] / UNIT) - SHOULDERS_Y


def _trunk(shape: Shape, figure: Figure, looseness: float, end: float) -> Bools:
    depths = np.append(np.arange(0.36, end, 0.04), end)
    side = [(trunk_width(figure, depth) * looseness, depth) for depth in depths]
    half = [NECK, TIP, (0.6 + 0.06 * figure.build, 0.1), *side]
    return _polygon(shape, [*half, *[(-lateral, depth) for lateral, depth in reversed(half)]])


def _limbs_beyond(shape: Shape, arms: list[list[Point]], figure: Figure) -> Bools:
    """Forearms, which lie before the trunk."""
    found = np.zeros(shape, bool)
    for arm in arms:
        found |= _limb(shape, arm[1:3], (0.0, 0.3, 1.0), ARM[2:], figure.build)
    return found


def _limb(
    shape: Shape,
    path: Sequence[Point],
    at: Sequence[float],
    half_widths: Sequence[float],
    build: float,
    end: float = 1.0,
) -> Bools:
    """A limb of changing width, cut square at ``end``, as a share of its length."""
    sizes = np.array([np.hypot(*(after - before)) for before, after in itertools.pairwise(path)])
    way = np.concatenate([[0.0], np.cumsum(sizes)]) / sizes.sum()
    shares = np.linspace(0, end, 160)
    xs, ys = (np.interp(shares, way, [point[axis] for point in path]) for axis in (0, 1))
    drawn = np.zeros(shape, np.uint8)
    for share, x, y in zip(shares, xs, ys, strict=True):
        # Whoever is stouter is hardly wider where the limb begins.
        radius = float(np.interp(share, at, half_widths)) * (1 + (build - 1) * min(1.0, share / 0.3)) * UNIT
        centre = (round(float(x) * 16), round(float(y) * 16))
        cv2.circle(drawn, centre, round(radius * 16), (1,), -1, cv2.LINE_8, 4)
    last, before = np.array([xs[-1], ys[-1]]), np.array([xs[-4], ys[-4]])
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    beyond = (columns - last[0]) * (last - before)[0] + (rows - last[1]) * (last - before)[1] > 0
    near = np.hypot(columns - last[0], rows - last[1]) < 0.5 * UNIT
    return np.asarray((drawn > 0) & ~(beyond & near))


def _polygon(shape: Shape, corners: Corners) -> Bools:
    drawn = np.zeros(shape, np.uint8)
    points = np.array([place(*corner) for corner in corners])
    cv2.fillPoly(drawn, [np.rint(points).astype(np.int32).reshape(-1, 1, 2)], (1,))
    return drawn > 0


def _ellipse(shape: Shape, centre: Point, across: float, down: float) -> Mask:
    drawn = np.zeros(shape, np.uint8)
    axes = (round(across * UNIT), round(down * UNIT))
    cv2.ellipse(drawn, (round(float(centre[0])), round(float(centre[1]))), axes, 0, 0, 360, (1,), -1)
    return drawn


# Garments.

Cloth: TypeAlias = Literal["plain", "checkerboard", "stripes"]

CENTRE: Final = 300
GARMENT_SHAPE: Final = (720, 600)
SQUARE: Final = 30
"""Pixels of a side of a square of the checkerboard, and of a stripe."""
BLUE: Final[Colour] = (20, 70, 190)
YELLOW: Final[Colour] = (235, 190, 60)
INSIDE: Final[Colour] = (12, 30, 70)
"""Of the back, seen in the neck opening."""
GROUND: Final = 245


@dataclass(frozen=True)
class Drawing:
    """A garment's right half, from the middle of the neck or the waistband to that of the hem."""

    corners: Corners
    """Pixels from the centre to the right, and down."""
    kind: Kind
    points: Mapping[str, tuple[float, float]]
    """What must be found where: ``armpit``, ``shoulder``, ``hem``, ``cuff`` (the middle of the sleeve's end) ..."""
    sleeves: bool = False
    sleeve_length: float = 0.0
    bare_shoulders: bool = False


def _sleeved(cuff: Corners, hem: float, flare: float = 105, *, kind: Kind = "upper") -> Drawing:
    """A top with set-in sleeves; ``cuff`` is its outer and its inner corner."""
    outer, inner = cuff
    edge = np.interp(105, [100, outer[0]], [65, outer[1]])
    end = ((outer[0] + inner[0]) / 2, (outer[1] + inner[1]) / 2)
    return Drawing(
        corners=[(45, 40), (100, 65), outer, inner, (105, 155), (flare, hem)],
        kind=kind,
        points={
            "armpit": (105, 155),
            "shoulder": (105, float(edge)),
            "hem": (flare, hem),
            "collar": (45, 40),
            "cuff": end,
        },
        sleeves=True,
        sleeve_length=float(np.hypot(end[0] - 105, end[1] - (155 + edge) / 2)),
    )


def _sleeveless(corners: Corners, tip: tuple[float, float], *, kind: Kind = "upper") -> Drawing:
    """``corners`` begin with the collar and end with the armpit and the hem; the back dips between the straps."""
    points = {"shoulder": tip, "armpit": corners[-2], "hem": corners[-1], "collar": corners[0]}
    x, y = corners[0]
    return Drawing([(0.8 * x, y + 24), *corners], kind, points)


SHORT: Final = ((168, 135), (128, 185))
TOPS: Final[Mapping[str, Drawing]] = {
    "t-shirt": _sleeved(SHORT, 380),
    "three-quarter": _sleeved(((234, 252), (194, 280)), 380),
    "long-sleeved": _sleeved(((281, 322), (245, 348)), 380),
    "outstretched": _sleeved(((225, 75), (225, 135)), 380),
    "crop top": _sleeved(SHORT, 240),
    "tunic": _sleeved(SHORT, 500, 115),
    "tank top": _sleeveless([(50, 40), (78, 54), (72, 110), (105, 165), (107, 380)], (78, 54)),
    "turtleneck": Drawing(
        corners=[(40, 5), (44, 40), (100, 65), *SHORT, (105, 155), (105, 380)],
        kind="upper",
        points={"armpit": (105, 155), "shoulder": (105, 70), "hem": (105, 380), "collar": (40, 5), "cuff": (148, 160)},
        sleeves=True,
        sleeve_length=60,
    ),
    "halter": _sleeveless([(28, 40), (40, 43), (98, 150), (102, 380)], (40, 43)),
    "off-shoulder": Drawing(
        corners=[(130, 50), (165, 150), (125, 165), (104, 110), (104, 330)],
        kind="upper",
        points={"armpit": (104, 110), "shoulder": (104, 50), "hem": (104, 330), "cuff": (145, 157)},
        sleeves=True,
        sleeve_length=87,
        bare_shoulders=True,
    ),
    "dress": _sleeved(SHORT, 690, 150, kind="dress"),
    "sleeveless dress": _sleeveless([(50, 40), (78, 54), (72, 110), (105, 165), (150, 690)], (78, 54), kind="dress"),
}
BOTTOMS: Final[Mapping[str, Drawing]] = {
    "trousers": Drawing(
        [(85, 40), (108, 160), (125, 680), (62, 680), (0, 210)],
        "lower",
        {"waist": (86, 50), "hem": (125, 680), "inner hem": (62, 680), "crotch": (0, 210)},
    ),
    "shorts": Drawing(
        [(85, 40), (108, 160), (125, 330), (20, 330), (0, 210)],
        "lower",
        {"waist": (86, 46), "hem": (125, 330), "inner hem": (20, 330), "crotch": (0, 210)},
    ),
    "skirt": Drawing([(85, 40), (110, 160), (140, 400)], "lower", {"waist": (86, 46), "hem": (140, 400)}),
}
DRAWINGS: Final[Mapping[str, Drawing]] = {**TOPS, **BOTTOMS}


def mask_of(right: Drawing, left: Drawing | None = None) -> Mask:
    """The silhouette; ``left`` is a mirror image unless given, also as a right half."""
    mirrored = [(-x, y) for x, y in reversed((left or right).corners)]
    mask = np.zeros(GARMENT_SHAPE, np.uint8)
    corners = np.array([*right.corners, *mirrored]) + np.array([CENTRE, 0])
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32).reshape(-1, 1, 2)], (1,))
    return mask


def photo_of(mask: Mask, cloth: Cloth = "plain", *, neck: float = 0.0, colour: Colour = BLUE) -> Picture:
    """The garment on a plain ground; ``neck``: depth in pixels of a round opening between the collar's ends."""
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]]
    second = {"plain": 0 * x, "checkerboard": (x // SQUARE + y // SQUARE) % 2, "stripes": (y // SQUARE) % 2}[cloth]
    photo = np.full((*mask.shape, 3), GROUND, np.uint8)
    on = mask > 0
    photo[on] = np.where(second[on][:, None] > 0, np.array(YELLOW), np.array(colour))
    if neck:
        opening = np.zeros_like(mask)
        cv2.ellipse(opening, (CENTRE, 40), (42, round(neck)), 0, 0, 180, (1,), -1)
        photo[(opening > 0) & on] = INSIDE
    return photo


@functools.cache
def garment_of(name: str, cloth: Cloth = "plain", *, neck: float = 0.0, colour: Colour = BLUE) -> Garment:
    """Cut out along the drawn outline; the same object for the same arguments."""
    drawing = DRAWINGS[name]
    mask = mask_of(drawing)
    rgb = photo_of(mask, cloth, neck=neck, colour=colour)
    alpha = matte(mask)
    shape: Top | Bottom = find_bottom(mask) if drawing.kind == "lower" else find_top(rgb, mask)
    solid = np.rint(alpha * 255).astype(np.uint8)
    return Garment(own_colours(rgb, alpha), solid, drawing.kind, shape, 1.0, ())


# Both.


@dataclass(frozen=True)
class Outfit:
    """A person in a garment."""

    body: Body
    garment: Garment
    fit: Fit
    worn: Worn

    @property
    def photo(self) -> Picture:
        return self.body.person.rgb

    def on_body(self, side: Side, x: float, y: float, part: int) -> Point:
        """Where a point of the garment went, which lies so far from its centre towards the side, and so far down."""
        return posed_at(self.fit, np.array([CENTRE + OUTWARD[side] * x, y]), part)


@functools.cache
def dressed(figure: Figure, name: str, cloth: Cloth = "plain", *, neck: float = 0.0, colour: Colour = BLUE) -> Outfit:
    """Hung and drawn; the same object for the same arguments."""
    return outfit_of(body_of(figure), garment_of(name, cloth, neck=neck, colour=colour))


def outfit_of(body: Body, garment: Garment) -> Outfit:
    """Without the cache."""
    if isinstance(garment.shape, Bottom):
        fit = fit_bottom(body, garment.shape, body.waist())
        return Outfit(body, garment, fit, wear_bottom(body, garment, garment.shape, fit))
    fit = fit_top(body, garment.shape, body.waist())
    return Outfit(body, garment, fit, wear_top(body, garment, garment.shape, fit, dress=garment.kind == "dress"))


def posed_at(fit: Fit, point: Point, part: int) -> Point:
    """Where a point of the garment photo lies on the person, by the triangle of this part that holds it."""
    sheet = fit.posed.sheet
    triangles = sheet.triangles[sheet.parts == part]
    best: tuple[float, Point] | None = None
    for triangle in triangles:
        corners = np.vstack([sheet.rest[triangle].T, np.ones(3)])
        shares = np.linalg.solve(corners, np.array([*point, 1.0]))
        if best is None or shares.min() > best[0]:
            best = float(shares.min()), shares @ fit.posed.points[triangle]
    assert best is not None
    assert best[0] > -1.0, "the point lies on the sheet"
    return best[1]


def far_from(rgb: Picture, colour: Colour) -> Floats:
    """How far each pixel is from a colour, the largest difference of the three channels."""
    return np.asarray(np.abs(rgb.astype(np.float64) - np.array(colour)).max(-1))


def loud(rgb: Picture) -> Bools:
    """Pixels that show the loud colour, or more than a third of it mixed into something else."""
    red, green, blue = (rgb[..., channel].astype(int) for channel in range(3))
    return np.asarray((np.minimum(red, blue) - green) > 70)
