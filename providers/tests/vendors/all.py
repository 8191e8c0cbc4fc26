"""The list of them."""

from . import Double
from .fashn import Fashn
from .openai import OpenAI
from .sora import Sora
from .stability import Stability

DOUBLES: tuple[type[Double], ...] = (Fashn, OpenAI, Sora, Stability)
