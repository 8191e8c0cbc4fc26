"""The sheet that bends with the body, against transformations whose answer is known."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

from providers.local.imaging import Bools, Floats, Mask, Picture, Point
from providers.local.mesh import Pins, Posed, Sheet, pose, sheet_of

TORSO, LEFT, RIGHT = 1, 2, 3
SHAPE = (320, 320)
MIDDLE = np.array([160.0, 160.0])
EDGE_OF_BODY = {LEFT: 100.0, RIGHT: 219.0}
SEAMS = {part: (np.array([x, 40.0]), np.array([x, 110.0])) for part, x in EDGE_OF_BODY.items()}
"""From the shoulder to the armpit."""


def parts() -> Mask:
    """A body with two sleeves that hang down against it."""
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[40:280, 100:220] = TORSO
    drawn[40:250, 60:100] = LEFT
    drawn[40:250, 220:260] = RIGHT
    return drawn


@functools.cache
def sheet() -> Sheet:
    return sheet_of(parts(), SEAMS, TORSO)


def rotation(degrees: float) -> Floats:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def posed(flat: Sheet, to: Floats, shift: Floats | None = None, *, start: Floats | None = None) -> Posed:
    """Pinned in every part at what a linear map, around the middle, makes of the pins' places."""
    pins = Pins()
    for part, places in (
        (TORSO, ((110, 50), (210, 50), (110, 270), (210, 270), (160, 160))),
        (LEFT, ((65, 60), (95, 240), (65, 240))),
        (RIGHT, ((255, 60), (225, 240), (255, 240))),
    ):
        for place in places:
            at = np.array(place, np.float64)
            pins.add(at, moved(at, to, shift), part=part)
    return pose(flat, flat.rest, pins, flat.rest if start is None else start)


def moved(points: Floats, to: Floats, shift: Floats | None = None) -> Point:
    return np.asarray((points - MIDDLE) @ to.T + MIDDLE + (0 if shift is None else shift), np.float64)


# The sheet.


def test_the_triangles_cover_every_part() -> None:
    flat = sheet()
    for part in (TORSO, LEFT, RIGHT):
        covered = np.zeros(SHAPE, np.uint8)
        for triangle in flat.triangles[flat.parts == part]:
            cv2.fillConvexPoly(covered, np.rint(flat.rest[triangle]).astype(np.int32), (1,))
        assert (covered[parts() == part] > 0).all()


def test_a_triangle_has_an_area_and_one_part() -> None:
    flat = sheet()
    corners = flat.rest[flat.triangles]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    assert areas == pytest.approx(np.full(len(areas), areas[0]))
    assert len(flat.parts) == len(flat.triangles)
    assert set(np.unique(flat.parts)) == {TORSO, LEFT, RIGHT}


@pytest.mark.parametrize("part", [LEFT, RIGHT])
def test_a_sleeve_is_sewn_to_the_body_along_its_seam_only(part: int) -> None:
    flat = sheet()
    shared = np.intersect1d(flat.triangles[flat.parts == part], flat.triangles[flat.parts == TORSO])

    step = 240 / 30
    assert len(shared) > 5
    assert (np.abs(flat.rest[shared, 0] - EDGE_OF_BODY[part]) < step).all()
    assert (flat.rest[shared, 1] < 110 + step).all()
    assert flat.rest[shared, 1].min() < 40 + step


@pytest.mark.parametrize("part", [LEFT, RIGHT])
def test_a_sleeve_below_the_armpit_does_not_stick_to_the_body(part: int) -> None:
    """Lifted sideways it takes nothing of the body's side along."""
    flat, pins = sheet(), Pins()
    for x in (110.0, 210.0):
        for y in np.linspace(50, 270, 8):
            pins.add(np.array([x, y]), np.array([x, y]), weight=6, part=TORSO)
    out = 1 if part == RIGHT else -1
    outer, inner = EDGE_OF_BODY[part] + out * 35, EDGE_OF_BODY[part] + out * 5
    for y in (150.0, 200.0, 240.0):
        for x in (outer, inner):
            turned = SEAMS[part][0] + rotation(-40 * out) @ (np.array([x, y]) - SEAMS[part][0])
            pins.add(np.array([x, y]), np.asarray(turned, np.float64), weight=2, part=part)
    result = pose(flat, flat.rest, pins, flat.rest)

    away = np.hypot(*(result.points - flat.rest).T)
    body = np.setdiff1d(flat.triangles[flat.parts == TORSO], flat.triangles[flat.parts == part])
    low = body[flat.rest[body, 1] > 150]
    assert away[low].max() < 3
    sleeve = np.setdiff1d(flat.triangles[flat.parts == part], flat.triangles[flat.parts == TORSO])
    assert away[sleeve[flat.rest[sleeve, 1] > 200]].min() > 60


