"""From whatever colour space a photo is in to sRGB."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageCms

MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""Of a colour profile; those of printing presses have up to 3 MB. A larger one is ignored."""

PROBES: Final = [
    *((level, level, level) for level in range(0, 256, 51)),
    *((255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 0, 255), (255, 255, 0)),
    *((128, 64, 32), (32, 128, 64), (64, 32, 128), (224, 172, 145), (90, 60, 40)),
]
"""Colours by which a profile is judged: greys, the corners of the cube, muted ones, and skin."""
TOLERANCE: Final = 4
"""Of 255, by which sRGB profiles of different makers differ: rounded numbers, simpler curves, a lifted black."""

Primaries = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]

BT709: Final[Primaries] = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)
BT2020: Final[Primaries] = (0.67348, 0.27904, -0.00194), (0.16566, 0.67535, 0.02998), (0.12505, 0.04561, 0.79686)
DISPLAY_P3: Final[Primaries] = (0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)
ADOBE_RGB: Final[Primaries] = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)
"""XYZ of red, green and blue under D50, as profiles have them."""

BY_NUMBER: Final = {1: BT709, 2: BT709, 9: BT2020, 11: DISPLAY_P3, 12: DISPLAY_P3}
"""Primaries by their number in ITU-T H.273. All others are those of old television, which hardly differ."""
BY_CHROMATICITY: Final = {
    (0.640, 0.330, 0.210, 0.710, 0.150, 0.060): ADOBE_RGB,
    (0.680, 0.320, 0.265, 0.690, 0.150, 0.060): DISPLAY_P3,
    (0.708, 0.292, 0.170, 0.797, 0.131, 0.046): BT2020,
}
GAMMAS: Final = {4: 2.2, 5: 2.8, 8: 1.0}
"""Transfer functions by their number in ITU-T H.273. All others but HDR's are taken for sRGB's, as browsers do."""
HDR: Final = frozenset({16, 18})
SRGB_CURVE: Final = 0.0
"""Stands for sRGB's own transfer function among gammas."""
SRGB_GAMMA: Final = 1 / 2.2

_verdicts: dict[bytes, bool] = {}
"""Whether the profile of this hash is sRGB."""
MAX_VERDICTS: Final = 500


def by_numbers(primaries: int, transfer: int) -> bytes | None:
    """The profile that these numbers of ITU-T H.273 stand for; None for sRGB's, ``ValueError`` for HDR's."""
    if transfer in HDR:
        raise ValueError("the image is in HDR (PQ or HLG)")
    space, gamma = BY_NUMBER.get(primaries, BT709), GAMMAS.get(transfer, SRGB_CURVE)
    return None if (space, gamma) == (BT709, SRGB_CURVE) else matrix_profile(space, gamma)


def by_chromaticity(gamma: float, chromaticity: Sequence[float]) -> bytes | None:
    """The profile that a PNG's gAMA (0 if it has none) and cHRM stand for; None for what is near sRGB or unknown."""
    space = BT709
    if len(chromaticity) == 8:
        for known, primaries in BY_CHROMATICITY.items():
            if all(abs(a - b) < 0.005 for a, b in zip(known, chromaticity[2:], strict=True)):
                space = primaries
    odd = bool(gamma) and abs(gamma / SRGB_GAMMA - 1) > 0.05 and 0.1 <= gamma <= 2
    if space is BT709 and not odd:
        return None
    return matrix_profile(space, 1 / gamma if odd or (gamma and space is not BT709) else SRGB_CURVE)


def matrix_profile(primaries: Primaries, gamma: float) -> bytes:
    """A colour profile (ICC.1, version 4) of three primaries under D50 and one curve."""
    if gamma == SRGB_CURVE:
        curve = b"para" + bytes(4) + b"\0\3\0\0" + _fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    else:
        curve = b"para" + bytes(8) + _fixed(gamma)
    white = 0.9642, 1.0, 0.8249
    tags = {
        name: b"XYZ " + bytes(4) + _fixed(*xyz)
        for name, xyz in zip((b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ"), (white, *primaries), strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    offset = 128 + 4 + 12 * len(tags)
    table, body = len(tags).to_bytes(4), b""
    for name, content in tags.items():
        table += name + (offset + len(body)).to_bytes(4) + len(content).to_bytes(4)
        body += content
    header = bytes(8) + b"\4\x20\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28) + _fixed(*white)
    header = header.ljust(128, b"\0")
    return (len(header) + len(table) + len(body)).to_bytes(4) + header[4:] + table + body


def _fixed(*numbers: float) -> bytes:
    return b"".join(round(number * 65536).to_bytes(4, signed=True) for number in numbers)


def is_srgb(profile: bytes, mode: str) -> bool:
    """Whether a picture of this mode looks the same without its profile: it is sRGB, or is none that can be used.

    Judged by what the profile does. Its name proves nothing.
    """
    key = hashlib.sha256(mode.encode() + profile).digest()
    if key not in _verdicts:
        if len(_verdicts) >= MAX_VERDICTS:
            _verdicts.clear()
        _verdicts[key] = _changes_nothing(profile, mode)
    return _verdicts[key]


def _changes_nothing(profile: bytes, mode: str) -> bool:
    transform = to_srgb(profile, mode)
    if transform is None:
        return True
    if mode == "CMYK":
        return False
    probes = Image.new("RGB", (len(PROBES), 1))
    probes.putdata(PROBES)
    if mode == "L":
        probes = probes.convert("L")
    before = probes.convert("RGB").tobytes()
    after = ImageCms.applyTransform(probes, transform)
    return after is not None and all(abs(a - b) <= TOLERANCE for a, b in zip(before, after.tobytes(), strict=True))


def to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns pixels of this mode into sRGB; None if the profile is damaged, or is for others, as browsers do."""
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
