"""How often: django-ratelimit's counters behind a DRF throttle.

The counting is as atomic as the cache behind it (the check ``tryon.E003`` tells which caches cannot count).
"""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest
from django_ratelimit.core import get_usage
from rest_framework.throttling import BaseThrottle

from .conf import conf
from .exceptions import CounterUnavailable

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.views import APIView

logger = logging.getLogger("tryon.throttling")

WINDOW = 60
"""Seconds of one window."""


def client_address(request: HttpRequest) -> str:
    """The client's address as far as it can be trusted; ``0.0.0.0`` where there is none (a unix socket).

    Each of ``TRUSTED_PROXIES`` appends to X-Forwarded-For, so the client is that many places from the end.
    """
    address = request.META.get("REMOTE_ADDR", "")
    hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",") if hop.strip()]
    if conf.TRUSTED_PROXIES and len(hops) >= conf.TRUSTED_PROXIES:
        address = hops[-conf.TRUSTED_PROXIES]
    try:
        ip = ipaddress.ip_address(_without_port(address))
    except ValueError:
        return "0.0.0.0"  # noqa: S104 - no address to bind to
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:  # how a socket for both families shows its IPv4 clients
            return str(ip.ipv4_mapped)
        # Whoever has one IPv6 address has 2**64 of them.
        return str(ipaddress.ip_network((ip, 64), strict=False).network_address)
    return str(ip)


def _without_port(address: str) -> str:
    """Some proxies write ``1.2.3.4:55123`` or ``[2001:db8::1]:443``."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


class TryOnThrottle(BaseThrottle):
    """``THROTTLE_RPM`` requests a minute for each user, or for each address where there is no user."""

    usage: dict[str, Any] | None = None

    def allow_request(self, request: Request, view: APIView) -> bool:
        if not conf.THROTTLE_RPM:
            return True
        user = request.user
        who = f"user:{user.pk}" if user is not None and user.is_authenticated else ""
        return self.count(request._request, who)

    def count(self, request: HttpRequest, who: str = "") -> bool:
        """Count one request of ``who`` (else of the client's address); whether it is within the limit."""
        who = who or f"ip:{client_address(request)}"
        try:
            usage = get_usage(
                request,
                group="tryon.create-image",
                key=lambda group, request: who,
                rate=f"{conf.THROTTLE_RPM}/m",
                increment=True,
            )
            if usage is not None and usage["time_left"] < 0:
                raise ConnectionError("the cache gave no count")
        except Exception as error:
            # Any cache backend, any error class: what it means for the request is the operator's choice.
            logger.exception("The throttle's cache is down; THROTTLE_FAIL_OPEN is %s.", conf.THROTTLE_FAIL_OPEN)
            if not conf.THROTTLE_FAIL_OPEN:
                raise CounterUnavailable from error
            return True
        self.usage = usage
        # Kept for limit_headers(): the response needs them whether the request is allowed or not.
        request.tryon_usage = usage  # type: ignore[attr-defined]
        return usage is None or not usage["should_limit"]

    def wait(self) -> float:
        return max(1, self.usage["time_left"]) if self.usage else 1


def limit_headers(request: HttpRequest) -> dict[str, str]:
    """How much of the limit is left: the IETF draft's pair of headers, and the older three."""
    usage = getattr(request, "tryon_usage", None)
    if not usage:
        return {}
    limit, seconds = usage["limit"], max(0, usage["time_left"])
    left = max(0, limit - usage["count"])
    return {
        "RateLimit-Policy": f'"default";q={limit};w={WINDOW}',
        "RateLimit": f'"default";r={left};t={seconds}',
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(left),
        "X-RateLimit-Reset": str(seconds),
    }
