"""The list of them."""

from . import Double
from .bfl import BFL
from .fal import Fal
from .fashn import Fashn
from .replicate import Replicate

DOUBLES: tuple[type[Double], ...] = (Fashn, BFL, Fal, Replicate)
