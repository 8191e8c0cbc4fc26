"""Marks of a picture's origin: XMP as anybody reads it, and C2PA manifests as vendors embed them."""

from __future__ import annotations

import io
import struct
import xml.etree.ElementTree as ElementTree
import zlib
from typing import Final

from PIL import Image

RDF: Final = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
COMPOSITE: Final = {
    f"{RDF}about": "",
    "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType": (
        "http://cv.iptc.org/newscodes/digitalsourcetype/composite"
    ),
    "{http://ns.adobe.com/xap/1.0/}CreatorTool": "Sakura try-on",
}
"""What the offline provider's pictures say of themselves."""


def said(data: bytes) -> dict[str, str]:
    """The simple properties in a picture's XMP packet, by ``{namespace}name``."""
    with Image.open(io.BytesIO(data)) as image:
        packet = ElementTree.fromstring(image.info["xmp"])  # noqa: S314 - a picture of ours
    (description,) = packet.iter(f"{RDF}Description")
    return dict(description.attrib)


# C2PA (specification 2.2, appendix A.3, "Embedding manifests"): a manifest store is a JUMBF superbox (ISO 19566-5)

CLAIM: Final = b"\xa1\x6cclaim_generator\x6bAcme Vision"
"""CBOR."""


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _superbox(kind: bytes, label: bytes, *content: bytes) -> bytes:
    """A box that describes itself: type as UUID, "requestable and labelled", label."""
    uuid = kind + bytes.fromhex("00110010800000AA00389B71")
    return _box(b"jumb", _box(b"jumd", uuid, b"\x03", label, b"\0"), *content)


def manifest_store(*, padding: int = 0) -> bytes:
    """A store with one manifest, whose claim nobody signed. ``padding`` bytes make it as long as real ones are."""
    claim = _superbox(b"c2cl", b"c2pa.claim.v2", _box(b"cbor", CLAIM))
    thumbnail = _box(b"free", bytes(index * 7 % 256 for index in range(padding)))
    assertions = _superbox(b"c2as", b"c2pa.assertions", thumbnail)
    manifest = _superbox(b"c2ma", b"urn:c2pa:3fad1ead-8ed5-44d0-873b-ea5f58adea82", assertions, claim)
    return _superbox(b"c2pa", b"c2pa", manifest)


def with_manifest(picture: bytes, store: bytes) -> bytes:
    """A JPEG, PNG or WebP with the store in it, where the specification wants it."""
    if picture.startswith(b"\xff\xd8"):
        behind_jfif = 4 + int.from_bytes(picture[4:6])
        return picture[:behind_jfif] + _jpeg_segments(store) + picture[behind_jfif:]
    if picture.startswith(b"\x89PNG"):
        chunk = struct.pack(">I", len(store)) + b"caBX" + store + struct.pack(">I", zlib.crc32(b"caBX" + store))
        before_pixels = picture.index(b"IDAT") - 4
        return picture[:before_pixels] + chunk + picture[before_pixels:]
    return _webp(picture, store)


MOST: Final = 65_000
"""Bytes of the store in one segment; a segment has 65,533."""


def _jpeg_segments(store: bytes) -> bytes:
    """APP11: common identifier "JP", number of the box, number of its packet, and in each the box's header again."""
    header, rest = store[:8], store[8:]
    segments = b""
    for number, start in enumerate(range(0, len(rest), MOST), 1):
        body = b"JP" + struct.pack(">HI", 1, number) + header + rest[start : start + MOST]
        segments += b"\xff\xeb" + struct.pack(">H", 2 + len(body)) + body
    return segments


def _webp(picture: bytes, store: bytes) -> bytes:
    """Behind the pixels, in a file with an extended header (RFC 9649)."""
    with Image.open(io.BytesIO(picture)) as image:
        width, height = image.size
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
    extended += (height - 1).to_bytes(3, "little")
    pixels = picture[12:]
    chunk = b"C2PA" + struct.pack("<I", len(store)) + store + b"\0" * (len(store) % 2)
    body = b"WEBP" + extended + pixels + chunk
    return b"RIFF" + struct.pack("<I", len(body)) + body
