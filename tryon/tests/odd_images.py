"""Odd and hostile images, made here, each with what should become of it."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, PngImagePlugin

from tryon import colours

SECRET = b"SECRET: 51.4778 N, 0.0015 W"
"""Where the photo was taken. Nobody else is to learn it."""

NOT_AN_IMAGE, TOO_LARGE, UNUSABLE = "not_an_image", "image_too_large", "image_unusable"
JPEG, PNG, WEBP = "image/jpeg", "image/png", "image/webp"


@dataclass(frozen=True)
class Accepted:
    """What comes out: its type, what it looks like, and whether every pixel is as it was."""

    content_type: str
    looks: Image.Image | None = None
    lossless: bool = False


Expected = str | Accepted
ODD: dict[str, Callable[[], tuple[bytes, Expected]]] = {}
"""By name; called when they are needed, as some take long to make."""


@functools.cache
def picture(width: int = 96, height: int = 128) -> Image.Image:
    """Colours that differ in all four corners, so that a turn or a flip shows."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.dstack([x * 255 // width, y * 255 // height, (x + y) // 4 % 128]).astype(np.uint8))


def encoded(image: Image.Image, file_format: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def heic(image: Image.Image, **options: Any) -> bytes:
    """As pillow-heif writes it, without its plugin, which would take every file of the kind from then on."""
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=90, **options)
    return out.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    """Of a JPEG."""
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def riff(kind: bytes, body: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extended(flags: int, width: int = 96, height: int = 128) -> bytes:
    """A WebP's extended header."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def box(kind: bytes, body: bytes) -> bytes:
    """Of an ISO file."""
    return (len(body) + 8).to_bytes(4) + kind + body


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))


def exif(orientation: Any = 1) -> bytes:
    """With the secret in it. Big-endian, two entries, and the text behind them."""
    kind, value = (3, struct.pack(">HH", orientation, 0)) if isinstance(orientation, int) else orientation
    entries = struct.pack(">HHI4s", 0x0112, kind, 1, value) + struct.pack(">HHII", 0x010F, 2, len(SECRET), 38)
    return b"Exif\0\0MM\0*\0\0\0\x08\0\2" + entries + b"\0\0\0\0" + SECRET


UNDO = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
"""How a camera stores what each orientation then turns upright, as Pillow's number of a transposition."""


def stored(orientation: int) -> Image.Image:
    if orientation == 1:
        return picture()
    return picture().transpose(Image.Transpose(UNDO[orientation]))


def odd(name: str, expected: Expected | None = None) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Put what makes an image into the table; it returns what is expected too, if that is not given here."""

    def decorate(make: Callable[[], Any]) -> Callable[[], Any]:
        assert name not in ODD
        ODD[name] = make if expected is None else lambda: (make(), expected)
        return make

    return decorate


def put(name: str, make: Callable[[], bytes], expected: Expected) -> None:
    odd(name, expected)(make)


def _same(content_type: str) -> Accepted:
    return Accepted(content_type, picture(), lossless=True)


# What is no image of ours

for _name, _data in {
    "nothing": b"",
    "one byte": b"\xff",
    "text": b"hello",
    "HTML": b"<!doctype html><img src=x>",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='100' height='100'/>",
    "SVG that opens files": b"<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
    "PDF": b"%PDF-1.7\n1 0 obj",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n",
    "PSD": b"8BPS\0\1" + bytes(100),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "JPEG 2000 stream": b"\xff\x4f\xff\x51" + bytes(100),
    "JPEG XL": b"\xff\x0a" + bytes(100),
    "JPEG XL in boxes": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "MP4": box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + bytes(100),
    "ICO": b"\0\0\1\0\1\0" + bytes(100),
    "WAV": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
    "ZIP": b"PK\3\4" + bytes(100),
    "ELF": b"\x7fELF" + bytes(100),
    "fits": b"SIMPLE  =                    T" + bytes(2880),
}.items():
    put(_name, functools.partial(bytes, _data), NOT_AN_IMAGE)
for _format in ("GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000", "ICO", "PCX"):
    put(f"{_format} of Pillow", functools.partial(encoded, picture(), _format), NOT_AN_IMAGE)
for _start, _code in {
    b"\xff\xd8\xff\xe0": NOT_AN_IMAGE,
    b"\x89PNG\r\n\x1a\n": NOT_AN_IMAGE,
    b"RIFF\xff\xff\0\0WEBPVP8 ": UNUSABLE,
    box(b"ftyp", b"avif\0\0\0\0mif1"): UNUSABLE,
}.items():
    put(f"noise after {_start[:12]!r}", lambda start=_start: start + Random(3).randbytes(3000), _code)  # type: ignore[misc] # noqa: S311
put("noise after HEIC's start", lambda: box(b"ftyp", b"heic\0\0\0\0mif1") + bytes(range(256)) * 9, UNUSABLE)

# Orientations

for _turn in range(1, 9):
    _upright = {
        "JPEG": Accepted(JPEG, picture(), lossless=_turn == 1),
        "PNG": Accepted(PNG, picture(), lossless=_turn == 1),
        "WEBP": Accepted(WEBP if _turn == 1 else PNG, picture(), lossless=_turn == 1),
        "AVIF": Accepted(JPEG, picture()),
    }
    for _format, _expected in _upright.items():
        put(
            f"{_format} of orientation {_turn}",
            lambda turn=_turn, file_format=_format: encoded(stored(turn), file_format, exif=exif(turn)),  # type: ignore[misc]
            _expected,
        )

    def _turned_heic(turn: int = _turn) -> bytes:
        image = stored(turn)
        file = pillow_heif.from_bytes("RGB", image.size, image.tobytes())
        file[0].info["exif"] = exif(turn)  # written as a turn of HEIC's own as well
        out = io.BytesIO()
        file.save(out, quality=90)
        return out.getvalue()

    put(f"HEIC of orientation {_turn}", _turned_heic, Accepted(JPEG, picture()))

for _name, _value in {
    "0": 0,
    "9": 9,
    "65535": 65535,
    "text": (2, b"6\0\0\0"),
    "a fraction": (5, struct.pack(">I", 4_000_000)),
    "bytes": (7, b"\6\6\6\6"),
    "of no kind": (99, b"\6\6\6\6"),
}.items():
    put(f"orientation {_name}", lambda value=_value: encoded(picture(), exif=exif(value)), _same(JPEG))  # type: ignore[misc]

# Metadata


def _jpeg(extra: bytes = b"", **options: Any) -> bytes:
    """A JPEG with segments behind its first marker."""
    data = encoded(picture(), **options)
    return data[:2] + extra + data[2:]


def _png(before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG with chunks before and after its pixels."""
    data = encoded(picture(), "PNG")
    return data[:33] + before + data[33:-12] + after + data[-12:]


XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + SECRET + b"</x:xmpmeta>"
for _name, _extra in {
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    "IPTC": segment(0xED, b"Photoshop 3.0\0008BIM\4\4\0\0\0\0" + SECRET),
    "comment": segment(0xFE, SECRET),
    "two EXIFs": segment(0xE1, exif()) * 2,
    "a JFIF with a thumbnail": segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\3\3" + SECRET),
    "a thumbnail of its own": segment(0xE0, b"JFXX\0\x10" + encoded(picture(16, 16)) + SECRET),
    "a long Adobe segment": segment(0xEE, b"Adobe\0\x64\0\0\0\0\1" + SECRET),
    "a pretended APP14": segment(0xEE, SECRET),
    "a definition of lines": segment(0xDC, SECRET),
    "reserved segments": segment(0xF0, SECRET) + segment(0x02, SECRET),
    "garbage before a segment": SECRET,
    "garbage between segments": segment(0xE1, exif()) + SECRET,
    "fill bytes": b"\xff" * 500,
    "a segment of no length": b"\xff\xfe\0\0",
    "a profile in no order": segment(0xE2, b"ICC_PROFILE\0\7\2" + SECRET),
    "a multi-picture index": segment(0xE2, b"MPF\0MM\0*\0\0\0\x08" + SECRET),
    "EXIF that loops": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08" + SECRET),
    "EXIF that counts far": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\1\x12\0\3\xff\xff\xff\xff" + SECRET),
    "EXIF cut off": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\1"),
    "EXIF of nothing": segment(0xE1, b"Exif\0\0"),
}.items():
    put(f"JPEG with {_name}", functools.partial(_jpeg, _extra), _same(JPEG))
for _name, _extra in {
    "tEXt": chunk(b"tEXt", b"Comment\0" + SECRET),
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(SECRET)),
    "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "eXIf": chunk(b"eXIf", exif()[6:]),
    "a time": chunk(b"tIME", b"\7\xea\1\1\1\1\1"),
    "a chunk of its own": chunk(b"seCr", SECRET),
    "a critical chunk of its own": chunk(b"SECR", SECRET),
    "text in gAMA": chunk(b"gAMA", struct.pack(">I", 45455) + SECRET),
    "text in cHRM": chunk(
        b"cHRM", struct.pack(">8I", *[31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000]) + SECRET
    ),
    "text in sRGB": chunk(b"sRGB", b"\0" + SECRET),
    "text in cICP": chunk(b"cICP", b"\x01\x0d\0\1" + SECRET),
    "text in a palette that it has no use for": chunk(b"PLTE", SECRET),
    "a broken checksum of text": chunk(b"tEXt", b"Comment\0" + SECRET)[:-4] + b"\0\0\0\0",
    "a text bomb": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000))),
    "a hundred text bombs": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1_000_000))) * 100,
}.items():
    put(f"PNG with {_name} before the pixels", functools.partial(_png, _extra), _same(PNG))
    put(f"PNG with {_name} behind the pixels", functools.partial(_png, b"", _extra), _same(PNG))


