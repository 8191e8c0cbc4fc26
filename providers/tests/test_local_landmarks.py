"""Landmarks of drawn garments lie where they were drawn; what is no garment is refused. Only the cut-out has nets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openvto
import pytest
from PIL import Image

from providers.errors import ImageUnusable
from providers.local import nets
from providers.local.bottom import LEG_ROWS, WAIST_ROWS, WIDEST_HIPS, Bottom, find_bottom
from providers.local.cutout import cut_out
from providers.local.garment import is_plain_shape, kind_of, shape_of
from providers.local.imaging import OUTWARD, SIDES, Floats, Mask, Picture, Side, length, picture_of
from providers.local.silhouette import NO_TOP, Outline, run_at, silhouette_of
from providers.local.sleeve import STATIONS, has_sleeves, sleeve_mask
from providers.local.top import LEFT_SLEEVE, RIGHT_SLEEVE, TORSO, Top, find_top

from .mannequins import (
    BOTTOMS,
    CENTRE,
    DRAWINGS,
    GARMENT_SHAPE,
    GROUND,
    INSIDE,
    SHORT,
    SQUARE,
    TOPS,
    Cloth,
    Drawing,
    garment_of,
    mask_of,
    photo_of,
)

NEAR = 7.0
"""Pixels by which a point may miss: 3 % of the chest's width."""
SLEEVED = [name for name, drawing in TOPS.items() if drawing.sleeves]
SLEEVELESS = [name for name, drawing in TOPS.items() if not drawing.sleeves]


TUBE = Drawing([(105, 40), (98, 160), (104, 280)], "upper", {})
STRAIGHT_SKIRT = Drawing([(92, 40), (98, 160), (98, 320)], "lower", {})


def top_of(name: str, cloth: Cloth = "checkerboard", neck: float = 0.0) -> Top:
    shape = garment_of(name, cloth, neck=neck).shape
    assert isinstance(shape, Top)
    return shape


def at(side: Side, place: tuple[float, float]) -> Floats:
    return np.array([CENTRE + OUTWARD[side] * place[0], place[1]])


def flipped(mask: Mask) -> Mask:
    return np.ascontiguousarray(mask[:, ::-1])


# Tops.


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", TOPS)
def test_landmarks_of_a_top(name: str, side: Side) -> None:
    drawing, half = TOPS[name], top_of(name).halves[side]

    for landmark in ("shoulder", "armpit"):
        found = getattr(half, landmark)
        assert length(found - at(side, drawing.points[landmark])) < NEAR, (landmark, found)
    # The side seam ends a little above the last row.
    assert half.hem[0] == pytest.approx(at(side, drawing.points["hem"])[0], abs=NEAR)
    assert half.hem[1] == pytest.approx(drawing.points["hem"][1], abs=0.03 * drawing.points["hem"][1])
    stands = length(half.neck - half.collar) > NEAR
    assert stands == (name == "turtleneck") or drawing.bare_shoulders, "no other collar stands"


@pytest.mark.parametrize(
    "name",
    [name for name in TOPS if not TOPS[name].bare_shoulders],
)
def test_the_collar_does_not_depend_on_the_length(name: str) -> None:
    for side, half in top_of(name).halves.items():
        assert length(half.collar - at(side, TOPS[name].points["collar"])) < 2 * NEAR


@pytest.mark.parametrize("name", TOPS)
def test_measures_of_a_top(name: str) -> None:
    drawing, top = TOPS[name], top_of(name)

    assert top.centre == pytest.approx(CENTRE, abs=2)
    assert top.top == min(y for _, y in drawing.corners)
    assert top.bottom == pytest.approx(drawing.points["hem"][1], abs=1)
    assert top.symmetry > 0.97
    assert bool(top.bare_shoulders) is drawing.bare_shoulders
    assert top.shoulder_width == pytest.approx(2 * drawing.points["shoulder"][0], abs=2 * NEAR)
    assert top.chest_width == pytest.approx(2 * drawing.points["armpit"][0], abs=2 * NEAR)
    assert top.length == pytest.approx(drawing.points["hem"][1] - drawing.points["shoulder"][1], abs=NEAR)


