"""Production: refuses an unsafe start."""

from django.core.exceptions import ImproperlyConfigured

from .base import *  # noqa: F403
from .base import ALLOWED_HOSTS, SECRET_KEY
from .environment import env

if len(SECRET_KEY) < 50 or len(set(SECRET_KEY)) < 10 or SECRET_KEY.startswith(("development-only", "django-insecure")):
    raise ImproperlyConfigured(
        "SECRET_KEY is missing, a default, shorter than 50 characters or too regular. Set the environment variable to "
        'a new one: python -c "import secrets; print(secrets.token_urlsafe(50))"'
    )
if not ALLOWED_HOSTS or "*" in ALLOWED_HOSTS:
    raise ImproperlyConfigured(
        f"ALLOWED_HOSTS is {ALLOWED_HOSTS!r}. Set the environment variable to the names you serve, "
        "for instance ALLOWED_HOSTS=tryon.example.com."
    )

# Django looks for its own middleware by name. The project's are the same classes, without their thread hops (see
# sakura_inference/middleware.py); a test runs these checks and all that follow from them under Django's names.
SILENCED_SYSTEM_CHECKS = ["security.W001", "security.W002", "security.W003"]

SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
# Health probes come by plain HTTP, from inside.
SECURE_REDIRECT_EXEMPT = [r"^health(/ready)?$"]
SECURE_HSTS_SECONDS = 365 * 24 * 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
if env.bool("BEHIND_TLS_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