put("PNG with text in tRNS behind the pixels", lambda: _png(b"", chunk(b"tRNS", bytes(6) + SECRET)), _same(PNG))


@odd("PNG with EXIF in ImageMagick's text", Accepted(PNG, picture()))
def _exif_in_text() -> bytes:
    body = exif(6).hex().encode()
    text = b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n%8d\n" % (len(body) // 2) + body + b"\n")
    data = encoded(stored(6), "PNG")
    return data[:33] + chunk(b"zTXt", text) + data[33:]


for _name, _trailer in {
    "a ZIP": b"PK\3\4" + SECRET,
    "a web page": b"<script>alert(1)</script>" + SECRET,
    "an MP4": box(b"ftyp", b"isom") + box(b"mdat", SECRET),
    "another JPEG": encoded(picture(70, 70), comment=SECRET),
    "more ends": b"\xff\xd9\xff\xd9" + SECRET + b"\xff\xd9" + b"IEND\xaeB`\x82",
}.items():
    for _format, _type in {"JPEG": JPEG, "PNG": PNG, "WEBP": WEBP}.items():
        put(
            f"{_format} before {_name}",
            lambda file_format=_format, trailer=_trailer: encoded(picture(), file_format) + trailer,  # type: ignore[misc]
            _same(_type),
        )


