"""The list of them."""

from . import Double
from .fashn import Fashn

DOUBLES: tuple[type[Double], ...] = (Fashn,)
