"""The list of them."""

from . import Double
from .fashn import Fashn
from .stability import Stability

DOUBLES: tuple[type[Double], ...] = (Fashn, Stability)