@odd("WebP with EXIF, XMP and chunks of its own", _same(WEBP))
def _webp_chunks() -> bytes:
    pixels = encoded(picture(), "WEBP", lossless=True)[12:]
    own = [riff(kind, SECRET) for kind in (b"EXIF", b"XMP ", b"seCr", b"VP8L", b"ALPH")]
    return webp(extended(0x0C), riff(b"seCr", SECRET), pixels, *own)


@odd("WebP with pixels behind its own length", _same(WEBP))
def _webp_beyond() -> bytes:
    return encoded(picture(), "WEBP", lossless=True) + riff(b"VP8L", SECRET) + riff(b"EXIF", SECRET)


@odd("WebP of a chunk that is longer than the file", UNUSABLE)
def _webp_long_chunk() -> bytes:
    data = bytearray(encoded(picture(), "WEBP"))
    data[16:20] = struct.pack("<I", 10**6)
    data[4:8] = struct.pack("<I", 10**6)
    return bytes(data)


put("JPEG in pictures", lambda: encoded(picture(), "MPO", save_all=True, append_images=[picture()] * 50), _same(JPEG))
put("JPEG, progressive", lambda: encoded(picture(), progressive=True, exif=exif()), _same(JPEG))
put("JPEG with restart markers", lambda: encoded(picture(), restart_marker_blocks=2, exif=exif()), _same(JPEG))
put("JPEG, grey", lambda: encoded(picture().convert("L"), exif=exif()), Accepted(JPEG, picture().convert("L"), True))
put("PNG, grey", lambda: encoded(picture().convert("L"), "PNG"), Accepted(PNG, picture().convert("L"), True))
put("AVIF, lossless", lambda: encoded(picture(), "AVIF", quality=100), Accepted(JPEG, picture()))
put("AVIF with XMP", lambda: encoded(picture(), "AVIF", xmp=XMP, exif=exif()), Accepted(JPEG, picture()))

