"""Untrusted bytes: what leaves for a provider is upright, sRGB and free of metadata."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from tryon.exceptions import ImageTooLarge, NotAnImage, TryOnError, UnusableImage
from tryon.images import inspect, needs_decoding, normalise


def picture(mode: str = "RGB", size: tuple[int, int] = (96, 128)) -> Image.Image:
    """Colours that differ in all four corners, so that a turn or a flip shows."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.dstack([x * 2, y, (x + y) // 2]).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def exif(orientation: int = 1) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010F] = "A camera of mine"
    tags.get_ifd(0x8825)[1] = "N"  # GPS latitude
    return tags


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_metadata_is_cut_out_without_touching_a_pixel(file_format: str) -> None:
    options: dict[str, Any] = {"exif": exif()}
    if file_format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "A camera of mine")
        options["pnginfo"] = text
    if file_format == "JPEG":
        options["comment"] = b"A camera of mine"
    if file_format == "WEBP":
        options |= {"lossless": True, "xmp": b"A camera of mine"}
    data = encoded(picture(), file_format, **options)
    assert b"A camera of mine" in data
    assert not needs_decoding(data)

    photo = normalise(data, field="user_image_url")

    assert b"A camera of mine" not in photo.data
    assert not decoded(photo.data).getexif()
    assert decoded(photo.data).tobytes() == decoded(data).tobytes()
    assert (photo.width, photo.height) == (96, 128)
    assert photo.content_type == {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}[file_format]


def test_progressive_jpegs_keep_all_their_scans() -> None:
    data = encoded(picture(), progressive=True, exif=exif())
    assert decoded(normalise(data, field="f").data).tobytes() == decoded(data).tobytes()


def test_what_a_camera_appended_after_the_picture_is_cut_off() -> None:
    data = encoded(picture()) + b"a video of my flat" + encoded(picture())
    photo = normalise(data, field="f")
    assert b"a video" not in photo.data
    assert photo.data.count(b"\xff\xd8") == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(orientation: int) -> None:
    upright = picture(size=(96, 128))
    # Store the pixels turned the way a camera does, so that undoing the tag gives ``upright`` back.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpose method for each orientation's inverse
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    data = encoded(stored, "PNG", exif=exif(orientation))
    assert ImageOps.exif_transpose(decoded(data)).tobytes() == upright.tobytes(), "the test's own table"

    photo = normalise(data, field="f")

    assert (photo.width, photo.height) == (96, 128)
    assert decoded(photo.data).tobytes() == upright.tobytes()
    assert needs_decoding(data) == (orientation > 1)


@pytest.mark.parametrize(
    ("image", "file_format"),
    [
        (picture("CMYK"), "JPEG"),
        (picture("P"), "PNG"),
        (picture("L"), "PNG"),
        (picture("1"), "PNG"),
        (picture("LA"), "PNG"),
        (picture("RGBA"), "PNG"),
        (picture("RGBA"), "WEBP"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_odd_modes_become_rgb_or_grey(image: Image.Image, file_format: str) -> None:
    photo = normalise(encoded(image, file_format), field="f")
    assert decoded(photo.data).mode in ("RGB", "L")


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    assert decoded(normalise(encoded(image, "PNG"), field="f").data).getpixel((50, 50)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.full((100, 100), 32768, dtype=np.uint16))
    pixel = decoded(normalise(encoded(image, "PNG"), field="f").data).getpixel((50, 50))
    assert pixel == (128, 128, 128)


def test_another_colour_space_becomes_srgb() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Red and green change places, and the name no longer says sRGB.
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    data = encoded(Image.new("RGB", (100, 100), "red"), "PNG", icc_profile=swapped)
    assert needs_decoding(data)
    result = decoded(normalise(data, field="f").data)
    assert "icc_profile" not in result.info
    red, green, blue = result.getpixel((50, 50))  # type: ignore[misc]
    assert (red < 10, green > 245, blue < 10) == (True, True, True)


def test_a_profile_that_cannot_be_read_is_ignored() -> None:
    data = encoded(picture(), "PNG", icc_profile=b"no profile at all")
    assert decoded(normalise(data, field="f").data).tobytes() == picture().tobytes()


def test_an_srgb_profile_is_no_reason_to_decode() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    assert not needs_decoding(encoded(picture(), icc_profile=srgb.tobytes()))


def test_a_huge_photo_is_scaled_down() -> None:
    photo = normalise(encoded(picture(size=(5000, 100)), quality=50), field="f")
    assert (photo.width, photo.height) == (4096, 82)


def test_the_first_frame_of_an_animation_is_used() -> None:
    data = encoded(picture(), "WEBP", save_all=True, append_images=[picture().rotate(180)], lossless=True)
    photo = normalise(data, field="f")
    assert getattr(decoded(photo.data), "n_frames", 1) == 1
    assert decoded(photo.data).tobytes() == picture().tobytes()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnImage),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NotAnImage),
        (encoded(picture(), "GIF"), NotAnImage),
        (encoded(picture(), "BMP"), NotAnImage),
        (encoded(picture(), "TIFF"), NotAnImage),
        (encoded(picture())[:100], NotAnImage),
        (encoded(picture())[:-20], UnusableImage),
        (encoded(picture(), "PNG")[:-20], UnusableImage),
        (encoded(picture("CMYK"))[:-400], UnusableImage),
        (encoded(picture(size=(60, 500))), UnusableImage),
    ],
    ids=["empty", "svg", "gif", "bmp", "tiff", "header", "cut", "cut png", "cut cmyk", "small"],
)
def test_what_cannot_be_used_is_refused_by_the_fields_name(data: bytes, error: type[TryOnError]) -> None:
    with pytest.raises(error, match=r"^user_image_url: ") as caught:
        normalise(data, field="user_image_url")
    assert caught.value.field == "user_image_url"


def test_more_pixels_than_allowed_are_never_decoded(tryon: Callable[..., None]) -> None:
    tryon(MAX_IMAGE_PIXELS=10_000)
    with pytest.raises(ImageTooLarge, match="96x128 pixels; the limit is 10,000"):
        normalise(encoded(picture()), field="f")


def test_a_bomb_is_refused_by_its_header() -> None:
    size = struct.pack(">II", 60_000, 60_000)
    ihdr = b"IHDR" + size + encoded(picture(), "PNG")[24:29]
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    header += struct.pack(">I", 1_000_000) + b"IDAT"
    with pytest.raises(ImageTooLarge):
        inspect(header)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_inspect_refuses_what_is_cut_off(file_format: str) -> None:
    data = encoded(picture(), file_format)
    inspect(data + b"what some writer appends")
    for missing in (1, 12, len(data) // 2):
        with pytest.raises(NotAnImage):
            inspect(data[:-missing])


def test_inspect_tells_type_and_size_by_content() -> None:
    info = inspect(encoded(picture(), "WEBP"))
    assert (info.content_type, info.width, info.height) == ("image/webp", 96, 128)
