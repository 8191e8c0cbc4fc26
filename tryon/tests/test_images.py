"""Untrusted bytes: what leaves for a provider is upright, sRGB and free of metadata."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import zlib
from collections.abc import Callable
from random import Random
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from PIL.JpegImagePlugin import JpegImageFile

from providers.base import Photo
from tryon.exceptions import ImageTooLarge, NotAnImage, TryOnError, UnusableImage
from tryon.images import ImageInfo, decode, fit, inspect, is_quick, normalise, thumbnail

from .odd_images import heic, patched


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
    with mock.patch("tryon.images._encode_again", side_effect=AssertionError):
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
    assert not is_quick(data)
    result = decoded(normalise(data, field="f").data)
    assert "icc_profile" not in result.info
    red, green, blue = result.getpixel((50, 50))  # type: ignore[misc]
    assert (red < 10, green > 245, blue < 10) == (True, True, True)


def test_a_profile_that_cannot_be_read_is_ignored() -> None:
    data = encoded(picture(), "PNG", icc_profile=b"no profile at all")
    assert decoded(normalise(data, field="f").data).tobytes() == picture().tobytes()


def test_an_srgb_profile_is_no_reason_to_decode() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    with mock.patch("tryon.images._encode_again", side_effect=AssertionError):
        normalise(encoded(picture(), icc_profile=srgb.tobytes()), field="f")


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


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_what_hides_how_large_it_is_is_never_decoded(kind: str, tryon: Callable[..., None]) -> None:
    """Its header says 96x128; its coded picture, which is what a decoder makes room for, says more."""
    large = Image.new("RGB", (400, 400))
    data = patched(heic(large) if kind == "HEIC" else encoded(large, "AVIF"), b"ispe", 4, struct.pack(">II", 96, 128))
    tryon(MAX_IMAGE_PIXELS=100_000)
    with pytest.raises(ImageTooLarge, match="f: the image has 160,000 pixels; the limit is 100,000"):
        normalise(data, field="f")


@pytest.mark.parametrize("package", ["pillow_heif", "PIL._avif"])
def test_a_server_that_cannot_read_a_kind_says_what_to_send(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(picture()) if package == "pillow_heif" else encoded(picture(), "AVIF")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotAnImage, match=r"^f: (HEIC|AVIF) is not read here\. Send a JPEG\.$"):
        normalise(data, field="f")


@pytest.mark.parametrize("size", [(8064, 600), (6000, 400)])
def test_a_jpeg_that_its_decoder_makes_smaller_looks_as_good(size: tuple[int, int]) -> None:
    """Compared with the whole, made smaller by the best filter there is."""
    image = Image.effect_noise((size[0] // 8, size[1] // 8), 80).resize(size, Image.Resampling.BICUBIC)
    data = encoded(image.convert("RGB"), quality=90)
    photo = normalise(data, field="f")
    assert 0.95 * 4096 <= photo.width <= 4096
    best = decoded(data).resize((photo.width, photo.height), Image.Resampling.LANCZOS)
    off = np.asarray(decoded(photo.data), dtype=float) - np.asarray(best, dtype=float)
    assert 10 * np.log10(255**2 / (off**2).mean()) > 36, "decibels"


def test_a_jpeg_that_takes_too_much_memory_is_decoded_smaller_as_long_as_enough_is_left(
    tryon: Callable[..., None],
) -> None:
    data = encoded(Image.new("RGB", (7000, 700)))
    assert normalise(data, field="f").width == 4096
    tryon(DECODE_MEMORY=20_000_000)
    assert normalise(data, field="f").width == 3500
    tryon(DECODE_MEMORY=12_000_000)
    with pytest.raises(ImageTooLarge, match="f: decoding the image takes"):
        normalise(data, field="f")


@pytest.mark.parametrize("turn", [1, 3, 6, 7])
def test_made_smaller_in_strips_it_is_as_in_one_piece(turn: int) -> None:
    whole = Image.effect_noise((4600, 1500), 90).convert("RGB")
    photo = normalise(encoded(whole, "PNG", exif=exif(turn), compress_level=1), field="f")
    turned = whole.resize((4096, 1336), Image.Resampling.LANCZOS)
    turned.getexif()[0x0112] = turn
    one_piece = ImageOps.exif_transpose(turned)
    ours = decoded(photo.data)
    assert ours.size == one_piece.size
    off = np.abs(np.asarray(ours, dtype=int) - np.asarray(one_piece, dtype=int))
    assert off.max() <= (1 if photo.content_type == "image/png" else 40), "no seams"


def test_a_png_that_would_become_larger_than_a_photo_may_be_becomes_a_jpeg(tryon: Callable[..., None]) -> None:
    tryon(MAX_IMAGE_BYTES=200_000)
    photo = normalise(encoded(Image.effect_noise((600, 600), 90).convert("RGBA"), "PNG"), field="f")
    assert photo.content_type == "image/jpeg"
    assert len(photo.data) <= 200_000


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


def no_picture(kind: str) -> bytes:
    """What a vendor may send in place of a picture, with a header and an end that are right."""
    jpeg, png = encoded(picture()), encoded(picture(), "PNG")
    scan, start = jpeg.index(b"\xff\xda"), png[:33]
    end = chunk_of(b"IEND", b"")
    huge = chunk_of(b"IHDR", struct.pack(">II", 2000, 2000) + b"\x08\2\0\0\0")
    wrong = bytearray(png)
    wrong[len(png) // 2] ^= 1
    webp = bytearray(encoded(picture(), "WEBP")[:200])
    webp[4:8] = struct.pack("<I", 192)
    return {
        "JPEG without a scan": jpeg[:scan] + b"\xff\xd9",
        "JPEG of an empty scan": jpeg[: scan + 14] + b"\xff\xd9",
        "JPEG of a few blocks": jpeg[: scan + 30] + b"\xff\xd9",
        "PNG of text": start + chunk_of(b"IDAT", b"upstream error: out of memory" * 99) + end,
        "PNG of packed text": start + chunk_of(b"IDAT", zlib.compress(b"upstream error" * 999)) + end,
        "PNG of half a row": start + chunk_of(b"IDAT", zlib.compress(bytes(100))) + end,
        "PNG of a row": png[:8] + huge + chunk_of(b"IDAT", zlib.compress(bytes(9000))) + end,
        "PNG of no pixels": start + end,
        "PNG, half of it": png[: len(png) // 2] + end,
        "PNG with a wrong bit": bytes(wrong),
        "WebP, half of it": bytes(webp),
        "PNG of one pixel": encoded(picture(size=(1, 1)), "PNG"),
        "JPEG of one pixel": encoded(picture(size=(1, 1))),
        "WebP of one line": encoded(picture(size=(300, 1)), "WEBP"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "why"),
    {
        "JPEG without a scan": "0 bytes of pixels",
        "JPEG of an empty scan": "0 bytes of pixels",
        "JPEG of a few blocks": "16 bytes of pixels; too few for 96x128",
        "PNG of text": "incorrect header check",
        "PNG of packed text": "too few pixels, or none",
        "PNG of half a row": "too few pixels, or none",
        "PNG of a row": "too few pixels, or none, for 2000x2000",
        "PNG of no pixels": "too few pixels, or none",
        "PNG, half of it": "cut off|a checksum is wrong|not an image",
        "PNG with a wrong bit": "a checksum is wrong",
        "WebP, half of it": "cut off|not an image",
        "PNG of one pixel": "1x1 pixels; a result has at least 16 a side",
        "JPEG of one pixel": "1x1 pixels",
        "WebP of one line": "300x1 pixels",
    }.items(),
)
def test_inspect_refuses_what_is_no_picture_between_its_header_and_its_end(kind: str, why: str) -> None:
    with pytest.raises(NotAnImage, match=why):
        inspect(no_picture(kind))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("width", [16, 17, 4000])
def test_inspect_takes_the_barest_picture_of_every_mode(mode: str, width: int) -> None:
    """All black: no encoder makes fewer bytes of one."""
    size = (width, 33)
    image = Image.new(mode, size)
    for data in (
        encoded(image, "PNG", optimize=True),
        *(encoded(image, quality=1, optimize=True, progressive=p) for p in (0, 1) if mode in ("1", "L", "RGB")),
        *(encoded(image, "WEBP", lossless=lossless) for lossless in (False, True) if mode in ("RGB", "RGBA")),
    ):
        assert (inspect(data).width, inspect(data).height) == size


def test_inspect_takes_a_large_picture_in_many_small_parts() -> None:
    png = encoded(picture(), "PNG")
    packed = zlib.compress(b"".join(b"\0" + bytes(9000) for _ in range(3000)), 0)
    header = chunk_of(b"IHDR", struct.pack(">II", 3000, 3000) + b"\x08\2\0\0\0")
    parts = b"".join(chunk_of(b"IDAT", packed[at : at + 4096]) for at in range(0, len(packed), 4096))
    assert inspect(png[:8] + header + parts + png[-12:]).width == 3000


def test_any_damage_is_a_refusal_and_nothing_else() -> None:
    random = Random(7)  # noqa: S311 - repeatable
    tags = exif(6)
    for file_format in ("JPEG", "PNG", "WEBP"):
        whole = encoded(picture(), file_format, exif=tags)
        for _ in range(700):
            damaged = bytearray(whole[: random.choice([len(whole), random.randrange(len(whole))])])
            for _ in range(random.choice([0, 1, 5, 50])):
                if damaged:
                    damaged[random.randrange(len(damaged))] = random.randrange(256)
            data = bytes(damaged)
            is_quick(data)
            for use in (inspect, lambda data: normalise(data, field="f"), lambda data: thumbnail(data, 96)):
                with contextlib.suppress(TryOnError):
                    use(data)


def chunk_of(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def flood(kind: str) -> bytes:
    """An image whose header takes Pillow seconds."""
    jpeg, png = encoded(picture()), encoded(picture(), "PNG")
    profile = chunk_of(b"iCCP", b"x\0\0" + zlib.compress(bytes(100_000)))
    chunk = chunk_of(b"abCd", b"")
    return {
        "fill bytes": jpeg[:2] + b"\xff" * 5_000_000 + jpeg[2:],
        "profiles": png[:33] + profile * 1000 + png[33:],
        "APP5": jpeg[:2] + b"\xff\xe5\x00\x02" * 100_000 + jpeg[2:],
        "COM": jpeg[:2] + b"\xff\xfe\x00\x02" * 100_000 + jpeg[2:],
        "chunks": png[:33] + chunk * 100_000 + png[33:],
        "chunks at the end": png[:-12] + chunk * 100_000 + png[-12:],
    }[kind]


@pytest.mark.parametrize("kind", ["APP5", "COM", "fill bytes", "profiles", "chunks", "chunks at the end"])
def test_a_flood_of_segments_is_refused_before_pillow_wades_through_it(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = io.BytesIO.read

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            read.append(1)
            return original(self, size)

    monkeypatch.setattr("tryon.images.io.BytesIO", Counted)
    data = flood(kind)
    assert not is_quick(data), "what is odd goes to a thread, unopened"
    with pytest.raises((NotAnImage, UnusableImage), match="Save it again as JPEG or PNG"):
        normalise(data, field="f")
    assert len(read) < 1000


def test_no_pixel_of_a_png_is_decoded_to_look_for_its_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, after_the_pixels = encoded(picture(), "PNG"), encoded(picture(), "PNG")
    tags = exif(6).tobytes().removeprefix(b"Exif\0\0")
    after_the_pixels = plain[:-12] + chunk_of(b"eXIf", tags) + plain[-12:]
    assert normalise(after_the_pixels, field="f").width == 128, "turned"
    assert not is_quick(after_the_pixels)

    def refuse(*args: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", refuse)
    assert is_quick(plain)
    assert normalise(plain, field="f").width == 96, "its eXIf is looked for among the chunks"
    assert inspect(plain).width == 96


@pytest.mark.parametrize("save", [{"exif": exif()}, {"comment": b"hello"}, {"icc_profile": b"x"}, {"dpi": (72, 72)}])
def test_the_event_loop_opens_only_files_without_anything_unusual(save: dict[str, Any]) -> None:
    assert is_quick(encoded(picture(), **save)) == ("dpi" in save)
    assert not is_quick(encoded(picture(size=(1200, 1200)), "PNG", compress_level=0)), "nor large ones"
    assert is_quick(encoded(picture(), "PNG")) is is_quick(encoded(picture(), "WEBP")) is True


@pytest.mark.parametrize(
    ("image", "file_format"),
    [
        (picture("RGBA"), "PNG"),
        (Image.new("RGBA", (100, 100), (255, 0, 0, 100)), "WEBP"),
        (picture("LA"), "PNG"),
        (picture("1"), "PNG"),
        (picture("P"), "PNG"),
        (Image.fromarray(np.zeros((100, 100), dtype=np.uint16)), "PNG"),
        (picture("CMYK"), "JPEG"),
        (Image.new("RGB", (5000, 100)), "JPEG"),
        (Image.new("RGB", (5000, 100)), "PNG"),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_what_must_be_decoded_is_not_decoded_on_the_event_loop(image: Image.Image, file_format: str) -> None:
    assert not is_quick(encoded(image, file_format, **({"lossless": True} if file_format == "WEBP" else {})))


def test_an_animation_of_one_frame_is_made_a_picture() -> None:
    """Pillow writes none, so one is made by hand: its frame is a chunk that a picture does not have."""
    still = encoded(picture(size=(96, 128)), "WEBP", lossless=True)
    size = (95).to_bytes(3, "little") + (127).to_bytes(3, "little")
    frame = bytes(6) + size + (100).to_bytes(3, "little") + b"\0" + still[12:]
    body = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    data = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    photo = normalise(data, field="f")
    assert decoded(photo.data).tobytes() == picture().tobytes()


def test_a_photo_of_several_pictures_is_its_first() -> None:
    """Some phones' photos: a JPEG with more JPEGs behind it, which Pillow calls an MPO."""
    data = encoded(picture(), "MPO", save_all=True, append_images=[picture().rotate(180)])
    photo = normalise(data, field="f")
    assert photo.content_type == "image/jpeg"
    assert photo.data.count(b"\xff\xd8") == 1
    assert decoded(photo.data).tobytes() == decoded(data).tobytes()
    assert inspect(data).content_type == "image/jpeg"