# Modes and colours

_P3 = colours.matrix_profile(colours.DISPLAY_P3, colours.SRGB_CURVE)
_ADOBE = colours.matrix_profile(colours.ADOBE_RGB, 2.2)
_RED = Image.new("RGB", (96, 128), (234, 51, 35))
_PURE = Image.new("RGB", (96, 128), (255, 0, 0))
"""What that red of Display P3 is in sRGB."""


def _halves(file_format: str) -> bytes:
    """The picture, and below it what cannot be seen."""
    image = picture().convert("RGBA")
    image.paste((10, 20, 30, 0), (0, 64, 96, 128))
    return encoded(image, file_format, **({"quality": 100} if file_format == "AVIF" else {"lossless": True}))


def _white_below() -> Image.Image:
    image = picture().copy()
    image.paste("white", (0, 64, 96, 128))
    return image


put("PNG with alpha", lambda: _halves("PNG"), Accepted(PNG, _white_below()))
put("WebP with alpha", lambda: _halves("WEBP"), Accepted(PNG, _white_below()))
put("AVIF with alpha", lambda: _halves("AVIF"), Accepted(JPEG, _white_below()))
put(
    "PNG, grey with alpha and a linear profile",
    lambda: encoded(Image.new("LA", (96, 128), (100, 255)), "PNG", icc_profile=_linear_grey()),
    Accepted(PNG, Image.new("RGB", (96, 128), (168, 168, 168))),
)
put("PNG, grey with alpha", lambda: encoded(picture().convert("LA"), "PNG"), Accepted(PNG, picture().convert("L")))
put("PNG with a palette", lambda: encoded(picture().quantize(256), "PNG"), Accepted(PNG, picture()))
put(
    "PNG with a palette and alpha",
    lambda: encoded(Image.new("P", (96, 128), 0), "PNG", transparency=bytes([0])),
    Accepted(PNG, Image.new("RGB", (96, 128), "white")),
)
put(
    "PNG with a colour that is transparent",
    lambda: encoded(_RED, "PNG", transparency=(234, 51, 35)),
    Accepted(PNG, Image.new("RGB", (96, 128), "white")),
)
put("PNG of two colours", lambda: encoded(picture().convert("1"), "PNG"), Accepted(PNG))
put(
    "PNG of 16 bits, grey",
    lambda: encoded(Image.fromarray(np.full((128, 96), 0x8080, np.uint16)), "PNG"),
    Accepted(PNG, Image.new("L", (96, 128), 0x80)),
)


@odd("PNG of 16 bits", Accepted(PNG, _RED))
def _sixteen_bits() -> bytes:
    row = b"\0" + struct.pack(">HHH", 234 * 257, 51 * 257, 35 * 257) * 96
    pixels = chunk(b"IDAT", zlib.compress(row * 128))
    return b"\x89PNG\r\n\x1a\n" + ihdr(96, 128, depth=16) + pixels + chunk(b"IEND", b"")


put("CMYK", lambda: encoded(picture().convert("CMYK"), quality=95), Accepted(JPEG, picture()))
put("CMYK with a profile for others", lambda: encoded(picture().convert("CMYK"), icc_profile=_P3), Accepted(JPEG))
for _format, _type in {"JPEG": JPEG, "PNG": PNG, "WEBP": PNG, "AVIF": JPEG}.items():
    put(
        f"{_format} in Display P3",
        lambda file_format=_format: encoded(_RED, file_format, icc_profile=_P3),  # type: ignore[misc]
        Accepted(_type, _PURE),
    )
put(
    "JPEG whose profile only calls itself sRGB",
    lambda: encoded(_RED, icc_profile=_named_srgb()),
    Accepted(JPEG, _PURE),
)


def _named_srgb() -> bytes:
    profile = _P3 + b"sRGB IEC61966-2.1"
    return len(profile).to_bytes(4) + profile[4:]


