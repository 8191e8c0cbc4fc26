"""What image files are made of: cut into parts, without decoding a pixel.

Two things are made of the parts. ``essence`` is what a decoder needs, colour profile included: no text that it
would decompress, no second picture, nothing behind the end. ``plain`` is that without the profile.
"""

from __future__ import annotations

import collections
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeVar

T = TypeVar("T")

ORIENTATION: Final = 0x0112
"""The EXIF tag that says which way is up."""

JPEG_START: Final = b"\xff\xd8"
JPEG_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""A marker that begins a segment: neither a stuffed byte of a scan nor a restart marker."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
APP0, APP1, APP2, APP14 = 0xE0, 0xE1, 0xE2, 0xEE
FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers that say how pixels are coded; the other three of these numbers are tables."""
USUAL_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive, with Huffman's code. Browsers and vendors read no other."""
JPEG_TABLES: Final = frozenset({0xC4, 0xDB, 0xDD})
SCAN_DATA, GARBAGE = 0, -1
"""What stands between segments: the pixels, or what does not belong there."""

PNG_START: Final = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS: Final = frozenset({b"IDAT", b"IEND"})
PNG_LENGTHS: Final[dict[int | bytes, int]] = {b"IHDR": 13, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}
"""Bytes of the header and of the chunks that change how colours are read. One of another length may say anything."""
PNG_DECODED: Final = frozenset({b"iCCP", b"PLTE", b"tRNS"})
"""What only a picture needs that is decoded anyway: one with a profile, a palette or transparency."""
PNG_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""By type of colour."""
PNG_CRITICAL: Final = re.compile(b"[A-Z]")
"""How a name begins of what no decoder may pass over."""
DEFLATE_MOST: Final = 1032
"""Bytes that zlib can make of one."""
PNG_EXIF: Final = b"Raw profile type exif\0"
"""Keyword of the text in which writers kept EXIF before PNG had a chunk for it."""
PNG_END: Final = b"IEND\xaeB`\x82"
"""The last chunk's name and checksum; it is empty."""

WEBP_PIXELS: Final = (b"VP8 ", b"VP8L")
WEBP_ICC, WEBP_EXIF, WEBP_XMP, WEBP_ANIMATION = 0x20, 0x08, 0x04, 0x02
"""Flags of the extended header (RFC 9649)."""

MAX_SEGMENTS: Final = 4000
"""Segments or chunks of one file. Ordinary ones have ten to a few hundred."""
PART: Final = 4096
"""Bytes; a large picture that comes from a vendor may have one more part for as many of them."""
MAX_HEADER_SEGMENTS: Final = 200
MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
"""Of what comes before the pixels. Some phones put a picture's depth there."""
MAX_EXIF: Final = 65_536
"""Bytes; as many as a JPEG can hold."""
MAX_SCANS: Final = 64
"""Scans of one JPEG. An ordinary progressive one has ten, and each is a pass over all pixels."""


class Part(NamedTuple):
    """One segment or chunk: its marker or name, and where it stands."""

    kind: int | bytes
    start: int
    end: int


Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Cut:
    """A file cut to what matters: views of it, to be joined."""

    essence: list[Bytes]
    plain: list[Bytes] | None
    """None if it cannot be had without decoding: an animation's frame is no file."""
    scans: int = 1
    samples: float = 0
    """Of a JPEG whose pixels come in several passes: coefficients a pixel that are kept until the last one."""
    exif: bytes = b""
    cicp: bytes = b""
    """Of a PNG: the numbers of primaries, transfer function, matrix and range (ITU-T H.273)."""


def kind_of(data: bytes) -> str:
    """Pillow's name of the file's format; empty for what is none of ours. Whatever a name or header calls it."""
    if data.startswith(JPEG_START):
        return "JPEG"
    if data.startswith(PNG_START):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4]), 256)
        brands = {data[8:12], *(data[start : start + 4] for start in range(16, length, 4))}
        if b"avif" in brands:
            return "AVIF"
        if brands & {b"heic", b"heix", b"heim", b"heis"}:
            return "HEIF"
    return ""