def test_inspect_tells_type_and_size_by_content() -> None:
    info = inspect(encoded(picture(), "WEBP"))
    assert (info.content_type, info.width, info.height) == ("image/webp", 96, 128)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_thumbnail_is_a_small_jpeg_of_the_same_picture(file_format: str) -> None:
    whole = Image.linear_gradient("L").resize((1000, 1500)).convert("RGB")
    small = decoded(thumbnail(encoded(whole, file_format), 192))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (128, 192))
    expected = np.asarray(whole.resize((128, 192)), dtype=int)
    assert np.abs(np.asarray(small, dtype=int) - expected).max() < 8


@pytest.mark.parametrize(
    ("size", "expected"), [((96, 128), (96, 128)), ((4000, 50), (384, 5)), ((50, 4000), (2, 192))]
)
def test_a_thumbnail_stays_in_its_box_and_is_never_larger(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert decoded(thumbnail(encoded(picture(size=size)), 192)).size == expected


def test_a_thumbnail_of_a_photo_that_lies_on_its_side_is_upright() -> None:
    image = Image.new("RGB", (1500, 1000), "red")
    image.paste("blue", (750, 0, 1500, 1000))
    small = decoded(thumbnail(encoded(image, exif=exif(6)), 192))
    assert small.size == (128, 192)
    top, bottom = small.getpixel((64, 20)), small.getpixel((64, 170))
    assert (top[0] > 245, bottom[2] > 245) == (True, True)  # type: ignore[index]
    assert not small.getexif()


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "P", "LA", "RGBA", "I;16"])
def test_odd_modes_have_thumbnails_in_rgb(mode: str) -> None:
    image = picture("L" if mode == "I;16" else mode, size=(600, 800))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, dtype=np.uint16) * 257)
    small = decoded(thumbnail(encoded(image, "JPEG" if mode == "CMYK" else "PNG"), 192))
    assert (small.mode, small.size) == ("RGB", (144, 192))