put(
    "JPEG in Adobe RGB",
    lambda: encoded(Image.new("RGB", (96, 128), (219, 0, 0)), icc_profile=_ADOBE),
    Accepted(JPEG, _PURE),
)
put("JPEG in sRGB", lambda: encoded(picture(), icc_profile=_srgb()), _same(JPEG))
put(
    "JPEG in sRGB of another maker",
    lambda: encoded(picture(), icc_profile=colours.matrix_profile(colours.BT709, 0)),
    _same(JPEG),
)
put("JPEG with a broken profile", lambda: encoded(picture(), icc_profile=SECRET), _same(JPEG))
put("JPEG with a huge profile", lambda: encoded(picture(), icc_profile=_srgb() + bytes(3_000_000)), _same(JPEG))
put(
    "PNG with a profile that is a bomb",
    lambda: _png(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(50_000_000)))),
    NOT_AN_IMAGE,
)
put(
    "JPEG, grey with a profile for colours",
    lambda: encoded(picture().convert("L"), icc_profile=_P3),
    Accepted(JPEG, picture().convert("L"), True),
)
put(
    "JPEG in Lab's profile",
    lambda: encoded(picture(), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()),
    _same(JPEG),
)


def _linear_grey() -> bytes:
    """An ICC profile of one curve that bends nothing."""
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50, in 65536ths
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, 256) + bytes(2)
    parts = {
        b"wtpt": b"XYZ " + bytes(4) + white,
        b"kTRC": curve,
        b"desc": b"desc" + bytes(4) + b"\0\0\0\1" + bytes(80),
    }
    start, table, body = 128 + 4 + 12 * len(parts), len(parts).to_bytes(4), b""
    for name, part in parts.items():
        table += name + struct.pack(">II", start + len(body), len(part))
        body += part
    head = b"\2\x10\0\0mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white
    profile = bytes(8) + head.ljust(120, b"\0") + table + body
    return len(profile).to_bytes(4) + profile[4:]


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _red(extra: bytes) -> bytes:
    data = encoded(_RED, "PNG")
    return data[:33] + extra + data[33:]


put("PNG of Display P3 by number", lambda: _red(chunk(b"cICP", b"\x0c\x0d\0\1")), Accepted(PNG, _PURE))
put("PNG of HDR by number", lambda: _red(chunk(b"cICP", b"\x09\x10\0\1")), UNUSABLE)
put("PNG of sRGB's gamma", lambda: _red(chunk(b"gAMA", struct.pack(">I", 45455))), Accepted(PNG, _RED, lossless=True))
put(
    "PNG of linear light",
    lambda: _red(chunk(b"gAMA", struct.pack(">I", 100_000))),
    Accepted(PNG, Image.new("RGB", (96, 128), (246, 124, 104))),
)
put(
    "PNG of Display P3 by chromaticity",
    lambda: _red(chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))),
    Accepted(PNG, _PURE),
)
put("PNG of a gamma of nothing", lambda: _red(chunk(b"gAMA", bytes(4))), Accepted(PNG, _RED, lossless=True))

# Animations

_FRAMES: dict[str, Any] = {"save_all": True, "append_images": [picture().rotate(180)] * 3, "lossless": True}
put("PNG that moves", lambda: encoded(picture(), "PNG", **_FRAMES), _same(PNG))
put("WebP that moves", lambda: encoded(picture(), "WEBP", **_FRAMES), Accepted(PNG, picture()))
put(
    "AVIF that moves",
    lambda: encoded(picture(), "AVIF", save_all=True, append_images=[picture().rotate(180)]),
    UNUSABLE,
)


@odd("WebP of thousands of frames", UNUSABLE)
def _many_frames() -> bytes:
    frame = bytes(6) + (95).to_bytes(3, "little") + (127).to_bytes(3, "little") + bytes(4)
    pixels = encoded(Image.new("RGB", (96, 128)), "WEBP", lossless=True)[12:]
    return webp(extended(2), riff(b"ANIM", bytes(6)), *[riff(b"ANMF", frame + pixels)] * 20_000)


# Sizes and bombs


