"""What browsers may do with an answer: the one table of security headers, for the app's own views and for a project.

A view says by its policy what its answer is; ``secure()`` adds the rest. Nothing that is set already is changed, so a
host's middleware and views may be stricter, or looser.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpResponseBase

POLICY: Final = "Content-Security-Policy"

COMMON: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""On every answer."""

DATA: Final = "default-src 'none'; frame-ancestors 'none'"
"""The policy of JSON and of whatever else is no page."""

MEDIA: Final = "default-src 'none'; img-src 'self'; media-src 'self'; sandbox; frame-ancestors 'none'"
"""The policy of a picture or a clip: whatever its bytes are taken for, nothing in it runs."""

INLINE: Final = "'unsafe-inline'"


def page(*, styles: str = "", images: str = "", workers: str = "") -> str:
    """The policy of a page that has its scripts, styles and pictures in static files; and what else it needs.

    Scripts inside of a page never run.
    """
    static = urlsplit(settings.STATIC_URL or "")
    files = f"'self' {static.scheme or 'https'}://{static.netloc}" if static.netloc else "'self'"
    sources = {
        "default-src": "'none'",
        "script-src": files,
        "style-src": f"{files} {styles}",
        "img-src": f"{files} data: {images}",
        "font-src": files,
        "connect-src": "'self'",
        "worker-src": workers or "'none'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value.strip()}" for name, value in sources.items())


def secure(response: HttpResponseBase, policy: str = DATA) -> None:
    """Add the headers that ``response`` does not have yet."""
    for name, value in COMMON.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault(POLICY, policy)