@pytest.mark.parametrize("name", TOPS)
def test_a_sleeve_is_found_where_there_is_one(name: str) -> None:
    mask = mask_of(TOPS[name])

    assert has_sleeves(mask) is TOPS[name].sleeves
    assert {side: half.sleeve is not None for side, half in top_of(name).halves.items()} == dict.fromkeys(
        SIDES, TOPS[name].sleeves
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", SLEEVED)
def test_a_sleeve_is_as_long_as_it_was_drawn(name: str, side: Side) -> None:
    sleeve = top_of(name).halves[side].sleeve

    assert sleeve is not None
    assert sleeve.length == pytest.approx(TOPS[name].sleeve_length, rel=0.12, abs=6)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *itertools.product(["t-shirt", "three-quarter", "long-sleeved", "outstretched", "off-shoulder"], SIDES),
    ],
)
def test_a_sleeve_ends_at_its_cuff(name: str, side: Side) -> None:
    sleeve = top_of(name).halves[side].sleeve

    assert sleeve is not None
    assert length(sleeve.sections[-1].mean(0) - at(side, TOPS[name].points["cuff"])) < 2 * NEAR


def test_both_sleeves_are_measured_alike() -> None:
    left, right = (half.sleeve for half in top_of("t-shirt").halves.values())

    assert left is not None
    assert right is not None
    mirrored = np.array([2 * CENTRE, 0]) + np.array([-1, 1]) * left.sections
    assert mirrored == pytest.approx(right.sections, abs=4)


@pytest.mark.parametrize("side", SIDES)
def test_a_sleeve_that_ends_aslant_is_as_wide_there_as_it_was_drawn(side: Side) -> None:
    sleeve = top_of("t-shirt").halves[side].sleeve

    assert sleeve is not None
    for found, drawn in zip(sleeve.sections[-1], SHORT, strict=True):
        assert length(found - at(side, drawn)) < NEAR


@pytest.mark.parametrize("side", SIDES)
def test_a_long_sleeve_is_measured_across_its_axis(side: Side) -> None:
    half = top_of("long-sleeved").halves[side]
    sleeve = half.sleeve

    assert sleeve is not None
    assert sleeve.sections.shape == (1 + len(STATIONS), 2, 2)
    assert length(sleeve.sections[0, 0] - half.shoulder) < NEAR
    assert length(sleeve.sections[0, 1] - half.armpit) < NEAR
    outer, inner = sleeve.sections[1:, 0], sleeve.sections[1:, 1]
    assert ((outer - inner)[:, 0] * OUTWARD[side] > 0).all()
    assert (np.diff((outer + inner)[:, 1]) > 0).all()
    far = np.array(STATIONS) > 0.5
    assert np.hypot(*(outer - inner)[far].T) == pytest.approx(np.full(far.sum(), 45), abs=5)


@pytest.mark.parametrize("name", TOPS)
def test_body_and_sleeves_make_up_the_garment(name: str) -> None:
    top = top_of(name)

    assert ((top.parts > 0) == (mask_of(TOPS[name]) > 0)).mean() > 0.999
    assert set(np.unique(top.parts)) == ({0, TORSO, LEFT_SLEEVE, RIGHT_SLEEVE} if TOPS[name].sleeves else {0, TORSO})
    armpit, hem = TOPS[name].points["armpit"], TOPS[name].points["hem"]
    below = int((armpit[1] + hem[1]) / 2)
    columns = np.flatnonzero(top.parts[below] == TORSO)
    side = np.interp(below, [armpit[1], hem[1]], [armpit[0], hem[0]])
    assert (columns[0], columns[-1]) == (pytest.approx(CENTRE - side, abs=3), pytest.approx(CENTRE + side, abs=3))
    for part, outward in ((LEFT_SLEEVE, -1), (RIGHT_SLEEVE, 1)):
        xs = np.where(top.parts == part)[1]
        assert ((xs - CENTRE) * outward > armpit[0] - NEAR).all()