put("JPEG that is too small", lambda: encoded(picture(63, 500)), UNUSABLE)
put("PNG of one pixel", lambda: encoded(picture(1, 1), "PNG"), UNUSABLE)
put("AVIF that is too small", lambda: encoded(picture(40, 40), "AVIF"), UNUSABLE)
put("HEIC that is too small", lambda: heic(picture(32, 500)), UNUSABLE)
put("JPEG of the shortest side", lambda: encoded(picture(64, 64)), Accepted(JPEG, picture(64, 64), lossless=True))
put(
    "PNG that is long",
    lambda: encoded(picture(5000, 100), "PNG"),
    Accepted(PNG, picture(5000, 100).resize((4096, 82))),
)
put("JPEG that is long", lambda: encoded(picture(64, 9000)), UNUSABLE)


def _jpeg_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A JPEG whose frame says that it has this size."""
    changed = bytearray(data or encoded(picture()))
    frame = max(changed.find(b"\xff\xc0"), changed.find(b"\xff\xc2"))
    changed[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(changed)


def _full_colours() -> bytes:
    return encoded(picture(), progressive=True, subsampling=0)


def _png_of(width: int, height: int, **options: int) -> bytes:
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000)))
    return b"\x89PNG\r\n\x1a\n" + ihdr(width, height, **options) + pixels + chunk(b"IEND", b"")


def _webp_of(width: int, height: int) -> bytes:
    data = bytearray(encoded(picture(), "WEBP"))
    data[26:30] = struct.pack("<HH", width, height)
    return bytes(data)


put("JPEG of 65500x65500", lambda: _jpeg_of(65500, 65500), TOO_LARGE)
put("JPEG of 7000x7000 with little in it", lambda: _jpeg_of(7000, 7000), Accepted(JPEG))
put("JPEG of 5000x4000 with little in it", lambda: _jpeg_of(5000, 4000), Accepted(JPEG))
put("JPEG, progressive, of 7000x7000", lambda: _jpeg_of(7000, 7000, _full_colours()), TOO_LARGE)
put("JPEG of no height", lambda: _jpeg_of(96, 0), NOT_AN_IMAGE)
put("PNG of 60000x60000", lambda: _png_of(60000, 60000), TOO_LARGE)
put("PNG of 2**31 pixels a side", lambda: _png_of(2**31 - 1, 2**31 - 1), TOO_LARGE)
put("PNG of 7000x7000", lambda: _png_of(7000, 7000), TOO_LARGE)
put("PNG with alpha, of 6500x6500", lambda: _png_of(6500, 6500, colour=6), TOO_LARGE)
put("PNG of 5000x4000 with few pixels in it", lambda: _png_of(5000, 4000), UNUSABLE)
put("PNG of no width", lambda: _png_of(0, 100), NOT_AN_IMAGE)
put("PNG, interlaced", lambda: _interlaced(), _same(PNG))
put("WebP of 16383x16383", lambda: _webp_of(16383, 16383), TOO_LARGE)
put("WebP with alpha, of 5000x4000", lambda: encoded(Image.new("RGBA", (5000, 4000)), "WEBP", method=0), TOO_LARGE)


def jpeg_of_one_colour(width: int, height: int, scans: int = 1) -> bytes:
    """Of three colours, as its frame says; each of its scans, baseline if there is one, has the first of them only."""
    blocks = -(-width // 8) * -(-height // 8)
    colours = b"\1\x11\0\2\x11\0\3\x11\0"
    frame = segment(0xC0 if scans == 1 else 0xC2, struct.pack(">BHHB", 8, height, width, 3) + colours)
    nothing = bytes(1), b"\x10", bytes([1] + [0] * 15) + b"\0"  # a code of one bit: no difference, or the block's end
    tables = segment(0xC4, nothing[0] + nothing[2]) + segment(0xC4, nothing[1] + nothing[2])
    last = b"\x3f\0" if scans == 1 else b"\0\0"  # of the coefficients
    scan = segment(0xDA, b"\1\1\0\0" + last) + bytes(blocks * 2 // 8 + 1)
    return b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + frame + tables + scan * scans + b"\xff\xd9"


put("JPEG of 8064x6304 that has one colour of three", lambda: jpeg_of_one_colour(8064, 6304), TOO_LARGE)
put("JPEG of 13 megapixels in 40 scans", lambda: jpeg_of_one_colour(4000, 3250, 40), TOO_LARGE)
put("JPEG of 13 megapixels in 30 scans", lambda: jpeg_of_one_colour(4000, 3250, 30), Accepted(JPEG))


def _interlaced() -> bytes:
    """Adam7, of the picture's pixels, unfiltered."""
    pixels, rows = np.asarray(picture()), []
    for top, left, down, right in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        rows += [b"\0" + row.tobytes() for row in pixels[top::down, left::right]]
    body = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + ihdr(96, 128, interlace=1) + body + chunk(b"IEND", b"")


