"""The only place that looks into untrusted image bytes."""

from __future__ import annotations

import collections
import functools
import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageCms, features

from providers.base import Photo

from . import boxes, colours, containers, decoding
from .conf import conf
from .exceptions import ImageTooLarge, NotAnImage, UnusableImage

if TYPE_CHECKING:
    from collections.abc import Collection

FORMATS: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats of pictures that come from vendors and go to them, by Pillow's name."""

EXTENSIONS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}

BOXED: Final = {"AVIF": "AVIF", "HEIF": "HEIC"}
"""Formats that a photo may have as well, and what people call them; it leaves as a JPEG."""

MAX_SIDE: Final = 4096
"""Pixels of the longer side of a photo that leaves for a provider; more adds bytes, not detail."""
NEARLY: Final = 0.95
"""Of MAX_SIDE: so long a side is not worth decoding a JPEG in its full size. Half of 8064 is 4032."""

JPEG_QUALITIES: Final = (92, 85, 75)
"""The first with which a photo has few enough bytes; before it loses pixels."""
GROWTH: Final = 3
"""Times its bytes that a photo may have when it leaves: about what a JPEG takes to say the same as an AVIF."""
SMALL: Final = 2 * 1024 * 1024
"""Bytes that it may have in any case."""
THUMBNAIL_QUALITY: Final = 85
DECODING_THREADS: Final = 2
STRIP_PIXELS: Final = 2**19
"""Of the source, that are converted at a time."""
MARGIN: Final = 4
"""Rows of the result, as far as which rows of a strip depend on those of its neighbours: LANCZOS looks 3 far."""

TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation; every other value means upright."""
SIDEWAYS: Final = frozenset({5, 6, 7, 8})
FROM_THE_END: Final = frozenset({3, 4, 6, 7})
"""Orientations whose first row comes last, or becomes the last column."""

MAX_DECODED: Final = 3
"""Times MAX_IMAGE_PIXELS that a decoder of AVIF or HEIC may go through to show one: the picture, what hangs over its
edge, and a mask."""

MAX_SCANNED: Final = 400_000_000
"""Pixels that all scans of one JPEG pass over: ten times the largest progressive one that DECODE_MEMORY has room for.
They take about a second."""

MIN_RESULT_SIDE: Final = 16
"""Pixels of the shorter side of what a vendor sends; some send one pixel in place of a picture."""

QUICK_BYTES: Final = 1024 * 1024
QUICK_SEGMENTS: Final = frozenset(
    {
        *(0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE),  # JPEG: frame, tables, JFIF, Adobe
        *(b"IHDR", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"sBIT", b"bKGD", b"tIME"),  # PNG
        *(b"VP8 ", b"VP8L"),  # WebP without an extended header
    }
)
"""What a header may hold for a file to be quick: nothing that is compressed, long, or decides what to do with it."""

SAVE_AGAIN: Final = "Save it again as JPEG or PNG and retry."
DAMAGED: Final = f"the image is damaged. {SAVE_AGAIN}"
UNKNOWN: Final = "not an image of a known type. Send a JPEG, PNG or WebP."


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


@dataclass(slots=True)
class _Source:
    """An opened picture, not decoded yet, and what is known about decoding it."""

    kind: str
    image: Any
    """Pillow's, or a ``_Heif``."""
    size: int
    """Bytes of the file."""
    turn: int = 1
    profile: bytes | None = None
    """Its colours', if they are not sRGB."""
    scale: int = 1
    """By which the decoder of a JPEG is to divide its sides."""
    samples: float = 0
    deep: bool = False
    pixels: int = 0
    """That any part of the file claims to have, if that is more than the picture."""
    plain: list[containers.Bytes] | None = None
    """The file without its metadata, if that is a picture."""