@pytest.mark.parametrize("side", SIDES)
def test_half_width_is_that_of_the_body_alone(side: Side) -> None:
    top = top_of("long-sleeved")

    for y in (200, 300, 370):
        assert top.half_width(side, y) == pytest.approx(105, abs=2)
    assert top.half_width(side, 700) == 0.0


def test_a_top_cut_off_above_its_armpits_is_refused() -> None:
    """What hangs below the middle of its lower edge was taken for the body, and made larger to be as wide as one."""
    corners = [(45, 40), (100, 65), (200, 150), (170, 190), (60, 152), (20, 152), (18, 190)]
    mask = mask_of(Drawing(corners, "upper", {}))

    with pytest.raises(ImageUnusable, match="both armpits was not found"):
        find_top(photo_of(mask), mask)


def test_long_sleeves_may_be_spread_out() -> None:
    corners = [(45, 40), (105, 65), (290, 75), (290, 125), (90, 140), (90, 380)]
    mask = mask_of(Drawing(corners, "upper", {}))

    assert all(half.sleeve is not None for half in find_top(photo_of(mask), mask).halves.values())


# Both halves.


def test_one_sleeve_may_be_short_and_the_other_long() -> None:
    mask = mask_of(TOPS["t-shirt"], TOPS["long-sleeved"])
    top = find_top(photo_of(mask), mask)

    left, right = (top.halves[side].sleeve for side in SIDES)
    assert left is not None
    assert right is not None
    assert left.length > 2 * right.length


def test_nearly_symmetric_halves_are_evened() -> None:
    """How it was laid: the right armpit is 8 pixels lower."""
    straight = TOPS["t-shirt"]
    corners = [(x, y + 8) if (x, y) == (105, 155) else (x, y) for x, y in straight.corners]
    mask = mask_of(Drawing(corners, "upper", {}), straight)
    top = find_top(photo_of(mask), mask)

    left, right = top.halves["left"], top.halves["right"]
    for landmark in ("neck", "collar", "shoulder", "armpit", "hem"):
        of_left, of_right = getattr(left, landmark), getattr(right, landmark)
        assert of_left == pytest.approx([2 * top.centre - of_right[0], of_right[1]])
    assert left.armpit[1] == pytest.approx(159, abs=3)
    assert left.sleeve is not None
    assert right.sleeve is not None
    own = left.sleeve.sections[0, 1, 1], right.sleeve.sections[0, 1, 1]
    assert own[1] - own[0] == pytest.approx(8, abs=2), "the sleeves keep their own armpits"


def test_halves_that_differ_stay_as_they_are() -> None:
    mask = mask_of(TOPS["t-shirt"], TOPS["outstretched"])
    top = find_top(photo_of(mask), mask)

    assert top.symmetry < 0.93
    assert top.halves["left"].armpit[1] == pytest.approx(155, abs=NEAR)
    assert top.halves["right"].armpit[1] == pytest.approx(155, abs=NEAR)
    cuffs = [half.sleeve.sections[-1].mean(0) for half in top.halves.values() if half.sleeve is not None]
    assert len(cuffs) == 2
    assert length(cuffs[0] - at("left", TOPS["outstretched"].points["cuff"])) < 2 * NEAR
    assert length(cuffs[1] - at("right", TOPS["t-shirt"].points["cuff"])) < 2 * NEAR


