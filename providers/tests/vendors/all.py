"""The list of them."""

from . import Double
from .fashn import Fashn
from .sora import Sora
from .stability import Stability

DOUBLES: tuple[type[Double], ...] = (Fashn, Sora, Stability)
