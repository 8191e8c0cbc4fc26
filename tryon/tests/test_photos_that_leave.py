"""What a vendor gets to see of a user's photo: the pixels, upright, and nothing that was written beside them."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from pytest_httpserver import HTTPServer

from providers.tests.vendor import Call
from providers.tests.vendors import Double
from providers.tests.vendors.sora import Sora

from .shop import Shop
from .test_every_provider import Use, each_double, use

__all__ = ["use"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("database"),
    pytest.mark.one_database,
]

SECRET: Final = "Kirschweg"
"""Where somebody lives."""
TURNED: Final = 6
"""Of EXIF's orientations: as a phone that is held upright stores a photo, to be turned by a quarter."""
COLORS: Final = {"person": ("#cd853f", "#ff0000"), "garment": ("#000080", "#00c000")}
"""Of each photo, and of its upper left quarter."""
HARMLESS: Final = {
    *("jfif", "jfif_version", "jfif_unit", "jfif_density"),
    *("loop", "background", "timestamp", "duration"),
}
"""What Pillow says of any JPEG, and of any WebP."""


def photo(role: str, file_format: str, *, is_turned: bool) -> bytes:
    """A portrait of 300x400 pixels, full of what a phone, an editor and a camera write down."""
    color, corner = COLORS[role]
    image = Image.new("RGB", (300, 400), color)
    image.paste(corner, (0, 0, 150, 200))
    if is_turned:
        image = image.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = TURNED if is_turned else 1
    exif[ExifTags.Base.Artist] = SECRET
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({
        ExifTags.GPS.GPSLatitudeRef: "N",
        ExifTags.GPS.GPSLatitude: (48.0, 8.0, 14.5),
        ExifTags.GPS.GPSAreaInformation: b"ASCII\0\0\0" + SECRET.encode(),
    })  # fmt: skip
    options: dict[str, Any] = {"exif": exif}
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{SECRET}</x:xmpmeta>'.encode()
    if file_format == "PNG":
        options["pnginfo"] = info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        info.add_text("Comment", SECRET)
        info.add_text("Location", SECRET, zip=True)
        info.add(b"prVt", SECRET.encode(), after_idat=True)
    else:
        options["xmp"] = xmp
    if file_format == "JPEG":
        options["comment"] = SECRET
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return _with_caption(out.getvalue()) if file_format == "JPEG" else out.getvalue()


def _with_caption(jpeg: bytes) -> bytes:
    """With an IPTC caption in APP13, as Photoshop writes it, and something behind the end of the picture."""
    text = SECRET.encode()
    caption = b"\x1c\x02\x78" + len(text).to_bytes(2) + text
    resource = (
        b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(caption).to_bytes(4) + caption + b"\0" * (len(caption) % 2)
    )
    return jpeg[:2] + b"\xff\xed" + (2 + len(resource)).to_bytes(2) + resource + jpeg[2:] + text


def pictures(call: Call) -> Iterator[bytes]:
    """The pictures in a request: files of a form, or base64 anywhere in JSON."""
    content_type = call.headers.get("content-type", "")
    if content_type.startswith("multipart/"):
        yield from (part.data for part in call.parts if part.filename)
    elif content_type.startswith("application/json"):
        yield from _in_base64(json.loads(call.body))


def _in_base64(content: Any) -> Iterator[bytes]:
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _in_base64(value)
    elif isinstance(content, str) and len(content) > 500:
        try:
            # Google's SDK writes the alphabet for URLs.
            text = content.rpartition(";base64,")[2].translate(str.maketrans("-_", "+/"))
            yield base64.b64decode(text, validate=True)
        except binascii.Error:
            return  # the prompt


def views(double: type[Double], sent: bytes) -> Iterator[Image.Image]:
    """The photos in a picture. Sora's vendor gets both on one sheet, the person above the garment."""
    image = Image.open(io.BytesIO(sent))
    image.load()
    if double is Sora:
        yield image.crop((4, 0, 68, 85))
        yield image.crop((20, 85, 52, 128))
    else:
        yield image


def role_of(image: Image.Image) -> str:
    """Whose photo this is; it fails unless that stands upright and has its colours."""
    assert image.height > image.width
    across, down = image.width // 4, image.height // 4
    quarters = [(x, y) for y in (down, 3 * down) for x in (across, 3 * across)]
    found = [image.convert("RGB").getpixel(at) for at in quarters]
    for role, (color, corner) in COLORS.items():
        expected = [_rgb(name) for name in (corner, color, color, color)]
        if all(_is_near(one, other) for one, other in zip(found, expected, strict=True)):
            return role
    raise AssertionError(f"neither photo, or not upright: {found}")


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))


def _is_near(one: Any, other: Any) -> bool:
    return all(abs(a - b) < 16 for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("is_turned", [True, False])
def test_the_uploaded_photos_hold_what_must_not_leave(file_format: str, is_turned: bool) -> None:
    """Or the test below would be true of anything."""
    data = photo("person", file_format, is_turned=is_turned)
    assert data.count(SECRET.encode()) >= 3
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == ((400, 300) if is_turned else (300, 400))
        gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        assert gps[ExifTags.GPS.GPSLatitude] == (48.0, 8.0, 14.5)
        assert SECRET.encode() in image.info["xmp"]


@each_double
@pytest.mark.parametrize(
    ("formats", "is_turned"),
    [(("JPEG", "PNG"), True), (("JPEG", "PNG"), False), (("WEBP", "JPEG"), True), (("WEBP", "WEBP"), False)],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else ("turned" if value else "upright"),
)
def test_a_vendor_gets_the_photos_upright_and_without_what_was_written_in_them(
    double: type[Double],
    formats: tuple[str, str],
    is_turned: bool,
    use: Use,
    shop: Shop,
    photos: HTTPServer,
) -> None:
    """Nor anything of their URLs. Looked for as bytes, in base64, and by Pillow, which reads what is compressed."""
    for role, field, file_format in zip(COLORS, ("user_image_url", "catalog_image_url"), formats, strict=True):
        path = f"/{SECRET}/{role}"
        data = photo(role, file_format, is_turned=is_turned)
        photos.expect_request(path).respond_with_data(data, content_type=f"image/{file_format.lower()}")
        shop.body[field] = photos.url_for(path)
    server = use(double())
    response = shop.post()
    assert response.status_code == 200, response.content

    seen: list[str] = []
    for call in server.calls:
        assert SECRET.encode() not in call.body
        assert SECRET not in f"{call.path} {call.headers}"
        for sent in pictures(call):
            assert SECRET.encode() not in sent
            with Image.open(io.BytesIO(sent)) as image:
                image.load()
                assert set(image.info) <= HARMLESS, "neither EXIF nor XMP, IPTC, texts or comments"
                assert not image.getexif()
            seen += [role_of(view) for view in views(double, sent)]
    assert set(seen) == set(COLORS)
    assert len(seen) == len(COLORS) * len([call for call in server.calls if list(pictures(call))])