@pytest.mark.parametrize(
    ("right", "left"),
    [("t-shirt", "long-sleeved"), ("t-shirt", "outstretched"), ("tank top", "halter")],
)
def test_a_mirrored_top_has_mirrored_points(right: str, left: str) -> None:
    mask = mask_of(TOPS[right], TOPS[left])
    top, mirror = find_top(photo_of(mask), mask), find_top(photo_of(flipped(mask)), flipped(mask))

    def back(points: Floats) -> Floats:
        return np.array([mask.shape[1] - 1, 0]) + np.array([-1, 1]) * points

    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        half, image = top.halves[side], mirror.halves[other]
        for landmark in ("shoulder", "armpit", "hem", "collar", "neck"):
            assert back(getattr(image, landmark)) == pytest.approx(getattr(half, landmark), abs=4), landmark
        assert (half.sleeve is None) == (image.sleeve is None)
        if half.sleeve is not None and image.sleeve is not None:
            assert back(image.sleeve.sections) == pytest.approx(half.sleeve.sections, abs=6)
    assert mirror.symmetry == pytest.approx(top.symmetry, abs=0.05)
    assert mirror.length == pytest.approx(top.length, abs=3)


def test_a_standing_collar_has_a_foot() -> None:
    """The seam of the shoulder ends at the foot of the collar, not at its upper end."""
    corners = [(38, 20), (46, 46), *TOPS["t-shirt"].corners[1:]]
    mask = mask_of(Drawing(corners, "upper", {}))
    top = find_top(photo_of(mask), mask)

    for side, half in top.halves.items():
        assert length(half.collar - at(side, (38, 20))) < 2 * NEAR
        assert length(half.neck - at(side, (46, 46))) < NEAR


def test_a_sleeve_that_lies_against_the_body_has_the_armpit_of_its_fellow() -> None:
    """The left sleeve hides the side of the body."""
    mask = mask_of(TOPS["long-sleeved"])
    for y in range(155, 381):
        columns = np.flatnonzero(mask[y])
        mask[y, columns[0] : CENTRE] = 1
    top = find_top(photo_of(mask), mask)

    for side, half in top.halves.items():
        assert half.sleeve is not None
        assert length(half.armpit - at(side, (105, 155))) < 3 * NEAR


# The neck opening.


@pytest.mark.parametrize(
    ("name", "depth", "cloth"),
    [
        *itertools.product(["t-shirt"], [20, 35, 55], ["plain", "stripes", "checkerboard"]),
        ("long-sleeved", 35, "plain"),
        ("dress", 55, "checkerboard"),
    ],
)
def test_the_front_edge_of_the_neck_is_found_at_its_depth(name: str, depth: int, cloth: Cloth) -> None:
    neckline = top_of(name, cloth, depth).neckline

    assert neckline is not None
    middle = np.abs(neckline.x - CENTRE) < 15
    assert middle.sum() > 5
    drawn = 40 + depth * np.sqrt(1 - ((neckline.x[middle] - CENTRE) / 42) ** 2)
    assert neckline.y[middle] == pytest.approx(drawn, abs=6)


@pytest.mark.parametrize("cloth", ["plain", "checkerboard", "stripes"])
@pytest.mark.parametrize("name", ["t-shirt", "dress"])
def test_no_neck_opening_is_invented(name: str, cloth: Cloth) -> None:
    """Seen from behind, or a boat neck: cut into the print it would show skin in the middle of it."""
    neckline = top_of(name, cloth).neckline
    assert neckline is None, neckline.depth


def test_a_neck_too_small_to_look_into() -> None:
    """A hanger's hook is left at the top."""
    mask = mask_of(TOPS["t-shirt"])
    mask[20:41, CENTRE - 3 : CENTRE + 3] = 1

    assert find_top(photo_of(mask), mask).neckline is None


def test_bare_shoulders_have_no_neckline() -> None:
    mask = mask_of(TOPS["off-shoulder"])
    photo = photo_of(mask)
    cv2.ellipse(photo, (CENTRE, 50), (90, 25), 0, 0, 180, INSIDE, -1)

    assert find_top(photo, mask).neckline is None


# What hangs from the waist.


