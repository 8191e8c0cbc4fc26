"""What AVIF and HEIC files say of themselves (ISO 14496-12, ISO 23008-12), before a decoder believes it.

Their decoders take the size of what they decode from deep inside the file, not from where its header claims it. Here
every place is read that may say one, and the largest counts. So does how often a decoder goes through the same: a
picture may be made of one tile a thousand times, or have a thousand frames of which it shows one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MAX_BOXES: Final = 8000
"""Boxes, items and units of one file. A phone's photo of 48 megapixels has about a thousand."""
CODED: Final = frozenset({b"hvc1", b"av01"})
ITEMS: Final = CODED | {b"grid", b"Exif", b"mime", b"uri ", b"tmap"}
"""Kinds of items: coded pictures, pictures made of tiles, metadata, and recipes for brighter screens."""
TWICE: Final = "the file says one thing twice, of which a decoder may believe the other"
HEVC_PARAMETERS: Final = 33
AV1_SEQUENCE_HEADER: Final = 1
AV1_FRAMES: Final = frozenset({3, 6})
"""A frame's header, with its tiles elsewhere or with them."""


@dataclass(slots=True)
class Stills:
    """What the parts of a file say of its pictures."""

    pixels: int = 0
    """Of the largest picture, coded or to be put together."""
    decoded: int = 0
    """That a decoder goes through to show the picture and its mask; it leaves thumbnails and the like alone."""
    deep: bool = False
    """Whether one has more than 8 bits a sample."""
    samples: float = 1
    """Samples a pixel, of the one that has most: 1 if grey, 1.5 with halved colours, 3 without, and 1 for a mask."""
    nclx: tuple[int, int] = (1, 13)
    """Numbers of primaries and transfer function (ITU-T H.273); those of sRGB if there are none."""
    parts: int = 0

    def count(self, parts: int = 1) -> None:
        self.parts += parts
        if self.parts > MAX_BOXES:
            raise ValueError(f"the image has more than {MAX_BOXES:,} parts")

    def see(self, width: int, height: int) -> int:
        self.pixels = max(self.pixels, width * height)
        return width * height


@dataclass(slots=True)
class _Items:
    """What the ``meta`` box says of its items."""

    kinds: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    """Where each item's bytes are: construction method, offset, length."""
    properties: list[_Property] = field(default_factory=list)
    owned: dict[int, list[int]] = field(default_factory=dict)
    """Numbers of each item's properties, the first of which is 1."""
    parts: dict[int, list[int]] = field(default_factory=dict)
    """Items of which an item is made."""
    laid: dict[int, int] = field(default_factory=dict)
    """How many tiles a picture of tiles lays."""
    coded: dict[int, int] = field(default_factory=dict)
    """Pixels of all frames that an item's own bytes say it has; 0 if its properties alone say it."""
    idat: bytes = b""
    primary: int = 0
    has_nclx: bool = False

    def properties_of(self, item: int) -> list[_Property]:
        return [self.properties[number - 1] for number in self.owned.get(item, []) if number]

    def pixels_said(self, item: int) -> int:
        """Of the item, by its properties; 0 if they say nothing."""
        return max((each.pixels for each in self.properties_of(item)), default=0)

    def is_mask(self, item: int) -> bool:
        return any(each.is_mask for each in self.properties_of(item))


@dataclass(slots=True)
class _Property:
    pixels: int = 0
    is_mask: bool = False


def look(data: bytes) -> Stills:
    """Read what all parts claim. ``ValueError`` if it is not a still picture of the usual kinds, or contradicts."""
    found, items = Stills(), _Items()
    try:
        for kind, body in _boxes(data, found):
            if kind == b"moov":
                raise ValueError("the file is a sequence of pictures")
            if kind == b"meta":
                if items.kinds:
                    raise ValueError(TWICE)
                _look_into_meta(body[4:], found, items)
        if unknown := set(items.kinds.values()) - ITEMS:
            raise ValueError(f"the picture is of a rare kind: {sorted(unknown)[0]!r}")
        if items.kinds.get(items.primary) not in CODED | {b"grid"}:
            raise ValueError("the file has no picture")
        _look_into_items(data, found, items)
        masks = [item for item in items.kinds if items.is_mask(item) and item != items.primary]
        found.decoded = sum(_decoded(item, found, items) for item in (items.primary, *masks))
        found.samples += bool(masks)
    except (IndexError, RecursionError) as error:
        raise ValueError("the image is cut off") from error
    return found


def _decoded(item: int, found: Stills, items: _Items) -> int:
    """Pixels that a decoder goes through to show the item."""
    if items.kinds.get(item) == b"grid":
        tiles = items.parts.get(item, [])
        if any(items.kinds.get(tile) not in CODED for tile in tiles):
            raise ValueError("the picture is of a rare kind: tiles of tiles")
        return items.laid.get(item, 0) * max((_decoded(tile, found, items) for tile in set(tiles)), default=0)
    if item not in items.coded:
        return 0
    return max(items.coded[item], items.pixels_said(item) or found.pixels)


