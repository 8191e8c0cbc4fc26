"""Is it worn, or is it a print? Real faces on real and drawn clothes, and real wearers, cut as shops cut them.

Photos of the openvto package, real nets.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import openvto
import pytest

from providers.errors import ImageUnusable
from providers.local import garment, nets, tryon
from providers.local.imaging import Bools, Picture, eroded, shrunk

from .mannequins import DRAWINGS, GROUND, mask_of, photo_of

ASSETS = Path(openvto.__file__).parent / "assets"
SIDE: Final = 640
"""Pixels of the longer side of a garment photo: enough to tell, and quick."""
WORN: Final = r"^Garment photo: .*(show a person|somebody wears it)"


@pytest.fixture(scope="module")
def found(models: Path) -> nets.Nets:
    return nets.load(models)


@functools.cache
def photo(name: str) -> Picture:
    return tryon._read((ASSETS / name).read_bytes())


def coverage(piece: garment.Garment) -> Bools:
    return piece.alpha > 127


def overlap(one: Bools, other: Bools) -> float:
    return float((one & other).sum() / (one | other).sum())


# Faces that are printed on it.

FACES: Final = {
    2: (slice(274, 654), slice(243, 537)),
    3: (slice(94, 363), slice(198, 405)),
    4: (slice(167, 526), slice(215, 491)),
}
"""In the selfies."""


@functools.cache
def clothes(name: str) -> Picture:
    """Of the package, or drawn; "close" cuts the photo near the collar or the waistband."""
    if name.startswith("drawn "):
        mask = mask_of(DRAWINGS[name.removeprefix("drawn ")])
        rgb = photo_of(mask)
    else:
        rgb = shrunk(photo(f"clothes/{name.removesuffix(' close')}_front.jpg"), SIDE)
        mask = (rgb.min(-1) < 200).astype(np.uint8)
        if not name.endswith(" close"):
            return rgb
    ys, xs = np.where(mask)
    margin = round(0.03 * float(np.ptp(ys)))
    top, left = max(0, ys.min() - margin), max(0, xs.min() - margin)
    return rgb[top : ys.max() + margin, left : xs.max() + margin].copy()


def printed(name: str, face: int, width: float, x: float, y: float) -> Picture:
    """With a round picture of a face; its width and place are shares of the photo."""
    rgb = clothes(name).copy()
    source = photo(f"people/{face}_selfie.jpg")[FACES[face]]
    across = round(width * rgb.shape[1])
    down = across * source.shape[0] // source.shape[1]
    picture = cv2.resize(source, (across, down), interpolation=cv2.INTER_AREA)
    oval = np.zeros((down, across), np.uint8)
    cv2.ellipse(oval, (across // 2, down // 2), (across // 2 - 1, down // 2 - 1), 0, 0, 360, (1,), -1)
    top, left = round(y * rgb.shape[0] - down / 2), round(x * rgb.shape[1] - across / 2)
    rgb[top : top + down, left : left + across][oval > 0] = picture[oval > 0]
    return rgb


WHITE = pytest.mark.xfail(
    strict=True, reason="white cloth on a light ground: the print alone is taken for the garment, or for none"
)
NARROW = pytest.mark.xfail(
    strict=True, reason="high on narrow cloth a printed face is taken for a head: the cloth is hardly wider than it"
)


@pytest.mark.parametrize(
    ("name", "face", "width", "x", "y"),
    [
        # High on the chest, where a wearer's head would be: told by the width of the cloth.
        ("shirts/1 close", 2, 0.22, 0.5, 0.22),
        ("shirts/1 close", 4, 0.3, 0.5, 0.22),
        ("shirts/1", 3, 0.22, 0.5, 0.22),
        ("shirts/2 close", 3, 0.22, 0.5, 0.15),
        # On the middle of the chest, small and large.
        ("shirts/1", 4, 0.12, 0.5, 0.42),
        ("shirts/2", 4, 0.28, 0.5, 0.45),
        ("shirts/4", 3, 0.36, 0.5, 0.48),
        ("drawn t-shirt", 4, 0.3, 0.5, 0.45),
        # On the belly or a leg, where the cloth may be no wider than a head: told by the height.
        ("shirts/2 close", 2, 0.3, 0.5, 0.6),
        ("pants/1 close", 3, 0.26, 0.3, 0.4),
        ("pants/1", 2, 0.2, 0.3, 0.65),
        # What is wrong today.
        pytest.param("pants/2", 4, 0.26, 0.5, 0.25, marks=NARROW),
        pytest.param("shirts/3", 2, 0.28, 0.5, 0.42, marks=WHITE),
        pytest.param("drawn tank top", 4, 0.3, 0.5, 0.15, marks=NARROW),
        pytest.param("drawn halter", 3, 0.3, 0.5, 0.15, marks=NARROW),
        pytest.param("drawn dress", 3, 0.3, 0.5, 0.22, marks=NARROW),
    ],
)
def test_a_printed_face_is_no_wearer(found: nets.Nets, name: str, face: int, width: float, x: float, y: float) -> None:
    piece = garment.analyse(found, printed(name, face, width, x, y))

    assert overlap(coverage(piece), coverage(plain(found, name))) > 0.95, "the garment is cut out, not its print"
    assert piece.kind == plain(found, name).kind


@functools.cache
def plain(found: nets.Nets, name: str) -> garment.Garment:
    return garment.analyse(found, clothes(name))


# Trousers through which skin shows, or which look like it.


def with_patches(name: str, pattern: str, skin: tuple[int, int, int]) -> Picture:
    """Torn at the knees, ripped all over, or covered with spots of the colour of skin."""
    rgb = clothes(name).copy()
    cloth = eroded((rgb.min(-1) < 200).astype(np.uint8), 5) > 0
    ys, xs = np.where(cloth)
    top, left, height, width = ys.min(), xs.min(), np.ptp(ys), np.ptp(xs)
    places = np.random.default_rng(5)
    at, size = {
        "knees": ([(0.23, 0.55), (0.77, 0.55)], (0.11 * width, 0.035 * height)),
        "rips": (
            [(side, place) for side in (0.23, 0.77) for place in np.linspace(0.3, 0.85, 7)],
            (0.1 * width, 0.01 * height),
        ),
        "spots": ([*places.random((60, 2))], (0.045 * width, 0.045 * width)),
    }[pattern]
    patches = np.zeros(cloth.shape, np.uint8)
    for x, y in at:
        centre = round(float(left + x * width)), round(float(top + y * height))
        cv2.ellipse(patches, centre, (round(size[0]), round(size[1])), 0, 0, 360, (1,), -1)
    where = (patches > 0) & cloth
    grain = places.normal(0, 3, (int(where.sum()), 1))
    rgb[where] = np.clip(np.array(skin) + grain, 0, 255)
    return rgb


@pytest.mark.parametrize("pattern", ["knees", "rips", "spots"])
@pytest.mark.parametrize(("name", "skin"), [("pants/1", (205, 160, 135)), ("pants/3", (150, 105, 80))])
def test_ripped_and_patterned_trousers_are_no_wearer(
    found: nets.Nets, name: str, skin: tuple[int, int, int], pattern: str
) -> None:
    piece = garment.analyse(found, with_patches(name, pattern, skin))

    assert piece.kind == "lower"
    assert overlap(coverage(piece), coverage(plain(found, name))) > 0.95


# Somebody wears it.

MARGIN: Final = 60
"""Pixels of plain ground around a wearer."""
HIP, KNEE, WRIST, SHOULDER, MOUTH = (24, 23), (26, 25), (16, 15), (12, 11), (10, 9)


@functools.cache
def cut_out(found: nets.Nets, name: str) -> tuple[Picture, dict[str, float]]:
    """A person on a plain ground, as shops cut them out, and the rows of "head", "mouth", "neck", "hands", ..."""
    rgb = shrunk(photo(name), 768)
    pose = found.pose(rgb, np.zeros(rgb.shape[:2], np.float32))
    alpha = np.clip((found.saliency(rgb) - 0.3) / 0.4, 0, 1)[..., None]
    shoulder, hip, knee, mouth = (
        float(pose.joints[list(joints), 1].mean()) for joints in (SHOULDER, HIP, KNEE, MOUTH)
    )
    hands = float(pose.joints[list(WRIST), 1].max()) + 0.35 * (hip - shoulder)
    rows = {"head": 0, "mouth": mouth - 3, "neck": (mouth + shoulder) / 2}
    rows |= {"hands": hands, "knees": knee, "feet": rgb.shape[0]}
    return np.rint(rgb * alpha + GROUND * (1 - alpha)).astype(np.uint8), rows


def wearer(found: nets.Nets, name: str, start: str, end: str) -> Picture:
    """From one part of the body to another; what lies beyond is cut off."""
    rgb, rows = cut_out(found, name)
    part = rgb[round(rows[start]) : round(rows[end])]
    return np.pad(part, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=GROUND)


HARDLY_SKIN = pytest.mark.xfail(
    strict=True, reason="without a head a wearer is known by both hands, and by a chest that has not skin's colours"
)


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        ("avatars/1.png", "head", "feet"),
        ("avatars/3.png", "head", "hands"),
        ("avatars/4.png", "mouth", "hands"),
        ("avatars/1.png", "head", "hands"),
        ("avatars/2.png", "head", "knees"),
        ("avatars/4.png", "neck", "knees"),
        ("avatars/4.png", "neck", "hands"),
        ("people/3_posture.jpg", "neck", "feet"),
        pytest.param("avatars/1.png", "neck", "knees", marks=HARDLY_SKIN),
        pytest.param("people/2_posture.jpg", "neck", "hands", marks=HARDLY_SKIN),
    ],
)
def test_a_wearer_is_refused(found: nets.Nets, name: str, start: str, end: str) -> None:
    with pytest.raises(ImageUnusable, match=WORN):
        garment.analyse(found, wearer(found, name, start, end))


@pytest.mark.parametrize(("name", "end"), [("people/3_posture.jpg", 0.65), ("avatars/2.png", 0.55)])
def test_a_wearer_whose_photo_ends_at_the_legs_is_refused(found: nets.Nets, name: str, end: float) -> None:
    """On the ground on which the photo was taken."""
    rgb = shrunk(photo(name), SIDE)
    with pytest.raises(ImageUnusable, match=WORN):
        garment.analyse(found, np.ascontiguousarray(rgb[: round(end * len(rgb))]))


def test_a_wearer_who_stands_low_in_the_photo_is_refused(found: nets.Nets) -> None:
    """A room above the head, as in a snapshot."""
    low = np.pad(wearer(found, "avatars/4.png", "head", "feet"), ((160, 0), (0, 0), (0, 0)), constant_values=GROUND)
    with pytest.raises(ImageUnusable, match=WORN):
        garment.analyse(found, low)