@pytest.mark.parametrize("name", BOTTOMS)
def test_landmarks_of_a_bottom(name: str) -> None:
    points, bottom = BOTTOMS[name].points, find_bottom(mask_of(BOTTOMS[name]))

    assert (bottom.top, bottom.bottom) == (40, points["hem"][1])
    assert bottom.centre == pytest.approx(CENTRE, abs=2)
    assert bottom.waist.shape == (len(WAIST_ROWS), 2, 2)
    for side, ends in zip(SIDES, bottom.waist[0], strict=True):
        assert length(ends - at(side, points["waist"])) < NEAR
    if "crotch" in points:
        assert bottom.crotch is not None
        assert length(bottom.crotch - at("right", points["crotch"])) < NEAR
    else:
        assert bottom.crotch is None
    assert set(np.unique(bottom.parts)) == ({0, 1, 2} if "crotch" in points else {0, 1})


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", BOTTOMS)
def test_legs(name: str, side: Side) -> None:
    points, leg = BOTTOMS[name].points, find_bottom(mask_of(BOTTOMS[name])).legs[side]

    assert leg.shape == (len(LEG_ROWS), 2, 2)
    outer, inner = leg[:, 0], leg[:, 1]
    assert (np.diff(outer[:, 1]) > 0).all()
    assert (outer[:, 1] == inner[:, 1]).all()
    assert length(outer[-1] - at(side, points["hem"])) < 1.5 * NEAR, "measured a little above the hem"
    assert length(inner[-1] - at(side, points.get("inner hem", (0, points["hem"][1])))) < 1.5 * NEAR
    assert ((outer - inner)[:, 0] * OUTWARD[side] > 0).all()


@pytest.mark.parametrize("name", ["trousers", "shorts", "skirt"])
@pytest.mark.parametrize("stretch", [0.9, 1.5])
def test_the_hips_do_not_depend_on_the_length(name: str, stretch: float) -> None:
    """Whatever lies below them is drawn shorter, or longer."""
    corners = [(x, y if y < 300 else 300 + (y - 300) * stretch) for x, y in BOTTOMS[name].corners]
    if name == "skirt":  # as far as the flare goes on
        corners[-1] = (110 + 30 * (corners[-1][1] - 160) / 240, corners[-1][1])
    bottom = find_bottom(mask_of(Drawing(corners, "lower", {})))

    assert bottom.hip_width == pytest.approx(find_bottom(mask_of(BOTTOMS["trousers"])).hip_width, rel=0.03)


def test_a_wide_skirt_is_as_wide_in_the_hips_as_its_waistband_says() -> None:
    bottom = find_bottom(mask_of(Drawing([(60, 40), (260, 300)], "lower", {})))

    assert bottom.hip_width == pytest.approx(WIDEST_HIPS * 2 * 60, rel=0.06)


def test_mirrored_trousers_have_mirrored_points() -> None:
    lopsided = Drawing([(85, 40), (108, 160), (165, 640), (100, 680), (0, 210)], "lower", {})
    mask = mask_of(lopsided, BOTTOMS["trousers"])
    bottom, mirror = find_bottom(mask), find_bottom(flipped(mask))

    assert bottom.crotch is not None
    assert mirror.crotch is not None
    reflect, offset = np.array([-1, 1]), np.array([mask.shape[1] - 1, 0])
    assert offset + reflect * mirror.crotch == pytest.approx(bottom.crotch, abs=3)
    assert offset + reflect * mirror.waist[:, ::-1] == pytest.approx(bottom.waist, abs=1)
    for side, other in zip(SIDES, reversed(SIDES), strict=True):
        assert offset + reflect * mirror.legs[other] == pytest.approx(bottom.legs[side], abs=3)


def test_legs_that_touch_part_below_the_crotch() -> None:
    mask = mask_of(BOTTOMS["trousers"])
    mask[500:515, CENTRE - 70 : CENTRE + 70] = 1
    bottom = find_bottom(mask)

    assert bottom.crotch is not None
    assert (bottom.legs["left"][:, 1, 0] <= bottom.crotch[0]).all()
    assert (bottom.legs["right"][:, 1, 0] >= bottom.crotch[0]).all()


