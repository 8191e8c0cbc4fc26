"""What the joints say of a person before any pixel was looked at: a frame, and where parts of the body must be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, cast

import cv2
import numpy as np

from .imaging import Floats, Mask, Point, Shape, dilated, disc, length, polygon, thick_line


class Part(IntEnum):
    """What a pixel shows."""

    BACKGROUND = 0
    SKIN = 1
    HAIR = 2
    UPPER = 3
    """Clothes above the waist."""
    LOWER = 4
    """Clothes below it."""
    SHOES = 5


# Landmarks of BlazePose, for the parts that only parsing looks at.
NOSE, EAR_L, EAR_R, MOUTH_L, MOUTH_R = 0, 7, 8, 9, 10
SHOULDER_L, SHOULDER_R, HIP_L, HIP_R = 11, 12, 23, 24
ARMS: Final = ((11, 13, 15), (12, 14, 16))
HANDS: Final = ((15, 19, 17), (16, 20, 18))
"""Wrist, index finger, little finger."""
LEGS: Final = ((23, 25, 27), (24, 26, 28))
FEET: Final = ((29, 31), (30, 32))


@dataclass(frozen=True, slots=True)
class Figure:
    """The joints at parsing size, and a frame on the body."""

    joints: Floats
    unit: float
    """The shoulder width."""
    shape: Shape

    @property
    def shoulders(self) -> Point:
        return cast("Point", (self.joints[SHOULDER_L] + self.joints[SHOULDER_R]) / 2)

    @property
    def hips(self) -> Point:
        return cast("Point", (self.joints[HIP_L] + self.joints[HIP_R]) / 2)

    @property
    def up(self) -> Point:
        up = self.shoulders - self.hips
        return up / (length(up) + 1e-6)

    @property
    def side(self) -> Point:
        """Towards the person's left."""
        side = np.array([-self.up[1], self.up[0]])
        return -side if side @ (self.joints[SHOULDER_L] - self.joints[SHOULDER_R]) < 0 else side

    @property
    def head_width(self) -> float:
        return max(length(self.joints[EAR_L] - self.joints[EAR_R]), 0.3 * self.unit)

    @property
    def ears(self) -> Point:
        return cast("Point", (self.joints[EAR_L] + self.joints[EAR_R]) / 2)

    @property
    def chin(self) -> Point:
        return cast("Point", (self.joints[MOUTH_L] + self.joints[MOUTH_R]) / 2 - self.up * 0.38 * self.head_width)


@dataclass(frozen=True, slots=True)
class Regions:
    """Where the joints say that something must be; masks at parsing size."""

    face: Mask
    head: Mask
    neck: Mask
    hands: Mask
    arms: Mask
    torso: Mask
    chest: Mask
    """Surely the upper clothes: no further down than 55 % of the torso, or cropped jackets swallow the jeans."""
    legs: Mask
    thighs: Mask
    """Surely the lower clothes."""
    feet: Mask


def regions_of(figure: Figure) -> Regions:
    joints, unit, shape = figure.joints, figure.unit, figure.shape
    up, side, head_width = figure.up, figure.side, figure.head_width
    face = np.zeros(shape, np.uint8)
    middle = joints[NOSE] + up * 0.05 * head_width
    axes = (int(0.36 * head_width), int(0.5 * head_width))
    cv2.ellipse(face, (int(middle[0]), int(middle[1])), axes, 0, 0, 360, (1,), -1)
    hands = np.zeros(shape, np.uint8)
    for wrist, index, little in HANDS:
        knuckles = (joints[index] + joints[little]) / 2
        centre = (joints[wrist] + joints[index] + joints[little]) / 3 + 0.35 * (knuckles - joints[wrist])
        hands |= disc(shape, centre, max(2, int(0.14 * unit)))
    legs = limbs(shape, [joints[list(leg)] for leg in LEGS], 0.2 * unit)
    legs[: int(max(0, figure.hips[1] - 0.05 * unit))] = 0
    thighs = [np.array([joints[hip] * 0.75 + joints[knee] * 0.25, joints[knee]]) for hip, knee, _ in LEGS]
    return Regions(
        face=face,
        head=disc(shape, figure.ears + up * 0.2 * head_width, int(0.95 * head_width)),
        neck=polygon(
            shape,
            [
                figure.chin + side * 0.16 * unit,
                figure.chin - side * 0.16 * unit,
                figure.shoulders - side * 0.2 * unit + up * 0.08 * unit,
                figure.shoulders + side * 0.2 * unit + up * 0.08 * unit,
            ],
        ),
        hands=hands,
        arms=limbs(shape, [joints[list(arm)] for arm in ARMS], 0.16 * unit),
        torso=polygon(
            shape,
            [
                joints[SHOULDER_R] - side * 0.1 * unit + up * 0.1 * unit,
                joints[SHOULDER_L] + side * 0.1 * unit + up * 0.1 * unit,
                joints[HIP_L] + side * 0.1 * unit,
                joints[HIP_R] - side * 0.1 * unit,
            ],
        ),
        chest=polygon(
            shape,
            [
                joints[SHOULDER_R] + side * 0.08 * unit - up * 0.12 * unit,
                joints[SHOULDER_L] - side * 0.08 * unit - up * 0.12 * unit,
                joints[HIP_L] * 0.55 + joints[SHOULDER_L] * 0.45 - side * 0.05 * unit,
                joints[HIP_R] * 0.55 + joints[SHOULDER_R] * 0.45 + side * 0.05 * unit,
            ],
        )
        & (1 - dilated(hands, 5)),
        legs=legs,
        thighs=limbs(shape, thighs, 0.09 * unit),
        feet=limbs(shape, [joints[list(foot)] for foot in FEET], 0.09 * unit),
    )


def limbs(shape: Shape, limbs: list[Floats], radius: float) -> Mask:
    """Thick lines with round ends and joints."""
    mask = np.zeros(shape, np.uint8)
    for limb in limbs:
        points = np.round(limb)
        mask |= thick_line(shape, points, max(1, int(2 * radius)))
        for point in points:
            mask |= disc(shape, point, radius)
    return mask
