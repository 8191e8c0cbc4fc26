"""Keypoints of drawn garments: they lie where they were drawn. No nets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import pytest

from providers.errors import ImageUnusable
from providers.local.imaging import OUTWARD, SIDES, Floats, Mask, Picture, Point, Side
from providers.local.keypoints import STATIONS, WAIST_ROWS, Top, find_top, find_trousers, run_at

Corners: TypeAlias = Sequence[tuple[int, int]]

SIDE_LENGTH, CENTRE = 400, 200
NEAR = 5.0
"""Pixels by which a point may miss; corners are found a little beside where they were drawn."""

# The right half of each garment, from the middle of the neck to the middle of the hem, or from the waistband.
T_SHIRT: Corners = [(35, 40), (80, 60), (150, 150), (105, 190), (70, 130), (70, 360)]
LONG_SLEEVED: Corners = [(35, 40), (80, 60), (175, 320), (130, 330), (70, 130), (70, 360)]
OUTSTRETCHED: Corners = [(35, 40), (80, 50), (195, 60), (195, 110), (70, 120), (70, 360)]
SLEEVELESS: Corners = [(35, 40), (70, 55), (60, 110), (75, 155), (80, 360)]
TROUSERS: Corners = [(60, 30), (75, 140), (110, 380), (50, 380), (0, 170)]
SKIRT: Corners = [(60, 30), (75, 140), (110, 380)]
DUNGAREES: Corners = [(20, 30), (25, 110), (75, 140), (110, 380), (50, 380), (0, 200)]


def mirrored(half: Corners) -> list[tuple[int, int]]:
    return [(-x, y) for x, y in reversed(half)]


def drawn(right: Corners, left: Corners | None = None) -> Floats:
    """Alpha of a garment; ``left`` is drawn like the right half unless given, also as a right half."""
    corners = np.array([*right, *mirrored(right if left is None else left)]) + np.array([CENTRE, 0])
    alpha = np.zeros((SIDE_LENGTH, SIDE_LENGTH), np.float32)
    cv2.fillPoly(alpha, [corners.astype(np.int32).reshape(-1, 1, 2)], (1.0,))
    return alpha


def photo_of(alpha: Floats) -> Picture:
    """Plain cloth on a plain ground."""
    photo: Picture = np.full((*alpha.shape, 3), 240, np.uint8)
    photo[alpha > 0.5] = (60, 90, 160)
    return photo


def top_of(alpha: Floats) -> Top:
    return find_top(photo_of(alpha), alpha)


def near(point: Point, side: Side, x: float, y: float, within: float = NEAR) -> bool:
    """Whether a point lies there; ``x`` counts from the centre outwards."""
    return float(np.hypot(point[0] - (CENTRE + OUTWARD[side] * x), point[1] - y)) <= within


def flipped(alpha: Floats) -> Floats:
    return np.ascontiguousarray(alpha[:, ::-1])


# Tops.


@pytest.mark.parametrize("side", SIDES)
def test_t_shirt(side: Side) -> None:
    top = top_of(drawn(T_SHIRT))

    half = top.halves[side]
    assert near(half.armpit, side, 70, 130)
    assert near(half.gap, side, 70, 130)
    assert near(half.shoulder, side, 70, 56)
    assert near(half.hem, side, 70, 360)
    assert half.sleeve is not None
    assert half.sleeve.cuff is not None
    outer, inner = half.sleeve.cuff
    assert near(outer, side, 150, 150)
    assert near(inner, side, 105, 190)


def test_measures_of_a_t_shirt() -> None:
    top = top_of(drawn(T_SHIRT))

    assert near(top.neck[0], "left", 35, 40, within=15)
    assert near(top.neck[1], "right", 35, 40, within=15)
    assert top.centre == pytest.approx(CENTRE, abs=1)
    assert top.top == 40
    assert top.shoulder_width == pytest.approx(140, abs=NEAR)
    assert top.length == pytest.approx(360 - 56, abs=NEAR)
    assert top.symmetry > 0.98
    assert top.hem[:, 1] == pytest.approx(360, abs=1)
    assert (np.diff(top.hem[:, 0]) > 20).all()


def test_body_and_sleeves_make_up_the_mask() -> None:
    top = top_of(drawn(T_SHIRT))

    left, right = (top.halves[side].sleeve for side in SIDES)
    assert left is not None
    assert right is not None
    assert not (left.mask & right.mask).any()
    assert ((top.body | left.mask | right.mask) == top.mask).all()
    assert not top.body[140, CENTRE + 100]
    assert right.mask[140, CENTRE + 100]
    assert top.body[200, CENTRE]


@pytest.mark.parametrize("side", SIDES)
def test_long_sleeve_is_measured_across_its_axis(side: Side) -> None:
    half = top_of(drawn(LONG_SLEEVED)).halves[side]

    assert near(half.gap, side, 70, 130, within=8)
    sleeve = half.sleeve
    assert sleeve is not None
    assert sleeve.cuff is None
    assert sleeve.length == pytest.approx(np.hypot(152 - 72, 325 - 95), abs=20)
    assert sleeve.sections.shape == (1 + len(STATIONS), 2, 2)
    assert sleeve.sections.dtype == np.float64
    assert (sleeve.sections[0] == [half.shoulder, half.armpit]).all()
    outer, inner = sleeve.sections[1:, 0], sleeve.sections[1:, 1]
    assert ((outer - inner)[:, 0] * OUTWARD[side] > 0).all()
    assert (np.diff((outer + inner)[:, 1]) > 0).all()
    assert np.hypot(*(outer - inner)[4]) == pytest.approx(42, abs=3)


@pytest.mark.parametrize("side", SIDES)
def test_sleeves_that_stick_out(side: Side) -> None:
    """No row holds the body and a separate sleeve."""
    half = top_of(drawn(OUTSTRETCHED)).halves[side]

    assert near(half.gap, side, 70, 120)
    assert near(half.hem, side, 70, 360)
    assert half.sleeve is not None
    assert half.sleeve.cuff is not None
    assert half.sleeve.mask[85, CENTRE + OUTWARD[side] * 150]


@pytest.mark.parametrize("side", SIDES)
def test_sleeveless_top(side: Side) -> None:
    top = top_of(drawn(SLEEVELESS))

    half = top.halves[side]
    assert half.sleeve is None
    assert near(half.shoulder, side, 70, 55)
    assert near(half.armpit, side, 75, 155)
    assert (half.gap == half.armpit).all()
    assert near(half.hem, side, 80, 352)
    assert (top.body == top.mask).all()


def test_one_sleeve_may_be_short_and_the_other_long() -> None:
    top = top_of(drawn(T_SHIRT, left=LONG_SLEEVED))

    left, right = (top.halves[side].sleeve for side in SIDES)
    assert left is not None
    assert right is not None
    assert left.cuff is None
    assert right.cuff is not None


# Both halves.


def test_nearly_symmetric_halves_are_evened() -> None:
    """How it was laid: the right armpit is 8 pixels lower."""
    other = [(70, 138) if corner == (70, 130) else corner for corner in T_SHIRT]
    top = top_of(drawn(other, left=T_SHIRT))

    left, right = top.halves["left"], top.halves["right"]
    middle = (left.shoulder[0] + right.shoulder[0]) / 2
    pairs = zip(
        (left.shoulder, left.armpit, left.gap, left.hem),
        (right.shoulder, right.armpit, right.gap, right.hem),
        strict=True,
    )
    for of_left, of_right in pairs:
        assert of_left == pytest.approx([2 * middle - of_right[0], of_right[1]])
    assert top.shoulder_width == pytest.approx(right.shoulder[0] - left.shoulder[0])
    # The sleeves keep their own armpits.
    assert left.sleeve is not None
    assert right.sleeve is not None
    own = left.sleeve.sections[0, 1, 1], right.sleeve.sections[0, 1, 1]
    assert own[1] - own[0] == pytest.approx(8, abs=2)
    assert left.armpit[1] == pytest.approx(sum(own) / 2)


def test_halves_that_differ_stay_as_they_are() -> None:
    top = top_of(drawn(T_SHIRT, left=SLEEVELESS))

    assert top.symmetry < 0.93
    assert top.halves["left"].sleeve is None
    assert near(top.halves["right"].armpit, "right", 70, 130)
    assert near(top.halves["left"].armpit, "left", 75, 155)


@pytest.mark.parametrize(
    ("right", "left"),
    [(T_SHIRT, LONG_SLEEVED), (T_SHIRT, SLEEVELESS), (T_SHIRT, T_SHIRT), (LONG_SLEEVED, OUTSTRETCHED)],
)
def test_mirrored_top_has_mirrored_points(right: Corners, left: Corners) -> None:
    alpha = drawn(right, left)
    top, mirror = top_of(alpha), top_of(flipped(alpha))

    def mirrored_back(points: Floats) -> Floats:
        return np.array([SIDE_LENGTH - 1, 0]) + np.array([-1, 1]) * points

    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        half, image = top.halves[side], mirror.halves[other]
        for point, reflection in (
            (half.shoulder, image.shoulder),
            (half.armpit, image.armpit),
            (half.gap, image.gap),
            (half.hem, image.hem),
        ):
            assert mirrored_back(reflection) == pytest.approx(point, abs=3)
        assert (half.sleeve is None) == (image.sleeve is None)
        if half.sleeve is not None and image.sleeve is not None:
            assert mirrored_back(image.sleeve.sections) == pytest.approx(half.sleeve.sections, abs=4)
    assert mirrored_back(mirror.hem[::-1]) == pytest.approx(top.hem, abs=3)
    assert mirror.symmetry == pytest.approx(top.symmetry, abs=0.02)
    assert mirror.length == pytest.approx(top.length, abs=3)


# The neck opening.


def test_front_edge_of_the_neck_is_seen() -> None:
    alpha = drawn(T_SHIRT)
    photo = photo_of(alpha)
    inside = np.zeros(alpha.shape, np.uint8)
    cv2.ellipse(inside, (CENTRE, 40), (42, 45), 0, 0, 180, (1,), -1)
    photo[(inside > 0) & (alpha > 0)] = (25, 35, 70)
    neckline = find_top(photo, alpha).neckline

    assert neckline is not None
    assert neckline.visible
    assert neckline.x.shape == neckline.y.shape
    assert (np.diff(neckline.x) == 1).all()
    middle = np.abs(neckline.x - CENTRE) < 20
    drawn_edge = 40 + 45 * np.sqrt(1 - ((neckline.x - CENTRE) / 42) ** 2)
    assert neckline.y[middle] == pytest.approx(drawn_edge[middle], abs=4)


def test_plain_cloth_gets_a_crew_neck() -> None:
    top = top_of(drawn(T_SHIRT))

    neckline = top.neckline
    assert neckline is not None
    assert not neckline.visible
    width = top.neck[1][0] - top.neck[0][0]
    assert neckline.y.max() - top.neck[0][1] == pytest.approx(0.31 * width, abs=2)
    assert neckline.y[0] == pytest.approx(top.neck[0][1], abs=1)


def test_neck_too_small_to_look_into() -> None:
    """A hanger's hook is left at the top."""
    alpha = drawn(T_SHIRT)
    alpha[20:41, CENTRE - 3 : CENTRE + 3] = 1

    assert top_of(alpha).neckline is None