# How it moves.


@pytest.mark.parametrize("shift", [(0.0, 0.0), (35.0, -20.0)])
def test_pins_that_agree_with_the_sheet_leave_it_as_it_is(shift: tuple[float, float]) -> None:
    flat = sheet()
    result = posed(flat, np.eye(2), np.array(shift))

    assert result.points == pytest.approx(flat.rest + np.array(shift), abs=1e-3)
    assert result.stretch() == pytest.approx(np.ones((len(flat.triangles), 2)), abs=1e-4)
    assert not result.folded().any()


@pytest.mark.parametrize("degrees", [-120.0, 5.0, 60.0])
def test_turned_pins_turn_the_sheet_and_stretch_nothing(degrees: float) -> None:
    flat, shift = sheet(), np.array([12.0, 4.0])
    wanted = moved(flat.rest, rotation(degrees), shift)
    result = posed(flat, rotation(degrees), shift, start=wanted + 9.0)

    assert result.points == pytest.approx(wanted, abs=0.05)
    assert result.stretch() == pytest.approx(np.ones((len(flat.triangles), 2)), abs=1e-3)
    assert not result.folded().any()


@pytest.mark.parametrize("degrees", [-30.0])
def test_a_first_guess_that_is_not_turned_hardly_matters(degrees: float) -> None:
    """So far, to a pixel and a half of a sheet of 240, the rounds come near."""
    flat = sheet()
    result = posed(flat, rotation(degrees))

    assert result.points == pytest.approx(moved(flat.rest, rotation(degrees)), abs=1.5)
    assert result.stretch() == pytest.approx(np.ones((len(flat.triangles), 2)), abs=0.03)


def test_a_disturbed_first_guess_ends_at_the_same_place() -> None:
    flat = sheet()
    guess = flat.rest + np.random.default_rng(0).normal(0, 8, flat.rest.shape)

    assert posed(flat, np.eye(2), start=guess).points == pytest.approx(flat.rest, abs=0.5)


def test_stretch_tells_how_much_longer_cloth_became() -> None:
    """Read off the triangles, whatever moved them."""
    flat = sheet()
    result = Posed(flat, flat.rest, moved(flat.rest, rotation(33) @ np.diag([1.5, 0.8])))

    assert result.stretch() == pytest.approx(np.tile([1.5, 0.8], (len(flat.triangles), 1)))
    assert not result.folded().any()


def test_rest_is_what_stretch_is_measured_against() -> None:
    flat = sheet()
    assert Posed(flat, flat.rest * 0.5, flat.rest * 0.5).stretch() == pytest.approx(1.0)


def test_cloth_pulled_apart_gives_way_evenly() -> None:
    """Pins 20 % further apart than the sheet is wide stretch it, and nowhere by much more."""
    flat, pins = sheet(), Pins()
    for y in np.linspace(50, 270, 9):
        for x in (105, 215):
            at = np.array([x, y])
            pins.add(at, moved(at, np.diag([1.2, 1.0])), weight=6, part=TORSO)
    result = pose(flat, flat.rest, pins, flat.rest)

    torso = result.stretch()[flat.parts == TORSO]
    assert 1.05 < np.median(torso[:, 0]) < 1.25
    assert torso[:, 0].max() < 1.5
    assert torso[:, 1].min() > 0.85


def test_pins_that_swap_sides_fold_the_sheet() -> None:
    flat = sheet()
    pins = Pins()
    for y in np.linspace(50, 270, 8):
        for x in (110.0, 210.0):
            pins.add(np.array([x, y]), np.array([320.0 - x, y]), weight=6, part=TORSO)
    assert pose(flat, flat.rest, pins, flat.rest).folded().mean() > 0.05


def test_a_mirror_image_lies_on_its_back() -> None:
    flat = sheet()
    assert Posed(flat, flat.rest, moved(flat.rest, np.diag([-1.0, 1.0]))).folded().all()


