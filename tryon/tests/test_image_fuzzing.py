"""Any bytes at all become a photo that may leave, or are refused by one of three errors; in bounded time."""

from __future__ import annotations

import functools
import io
import time
import warnings
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tryon.conf import conf
from tryon.exceptions import ImageTooLarge, NotAnImage, UnusableImage
from tryon.images import FORMATS, MAX_SIDE, is_quick, normalise

from .odd_images import SECRET, encoded, exif, extended, heic, picture, riff, segment, webp

SECONDS = 5
"""For one of these small files; it takes hundredths."""


def _seeds() -> dict[str, Callable[[], bytes]]:
    small = picture(70, 66)
    return {
        "JPEG": lambda: encoded(small, exif=exif(6), comment=SECRET),
        "progressive JPEG": lambda: encoded(small, progressive=True, subsampling=0),
        "CMYK JPEG": lambda: encoded(small.convert("CMYK")),
        "JPEG with much before it": lambda: (
            b"\xff\xd8" + segment(0xE1, exif(3)) + segment(0xE2, SECRET) + encoded(small)[2:]
        ),
        "PNG": lambda: encoded(small, "PNG", exif=exif(5)),
        "PNG with alpha": lambda: encoded(small.convert("RGBA"), "PNG"),
        "PNG with a palette": lambda: encoded(small.quantize(16), "PNG", transparency=3),
        "PNG that moves": lambda: encoded(small, "PNG", save_all=True, append_images=[small.rotate(180)]),
        "WebP": lambda: encoded(small, "WEBP", exif=exif(8)),
        "WebP with alpha": lambda: encoded(small.convert("RGBA"), "WEBP", lossless=True),
        "WebP that moves": lambda: encoded(small, "WEBP", save_all=True, append_images=[small.rotate(180)]),
        "WebP with XMP": lambda: webp(extended(4, 70, 66), encoded(small, "WEBP")[12:], riff(b"XMP ", SECRET)),
        "AVIF": lambda: encoded(small, "AVIF", exif=exif(2)),
        "AVIF with alpha": lambda: encoded(small.convert("RGBA"), "AVIF"),
        "HEIC": lambda: heic(small),
        "HEIC of tiles": lambda: heic(picture(140, 132), tile_size=64),
    }


SEEDS = _seeds()
STARTS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\xff\0\0\0WEBPVP8X",
    b"\0\0\0\x14ftypavif",
    b"\0\0\0\x14ftypheic",
    b"",
]


@functools.cache
def seed(name: str) -> bytes:
    return SEEDS[name]()


Damage = Callable[[bytes], bytes]
places = st.floats(0, 1, exclude_max=True)
"""Where in the file. As a part of it, so that one strategy fits files of every length."""


def flip(at: float, bits: int) -> Damage:
    def damage(data: bytes) -> bytes:
        place = int(at * len(data))
        return data[:place] + bytes(byte ^ bits for byte in data[place : place + 1]) + data[place + 1 :]

    return damage


def in_the_header(at: float, bits: int) -> Damage:
    """Most damage hits pixels; this hits what says how to read them."""
    return lambda data: flip(at, bits)(data[:400]) + data[400:]


def cut_off(at: float) -> Damage:
    return lambda data: data[: int(at * len(data))]


def leave_out(at: float, length: int) -> Damage:
    return lambda data: data[: int(at * len(data))] + data[int(at * len(data)) + length :]


def insert(at: float, what: bytes) -> Damage:
    return lambda data: data[: int(at * len(data))] + what + data[int(at * len(data)) :]


def overwrite(at: float, what: bytes) -> Damage:
    return lambda data: data[: int(at * len(data))] + what + data[int(at * len(data)) + len(what) :]


def repeat(at: float, length: int, times: int) -> Damage:
    def damage(data: bytes) -> bytes:
        place = int(at * len(data))
        return data[:place] + data[place : place + length] * times + data[place + length :]

    return damage


def splice(at: float, name: str) -> Damage:
    return lambda data: data[: int(at * len(data))] + seed(name)[int(at * len(seed(name))) :]


numbers = st.sampled_from(
    [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff", b"\0\0", b"\0\1", b"\x80"]
)
damages = st.one_of(
    st.builds(flip, places, st.integers(1, 255)),
    st.builds(in_the_header, places, st.integers(1, 255)),
    st.builds(cut_off, places),
    st.builds(leave_out, places, st.integers(1, 64)),
    st.builds(insert, places, st.binary(max_size=32) | numbers),
    st.builds(overwrite, places, st.binary(max_size=32) | numbers),
    st.builds(repeat, places, st.integers(1, 200), st.integers(2, 60)),
    st.builds(splice, places, st.sampled_from(sorted(SEEDS))),
)

fuzzed = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", SEEDS)
@settings(fuzzed, max_examples=200)
@given(st.lists(damages, min_size=1, max_size=4))
def test_a_damaged_file_becomes_a_photo_or_is_refused(name: str, done: list[Damage]) -> None:
    """200 cases for each of the 16."""
    data = seed(name)
    for damage in done:
        data = damage(data)
    _becomes_a_photo_or_is_refused(data)


@settings(fuzzed, max_examples=400)
@given(st.sampled_from(STARTS), st.binary(max_size=500))
def test_noise_is_refused(start: bytes, noise: bytes) -> None:
    _becomes_a_photo_or_is_refused(start + noise)


def _becomes_a_photo_or_is_refused(data: bytes) -> None:
    started = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):  # Pillow's, of what it reads nevertheless
        is_quick(data)
        try:
            photo = normalise(data, field="f")
        except (NotAnImage, ImageTooLarge, UnusableImage) as error:
            assert str(error).startswith("f: ")  # noqa: PT017 - or there is a photo
            photo = None
        assert time.perf_counter() - started < SECONDS
        if photo is None:
            return
        image = Image.open(io.BytesIO(photo.data), formats=list(FORMATS))
    assert FORMATS[str(image.format)] == photo.content_type
    assert image.size == (photo.width, photo.height)
    assert conf.MIN_IMAGE_SIDE <= min(image.size) <= max(image.size) <= MAX_SIDE
    assert image.mode in ("RGB", "L")
    assert not {"exif", "xmp", "icc_profile", "comment"} & image.info.keys()
