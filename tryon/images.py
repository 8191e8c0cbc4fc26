"""The only place that looks into untrusted image bytes."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from providers.base import Photo

from .conf import conf
from .exceptions import ImageTooLarge, NotAnImage, UnusableImage

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats that are decoded, by Pillow's name; everything else is not an image to us."""

EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}

MAX_SIDE: Final = 4096
"""Pixels of the longer side of a photo that leaves for a provider; more adds bytes, not detail."""

JPEG_QUALITY: Final = 92
ORIENTATION: Final = 0x0112
"""The EXIF tag that says which way is up."""

JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker that begins a segment: neither a stuffed byte of a scan nor a restart marker."""
APP0, APP14, COMMENT, END_OF_IMAGE = 0xE0, 0xEE, 0xFE, 0xD9
APPLICATION_SEGMENTS: Final = range(0xE0, 0xF0)
JPEG_END: Final = b"\xff\xd9"
PNG_END: Final = b"IEND\xaeB`\x82"
"""The last chunk's name and checksum; it is empty."""
TRAILER: Final = 65_536
"""Bytes after the end of an image, which some writers append, that are looked past."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header of an image says: content type and size in pixels."""

    content_type: str
    width: int
    height: int


def inspect(data: bytes) -> ImageInfo:
    """Read the header, and see that the end is there too. Raise ``NotAnImage`` or ``ImageTooLarge``.

    Decoding would cost a thousand times as much, and tell little more about a picture that comes from a vendor.
    """
    image = _open(data)
    if not _is_whole(data, str(image.format)):
        raise NotAnImage("the image is cut off: its end is missing.")
    return ImageInfo(FORMATS[str(image.format)], image.width, image.height)


def _is_whole(data: bytes, file_format: str) -> bool:
    if file_format == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return data.rfind(PNG_END if file_format == "PNG" else JPEG_END, -TRAILER) >= 0


def needs_decoding(data: bytes) -> bool:
    """Whether ``normalise()`` has to decode the pixels (slow), or only drops metadata (fast)."""
    return _reasons_to_decode(_open(data))


def normalise(data: bytes, *, field: str) -> Photo:
    """Make a user's photo ready to leave the machine: upright, sRGB, without metadata, not too large.

    Metadata is cut out of the file losslessly where that is enough; only a photo whose orientation, colour
    space, size or frames need it is decoded and encoded again. ``field`` is named in the errors:
    ``NotAnImage``, ``ImageTooLarge``, ``UnusableImage``.
    """
    try:
        image = _open(data)
        if min(image.size) < conf.MIN_IMAGE_SIDE:
            raise UnusableImage(
                f"{field}: the image is {image.width}x{image.height} pixels. "
                f"Its shorter side must have at least {conf.MIN_IMAGE_SIDE} pixels.",
                field=field,
            )
        if _reasons_to_decode(image):
            return _encode_again(image)
        return Photo(
            data=_without_metadata(data, str(image.format)),
            content_type=FORMATS[str(image.format)],
            width=image.width,
            height=image.height,
        )
    except (NotAnImage, ImageTooLarge) as error:
        raise type(error)(f"{field}: {error}", field=field) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise UnusableImage(
            f"{field}: the image is damaged. Save it again as JPEG or PNG and retry.", field=field
        ) from error


def _open(data: bytes) -> Image.Image:
    """Parse the header; no pixel is decoded. The type is what the bytes are, not what somebody calls them."""
    try:
        image = Image.open(io.BytesIO(data), formats=list(FORMATS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(_too_many_pixels("far more")) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError):
        raise NotAnImage("not an image of a known type. Send a JPEG, PNG or WebP.") from None
    if image.width * image.height > conf.MAX_IMAGE_PIXELS:
        raise ImageTooLarge(_too_many_pixels(f"{image.width}x{image.height}"))
    return image


def _too_many_pixels(found: str) -> str:
    return f"the image has {found} pixels; the limit is {conf.MAX_IMAGE_PIXELS:,} in all. Send a smaller one."


def _reasons_to_decode(image: Image.Image) -> bool:
    return (
        image.getexif().get(ORIENTATION, 1) != 1
        or max(image.size) > MAX_SIDE
        or image.mode not in ("RGB", "L")
        or getattr(image, "n_frames", 1) > 1
        or not _is_srgb(image)
    )


def _is_srgb(image: Image.Image) -> bool:
    profile = image.info.get("icc_profile")
    return not profile or b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile


def _encode_again(image: Image.Image) -> Photo:
    image.load()
    upright = ImageOps.exif_transpose(image)
    flat = _to_srgb(upright)
    flat.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if image.format == "JPEG":
        flat.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        flat.save(out, "PNG", compress_level=3)
    content_type = "image/jpeg" if image.format == "JPEG" else "image/png"
    return Photo(data=out.getvalue(), content_type=content_type, width=flat.width, height=flat.height)


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB pixels in sRGB; transparency is laid on white, as a catalogue shows it."""
    profile = image.info.get("icc_profile")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        image = Image.alpha_composite(white, rgba).convert("RGB")
        profile = None
    elif image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # 16 bits a pixel: convert() would clip instead of scale.
        image = image.point(lambda value: value / 256).convert("L").convert("RGB")
        profile = None
    if profile and not _is_srgb(image):
        # A profile that cannot be read is ignored, as browsers do.
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            image = converted or image
    rgb = image.convert("RGB")
    rgb.info.clear()
    return rgb


def _without_metadata(data: bytes, file_format: str) -> bytes:
    chunks = {"JPEG": _jpeg_segments, "PNG": _png_chunks, "WEBP": _webp_chunks}[file_format](data)
    kept = b"".join(chunks)
    if file_format == "WEBP":
        kept = b"RIFF" + (len(kept) + 4).to_bytes(4, "little") + b"WEBP" + kept
    return kept


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """The segments a decoder needs (ITU T.81, annex B): everything but comments and APPn.

    APP0 (JFIF) and APP14 (Adobe's colour transform) change how pixels are read and stay. What some cameras
    append after the end of the image, thumbnails and whole videos, is cut off.
    """
    yield data[:2]
    position = 2
    while marker_at := JPEG_MARKER.search(data, position):
        # Between two segments lies nothing, or the entropy-coded data of a scan.
        yield data[position : marker_at.start()]
        position = marker_at.start()
        marker = data[position + 1]
        if marker == END_OF_IMAGE:
            yield data[position : position + 2]
            return
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        if not (marker == COMMENT or (marker in APPLICATION_SEGMENTS and marker not in (APP0, APP14))):
            yield data[position:end]
        position = end
    raise ValueError("the JPEG has no end")


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """The critical chunks (PNG specification, section 5) and those that change how colours are read."""
    yield data[:8]
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if kind[:1].isupper() or kind in (b"tRNS", b"gAMA", b"cHRM", b"sRGB"):
            yield data[position:end]
        position = end
        if kind == b"IEND":
            return
    raise ValueError("the PNG has no end")


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """The picture's own chunks (RFC 9649); the flags of VP8X no longer promise metadata."""
    position = 12
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + (length & 1)
        chunk = data[position:end]
        if kind == b"VP8X":
            icc_exif_xmp = 0x20 | 0x08 | 0x04
            chunk = chunk[:8] + bytes([chunk[8] & ~icc_exif_xmp]) + chunk[9:]
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH"):
            yield chunk
        position = end