@pytest.mark.parametrize(
    "bib_ends",
    [130, 190, 230],
)
def test_dungarees_are_refused(bib_ends: int) -> None:
    bib = [(28, 40), (34, bib_ends), (108, bib_ends + 40), (125, 680), (62, 680), (0, 300)]
    with pytest.raises(ImageUnusable, match=r"^Garment photo: a waistband .* dungarees cannot be tried on\.$"):
        find_bottom(mask_of(Drawing(bib, "lower", {})))


# What kind it is.


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_outline_tells_whether_it_hangs_from_shoulders_or_waist(name: str) -> None:
    assert kind_of(mask_of(DRAWINGS[name])) == ("lower" if name in BOTTOMS else "upper")


@pytest.mark.parametrize("length", [1.0, 1.6])
@pytest.mark.parametrize("name", ["tank top", "sleeveless dress"])
def test_armholes_tell_a_high_neck_without_sleeves_from_a_waistband(name: str, length: float) -> None:
    """The upper edge is as straight as a skirt's."""
    corners = [(0, 45), (50, 40), *TOPS[name].corners[2:-1], (TOPS[name].corners[-1][0], 380 * length)]

    assert kind_of(mask_of(Drawing(corners, "upper", {}))) == "upper"


def test_sleeves_that_hang_below_a_short_uneven_hem_are_no_legs() -> None:
    """Nor the two fronts of an open garment."""
    sleeves = [(45, 40), (100, 65), (195, 460), (150, 470), (105, 155), (108, 290)]
    mask = mask_of(Drawing([*sleeves, (40, 302), (0, 285)], "upper", {}))

    kind, shape, doubt = shape_of(photo_of(mask), mask, None)
    assert (kind, doubt) == ("upper", "")
    assert isinstance(shape, Top)
    assert all(half.sleeve is not None for half in shape.halves.values())


def test_an_open_garment_is_refused() -> None:
    mask = mask_of(Drawing([(20, 40), (45, 40), (100, 65), *SHORT, (105, 155), (105, 380), (12, 380)], "upper", {}))
    mask[40:60, CENTRE - 30 : CENTRE + 30] = 1
    mask[60:400, CENTRE - 12 : CENTRE + 12] = 0

    with pytest.raises(ImageUnusable, match="an open garment"):
        shape_of(photo_of(mask), mask, None)


# The cut-out.


def shaded(photo: Picture, mask: Mask) -> Picture:
    """Studio light that falls off, and a soft shadow under the garment."""
    height, width = mask.shape
    fall = np.linspace(0, -14, width)[None] + np.linspace(6, -6, height)[:, None]
    moved = np.roll(mask, (6, 4), (0, 1)).astype(np.float32)
    shadow = cv2.GaussianBlur(moved, (0, 0), 6) * -30 * (mask == 0)
    grain = np.random.default_rng(5).normal(0, 1.0, (height, width, 1))
    return picture_of(photo + (fall + shadow)[..., None] + grain)


@pytest.mark.parametrize("light", ["even", "shaded"])
@pytest.mark.parametrize(
    ("name", "cloth"),
    [("t-shirt", "plain"), ("long-sleeved", "stripes"), ("sleeveless dress", "checkerboard"), ("shorts", "plain")],
)
def test_a_plain_ground_is_cut_off_along_the_outline(models: Path, name: str, cloth: Cloth, light: str) -> None:
    mask = mask_of(DRAWINGS[name])
    photo = photo_of(mask, cloth)
    cut = cut_out(nets.load(models), shaded(photo, mask) if light == "shaded" else photo)

    overlap = float((cut.mask & mask).sum() / (cut.mask | mask).sum())
    assert overlap > 0.95
    assert cut.certainty == 1.0
    assert cut.warnings == ()