def test_a_thumbnail_lays_transparency_on_white() -> None:
    image = Image.new("RGBA", (500, 500), (255, 0, 0, 0))
    assert decoded(thumbnail(encoded(image, "PNG"), 192)).getpixel((50, 50)) == (255, 255, 255)


def test_a_thumbnail_of_a_jpeg_is_decoded_small(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[int, int]] = []
    load = JpegImageFile.load

    def noted(image: JpegImageFile) -> Any:
        loaded.append(image.size)
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", noted)
    thumbnail(encoded(picture(size=(2048, 3072))), 192)
    assert loaded[0] == (256, 384)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NotAnImage),
        (encoded(picture())[:-20], UnusableImage),
        (encoded(picture(), "PNG")[:-60], UnusableImage),
    ],
    ids=["svg", "cut", "cut png"],
)
def test_a_thumbnail_of_what_is_no_picture_is_refused(data: bytes, error: type[TryOnError]) -> None:
    with pytest.raises(error):
        thumbnail(data, 192)


def test_a_thumbnail_is_guarded_against_bombs(tryon: Callable[..., None]) -> None:
    tryon(MAX_IMAGE_PIXELS=10_000)
    with pytest.raises(ImageTooLarge):
        thumbnail(encoded(picture()), 192)


# Photos as a vendor takes them


