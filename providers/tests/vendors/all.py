"""The list of them."""

from . import Double
from .bfl import BFL
from .fashn import Fashn

DOUBLES: tuple[type[Double], ...] = (Fashn, BFL)
