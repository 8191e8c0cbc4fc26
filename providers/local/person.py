"""Person photo -> outline, joints and labels of the body parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..errors import ImageUnusable
from .imaging import Floats, Mask, Picture, Point, largest, length, matte_of
from .nets import Nets, Pose
from .parsing import NOSE, parse

# Indices of BlazePose's landmarks. The person's right is the image's left.
SHOULDERS: Final = (12, 11)
ELBOWS: Final = (14, 13)
WRISTS: Final = (16, 15)
INDEX_FINGERS: Final = (20, 19)
HIPS: Final = (24, 23)
KNEES: Final = (26, 25)
ANKLES: Final = (28, 27)

NO_PERSON: Final = 0.5
"""Pose score. People had 0.61 to 1.00, a cat 0.48, other things less."""
NO_FACE: Final = 0.8
"""Visibility of the nose. People seen from the front had 0.99 and more, a red disc taken for a person 0.6."""
SIDEWAYS: Final = 0.42
"""Shoulder width over torso length; 0.62 to 0.91 is normal. A guess: there was no such photo to tune it on."""
CROPPED: Final = 0.98
"""The same; above it the photo ends above the hips, and these are a guess."""
SHARE_OF_CROP: Final = 0.55
"""Of the saliency net in the outline; the rest is the pose net's own outline."""

RETAKE: Final = "Use a photo of one person from head to feet, standing and facing the camera."

TURNED: Final = "The person seems turned to the side; a photo from the front works better."
FROM_BEHIND: Final = "The person seems to be seen from behind; a photo from the front works better."
HIDDEN_SHOULDERS: Final = "The person's shoulders are hard to see; a photo that shows both works better."
HIDDEN_HIPS: Final = "The person's hips are not in the photo; one that shows the whole body works better."


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of the person, in pixels of ``rgb``."""

    rgb: Picture
    alpha: Floats
    """``(H, W)`` float32, 0 to 1."""
    mask: Mask
    labels: Mask
    """``(H, W)`` uint8, of ``parsing.Part``."""
    joints: Floats
    """``(39, 2)`` float64, BlazePose's."""
    shoulder_width: float
    """Between the shoulder joints, pixels: the unit of nearly all lengths on the body."""
    torso_length: float
    """From the middle of the shoulders to that of the hips, pixels."""
    up: Point
    """Unit vector from the hips to the shoulders."""
    side: Point
    """Unit vector square to it."""
    chin: Point
    face: Mask
    skin: Floats
    """``(3,)`` float32, the face's Lab."""
    warnings: tuple[str, ...]


def analyse(nets: Nets, rgb: Picture) -> Person:
    """Find the person. Raise ``ImageUnusable`` where there is none."""
    pose = nets.pose(rgb, nets.saliency(rgb))
    if pose.score < NO_PERSON or pose.visibility[NOSE] < NO_FACE:
        raise ImageUnusable(f"Person photo: no person was found. {RETAKE}")
    mask = _outline(nets, rgb, pose)
    right_shoulder, left_shoulder = pose.joints[list(SHOULDERS)]
    right_hip, left_hip = pose.joints[list(HIPS)]
    shoulder_width = length(left_shoulder - right_shoulder)
    torso_length = length((left_shoulder + right_shoulder) / 2 - (left_hip + right_hip) / 2)
    parsed = parse(rgb, mask, pose.joints, shoulder_width)
    warnings = _warnings(pose, rgb.shape[0])
    if shoulder_width < SIDEWAYS * torso_length:
        warnings.insert(0, TURNED)
    if shoulder_width > CROPPED * torso_length and HIDDEN_HIPS not in warnings:
        warnings.append(HIDDEN_HIPS)
    return Person(
        rgb=rgb,
        alpha=matte_of(rgb, mask, radius=5, eps=2e-4, band=7),
        mask=mask,
        labels=parsed.labels,
        joints=pose.joints,
        shoulder_width=shoulder_width,
        torso_length=torso_length,
        up=parsed.up,
        side=parsed.side,
        chin=parsed.chin,
        face=parsed.face,
        skin=parsed.skin,
        warnings=tuple(warnings),
    )


def _outline(nets: Nets, rgb: Picture, pose: Pose) -> Mask:
    """The person's mask, from the saliency net run again on the person alone: four times the pixels."""
    height, width = pose.mask.shape
    ys, xs = np.where(pose.mask > 0.5)
    if len(xs) < 50:
        raise ImageUnusable(f"Person photo: the person's outline was not found. {RETAKE}")
    left, right, top, bottom = xs.min(), xs.max(), ys.min(), ys.max()
    beside, above = 0.18 * (right - left) + 8, 0.08 * (bottom - top) + 8
    window = (
        slice(int(max(0, top - above)), int(min(height, bottom + above))),
        slice(int(max(0, left - beside)), int(min(width, right + beside))),
    )
    saliency = np.zeros((height, width), np.float32)
    saliency[window] = nets.saliency(np.ascontiguousarray(rgb[window]))
    return largest(SHARE_OF_CROP * saliency + (1 - SHARE_OF_CROP) * pose.mask > 0.5)


def _warnings(pose: Pose, height: int) -> list[str]:
    shoulders, hips = list(SHOULDERS), list(HIPS)
    findings = [
        (pose.joints[SHOULDERS[0], 0] > pose.joints[SHOULDERS[1], 0], FROM_BEHIND),
        (pose.visibility[shoulders].min() < 0.5, HIDDEN_SHOULDERS),
        (pose.visibility[hips].max() < 0.5 or pose.joints[hips, 1].max() > height * 1.02, HIDDEN_HIPS),
    ]
    return [text for found, text in findings if found]