# Trousers.


def test_trousers() -> None:
    trousers = find_trousers(drawn(TROUSERS))

    assert near(trousers.crotch, "right", 0, 170)
    assert (trousers.top, trousers.bottom) == (30, 380)
    assert trousers.rows.shape == (len(WAIST_ROWS), 2, 2)
    (left, right), *_ = trousers.rows
    assert near(left, "left", 60, 35)
    assert near(right, "right", 60, 35)


@pytest.mark.parametrize("side", SIDES)
def test_legs(side: Side) -> None:
    trousers = find_trousers(drawn(TROUSERS))

    leg = trousers.legs[side]
    assert leg.shape == (6, 2, 2)
    outer, inner = leg[:, 0], leg[:, 1]
    assert (np.diff(outer[:, 1]) > 0).all()
    assert (outer[:, 1] == inner[:, 1]).all()
    assert near(outer[-1], side, 110, 377)
    assert near(inner[-1], side, 50, 377)
    assert ((outer - inner)[:, 0] * OUTWARD[side] > 0).all()


def test_mirrored_trousers_have_mirrored_points() -> None:
    lopsided: Corners = [(60, 30), (75, 140), (140, 360), (90, 380), (0, 170)]
    alpha = drawn(lopsided, left=TROUSERS)
    trousers, mirror = find_trousers(alpha), find_trousers(flipped(alpha))

    reflect = np.array([-1, 1])
    offset = np.array([SIDE_LENGTH - 1, 0])
    assert offset + reflect * mirror.crotch == pytest.approx(trousers.crotch, abs=3)
    assert offset + reflect * mirror.rows[:, ::-1] == pytest.approx(trousers.rows, abs=1)
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        assert offset + reflect * mirror.legs[other] == pytest.approx(trousers.legs[side], abs=3)