def inspect(data: bytes) -> ImageInfo:
    """Look at a picture that comes from a vendor, without decoding it. Raise ``NotAnImage`` or ``ImageTooLarge``.

    It is whole, large enough to be a picture, and its pixels begin as they should: about a millisecond, of which most
    goes for a PNG's checksums. Decoding would cost fifty, and tell little more.
    """
    image = _open(data)
    kind, (width, height) = _format(image), image.size
    if min(width, height) < MIN_RESULT_SIDE:
        raise NotAnImage(f"the image is {width}x{height} pixels; a result has at least {MIN_RESULT_SIDE} a side.")
    try:
        containers.check(data, kind, width, height)
    except (ValueError, zlib.error) as error:
        raise NotAnImage(f"{error}.") from None
    return ImageInfo(FORMATS[kind], width, height)


def is_quick(data: bytes) -> bool:
    """Whether ``normalise()`` takes less than a change of threads: a small file, nothing unusual, nothing to decode.

    Looks at the names of the segments first: Pillow parses many of them when it opens a file.
    """
    try:
        quick = len(data) <= QUICK_BYTES and b"eXIf" not in data  # a PNG may have it behind the pixels
        quick = quick and all(kind in QUICK_SEGMENTS for kind in containers.header(data))
        return quick and not _needs_decoding(_open(data))
    except (NotAnImage, ImageTooLarge, ValueError):
        return False


def normalise(data: bytes, *, field: str) -> Photo:
    """Make a user's photo ready to leave the machine: upright, sRGB, without metadata, not too large.

    Metadata is cut out of the file losslessly where that is enough; only a photo whose orientation, colour
    space, size, frames or format need it is decoded and encoded again. ``field`` is named in the errors:
    ``NotAnImage``, ``ImageTooLarge``, ``UnusableImage``.
    """
    try:
        source = _look(data)
        width, height = source.image.size
        if min(_within((width, height), (MAX_SIDE, MAX_SIDE))) < conf.MIN_IMAGE_SIDE:
            raise UnusableImage(
                f"the image is {width}x{height} pixels. Its shorter side must have at least {conf.MIN_IMAGE_SIDE} "
                f"pixels, once the longer one has no more than {MAX_SIDE}."
            )
        if source.plain and source.turn == 1 and not source.profile and not _needs_decoding(source.image):
            return Photo(data=b"".join(source.plain), content_type=FORMATS[source.kind], width=width, height=height)
        return _encode_again(source)
    except (NotAnImage, ImageTooLarge, UnusableImage) as error:
        raise type(error)(f"{field}: {error}", field=field) from None
    except Exception as error:  # of any class: whatever in a damaged file Pillow has tripped over
        raise UnusableImage(f"{field}: {DAMAGED}", field=field) from error


def fit(photo: Photo, *, field: str, types: Collection[str], max_bytes: int) -> Photo:
    """A normalised photo as a vendor takes it: of one of ``types``, with at most ``max_bytes``.

    As it is, if that fits; else as a JPEG, as many pixels of it as there is room for. It may be decoded here for the
    first time: raise ``UnusableImage`` or ``ImageTooLarge``, which name ``field``, if it is damaged, or takes too much
    memory.
    """
    if photo.content_type in types and len(photo.data) <= max_bytes:
        return photo
    try:
        source = _look(photo.data)
        with decoding.budget.hold(_need(source)):
            return _as_jpeg(_shrunk(source), max_bytes)
    except ImageTooLarge as error:
        raise ImageTooLarge(f"{field}: {error}", field=field) from None
    except Exception as error:
        raise UnusableImage(f"{field}: {DAMAGED}", field=field) from error


def decode(data: bytes) -> None:
    """Decode every pixel, or raise ``UnusableImage``. Half a JPEG with an end mark passes: decoders fill the rest."""
    image = _open(data)
    source = _Source(_format(image), image, len(data), samples=3)
    with decoding.budget.hold(min(_need(source), conf.DECODE_MEMORY)):
        try:
            image.load()
        except Exception as error:
            raise UnusableImage("the image is damaged.") from error