def test_pale_bands_that_end_at_the_outline_are_no_shadow(models: Path) -> None:
    mask = mask_of(BOTTOMS["trousers"])
    photo = photo_of(mask, "checkerboard", colour=(80, 60, 110))
    bands = (np.arange(len(mask)) // SQUARE % 3 == 1)[:, None] & (mask > 0)
    photo[bands] = (230, 218, 214)
    cut = cut_out(nets.load(models), photo)

    assert cut.mask[bands].mean() > 0.98


def test_nothing_is_left_of_a_wide_shadow_below_the_hem(models: Path) -> None:
    """Its tongues reached the edge of the photo, so the jeans seemed to be cropped."""
    with Image.open(Path(openvto.__file__).parent / "assets/clothes/pants/1_front.jpg") as photo:
        cut = cut_out(nets.load(models), np.asarray(photo.convert("RGB").resize((768, 768))))

    assert cut.warnings == ()
    assert not cut.mask[-6:].any()


def test_cloth_as_bright_as_the_ground_is_told_to_be_faint(models: Path) -> None:
    mask = mask_of(TOPS["t-shirt"])
    cut = cut_out(nets.load(models), photo_of(mask, colour=(GROUND - 6, GROUND - 6, GROUND - 6)))

    assert any("nearly as bright as its background" in warning for warning in cut.warnings)
    assert cut.certainty < 1


def test_a_busy_ground_is_told(models: Path) -> None:
    mask = mask_of(TOPS["t-shirt"])
    photo = photo_of(mask)
    noise = np.random.default_rng(6).integers(0, 256, (*GARMENT_SHAPE, 3)).astype(np.uint8)
    photo[mask == 0] = cv2.GaussianBlur(noise, (0, 0), 2)[mask == 0]
    cut = cut_out(nets.load(models), photo)

    assert any("busy background" in warning for warning in cut.warnings)
    assert cut.certainty < 1


def test_a_garment_that_leaves_its_photo_is_told(models: Path) -> None:
    cut = cut_out(nets.load(models), photo_of(mask_of(TOPS["t-shirt"]))[:300, 100:380])

    assert any("cropped tightly" in warning for warning in cut.warnings)
    assert cut.certainty < 1


# Outlines of what is no garment.


def blank() -> Mask:
    return np.zeros((200, 160), np.uint8)


def one_pixel() -> Mask:
    mask = blank()
    mask[100, 80] = 1
    return mask


def vertical_line() -> Mask:
    mask = blank()
    mask[10:190, 80] = 1
    return mask


def horizontal_line() -> Mask:
    mask = blank()
    mask[100, 10:150] = 1
    return mask


def diagonal_line() -> Mask:
    return np.eye(200, 160, dtype=np.uint8)


def circle() -> Mask:
    mask = blank()
    cv2.circle(mask, (80, 100), 60, (1,), -1)
    return mask


def ring() -> Mask:
    mask = blank()
    cv2.circle(mask, (80, 100), 60, (1,), 3)
    return mask


def cross() -> Mask:
    mask = blank()
    mask[10:190, 78:82] = mask[98:102, 10:150] = 1
    return mask


def letter_t() -> Mask:
    mask = blank()
    mask[10:20, 10:150] = mask[10:190, 78:82] = 1
    return mask


def hook() -> Mask:
    """Below its top there is nothing but a long way to the side."""
    mask = blank()
    mask[10:20, 70:90] = mask[15:20, 70:150] = mask[15:190, 145:150] = 1
    return mask


def full_frame() -> Mask:
    return np.ones((200, 160), np.uint8)


def no_pixels() -> Mask:
    return np.zeros((1, 1), np.uint8)


SHAPES = (
    blank,
    one_pixel,
    vertical_line,
    horizontal_line,
    diagonal_line,
    circle,
    ring,
    cross,
    letter_t,
    hook,
    full_frame,
    no_pixels,
)


def assert_sound_top(top: Top) -> None:
    assert top.shoulder_width > 0
    assert 0 <= top.symmetry <= 1
    for half in top.halves.values():
        points = [half.neck, half.collar, half.shoulder, half.armpit, half.hem]
        if half.sleeve is not None:
            assert half.sleeve.sections.shape == (1 + len(STATIONS), 2, 2)
            assert half.sleeve.length > 0
            points.extend(half.sleeve.sections.reshape(-1, 2))
        assert np.isfinite(points).all()
    if top.neckline is not None:
        assert np.isfinite(top.neckline.y).all()


def assert_sound_bottom(bottom: Bottom) -> None:
    assert bottom.bottom > bottom.top
    assert bottom.hip_width > 0
    assert all(np.isfinite(leg).all() for leg in bottom.legs.values())
    assert bottom.crotch is None or bottom.bottom > bottom.crotch[1] >= bottom.top


def outcomes(mask: Mask) -> tuple[str, str]:
    """Why it is no top and no bottom; empty where it passes. Nothing else may be raised, and warnings are errors."""
    top = bottom = ""
    try:
        assert_sound_top(find_top(photo_of(mask), mask))
    except ImageUnusable as error:
        top = str(error)
    try:
        assert_sound_bottom(find_bottom(mask))
    except ImageUnusable as error:
        bottom = str(error)
    return top, bottom


@pytest.mark.parametrize("shape", SHAPES)
def test_degenerate_outlines_work_or_are_refused(shape: Callable[[], Mask]) -> None:
    for outcome in outcomes(shape()):
        assert not outcome or (outcome.startswith("Garment photo: ") and " was not found. Use a photo of" in outcome)


def turned_rectangle() -> Mask:
    mask = np.zeros(GARMENT_SHAPE, np.uint8)
    corners = cv2.boxPoints(((300, 360), (300, 400), 8)).astype(np.int32)
    cv2.fillPoly(mask, [corners], (1,))
    return mask


def oval() -> Mask:
    mask = blank()
    cv2.ellipse(mask, (80, 100), (70, 40), 20, 0, 360, (1,), -1)
    return mask


@pytest.mark.parametrize("shape", [circle, oval, full_frame, turned_rectangle])
def test_balls_and_books_are_plain_shapes(shape: Callable[[], Mask]) -> None:
    assert is_plain_shape(shape())


@pytest.mark.parametrize("drawing", [*DRAWINGS.values(), TUBE, STRAIGHT_SKIRT])
def test_no_garment_is_a_plain_shape(drawing: Drawing) -> None:
    assert not is_plain_shape(mask_of(drawing))


@pytest.mark.parametrize("shape", [blank, one_pixel, vertical_line, horizontal_line, no_pixels])
def test_what_has_no_size_is_refused(shape: Callable[[], Mask]) -> None:
    assert all("large enough" in outcome for outcome in outcomes(shape()))


def test_random_blobs_work_or_are_refused() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(8):
        height, width = (int(size) for size in rng.integers(2, 220, 2))
        noise = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), rng.uniform(0.5, 15))
        blobs = (noise > np.quantile(noise, rng.uniform(0, 0.9))).astype(np.uint8)
        shards = np.zeros((height, width), np.uint8)
        for _ in range(int(rng.integers(1, 6))):
            corners = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 7)), 2)) * (width, height)
            cv2.fillPoly(shards, [corners.astype(np.int32).reshape(-1, 1, 2)], (int(rng.integers(4) > 0),))
        for mask in (blobs, shards):
            refused += sum(bool(outcome) for outcome in outcomes(mask))
    assert 0 < refused < 32


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


def test_a_strip_of_the_side_that_one_pixel_joins_to_a_sleeve_is_not_its_own() -> None:
    """Where the side seam is found a little too far inside, as from a photo that was saved anew."""
    mask = mask_of(DRAWINGS["t-shirt"])
    outline = Outline(silhouette_of(mask, NO_TOP))
    top = find_top(photo_of(mask), mask)
    half = top.halves["right"]
    inside = half.hem - np.array([0.08 * outline.box.width, 0.0])
    seam = [half.shoulder, half.armpit - np.array([2.0, 0.0]), inside]

    found = np.flatnonzero(sleeve_mask(outline, "right", seam).any(1))
    assert found[-1] <= np.flatnonzero((top.parts == RIGHT_SLEEVE).any(1))[-1] + 2