def test_a_heavier_pin_wins() -> None:
    flat = sheet()

    def pulled(up: float, down: float) -> float:
        pins = Pins()
        for y in (50.0, 270.0):
            pins.add(np.array([160.0, y]), np.array([160.0, y]), part=TORSO)
        pins.add(MIDDLE, MIDDLE + np.array([0.0, -10.0]), weight=up, part=TORSO)
        pins.add(MIDDLE, MIDDLE + np.array([0.0, 10.0]), weight=down, part=TORSO)
        result = pose(flat, flat.rest, pins, flat.rest)
        nearest = np.argmin(np.hypot(*(flat.rest - MIDDLE).T))
        return float(result.points[nearest, 1] - flat.rest[nearest, 1])

    assert pulled(6, 0.5) < -1
    assert pulled(0.5, 6) > 1


def test_a_pin_beside_the_sheet_moves_it_too() -> None:
    flat, pins = sheet(), Pins()
    for at in ((95.0, 30.0), (225.0, 30.0), (160.0, 290.0)):
        pins.add(np.array(at), np.array(at) + np.array([7.0, 3.0]), part=TORSO)
    result = pose(flat, flat.rest, pins, flat.rest)

    assert result.points == pytest.approx(flat.rest + np.array([7.0, 3.0]), abs=0.1)


def test_the_same_pins_give_the_same_bytes() -> None:
    first, second = (posed(sheet_of(parts(), SEAMS, TORSO), rotation(20)) for _ in range(2))
    assert first.points.tobytes() == second.points.tobytes()


# Drawing.


def checkerboard() -> Picture:
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    squares = np.where((x // 20 + y // 20) % 2 > 0, 220, 40).astype(np.uint8)
    return np.repeat(squares[..., None], 3, 2)


def sources(worn: Posed, part: int) -> tuple[Floats, Bools]:
    """``Posed.sources`` in pixels of the whole picture."""
    window, found, seen = worn.sources(part, SHAPE)
    at, where = np.full((*SHAPE, 2), -9, np.float32), np.zeros(SHAPE, bool)
    at[window], where[window] = found, seen
    return at, where


def test_at_rest_each_pixel_shows_itself() -> None:
    flat = sheet()
    at, where = sources(posed(flat, np.eye(2)), TORSO)

    ys, xs = np.where(where)
    assert where[parts() == TORSO].all()
    assert at[where] == pytest.approx(np.c_[xs, ys], abs=0.01)


@pytest.mark.parametrize("part", [TORSO, LEFT, RIGHT])
@pytest.mark.parametrize("degrees", [0.0, 20.0, -75.0])
def test_the_checkerboard_comes_back(degrees: float, part: int) -> None:
    """Drawn where the sheet lies and turned back, it is the same picture."""
    flat, to, shift = sheet(), rotation(degrees), np.array([6.0, -3.0])
    at, where = sources(Posed(flat, flat.rest, moved(flat.rest, to, shift)), part)
    worn = cv2.remap(checkerboard(), at[..., 0], at[..., 1], cv2.INTER_LINEAR)

    matrix = np.c_[to, MIDDLE + shift - to @ MIDDLE]
    back = cv2.warpAffine(worn, matrix, SHAPE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    seen = cv2.warpAffine(where.astype(np.uint8), matrix, SHAPE[::-1], flags=cv2.WARP_INVERSE_MAP) > 0
    inner = (cv2.erode((parts() == part).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0) & seen
    assert inner.sum() > 4000
    difference = np.abs(back.astype(float) - checkerboard())[inner].max(-1)
    # Two interpolations blur the borders of the squares, and move nothing.
    assert np.mean(difference > 40) < 0.12
    assert np.mean(difference > 100) < 0.01


def test_nothing_is_drawn_beside_the_sheet() -> None:
    at, where = sources(posed(sheet(), np.eye(2), np.array([0.0, 0.0])), LEFT)

    assert not where[:, 120:].any()
    assert (at[~where] == -9).all()
    assert not where[:25].any()


def test_what_lies_outside_the_photo_is_left_out() -> None:
    _, where = sources(posed(sheet(), np.eye(2), np.array([200.0, 0.0])), TORSO)
    assert 0 < where.sum() < 240 * 40
    assert where[:, 290:].any()


def test_a_sheet_wholly_outside_the_photo_is_drawn_nowhere() -> None:
    _, where = sources(posed(sheet(), np.eye(2), np.array([900.0, -900.0])), TORSO)
    assert not where.any()
