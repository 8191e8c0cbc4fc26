"""The only place that looks into untrusted image bytes."""

from __future__ import annotations

import collections
import contextlib
import functools
import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from PIL import Image, ImageCms, ImageOps

from providers.base import Photo

from .conf import conf
from .exceptions import ImageTooLarge, NotAnImage, UnusableImage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

FORMATS: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats that are decoded, by Pillow's name; everything else is not an image to us."""

EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}

MAX_SIDE: Final = 4096
"""Pixels of the longer side of a photo that leaves for a provider; more adds bytes, not detail."""

JPEG_QUALITY: Final = 92
THUMBNAIL_QUALITY: Final = 85
DECODING_THREADS: Final = 2
ORIENTATION: Final = 0x0112
"""The EXIF tag that says which way is up."""

JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker that begins a segment: neither a stuffed byte of a scan nor a restart marker."""
JPEG_START: Final = b"\xff\xd8"
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
COMMENT: Final = 0xFE
APPLICATION_SEGMENTS: Final = range(0xE0, 0xF0)
APP0, APP14 = 0xE0, 0xEE
"""JFIF and Adobe's colour transform: they change how pixels are read."""
JPEG_END: Final = b"\xff\xd9"
PNG_START: Final = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS: Final = (b"tRNS", b"gAMA", b"cHRM", b"sRGB")
"""The ancillary chunks that change how colours are read."""
PNG_END: Final = b"IEND\xaeB`\x82"
"""The last chunk's name and checksum; it is empty."""
TRAILER: Final = 65_536
"""Bytes after the end of an image, which some writers append, that are looked past."""

MAX_SEGMENTS: Final = 4000
"""Segments or chunks of one file. Ordinary ones have ten to a few hundred."""
MAX_HEADER_SEGMENTS: Final = 200
MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
"""Of what comes before the pixels. Some phones put a picture's depth there."""

QUICK_BYTES: Final = 1024 * 1024
QUICK_SEGMENTS: Final = frozenset(
    {
        *(0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE),  # JPEG: frame, tables, JFIF, Adobe
        *(b"IHDR", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"sBIT", b"bKGD", b"tIME"),  # PNG
        *(b"VP8 ", b"VP8L"),  # WebP without an extended header
    }
)
"""What a header may hold for a file to be quick: nothing that is compressed, long, or decides what to do with it."""

DAMAGED: Final = "the image is damaged. Save it again as JPEG or PNG and retry."

Segment = TypeVar("Segment")


@functools.cache
def decoders() -> ThreadPoolExecutor:
    """The threads in which pixels are decoded; not more, whatever comes."""
    return ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="tryon-decode")


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
    if not _is_whole(data, _format(image)):
        raise NotAnImage("the image is cut off: its end is missing.")
    return ImageInfo(FORMATS[_format(image)], image.width, image.height)


def _is_whole(data: bytes, file_format: str) -> bool:
    if file_format == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 <= len(data)
    return data.rfind(PNG_END if file_format == "PNG" else JPEG_END, -TRAILER) >= 0


def is_quick(data: bytes) -> bool:
    """Whether ``normalise()`` takes less than a change of threads: a small file, nothing unusual, nothing to decode.

    Looks at the names of the segments first: Pillow parses many of them when it opens a file.
    """
    try:
        quick = len(data) <= QUICK_BYTES and b"eXIf" not in data  # a PNG may have it behind the pixels
        quick = quick and all(kind in QUICK_SEGMENTS for kind in _header(data))
        return quick and not _needs_decoding(_open(data))
    except (NotAnImage, ImageTooLarge, ValueError):
        return False


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
        if _needs_decoding(image) or _is_animation(data) or (_has_exif(image, data) and _is_turned(image)):
            return _encode_again(image)
        return Photo(
            data=_without_metadata(data, _format(image)),
            content_type=FORMATS[_format(image)],
            width=image.width,
            height=image.height,
        )
    except UnusableImage:
        raise
    except (NotAnImage, ImageTooLarge) as error:
        raise type(error)(f"{field}: {error}", field=field) from None
    except Exception as error:  # of any class: whatever in a damaged file Pillow has tripped over
        raise UnusableImage(f"{field}: {DAMAGED}", field=field) from error