@odd("JPEG of a thousand scans", UNUSABLE)
def _many_scans() -> bytes:
    data = encoded(picture(), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 1000 + b"\xff\xd9"


@odd("JPEG of arithmetic code", UNUSABLE)
def _arithmetic() -> bytes:
    return encoded(picture()).replace(b"\xff\xc0", b"\xff\xc9", 1)


@odd("JPEG of no loss", UNUSABLE)
def _lossless() -> bytes:
    return encoded(picture()).replace(b"\xff\xc0", b"\xff\xc3", 1)


@odd("JPEG of two frames", UNUSABLE)
def _two_frames() -> bytes:
    data = encoded(picture())
    frame = data.index(b"\xff\xc0")
    return data[:frame] + data[frame : frame + 19] + data[frame:]


@odd("JPEG in a JPEG", NOT_AN_IMAGE)
def _nested() -> bytes:
    return b"\xff\xd8" + encoded(picture())


# Damage

for _format in ("JPEG", "PNG", "WEBP", "AVIF"):
    put(f"{_format}, first half", lambda file_format=_format: _half(encoded(picture(400, 400), file_format)), UNUSABLE)  # type: ignore[misc]
put("HEIC, first half", lambda: _half(heic(picture(400, 400))), UNUSABLE)
put("PNG without pixels", lambda: b"\x89PNG\r\n\x1a\n" + ihdr(96, 128) + chunk(b"IEND", b""), UNUSABLE)
put("PNG without a header", lambda: b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"") + chunk(b"IEND", b""), NOT_AN_IMAGE)
put("PNG of a chunk that is longer than the file", lambda: _png(b"\x7f\xff\xff\xfftEXt"), NOT_AN_IMAGE)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


# What is inside the files of phones


def patched(data: bytes, kind: bytes, at: int, new: bytes) -> bytes:
    """With other bytes in its first box of this kind."""
    start = data.index(kind) + 4 + at
    return data[:start] + new + data[start + len(new) :]


put("HEIC", lambda: heic(picture()), Accepted(JPEG, picture()))
put("HEIC of tiles", lambda: heic(picture(700, 900), tile_size=256), Accepted(JPEG, picture(700, 900)))
put("HEIC with alpha", lambda: heic(picture().convert("RGBA")), Accepted(JPEG, picture()))
put("HEIC, grey", lambda: heic(picture().convert("L")), Accepted(JPEG, picture().convert("L")))
put(
    "HEIC that says it is huge",
    lambda: patched(heic(picture()), b"ispe", 4, struct.pack(">II", 30000, 30000)),
    TOO_LARGE,
)
put(
    "HEIC that says it is large",
    lambda: patched(heic(picture()), b"ispe", 4, struct.pack(">II", 6500, 6500)),
    TOO_LARGE,
)
put(
    "AVIF that says it is huge",
    lambda: patched(encoded(picture(), "AVIF"), b"ispe", 4, struct.pack(">II", 30000, 30000)),
    TOO_LARGE,
)


def _of_many_frames() -> bytes:
    """An AVIF's picture, 60 times in one item: a decoder goes through all of them."""
    data = encoded(Image.new("RGB", (2000, 2000), "tan"), "AVIF")
    start = data.index(b"mdat") + 4
    head, payload = data[:start], data[start:]
    head = head[: start - 8] + (8 + 60 * len(payload)).to_bytes(4) + b"mdat"
    at = head.index(len(payload).to_bytes(4), head.index(b"iloc"))
    return head[:at] + (60 * len(payload)).to_bytes(4) + head[at + 4 :] + 60 * payload


def _parts(data: bytes) -> dict[bytes, bytes]:
    """The boxes of a file or of a box, by their kinds."""
    found = {}
    while data:
        length = int.from_bytes(data[:4])
        found[data[4:8]], data = data[8:length], data[length:]
    return found


