"""Development, the default: everything runs on this machine, without a key or a service."""

from .base import *  # noqa: F403
from .base import PORT, SECRET_KEY, TRYON
from .environment import env

DEBUG = True
SECRET_KEY = SECRET_KEY or "development-only-and-refused-in-production"
ALLOWED_HOSTS = ["*"]

TRYON |= {
    "PROVIDER": env.str("AI_PROVIDER", default="local"),
    # The demo photos are served by this very server. Production has no such list.
    "FETCH_ALLOWED_HOSTS": [f"localhost:{PORT}", f"127.0.0.1:{PORT}"],
}