def test_legs_that_touch_part_below_the_crotch() -> None:
    alpha = drawn(TROUSERS)
    alpha[300:310, CENTRE - 60 : CENTRE + 60] = 1
    trousers = find_trousers(alpha)

    assert (trousers.legs["left"][:, 1, 0] <= trousers.crotch[0]).all()
    assert (trousers.legs["right"][:, 1, 0] >= trousers.crotch[0]).all()


def test_skirt() -> None:
    trousers = find_trousers(drawn(SKIRT))

    assert trousers.crotch[1] > 360
    assert trousers.legs["left"][-1, 0, 0] == pytest.approx(CENTRE - 109, abs=3)


def test_dungarees_are_refused() -> None:
    with pytest.raises(ImageUnusable, match=r"^Garment photo: a waistband .* dungarees cannot be tried on\.$"):
        find_trousers(drawn(DUNGAREES))


# Rows.


@pytest.mark.parametrize(
    ("y", "x", "expected"),
    [
        (1, 3, (2.0, 4.0)),
        (1.9, 0, (2.0, 4.0)),
        (1, 5.9, (2.0, 4.0)),
        (1, 6.1, (8.0, 9.0)),
        (1, 100, (8.0, 9.0)),
        (0, 3, None),
        (3, 3, None),
        (-2, 3, None),
    ],
)
def test_run_nearest_to_a_column(y: float, x: float, expected: tuple[float, float] | None) -> None:
    mask: Mask = np.zeros((3, 10), np.uint8)
    mask[1, 2:5] = mask[1, 8:] = 1

    assert run_at(mask, y, x) == expected