def fit(photo: Photo, *, field: str, types: Collection[str], max_bytes: int) -> Photo:
    """A normalised photo as a vendor takes it: of one of ``types``, with at most ``max_bytes``.

    As it is, if that fits; else as a JPEG, as many pixels of it as there is room for. It may be decoded here for the
    first time: raise ``UnusableImage``, which names ``field``, if it is damaged.
    """
    if photo.content_type in types and len(photo.data) <= max_bytes:
        return photo
    try:
        image = _to_srgb(_open(photo.data))
    except Exception as error:
        raise UnusableImage(f"{field}: {DAMAGED}", field=field) from error
    return _as_jpeg(image, max_bytes)


def _as_jpeg(image: Image.Image, max_bytes: int) -> Photo:
    while True:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        if out.tell() <= max_bytes or max(image.size) <= conf.MIN_IMAGE_SIDE:
            return Photo(data=out.getvalue(), content_type="image/jpeg", width=image.width, height=image.height)
        # Bytes go with the area; a tenth less than that, or the last step would take many.
        scale = min(0.9, 0.95 * (max_bytes / out.tell()) ** 0.5)
        smaller = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize(smaller, Image.Resampling.LANCZOS, reducing_gap=3)


def decode(data: bytes) -> None:
    """Decode every pixel, and raise ``UnusableImage`` if one is missing."""
    image = _open(data)
    try:
        image.load()
    except Exception as error:
        raise UnusableImage("the image is damaged.") from error


def thumbnail(data: bytes, height: int) -> bytes:
    """A small JPEG for a list: at most ``height`` pixels high and twice as wide, transparency on white.

    Raise ``NotAnImage``, ``ImageTooLarge`` or ``UnusableImage``.
    """
    image = _open(data)
    # Decodes a JPEG at an eighth of its size, say. A square, as the picture may be about to turn.
    image.draft(None, (height, height))
    try:
        ImageOps.exif_transpose(image, in_place=True)
        image.thumbnail((2 * height, height), reducing_gap=None)
        out = io.BytesIO()
        _to_srgb(image).save(out, "JPEG", quality=THUMBNAIL_QUALITY)
    except Exception as error:
        raise UnusableImage("the image is damaged.") from error
    return out.getvalue()