def thumbnail(data: bytes, height: int) -> bytes:
    """A small JPEG for a list: at most ``height`` pixels high and twice as wide, transparency on white.

    Raise ``NotAnImage``, ``ImageTooLarge`` or ``UnusableImage``.
    """
    image = _open(data)
    source = _Source(_format(image), image, len(data), samples=3)
    with decoding.budget.hold(min(_need(source), conf.DECODE_MEMORY)):
        try:
            source.turn, source.profile = containers.orientation(image.info.get("exif", b"")), _profile(image)
            # A square, as the picture may be about to turn.
            image.draft(None, (height, height))
            sideways = source.turn in SIDEWAYS
            box = (height, 2 * height) if sideways else (2 * height, height)
            small = _strips(source, _within(image.size, box))
            out = io.BytesIO()
            small.save(out, "JPEG", quality=THUMBNAIL_QUALITY)
        except Exception as error:
            raise UnusableImage("the image is damaged.") from error
    return out.getvalue()


# Opening


def _look(data: bytes) -> _Source:
    """Open a photo of any type that is accepted, from what its decoder needs of it."""
    kind = containers.kind_of(data)
    if kind in BOXED:
        return _look_into_boxes(data, kind)
    _check_header(data)
    if not kind:
        raise NotAnImage(UNKNOWN)
    try:
        cut = containers.cut(data, kind)
    except ValueError as error:
        raise UnusableImage(f"{error}. {SAVE_AGAIN}") from None
    image = _open(b"".join(cut.essence))
    if cut.scans > 1 and cut.scans * image.width * image.height > MAX_SCANNED:
        raise ImageTooLarge(
            f"the JPEG has {cut.scans} scans of {image.width}x{image.height} pixels, which take too long. "
            "Send a smaller one, or a JPEG that is not progressive."
        )
    turn = containers.orientation(cut.exif)
    try:
        profile = _profile(image, (cut.cicp[0], cut.cicp[1]) if len(cut.cicp) == 4 else None)
    except ValueError as error:
        raise UnusableImage(f"{error}. {SAVE_AGAIN}") from None
    source = _Source(kind, image, len(data), turn, profile, samples=cut.samples, plain=cut.plain)
    if kind == "JPEG":
        _choose_scale(source)
    return source


def _look_into_boxes(data: bytes, kind: str) -> _Source:
    name = BOXED[kind]
    if kind == "AVIF" and not features.check("avif"):
        raise NotAnImage(f"{name} is not read here. Send a JPEG.")
    try:
        found = boxes.look(data)
        profile = colours.by_numbers(*found.nclx)
    except ValueError as error:
        raise UnusableImage(f"{error}. Send a JPEG.") from None
    if found.pixels > conf.MAX_IMAGE_PIXELS:
        raise ImageTooLarge(_too_many_pixels(f"{found.pixels:,}"))
    if found.decoded > MAX_DECODED * conf.MAX_IMAGE_PIXELS:
        raise ImageTooLarge(f"the {name} has {found.decoded:,} pixels in tiles or frames. Send a JPEG.")
    if kind == "HEIF":
        image: Any = _Heif(data)
    else:
        image = _open(data, kind)
    source = _Source(kind, image, len(data), samples=found.samples, deep=found.deep, pixels=found.pixels)
    source.turn = containers.orientation(image.info.get("exif", b""))
    if "icc_profile" in image.info:
        source.profile = _profile(image)
    elif profile and not colours.is_srgb(profile, _mode(image)):
        source.profile = profile
    return source


class _Heif:
    """A HEIC's picture, with as much of Pillow's interface as is used here.

    Not through Pillow's plugin, which would take every file of the kind from then on, and keep one more copy.
    """

    def __init__(self, data: bytes) -> None:
        try:
            import pillow_heif
        except ImportError:
            raise NotAnImage("HEIC is not read here. Send a JPEG.") from None
        try:
            file = pillow_heif.open_heif(data)
        except Exception:  # noqa: BLE001 - as in normalise()
            raise UnusableImage("the HEIC is damaged. Send a JPEG.") from None
        self._image = file[file.primary_index]
        # Its decoder has turned it already, and its EXIF does not count (ISO 23008-12, section 6.5.10).
        self.size: tuple[int, int] = self._image.size
        self.info = {key: value for key, value in self._image.info.items() if key == "icc_profile"}
        self._rawmode: str = self._image.mode
        self.mode = self._rawmode.replace("RGBa", "RGBA")
        self.has_transparency_data = self._image.has_alpha

    def load(self) -> None:
        self._image.load()
        if self._image.size != self.size:
            raise UnusableImage(DAMAGED)

    def crop(self, box: tuple[int, int, int, int]) -> Image.Image:
        """Rows of it, of the whole width."""
        (width, _), stride = self.size, self._image.stride
        rows = self._image.data[box[1] * stride : box[3] * stride]
        return Image.frombuffer(self.mode, (width, box[3] - box[1]), rows, "raw", self._rawmode, stride, 1)


