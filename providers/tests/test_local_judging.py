"""What the offline provider thinks of its own pictures: photos of the openvto package, and drawn people."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvto
import pytest
from PIL import Image

from providers.base import Category
from providers.local import judging, nets, tryon
from providers.local.body import Body
from providers.local.figure import Part
from providers.local.tryon import Outcome
from providers.tests.mannequins import UNIT, Figure, body_of, dressed, garment_of, outfit_of, place

ASSETS = Path(openvto.__file__).parent / "assets"

Judge = Callable[..., Outcome]


def image(name: str) -> Image.Image:
    """At the size at which the provider works."""
    with Image.open(ASSETS / f"{name}.jpg") as opened:
        opened.thumbnail((1024, 1024))
        return opened.convert("RGB")


@pytest.fixture(scope="module")
def judge(models: Path) -> Judge:
    loaded, analyses = nets.load(models), tryon.Analyses(8)

    def fit(person: Image.Image, garment: Image.Image, category: Category = "auto") -> Outcome:
        photos = []
        for photo in (person, garment):
            buffer = io.BytesIO()
            photo.save(buffer, "PNG")
            photos.append(buffer.getvalue())
        return tryon.fit(loaded, photos[0], photos[1], category, analyses)

    return fit


MAN, SHIRT = image("people/3_posture"), image("clothes/shirts/1_front")


def test_a_good_pair_is_confident(judge: Judge) -> None:
    outcome = judge(MAN, SHIRT)
    assert outcome.confidence > 0.9
    assert outcome.warnings == ()
    assert outcome.refusal == ""


def test_a_garment_of_a_few_pixels_is_refused_as_too_small(judge: Judge) -> None:
    outcome = judge(MAN, SHIRT.resize((64, 64)))
    assert outcome.refusal == (
        "Garment photo: it is too small. Use one of at least as many pixels as the photo of the person."
    )


def test_a_person_of_a_few_pixels_is_told_and_of_fewer_refused(judge: Judge) -> None:
    small, tiny = (judge(MAN.resize((width, round(1.79 * width))), SHIRT) for width in (110, 60))
    assert "The person is small in the photo, so the picture is coarse." in small.warnings
    assert tiny.refusal.startswith("Person photo: the person is too small in it.")


def test_a_garment_upside_down_is_refused_as_such(judge: Judge) -> None:
    outcome = judge(MAN, SHIRT.rotate(180))
    assert outcome.refusal.startswith("Garment photo: the garment seems to lie upside down. Turn the photo")


def test_a_shirt_is_no_dress(judge: Judge) -> None:
    outcome = judge(MAN, SHIRT, "dresses")
    assert "The garment looks too short for a dress; if it is a top, say so with the category." in outcome.warnings
    assert outcome.confidence < judge(MAN, SHIRT, "tops").confidence


def test_somebody_else_in_the_photo_is_told(judge: Judge) -> None:
    woman = image("people/4_posture").resize(MAN.size)
    both = Image.new("RGB", (2 * MAN.width, MAN.height))
    both.paste(MAN, (0, 0))
    both.paste(woman, (MAN.width, 0))
    outcome = judge(both, SHIRT)
    assert "Somebody else is in the photo; only one person is dressed." in outcome.warnings
    assert outcome.confidence < 0.7


def test_passers_by_are_nobody_else(judge: Judge) -> None:
    assert judge(image("people/2_posture"), SHIRT).warnings == ()


@pytest.mark.parametrize(("share", "shown"), [(0.60, True), (0.40, False)])
def test_the_less_of_the_hips_is_seen_the_less_it_is_trusted(judge: Judge, share: float, shown: bool) -> None:
    outcome = judge(MAN.crop((0, 0, MAN.width, round(share * MAN.height))), SHIRT)
    assert outcome.confidence < judge(MAN, SHIRT).confidence
    assert (outcome.refusal == "") is shown
    assert shown or "hips" in outcome.refusal or "hand" in outcome.refusal or "shoulders" in outcome.refusal


def test_a_photo_cropped_tightly_is_named_so_and_not_hard_to_tell_from_its_ground(judge: Judge) -> None:
    cloth = np.asarray(SHIRT).astype(int)
    where = np.abs(cloth - cloth[2, 2]).max(-1) > 60
    columns = np.flatnonzero(where.any(0))
    outcome = judge(MAN, SHIRT.crop((columns[0] + 4, 0, columns[-1] - 4, SHIRT.height)))
    assert any("cropped tightly" in warning for warning in outcome.warnings)
    assert not any("hard to tell" in warning for warning in outcome.warnings)


# Drawn people, of whom the right answer is known.


def findings(body: Body, name: str = "t-shirt") -> dict[str, float]:
    """Factors by warning."""
    outfit = outfit_of(body, garment_of(name))
    return {f.warning: f.factor for f in judging.judge(outfit.body, outfit.garment, outfit.fit, outfit.worn)}


LEFT = "Some of the old clothes may be left."


def test_nothing_of_the_old_clothes_is_left_on_a_drawn_person() -> None:
    assert LEFT not in findings(body_of(Figure()))


def test_a_collar_that_was_taken_for_skin_is_left() -> None:
    """Of the old top's colour, above the new collar, with the label of skin."""
    body = body_of(Figure())
    labels, rgb = body.person.labels.copy(), body.person.rgb.copy()
    x, y = np.rint(place(0.0, -0.3)).astype(int)
    reach = round(0.2 * UNIT)
    collar = (slice(y - reach // 5, y + reach // 5), slice(x - reach, x + reach))
    rgb[collar] = np.median(rgb[labels == Part.UPPER], 0)
    labels[collar] = Part.SKIN
    other = Body(dataclasses.replace(body.person, labels=labels, rgb=rgb))

    assert findings(other)[LEFT] < 0.9


def test_a_hand_without_a_wrist_hangs_loose() -> None:
    body = body_of(Figure())
    labels = body.person.labels.copy()
    x, y = np.rint(body.wrists["left"]).astype(int)
    gap = round(0.2 * UNIT)
    labels[y - gap // 2 : y + gap // 2, x - gap : x + gap] = Part.BACKGROUND
    other = Body(dataclasses.replace(body.person, labels=labels))

    warning = "A hand, or something else of the person, hangs loose."
    assert warning not in findings(body)
    assert findings(other)[warning] < 0.9


def test_stretch_is_measured_against_the_garment_photo() -> None:
    """A sheet that fits its own resized shape to the pixel is distorted all the same."""
    posed = dressed(Figure(), "t-shirt").fit.posed
    wide = dataclasses.replace(posed, rest=posed.sheet.rest * (2.0, 1.0), points=posed.sheet.rest * (2.0, 1.0))
    assert wide.stretch() == pytest.approx(1.0)
    assert wide.distortion() == pytest.approx(2.0)
    turned = dataclasses.replace(posed, points=posed.sheet.rest @ np.array([[0.0, 3.0], [-3.0, 0.0]]))
    assert turned.distortion() == pytest.approx(1.0)