def _open(data: bytes) -> Image.Image:
    """Parse the header; no pixel is decoded. The type is what the bytes are, not what somebody calls them."""
    try:
        collections.deque(_header(data), maxlen=0)  # or Pillow would wade through whatever is there
    except ValueError as error:
        raise NotAnImage(f"{error}. Save it again as JPEG or PNG and retry.") from None
    try:
        image = Image.open(io.BytesIO(data), formats=list(FORMATS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(_too_many_pixels("far more")) from None
    except Exception:  # noqa: BLE001 - as in normalise()
        raise NotAnImage("not an image of a known type. Send a JPEG, PNG or WebP.") from None
    if image.width * image.height > conf.MAX_IMAGE_PIXELS:
        raise ImageTooLarge(_too_many_pixels(f"{image.width}x{image.height}"))
    return image


def _format(image: Image.Image) -> str:
    """A key of FORMATS. A JPEG with more JPEGs behind it, as some phones make it, is an MPO to Pillow."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def _header(data: bytes) -> Iterator[int | bytes]:
    """Marker or type of each segment before the pixels; ``ValueError`` if there are more than a header has."""
    if data.startswith(JPEG_START):
        yield from _before(START_OF_SCAN, _jpeg_segments(data[:MAX_HEADER_BYTES]))
    elif data.startswith(PNG_START):
        yield from _before(b"IDAT", _png_chunks(data[:MAX_HEADER_BYTES]))
    else:
        yield data[12:16] if data[:4] == b"RIFF" else b""


def _before(pixels: Segment, segments: Iterator[tuple[Segment, int, int]]) -> Iterator[Segment]:
    for number, (kind, _start, _end) in enumerate(segments):
        if kind == pixels:
            return
        if number >= MAX_HEADER_SEGMENTS:
            raise ValueError(f"the image's header has more than {MAX_HEADER_SEGMENTS} parts")
        yield kind


def _too_many_pixels(found: str) -> str:
    return f"the image has {found} pixels; the limit is {conf.MAX_IMAGE_PIXELS:,} in all. Send a smaller one."


def _needs_decoding(image: Image.Image) -> bool:
    """Whether size, colours or frames must change; what EXIF may ask for is another question."""
    return (
        max(image.size) > MAX_SIDE
        or image.mode not in ("RGB", "L")
        or (getattr(image, "n_frames", 1) > 1 and _format(image) != "JPEG")
        or not _is_srgb(image)
    )


def _is_animation(data: bytes) -> bool:
    """Whether a WebP says so in its extended header (RFC 9649), be it of one frame."""
    return data[8:16] == b"WEBPVP8X" and bool(data[20] & 0x02)


def _has_exif(image: Image.Image, data: bytes) -> bool:
    # Pillow decodes a whole PNG to see whether an eXIf chunk follows the pixels; its chunks tell that too.
    return "exif" in image.info or (
        image.format == "PNG"
        and ("Raw profile type exif" in image.info or any(kind == b"eXIf" for kind, *_ in _bounded(_png_chunks(data))))
    )


def _is_turned(image: Image.Image) -> bool:
    return bool(image.getexif().get(ORIENTATION, 1) != 1)


def _is_srgb(image: Image.Image) -> bool:
    profile = image.info.get("icc_profile")
    return not profile or b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile


def _encode_again(image: Image.Image) -> Photo:
    image.load()
    upright = ImageOps.exif_transpose(image)
    flat = _to_srgb(upright)
    flat.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if _format(image) == "JPEG":
        flat.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        flat.save(out, "PNG", compress_level=3)
    content_type = "image/jpeg" if _format(image) == "JPEG" else "image/png"
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
    if file_format == "JPEG":
        dropped = {COMMENT, *APPLICATION_SEGMENTS} - {APP0, APP14}
        return data[:2] + b"".join(
            data[a:b] for marker, a, b in _bounded(_jpeg_segments(data)) if marker not in dropped
        )
    if file_format == "PNG":
        chunks = _bounded(_png_chunks(data))
        return data[:8] + b"".join(data[a:b] for kind, a, b in chunks if kind[:1].isupper() or kind in PNG_COLOURS)
    kept = b"".join(_webp_chunks(data))
    return b"RIFF" + (len(kept) + 4).to_bytes(4, "little") + b"WEBP" + kept


def _bounded(segments: Iterator[Segment]) -> Iterator[Segment]:
    """The same, but ``ValueError`` after ``MAX_SEGMENTS``."""
    for number, segment in enumerate(segments):
        if number >= MAX_SEGMENTS:
            raise ValueError(f"the image has more than {MAX_SEGMENTS:,} parts")
        yield segment


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the end of the image (ITU T.81, annex B).

    A scan's entropy-coded data comes as a segment of its own, with marker 0. What some cameras append after the end
    of the image, thumbnails and whole videos, is left out.
    """
    position = 2
    while found := JPEG_MARKER.search(data, position):
        start = found.start()
        if start > position:
            yield 0, position, start
        marker = data[start + 1]
        position = start + 2 if marker == END_OF_IMAGE else start + 2 + int.from_bytes(data[start + 2 : start + 4])
        yield marker, start, position
        if marker == END_OF_IMAGE:
            return
    raise ValueError("the JPEG is cut off, or its header too long")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk (PNG specification, section 5)."""
    position = 8
    while position + 8 <= len(data):
        start, kind = position, data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4])
        yield kind, start, position
        if kind == b"IEND":
            return
    raise ValueError("the PNG is cut off, or its header too long")


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