def _open(data: bytes, kind: str = "") -> Image.Image:
    """Parse the header; no pixel is decoded. The type is what the bytes are, not what somebody calls them.

    Without a ``kind`` it is one of those that vendors know.
    """
    if not kind:
        _check_header(data)
    try:
        image = Image.open(io.BytesIO(data), formats=[kind] if kind else list(FORMATS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(_too_many_pixels("far more")) from None
    except Exception:  # noqa: BLE001 - as in normalise()
        raise NotAnImage(UNKNOWN) from None
    if image.width * image.height > conf.MAX_IMAGE_PIXELS:
        raise ImageTooLarge(_too_many_pixels(f"{image.width}x{image.height}"))
    return image


def _check_header(data: bytes) -> None:
    try:
        collections.deque(containers.header(data), maxlen=0)  # or Pillow would wade through whatever is there
    except ValueError as error:
        raise NotAnImage(f"{error}. {SAVE_AGAIN}") from None


def _format(image: Image.Image) -> str:
    """A key of FORMATS. A JPEG with more JPEGs behind it, as some phones make it, is an MPO to Pillow."""
    return "JPEG" if image.format == "MPO" else str(image.format)


def _too_many_pixels(found: str) -> str:
    return f"the image has {found} pixels; the limit is {conf.MAX_IMAGE_PIXELS:,} in all. Send a smaller one."


def _needs_decoding(image: Image.Image) -> bool:
    """Whether size, colours or frames must change; what EXIF may ask for is another question."""
    return (
        max(image.size) > MAX_SIDE
        or image.mode not in ("RGB", "L")
        or image.has_transparency_data
        or (getattr(image, "n_frames", 1) > 1 and _format(image) != "JPEG")
        or _profile(image) is not None
    )


def _mode(image: Any) -> str:
    """The mode in which its colours are converted, once it is flat."""
    return {"L": "L", "LA": "L", "I;16": "L", "CMYK": "CMYK"}.get(image.mode, "RGB")


def _profile(image: Any, numbers: tuple[int, int] | None = None) -> bytes | None:
    """The profile by which its colours are to become sRGB; None if they are.

    What a PNG says in ``numbers`` (cICP) goes before a profile, and that before gAMA and cHRM, as in browsers.
    """
    info = image.info
    if numbers:
        profile = colours.by_numbers(*numbers)
    elif not (profile := info.get("icc_profile")) and "srgb" not in info:
        profile = colours.by_chromaticity(info.get("gamma", 0), info.get("chromaticity", ()))
    return profile if profile and not colours.is_srgb(profile, _mode(image)) else None


# Decoding


def _need(source: _Source) -> int:
    """Bytes that it takes to decode it and make it as small as it has to be."""
    (width, height), scale = source.image.size, source.scale
    whole = width * height
    pixels = max(whole, source.pixels) // scale**2
    width, height = _within((-(-width // scale), -(-height // scale)), (MAX_SIDE, MAX_SIDE))
    return decoding.estimate(
        source.kind,
        source.image.mode,
        pixels,
        width * height,
        source.size,
        source=whole,
        samples=source.samples,
        deep=source.deep,
    )


def _choose_scale(source: _Source) -> None:
    """Have a JPEG's decoder make it about as small as it has to be; smaller if it would take too much memory."""
    side = max(source.image.size)
    source.scale = next((scale for scale in (8, 4, 2) if side / scale >= NEARLY * MAX_SIDE), 1)
    while source.scale < 8 and side / source.scale >= MAX_SIDE and _need(source) > conf.DECODE_MEMORY:
        source.scale *= 2


def _within(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The size that fits in the box, no larger than it is."""
    scale = min(1.0, box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _encode_again(source: _Source) -> Photo:
    kind = source.kind
    most = min(max(GROWTH * source.size, SMALL), conf.MAX_IMAGE_BYTES)
    with decoding.budget.hold(_need(source)):
        image = _shrunk(source)
        if kind in ("PNG", "WEBP"):
            out = _Limited(most)
            try:
                image.save(out, "PNG", compress_level=3)
                return Photo(data=out.getvalue(), content_type="image/png", width=image.width, height=image.height)
            except _Full:
                del out
        return _as_jpeg(image, most)


class _Full(Exception):
    """There are more bytes than there may be."""


class _Limited(io.BytesIO):
    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > self._most:
            raise _Full
        return super().write(data)


def _as_jpeg(image: Image.Image, max_bytes: int) -> Photo:
    while True:
        for quality in JPEG_QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, subsampling=0)
            if out.tell() <= max_bytes or max(image.size) <= conf.MIN_IMAGE_SIDE:
                return Photo(data=out.getvalue(), content_type="image/jpeg", width=image.width, height=image.height)
        # Bytes go with the area; a tenth less than that, or the last step would take many.
        scale = min(0.9, 0.95 * (max_bytes / out.tell()) ** 0.5)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = _strips(_Source("", image, 0), (width, height))


def _shrunk(source: _Source) -> Image.Image:
    """RGB pixels in sRGB, upright and not too many, and none of the source's."""
    image = source.image
    if source.scale > 1:
        image.draft(None, (image.width // source.scale, image.height // source.scale))
    image.load()
    result = _strips(source, _within(image.size, (MAX_SIDE, MAX_SIDE)))
    source.image = None
    return result


def _strips(source: _Source, size: tuple[int, int]) -> Image.Image:
    """RGB pixels in sRGB, upright, of the ``size`` that it has before it turns; transparency is laid on white.

    Made in strips: a copy of the whole would take as much memory again, and so would each step.
    """
    image, turn = source.image, source.turn
    (source_width, source_height), (width, height) = image.size, size
    transform = colours.to_srgb(source.profile, _mode(image)) if source.profile else None
    result = Image.new("RGB", (height, width) if turn in SIDEWAYS else size)
    ratio = source_height / height
    rows = max(1, int(STRIP_PIXELS / source_width / ratio))
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first = max(0, int((top - MARGIN) * ratio) if ratio > 1 else top)
        last = min(source_height, int((bottom + MARGIN) * ratio) + 1 if ratio > 1 else bottom)
        strip = _flat(image.crop((0, first, source_width, last)), transform)
        if image.size != size:
            box = (0, top * ratio - first, source_width, min(bottom * ratio - first, last - first))
            strip = strip.resize((width, bottom - top), Image.Resampling.LANCZOS, box=box)
        if turn in TURNS:
            strip = strip.transpose(TURNS[turn])
        at = height - bottom if turn in FROM_THE_END else top
        result.paste(strip, (at, 0) if turn in SIDEWAYS else (0, at))
    return result


def _flat(strip: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """Pixels in sRGB, grey or RGB; transparency is laid on white, as a catalogue shows it."""
    alpha = None
    if strip.mode.startswith("I;16") or strip.mode in ("I", "F"):
        # 16 bits a pixel: convert() would clip instead of scale.
        strip = strip.point(lambda value: value / 256).convert("L")
    elif strip.has_transparency_data:
        alpha = strip.convert("RGBA").getchannel("A")
        strip = strip.convert(_mode(strip))
    elif strip.mode not in ("RGB", "L", "CMYK"):
        strip = strip.convert("L" if strip.mode == "1" else "RGB")
    if transform is not None and strip.mode == transform.input_mode:
        strip = ImageCms.applyTransform(strip, transform) or strip
    if strip.mode != "L":
        strip = strip.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", strip.size, "white")
        white.paste(strip, mask=alpha)
        return white
    return strip