def _single(image: Image.Image) -> tuple[bytes, bytes]:
    """The decoder's parameters and the bytes of a picture, as a HEIC's item has them."""
    file = _parts(heic(image))
    properties = _parts(_parts(_parts(file[b"meta"][4:])[b"iprp"])[b"ipco"])
    return box(b"hvcC", properties[b"hvcC"]), file[b"mdat"]


def _of_tiles(columns: int, rows: int, gain_map: int, twice: bytes = b"") -> bytes:
    """A HEIC as an iPhone makes it: one tile, laid again and again, and beside it a square gain map.

    With the box ``twice`` of its description two times.
    """

    def full(kind: bytes, version: int, body: bytes) -> bytes:
        return box(kind, bytes([version, 0, 0, 0]) + body)

    def size(width: int, height: int) -> bytes:
        return full(b"ispe", 0, struct.pack(">II", width, height))

    def meta(at: int) -> bytes:
        kinds = (b"hvc1", b"grid", b"hvc1")
        infos = [full(b"infe", 2, struct.pack(">HH4sx", number, 0, kind)) for number, kind in enumerate(kinds, 1)]
        parts = box(b"dimg", struct.pack(">HH", 2, columns * rows) + b"\0\1" * columns * rows)
        map_of = box(b"auxl", struct.pack(">HHH", 3, 1, 2))
        urn = full(b"auxC", 0, b"urn:com:apple:photo:2020:aux:hdrgainmap\0")
        properties = (
            tile[0],
            size(256, 256),
            size(256 * columns, 256 * rows),
            second[0],
            size(gain_map, gain_map),
            urn,
        )
        owned = b"\0\1\2\x81\2\0\2\1\3\0\3\3\x84\5\6"
        places = b""
        for number, body in enumerate(bodies, 1):
            places += struct.pack(">HHHII", number, 0, 1, at, len(body))
            at += len(body)
        described = (
            full(b"hdlr", 0, bytes(4) + b"pict" + bytes(13)),
            full(b"pitm", 0, b"\0\2"),
            full(b"iinf", 0, b"\0\3" + b"".join(infos)),
            full(b"iref", 0, parts + map_of),
            box(b"iprp", box(b"ipco", b"".join(properties)) + full(b"ipma", 0, struct.pack(">I", 3) + owned)),
            full(b"iloc", 0, b"\x44\0\0\3" + places),
        )
        return full(b"meta", 0, b"".join(each * (2 if each[4:8] == twice else 1) for each in described))

    tile = _single(Image.new("RGB", (256, 256), "tan"))
    second = _single(Image.new("RGB", (gain_map, gain_map), "white"))
    grid = bytes([0, 1, rows - 1, columns - 1]) + struct.pack(">II", 256 * columns, 256 * rows)
    bodies = (tile[1], grid, second[1])
    start = box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    return start + meta(len(start) + len(meta(0)) + 8) + box(b"mdat", b"".join(bodies))


put("HEIC of many tiles", lambda: _of_tiles(60, 60, 256), TOO_LARGE)
put(
    "HEIC of tiles with a gain map that is larger than each",
    lambda: _of_tiles(3, 3, 4096),
    Accepted(JPEG, Image.new("RGB", (768, 768), "tan")),
)
for _kind in ("pitm", "iinf", "iprp", "iloc"):
    put(f"HEIC that says its {_kind} twice", functools.partial(_of_tiles, 3, 3, 256, _kind.encode()), UNUSABLE)
put("AVIF of many frames", _of_many_frames, TOO_LARGE)
put("HEIC of an item that is elsewhere", lambda: patched(heic(picture()), b"infe", 8, b"iovl"), UNUSABLE)
put(
    "AVIF of a box that is longer than the file",
    lambda: patched(encoded(picture(), "AVIF"), b"ftyp", -8, b"\x7f"),
    UNUSABLE,
)
put("AVIF in HDR", lambda: patched(encoded(picture(), "AVIF"), b"nclx", 0, b"\0\x09\0\x10"), UNUSABLE)
put("HEIC of a sequence", lambda: heic(picture()) + box(b"moov", b""), UNUSABLE)


@odd("text of Pillow's", _same(PNG))
def _pillows_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", SECRET.decode(), zip=True)
    return encoded(picture(), "PNG", pnginfo=info)