def _boxes(data: bytes, found: Stills) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(data):
        found.count()
        length, kind, start = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8], 8
        if length == 1:
            length, start = int.from_bytes(data[position + 8 : position + 16]), 16
        elif length == 0:
            length = len(data) - position
        if length < start or position + length > len(data):
            raise ValueError("the image is cut off, or one of its parts is longer than the whole")
        if kind != b"mdat":
            yield kind, data[position + start : position + length]
        position += length


def _look_into_meta(body: bytes, found: Stills, items: _Items) -> None:
    for kind, box in _boxes(body, found):
        if kind == b"pitm":
            if items.primary:
                raise ValueError(TWICE)
            items.primary = int.from_bytes(box[4:8] if box[0] else box[4:6])
        elif kind == b"iinf":
            for _, entry in _boxes(box[8:] if box[0] else box[6:], found):
                wide = 4 if entry[0] == 3 else 2
                item = int.from_bytes(entry[4 : 4 + wide])
                if item in items.kinds:
                    raise ValueError(TWICE)
                items.kinds[item] = entry[6 + wide : 10 + wide]
        elif kind == b"iloc":
            _read_places(box, found, items)
        elif kind == b"iref":
            _read_parts(box, found, items)
        elif kind == b"idat":
            items.idat = box
        elif kind == b"iprp":
            for name, container in _boxes(box, found):
                if name == b"ipco":
                    _look_into_properties(container, found, items)
                elif name == b"ipma":
                    _read_owners(container, found, items)


def _read_parts(box: bytes, found: Stills, items: _Items) -> None:
    wide = 4 if box[0] else 2
    for kind, body in _boxes(box[4:], found):
        if kind == b"dimg":
            numbers = [int.from_bytes(body[at : at + wide]) for at in range(wide + 2, len(body), wide)]
            found.count(len(numbers))
            items.parts.setdefault(int.from_bytes(body[:wide]), []).extend(numbers)


def _read_owners(box: bytes, found: Stills, items: _Items) -> None:
    wide, size = 4 if box[0] else 2, 2 if box[3] & 1 else 1
    position = 8
    for _ in range(int.from_bytes(box[4:8])):
        item, count = int.from_bytes(box[position : position + wide]), box[position + wide]
        position += wide + 1
        found.count(1 + count)
        numbers = [int.from_bytes(box[at : at + size]) for at in range(position, position + size * count, size)]
        items.owned.setdefault(item, []).extend(number & (0x7F if size == 1 else 0x7FFF) for number in numbers)
        position += size * count


def _read_places(box: bytes, found: Stills, items: _Items) -> None:
    version, position = box[0], 6
    sizes = box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15 if version else 0

    def number(size: int) -> int:
        nonlocal position
        position += size
        if position > len(box):
            raise ValueError("the image is cut off")
        return int.from_bytes(box[position - size : position])

    wide = 4 if version == 2 else 2
    for _ in range(number(wide)):
        found.count()
        item, method = number(wide), number(2) & 15 if version else 0
        number(2)  # whether the bytes are in another file
        base = number(sizes[2])
        if item in items.places:
            raise ValueError(TWICE)
        places = items.places[item] = []
        for _ in range(number(2)):
            found.count()
            number(sizes[3])
            places.append((method, base + number(sizes[0]), number(sizes[1])))


def _look_into_properties(box: bytes, found: Stills, items: _Items) -> None:
    if items.properties:
        raise ValueError(TWICE)
    for kind, body in _boxes(box, found):
        items.properties.append(each := _Property())
        if kind == b"ispe":
            each.pixels = found.see(int.from_bytes(body[4:8]), int.from_bytes(body[8:12]))
        elif kind == b"hvcC":
            colours, bits = body[16] & 3, 8 + max(body[17] & 7, body[18] & 7)
            _note_samples(found, (1, 1.5, 2, 3)[colours], bits)
            if body[21] & 3 != 3:
                raise ValueError("the picture is of a rare kind: HEVC with short lengths")
            each.pixels = _look_into_hvcc(body, found)
        elif kind == b"av1C":
            flags = body[2]
            _note_samples(
                found,
                1 if flags & 0x10 else 3 if not flags & 8 else 2 if not flags & 4 else 1.5,
                10 if flags & 0x40 else 8,
            )
            each.pixels, _ = _look_into_av1(body[4:], found)
        elif kind == b"auxC" and (b":alpha" in body or b"auxid:1\0" in body):
            each.is_mask = True
        elif kind == b"colr" and body[:4] == b"nclx" and not items.has_nclx:
            found.nclx = int.from_bytes(body[4:6]), int.from_bytes(body[6:8])
            items.has_nclx = True


