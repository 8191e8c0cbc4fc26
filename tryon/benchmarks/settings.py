"""Settings of the measured server: production's, with its files in a temporary folder and a vendor on loopback.

The one module of this package that knows the project around it.
"""

from pathlib import Path

from settings.environment import env
from settings.production import *  # noqa: F403
from settings.production import HANDLERS, LOGGING, TRYON

FOLDER = Path(env.str("TRYON_BENCHMARK_FOLDER"))

MEDIA_ROOT = FOLDER / "media"
LOGGING |= {"handlers": {**HANDLERS, "file": {**HANDLERS["file"], "filename": str(FOLDER / "logs" / "inference.log")}}}
TRYON |= {
    "MAX_RUNS": 10_000,  # as many as wait at once
    "PROVIDERS": {"openai": TRYON["PROVIDERS"]["openai"]},
    "FETCH_ALLOWED_HOSTS": [env.str("TRYON_BENCHMARK_VENDOR")],
}