def header(data: bytes) -> Iterator[int | bytes]:
    """Kind of each part before the pixels; ``ValueError`` if there are more than a header has."""
    if data.startswith(JPEG_START):
        return _before(START_OF_SCAN, _jpeg_segments(data[:MAX_HEADER_BYTES]))
    if data.startswith(PNG_START):
        return _before(b"IDAT", _png_chunks(data[:MAX_HEADER_BYTES]))
    return iter([data[12:16] if data[:4] == b"RIFF" else b""])


def _before(pixels: int | bytes, parts: Iterator[Part]) -> Iterator[int | bytes]:
    for number, part in enumerate(parts):
        if part.kind == pixels:
            return
        if number >= MAX_HEADER_SEGMENTS:
            raise ValueError(f"the image's header has more than {MAX_HEADER_SEGMENTS} parts")
        yield part.kind


def cut(data: bytes, kind: str) -> Cut:
    """Cut a JPEG, PNG or WebP, whole as it must be; ``ValueError`` if it is not."""
    return CUTS[kind](data)


def orientation(exif: bytes) -> int:
    """Which way is up (EXIF 3.0, tag 0x0112), from 1 to 8; 1 too if it does not say so, or cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"

    def number(start: int, size: int = 2) -> int:
        return int.from_bytes(tiff[start : start + size], order)

    start = number(4, 4)
    for entry in range(start + 2, min(start + 2 + 12 * number(start), len(tiff) - 11), 12):
        if number(entry) == ORIENTATION:
            is_one_short = (number(entry + 2), number(entry + 4, 4)) == (3, 1)
            return number(entry + 8) if is_one_short and 1 <= number(entry + 8) <= 8 else 1
    return 1


def check(data: bytes, kind: str, width: int, height: int) -> None:
    """See whether a JPEG, PNG or WebP can be a whole picture of this size; ``ValueError`` if it cannot.

    Cheap, as no pixel is decoded, and so it does not find all damage: not what is wrong in the middle of a
    compressed stream.
    """
    CHECKS[kind](data, width, height)


def _bounded(parts: Iterator[T], most: int = MAX_SEGMENTS) -> Iterator[T]:
    """The same, but ``ValueError`` after ``most``."""
    for number, part in enumerate(parts):
        if number >= most:
            raise ValueError(f"the image has more than {most:,} parts")
        yield part


# JPEG (ITU T.81, annex B)


def _jpeg_segments(data: bytes) -> Iterator[Part]:
    """Each segment up to the end of the image.

    A scan's entropy-coded data comes as a segment of its own. What some cameras append after the end of the image,
    thumbnails and whole videos, is left out.
    """
    position, between = 2, GARBAGE
    while found := JPEG_MARKER.search(data, position):
        start = found.start()
        if start > position:
            yield Part(between, position, start)
        marker = data[start + 1]
        if marker == END_OF_IMAGE:
            yield Part(marker, start, start + 2)
            return
        length = int.from_bytes(data[start + 2 : start + 4])
        position, between = start + 2 + max(length, 2), SCAN_DATA if marker == START_OF_SCAN else GARBAGE
        yield Part(marker, start, position)
    raise ValueError("the JPEG is cut off, or its header too long")


def _cut_jpeg(data: bytes) -> Cut:
    view = memoryview(data)
    essence: list[Bytes] = [JPEG_START]
    plain: list[Bytes] = [JPEG_START]
    exif = b""
    frames: list[bytes] = []
    scans, in_one_pass = 0, False
    for kind, start, end in _bounded(_jpeg_segments(data)):
        segment: Bytes = view[start:end]
        if kind in FRAMES:
            frames.append(data[start:end])
        elif kind == START_OF_SCAN:
            scans += 1
            # As libjpeg has it: whatever its scan leaves out may come later, and so all of it is kept until then.
            in_one_pass = scans == 1 and bool(frames) and frames[0][1] != 0xC2 and data[start + 4] >= frames[0][9]
        if kind in FRAMES or kind in JPEG_TABLES or kind in (START_OF_SCAN, SCAN_DATA, END_OF_IMAGE):
            pass
        elif kind in (APP0, APP14):
            segment = _short(data[start:end])
        else:
            if kind == APP1 and segment[4:10] == b"Exif\0\0":
                exif = exif or bytes(segment[4:])
            elif kind == APP2 and segment[4:16] == b"ICC_PROFILE\0":
                essence.append(segment)
            continue
        essence.append(segment)
        plain.append(segment)
    if len(frames) != 1 or frames[0][1] not in USUAL_FRAMES:
        raise ValueError("the JPEG is of a rare kind: arithmetic, lossless, or in layers")
    if scans > MAX_SCANS:
        raise ValueError(f"the JPEG has {scans} scans; more than {MAX_SCANS} take too long")
    return Cut(essence, plain, scans, 0 if in_one_pass else _samples(frames[0]), exif)


def _check_jpeg(data: bytes, width: int, height: int) -> None:
    parts = _bounded(_jpeg_segments(data), MAX_SEGMENTS + len(data) // PART)
    coded = sum(end - start for kind, start, end in parts if kind == SCAN_DATA)
    if 8 * coded < -(-width // 8) * -(-height // 8):  # each block of 8x8 has a code, and that has at least one bit
        raise ValueError(f"the JPEG has {coded:,} bytes of pixels; too few for {width}x{height}")


def _short(segment: bytes) -> bytes:
    """JFIF and Adobe's colour transform, without what may follow: a thumbnail, or anything at all."""
    for name, length in (b"JFIF\0", 16), (b"Adobe", 14):
        if segment[4:9] == name and len(segment) >= length + 2:
            body = segment[4 : length + 2]
            return segment[:2] + length.to_bytes(2) + (body[:-2] + b"\0\0" if name == b"JFIF\0" else body)
    return b""


