"""The list of them."""

from . import Double
from .bfl import BFL
from .fal import Fal
from .fashn import Fashn
from .gemini import Gemini, GeminiInTwoSteps
from .openai import OpenAI
from .replicate import Replicate
from .sora import Sora
from .stability import Stability
from .vertex import Vertex

DOUBLES: tuple[type[Double], ...] = (
    BFL,
    Fal,
    Fashn,
    Gemini,
    GeminiInTwoSteps,
    OpenAI,
    Replicate,
    Sora,
    Stability,
    Vertex,
)