def _note_samples(found: Stills, samples: float, bits: int) -> None:
    found.samples = max(found.samples, samples)
    found.deep = found.deep or bits > 8


def _look_into_items(data: bytes, found: Stills, items: _Items) -> None:
    total = 0
    for item, kind in items.kinds.items():
        if kind not in CODED and kind != b"grid":
            continue
        parts = []
        for method, offset, length in items.places.get(item, []):
            if method not in (0, 1):
                raise ValueError("the picture is of a rare kind: items within items")
            source = items.idat if method else data
            length = length or len(source) - offset
            total += length
            if total > len(data):
                raise ValueError("the image's parts overlap")
            parts.append(source[offset : offset + length])
        body = b"".join(parts)
        if kind == b"grid":
            items.laid[item] = _look_into_grid(body, found)
        elif kind == b"hvc1":
            items.coded[item] = _look_into_hevc(body, found)  # of its pictures decoders take the first
        else:
            pixels, frames = _look_into_av1(body, found)
            items.coded[item] = frames * (max(pixels, items.pixels_said(item)) or found.pixels)


def _look_into_grid(body: bytes, found: Stills) -> int:
    """How many tiles it lays."""
    size = 4 if body[1] & 1 else 2
    found.see(int.from_bytes(body[4 : 4 + size]), int.from_bytes(body[4 + size : 4 + 2 * size]))
    return (body[2] + 1) * (body[3] + 1)


class _Bits:
    """Numbers of any width from a codec's header."""

    def __init__(self, data: bytes) -> None:
        self.number = int.from_bytes(data)
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        self.left -= count
        if self.left < 0:
            raise ValueError("the image is cut off")
        return (self.number >> self.left) & ((1 << count) - 1)

    def exponential(self) -> int:
        """Exp-Golomb code, as HEVC's ``ue(v)`` and AV1's ``uvlc()``."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("the image is damaged")
        return (1 << zeros) - 1 + self.take(zeros)


# HEVC (ITU-T H.265, section 7.3.2.2): the pixels of the largest picture that is announced


def _look_into_hvcc(body: bytes, found: Stills) -> int:
    position, pixels = 23, 0
    for _ in range(body[22]):
        units = int.from_bytes(body[position + 1 : position + 3])
        position += 3
        for _ in range(units):
            length = int.from_bytes(body[position : position + 2])
            pixels = max(pixels, _look_into_unit(body[position + 2 : position + 2 + length], found))
            position += 2 + length
    return pixels


def _look_into_hevc(body: bytes, found: Stills) -> int:
    position = pixels = 0
    while position + 4 < len(body):
        length = int.from_bytes(body[position : position + 4])
        pixels = max(pixels, _look_into_unit(body[position + 4 : position + 4 + length], found))
        position += 4 + length
    return pixels


def _look_into_unit(unit: bytes, found: Stills) -> int:
    found.count()
    if not unit or (unit[0] >> 1) & 63 != HEVC_PARAMETERS:
        return 0
    bits = _Bits(unit[:200].replace(b"\0\0\3", b"\0\0")[2:])
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)  # profile and level
    if layers:
        present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
        bits.take(2 * (8 - layers))
        for profile, level in present:
            bits.take(88 * profile + 8 * level)
    bits.exponential()
    colours = bits.exponential()
    if colours == 3:
        bits.take(1)
    width, height = bits.exponential(), bits.exponential()
    if bits.take(1):
        for _ in range(4):
            bits.exponential()
    if colours > 3:
        raise ValueError("the image is damaged")
    _note_samples(found, (1, 1.5, 2, 3)[colours], 8 + max(bits.exponential(), bits.exponential()))
    return found.see(width, height)


# AV1 (section 5.5)


def _look_into_av1(body: bytes, found: Stills) -> tuple[int, int]:
    """Pixels of the largest picture that is announced, and how many frames there are."""
    position = pixels = frames = 0
    while position < len(body):
        found.count()
        first = body[position]
        position += 2 if first & 4 else 1
        length = len(body) - position
        if first & 2:
            length = 0
            for shift in range(0, 56, 7):
                byte = body[position]
                position += 1
                length |= (byte & 127) << shift
                if not byte & 128:
                    break
        kind = (first >> 3) & 15
        if kind in AV1_FRAMES:
            frames += 1
        elif kind == AV1_SEQUENCE_HEADER:
            header = _Bits(body[position : position + min(length, 500)])
            pixels = max(pixels, _look_into_sequence_header(header, found))
        position += length
    return pixels, frames


def _look_into_sequence_header(bits: _Bits, found: Stills) -> int:
    bits.take(4)
    if bits.take(1):
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return found.see(bits.take(width_bits) + 1, bits.take(height_bits) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay = 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            bits.exponential()
        if bits.take(1):
            delay = bits.take(5) + 1
            bits.take(42)
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay and bits.take(1):
            bits.take(2 * delay + 1)
        if has_display_delay and bits.take(1):
            bits.take(4)