def _samples(frame: bytes) -> float:
    """Samples of all components for each pixel: 1.5 for a photo with halved colours, 3 for one without."""
    factors = [(frame[at] >> 4, frame[at] & 15) for at in range(11, min(len(frame), 10 + 3 * frame[9]), 3)]
    most = max((h for h, _ in factors), default=0) * max((v for _, v in factors), default=0)
    return sum(h * v for h, v in factors) / most if most else 4


# PNG (third edition, section 5)


def _png_chunks(data: bytes) -> Iterator[Part]:
    position = 8
    while position + 8 <= len(data):
        start, kind = position, data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4])
        yield Part(kind, start, position)
        if kind == b"IEND":
            return
    raise ValueError("the PNG is cut off, or its header too long")


def _cut_png(data: bytes) -> Cut:
    """The picture that every reader of PNG shows; the frames of an animation are in chunks of their own."""
    view = memoryview(data)
    essence: list[Bytes] = [PNG_START]
    plain: list[Bytes] = [PNG_START]
    cicp = exif = b""
    seen: set[int | bytes] = set()
    for kind, start, end in _bounded(_png_chunks(data)):
        chunk: Bytes = view[start:end] if kind != b"IEND" else bytes(4) + PNG_END
        length = end - start - 12
        if (kind != b"IDAT" and kind in seen) or PNG_LENGTHS.get(kind, length) != length:
            continue
        if kind == b"cICP":
            cicp = data[start + 8 : start + 12]
        elif kind in PNG_PIXELS or kind in PNG_LENGTHS:
            essence.append(chunk)
            plain.append(chunk)
        elif kind in PNG_DECODED:
            essence.append(chunk)
        elif kind == b"eXIf":
            exif = data[start + 8 : end - 4]
        elif kind in (b"zTXt", b"tEXt") and data.startswith(PNG_EXIF, start + 8):
            exif = exif or _exif_of_text(kind == b"zTXt", data[start + 8 + len(PNG_EXIF) : end - 4])
        else:
            continue
        seen.add(kind)
    if b"IDAT" not in seen:
        raise ValueError("the PNG has no pixels")
    return Cut(essence, plain, exif=exif, cicp=cicp)


