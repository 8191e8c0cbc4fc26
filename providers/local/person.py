"""Person photo -> outline, joints and labels of the body parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ..errors import ImageUnusable
from .figure import NOSE
from .imaging import Floats, Mask, Picture, Point, largest, length
from .nets import Nets, Pose
from .parsing import parse

# Indices of BlazePose's landmarks. The person's right is the image's left.
SHOULDERS: Final = (12, 11)
ELBOWS: Final = (14, 13)
WRISTS: Final = (16, 15)
INDEX_FINGERS: Final = (20, 19)
HIPS: Final = (24, 23)
KNEES: Final = (26, 25)
ANKLES: Final = (28, 27)
TOES: Final = (32, 31)

NO_PERSON: Final = 0.5
"""Pose score. People had 0.61 to 1.00, a cat 0.48, other things less."""
GOOD_POSE: Final = 0.9
"""Pose score from which the person is found without asking the saliency net."""
NO_FACE: Final = 0.8
"""Visibility of the nose. People seen from the front had 0.99 and more, a red disc taken for a person 0.6."""
ROOM: Final = 0.6
"""Of the person's own width: in less room nobody else is looked for."""
SMALLER: Final = 0.5
"""Of the person's shoulders: smaller people are passers-by."""
BELOW_HIPS: Final = 0.15
"""Shoulder widths of the photo below the hip joints, with which the hips are seen."""
SHARE_OF_CROP: Final = 0.55
"""Of the saliency net in the outline; the rest is the pose net's own outline."""

RETAKE: Final = "Use a photo of one person from head to feet, standing upright and facing the camera."


@dataclass(frozen=True, slots=True)
class Person:
    """What is known of the person, in pixels of ``rgb``."""

    rgb: Picture
    labels: Mask
    """``(H, W)`` uint8, of ``figure.Part``."""
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
    score: float
    """Of the pose net, 0 to 1."""
    from_behind: bool
    hips_seen: bool
    alone: bool
    """Whether nobody else of about the same size stands beside."""


def analyse(nets: Nets, rgb: Picture) -> Person:
    """Find the person. Raise ``ImageUnusable`` where there is none."""
    pose = nets.pose(rgb, np.zeros(rgb.shape[:2], np.float32))
    if pose.score < GOOD_POSE:  # small in the photo, or to one side: look where something stands out
        pose = max(pose, nets.pose(rgb, nets.saliency(rgb)), key=lambda found: found.score)
    if pose.score < NO_PERSON or pose.visibility[NOSE] < NO_FACE:
        raise ImageUnusable(f"Person photo: no person was found. {RETAKE}")
    mask = _outline(nets, rgb, pose)
    right_shoulder, left_shoulder = pose.joints[list(SHOULDERS)]
    right_hip, left_hip = pose.joints[list(HIPS)]
    shoulder_width = length(left_shoulder - right_shoulder)
    torso_length = length((left_shoulder + right_shoulder) / 2 - (left_hip + right_hip) / 2)
    parsed = parse(rgb, mask, pose.joints, shoulder_width)
    hips = list(HIPS)
    columns = np.flatnonzero(mask.any(0))
    return Person(
        rgb=rgb,
        labels=parsed.labels,
        joints=pose.joints,
        shoulder_width=shoulder_width,
        torso_length=torso_length,
        up=parsed.up,
        side=parsed.side,
        chin=parsed.chin,
        face=parsed.face,
        skin=parsed.skin,
        score=pose.score,
        from_behind=bool(pose.joints[SHOULDERS[0], 0] > pose.joints[SHOULDERS[1], 0]),
        hips_seen=bool(
            pose.visibility[hips].max() >= 0.5
            and pose.joints[hips, 1].max() + BELOW_HIPS * shoulder_width <= rgb.shape[0]
        ),
        alone=not any(
            _has_person(nets, beside, shoulder_width)
            for beside in (rgb[:, : columns[0]], rgb[:, columns[-1] + 1 :])
            if beside.shape[1] > ROOM * (columns[-1] - columns[0])
        ),
    )


def _has_person(nets: Nets, rgb: Picture, shoulder_width: float) -> bool:
    """Whether somebody of about this size is seen."""
    pose = nets.pose(np.ascontiguousarray(rgb), np.zeros(rgb.shape[:2], np.float32), passes=1)
    right, left = pose.joints[list(SHOULDERS)]
    return pose.score > GOOD_POSE and length(left - right) > SMALLER * shoulder_width


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