def _noise(image_format: str, width: int = 400, height: int = 600) -> Photo:
    out = io.BytesIO()
    Image.frombytes("RGB", (width, height), Random(7).randbytes(width * height * 3)).save(out, image_format)  # noqa: S311
    return normalise(out.getvalue(), field="f")


def test_a_photo_that_fits_is_not_touched() -> None:
    photo = _noise("PNG")
    assert fit(photo, field="f", types=["image/png"], max_bytes=len(photo.data)) is photo


def test_a_photo_of_another_type_becomes_a_jpeg_of_the_same_size() -> None:
    photo = _noise("WEBP")
    fitted = fit(photo, field="f", types=["image/jpeg", "image/png"], max_bytes=10**7)
    assert inspect(fitted.data) == ImageInfo("image/jpeg", 400, 600)
    assert (fitted.content_type, fitted.width, fitted.height) == ("image/jpeg", 400, 600)


@pytest.mark.parametrize("max_bytes", [200_000, 20_000])
def test_a_photo_that_is_too_large_keeps_as_many_pixels_as_there_is_room_for(max_bytes: int) -> None:
    fitted = fit(_noise("PNG"), field="f", types=["image/png", "image/jpeg"], max_bytes=max_bytes)
    assert max_bytes / 4 < len(fitted.data) <= max_bytes
    assert fitted.width / fitted.height == pytest.approx(2 / 3, rel=0.03)
    decode(fitted.data)


def test_a_photo_that_is_first_decoded_to_fit_and_is_damaged_is_refused() -> None:
    out = io.BytesIO()
    Image.frombytes("RGB", (90, 90), Random(7).randbytes(90 * 90 * 3)).save(out, "WEBP", lossless=True)  # noqa: S311
    data = bytearray(out.getvalue())
    data[40:-40] = bytes(len(data) - 80)
    photo = normalise(bytes(data), field="catalog_image_url")
    with pytest.raises(UnusableImage, match="catalog_image_url: the image is damaged"):
        fit(photo, field="catalog_image_url", types=["image/jpeg"], max_bytes=10**7)