def _check_png(data: bytes, width: int, height: int) -> None:
    """Checksums of what a decoder needs, the first row, and whether there can be as many rows as it says."""
    view, coded, row, inflate = memoryview(data), 0, b"", zlib.decompressobj()
    size = 1 + -(-width * PNG_CHANNELS.get(data[25], 1) * data[24] // 8)
    for kind, start, end in _bounded(_png_chunks(data), MAX_SEGMENTS + len(data) // PART):
        checksum = zlib.crc32(view[start + 4 : end - 4]) if PNG_CRITICAL.match(data, start + 4) else None
        if checksum not in (None, int.from_bytes(view[end - 4 : end])):
            raise ValueError("the PNG is damaged: a checksum is wrong")
        if kind == b"IDAT":
            coded += end - start - 12
            row += inflate.decompress(view[start + 8 : end - 4], size - len(row)) if len(row) < size else b""
    if len(row) < size or row[0] > 4 or coded * DEFLATE_MOST < size * height:
        raise ValueError(f"the PNG has too few pixels, or none, for {width}x{height}")


def _exif_of_text(is_packed: bool, text: bytes) -> bytes:
    """From ImageMagick's form: a name, a length, and the bytes as hexadecimal digits, each on lines of its own."""
    try:
        text = zlib.decompressobj().decompress(text[1:], 2 * MAX_EXIF) if is_packed else text[: 2 * MAX_EXIF]
        return bytes.fromhex(b"".join(text.split()[2:]).decode("ascii"))
    except (zlib.error, ValueError):
        return b""


# WebP (RFC 9649)


def _webp_chunks(data: bytes) -> Iterator[Part]:
    position, whole = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while position + 8 <= whole:
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        end = position + 8 + length + (length & 1)
        if end > len(data):
            raise ValueError("the WebP is cut off")
        yield Part(data[position : position + 4], position, end)
        position = end


def _cut_webp(data: bytes) -> Cut:
    """The first picture; of an animation, the first frame with all that places it."""
    view = memoryview(data)
    essence: list[Bytes] = []
    plain: list[Bytes] = []
    moves, exif = False, b""
    seen: set[int | bytes] = set()
    for kind, start, end in _bounded(_webp_chunks(data)):
        name = b"pixels" if kind in WEBP_PIXELS else kind
        if name in seen or (seen & {b"pixels", b"ANMF"} and kind not in (b"EXIF", b"ICCP")):
            continue
        chunk = view[start:end]
        seen.add(name)
        if kind == b"VP8X":
            if len(chunk) != 18:
                raise ValueError("the WebP is damaged")
            moves = bool(chunk[8] & WEBP_ANIMATION)
            essence += [chunk[:8], bytes([chunk[8] & ~(WEBP_EXIF | WEBP_XMP)]), chunk[9:]]
            plain += [chunk[:8], bytes([chunk[8] & ~(WEBP_ICC | WEBP_EXIF | WEBP_XMP)]), chunk[9:]]
        elif kind in (b"ALPH", *WEBP_PIXELS):
            essence.append(chunk)
            plain.append(chunk)
        elif kind in (b"ICCP", b"ANIM", b"ANMF"):
            essence.append(chunk)
        elif kind == b"EXIF":
            exif = bytes(chunk[8:])
    if not seen & {b"pixels", b"ANMF"}:
        raise ValueError("the WebP has no pixels")
    return Cut(_riff(essence), _riff(plain) if b"pixels" in seen and not moves else None, exif=exif)


def _check_webp(data: bytes, width: int, height: int) -> None:
    """Its decoder has seen to the rest, as it read the header."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ValueError("the WebP is cut off")
    collections.deque(_bounded(_webp_chunks(data)), maxlen=0)


def _riff(chunks: list[Bytes]) -> list[Bytes]:
    length = 4 + sum(map(len, chunks))
    return [b"RIFF", length.to_bytes(4, "little"), b"WEBP", *chunks]


CUTS: Final[dict[str, Callable[[bytes], Cut]]] = {"JPEG": _cut_jpeg, "PNG": _cut_png, "WEBP": _cut_webp}
CHECKS: Final[dict[str, Callable[[bytes, int, int], None]]] = {
    "JPEG": _check_jpeg,
    "PNG": _check_png,
    "WEBP": _check_webp,
}
