"""The parts of people, drawn and real, as the parsing finds them by colours and joints."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openvto
import pytest
from PIL import Image

from providers.local import nets
from providers.local.figure import LEGS, Part, limbs
from providers.local.imaging import SIDES, Bools, Mask, Picture
from providers.local.parsing import parse
from providers.local.person import analyse

from .mannequins import NAVY, SKIN, UNIT, Colour, Figure, arm_of, body_of, leg_of, place


def parsed(figure: Figure, rgb: Picture, *, besides: Bools | None = None) -> Mask:
    """The labels that the parsing finds in the picture; ``besides``: what else the mask of the person holds."""
    person = body_of(figure).person
    mask = person.labels != Part.BACKGROUND
    if besides is not None:
        mask |= besides
    return parse(rgb, mask.astype(np.uint8), person.joints, person.shoulder_width).labels


def photo(name: str) -> Picture:
    """Of the openvto package."""
    with Image.open(Path(openvto.__file__).parent / "assets" / name) as image:
        image.thumbnail((1024, 1024))
        return np.asarray(image.convert("RGB"))


def hands_of(figure: Figure) -> list[tuple[int, int]]:
    """The middle of each hand, pixels."""
    ends = [arm_of(figure, side)[2:] for side in SIDES]
    return [(int(x), int(y)) for x, y in (np.rint((wrist + finger) / 2) for wrist, finger in ends)]


def test_the_waist_of_a_dress_of_one_patterned_cloth_is_nearly_straight() -> None:
    """Its colours tell nothing: where the pattern lies darker or lighter, it must not draw the line."""
    figure = Figure(upper=NAVY, lower=NAVY)
    person = body_of(figure).person
    clothes = np.isin(person.labels, (Part.UPPER, Part.LOWER))
    noise = np.random.default_rng(6).normal(0, 1, person.labels.shape)
    spots = cv2.GaussianBlur(noise, (0, 0), 0.15 * UNIT)
    rgb = person.rgb.copy()
    rgb[clothes & (spots > 0)] = 190
    labels = parsed(figure, rgb)
    middle = round(place(0, 0)[0])
    columns = labels[:, middle - round(0.4 * UNIT) : middle + round(0.4 * UNIT)]
    edges = (columns == Part.LOWER).argmax(0)

    assert (edges > place(0, 0.5)[1]).all()
    assert np.ptp(edges) < 0.3 * UNIT


def test_a_pattern_like_skin_on_trousers_is_no_skin() -> None:
    figure = Figure()
    person = body_of(figure).person
    rgb = person.rgb.copy()
    spots = np.zeros(person.labels.shape, np.uint8)
    for lateral in (-0.25, 0.05, 0.3):
        x, y = np.rint(place(lateral, 1.55)).astype(int)
        cv2.circle(spots, (int(x), int(y)), round(0.1 * UNIT), (1,), -1)
    on = (spots > 0) & (person.labels == Part.LOWER)
    rgb[on] = SKIN
    labels = parsed(figure, rgb)

    assert on.sum() > 300
    assert (labels[on] == Part.LOWER).mean() > 0.9
    assert all(labels[y, x] == Part.SKIN for x, y in hands_of(figure))


BAG: Colour = (220, 190, 170)
CREAM: Colour = (236, 222, 205)
BROWN: Colour = (128, 98, 62)


def test_a_bag_in_the_colours_of_skin_is_no_hand() -> None:
    figure = Figure(legs=0.6, lower=CREAM)
    person = body_of(figure).person
    x, y = np.rint(arm_of(figure, "left")[3]).astype(int)
    bag = np.zeros(person.labels.shape, np.uint8)
    cv2.rectangle(bag, (int(x) - 4, int(y) + 26), (int(x) + 42, int(y) + 60), (1,), -1)
    cv2.line(bag, (int(x), int(y) - 4), (int(x), int(y) + 26), (1,), 3)
    rgb = person.rgb.copy()
    rgb[bag > 0] = BAG
    labels = parsed(figure, rgb, besides=bag > 0)
    out_of_reach = (bag > 0) & (np.arange(len(bag))[:, None] > y + 0.4 * UNIT)

    assert out_of_reach.sum() > 1000
    assert (labels[out_of_reach] == Part.SKIN).mean() < 0.05
    assert all(labels[y, x] == Part.SKIN for x, y in hands_of(figure))


def test_cream_cloth_that_hides_half_a_hand_is_no_skin() -> None:
    """Whatever the joints say."""
    figure = Figure(upper=CREAM, lower=CREAM)
    person = body_of(figure).person
    rgb, (y, x) = person.rgb.copy(), np.ogrid[0 : person.labels.shape[0], 0 : person.labels.shape[1]]
    (left, middle), (right, _) = hands_of(figure)
    skirt = (y > place(0, 1.3)[1]) & (y < place(0, 3.0)[1]) & (x > left) & (x < right)
    rgb[skirt] = CREAM
    labels = parsed(figure, rgb, besides=skirt)
    beside = np.abs(y - middle) < 0.2 * UNIT
    hand = (person.labels == Part.SKIN) & ~skirt & beside & ((x < left + 4) | (x > right - 4))

    assert hand.sum() > 500
    assert (labels[hand] == Part.SKIN).mean() > 0.95
    assert (labels[skirt & beside] == Part.SKIN).mean() < 0.01


def test_brown_trousers_are_no_bare_legs(models: Path) -> None:
    """In the light they differ from skin no more than skin in the shade does."""
    found = analyse(nets.load(models), photo("avatars/1.png"))
    height, width = found.labels.shape
    bones = [found.joints[[hip, knee]] for hip, knee, _ in LEGS]
    thighs = limbs((height, width), bones, 0.1 * found.shoulder_width) > 0

    assert (found.labels[thighs] == Part.LOWER).mean() > 0.9


def test_bare_legs_below_a_brown_skirt_stay_bare() -> None:
    figure = Figure(lower=BROWN, legs=0.25)
    labels = parsed(figure, body_of(figure).person.rgb)
    for side in SIDES:
        _, knee, ankle = leg_of(side)
        x, y = np.rint((knee + ankle) / 2).astype(int)
        assert labels[y, x] == Part.SKIN


def test_shoes_in_the_colour_of_a_skirt_are_shoes() -> None:
    figure = Figure(lower=CREAM, legs=0.4)
    person = body_of(figure).person
    rgb = person.rgb.copy()
    shoes = person.labels == Part.SHOES
    rgb[shoes] = CREAM
    labels = parsed(figure, rgb)

    assert (labels[shoes] == Part.LOWER).mean() < 0.02
    assert (labels[person.labels == Part.LOWER] == Part.LOWER).mean() > 0.9


def test_a_spot_in_the_colour_of_the_trousers_on_a_shoe_is_shoe() -> None:
    figure = Figure(legs=0.85)
    person = body_of(figure).person
    rgb, spots = person.rgb.copy(), np.zeros(person.labels.shape, np.uint8)
    for side in SIDES:
        x, y = np.rint(leg_of(side)[2]).astype(int)
        cv2.circle(spots, (int(x), int(y) + 12), 7, (1,), -1)
    rgb[spots > 0] = NAVY
    labels = parsed(figure, rgb)

    assert (person.labels[spots > 0] == Part.SHOES).all()
    assert (labels[spots > 0] == Part.LOWER).mean() < 0.02


@pytest.mark.parametrize("colour", [(15, 15, 18), (245, 245, 245), NAVY])
def test_no_edge_of_the_old_neckline_is_taken_for_skin(colour: Colour) -> None:
    """Of it a rest would be left beside a new one."""
    figure = Figure(upper=colour)
    person = body_of(figure).person
    labels = parsed(figure, person.rgb)
    near = np.hypot(*(np.mgrid[0 : len(labels), 0 : labels.shape[1]] - place(0, 0)[::-1, None, None])) < 0.45 * UNIT
    cloth = near & (person.labels == Part.UPPER)

    assert cloth.sum() > 1000
    assert (labels[cloth] == Part.SKIN).mean() < 0.005
    assert (labels[near & (person.labels == Part.SKIN)] == Part.SKIN).mean() > 0.97


# Photos that end somewhere.


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("name", "end"), [("avatars/2.png", 0.55), ("avatars/3.png", 0.6), ("avatars/4.png", 0.6)])
def test_somebody_cut_off_below_the_hips_is_as_tall_as_they_are(
    models: Path, name: str, end: float, mirrored: bool
) -> None:
    """No whole body is squeezed into what is seen: shoulders to hips are about one and a half shoulder widths."""
    rgb = photo(name)
    part = rgb[: round(end * len(rgb)), :: -1 if mirrored else 1]
    found = analyse(nets.load(models), np.ascontiguousarray(part))

    assert 1.3 < found.torso_length / found.shoulder_width < 1.7


@pytest.mark.parametrize(
    ("name", "above_chin"),
    [("avatars/2.png", 0.2), ("avatars/4.png", 0.2), ("avatars/4.png", -0.05), ("people/2_posture.jpg", -0.05)],
)
def test_the_skin_of_somebody_whose_head_is_cut_off_is_known(models: Path, name: str, above_chin: float) -> None:
    """By what is left of the face, or by neck and hands."""
    loaded, rgb = nets.load(models), photo(name)
    whole = analyse(loaded, rgb)
    first = round(float(whole.chin[1]) - above_chin * whole.shoulder_width)
    cut = analyse(loaded, np.ascontiguousarray(rgb[first:]))

    assert np.linalg.norm(cut.skin - whole.skin) < 20
