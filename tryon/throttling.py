"""How often: django-ratelimit's counters behind a DRF throttle, and behind whoever guesses keys.

The counting is as atomic as the cache behind it (the check ``tryon.E003`` tells which caches cannot count).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest
from django.utils.crypto import salted_hmac
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


@contextlib.contextmanager
def _store(what: str) -> Iterator[None]:
    """Around what needs the cache. Any backend, any error class: what it means is the operator's choice."""
    try:
        yield
    except Exception as error:
        logger.exception("The cache of %s is down; THROTTLE_FAIL_OPEN is %s.", what, conf.THROTTLE_FAIL_OPEN)
        if not conf.THROTTLE_FAIL_OPEN:
            raise CounterUnavailable from error


def _count(request: HttpRequest, group: str, who: str, limit: int) -> dict[str, Any] | None:
    """Count one more of ``who``; django-ratelimit's figures, or None where the host has switched it off."""
    rate = f"{limit}/m"
    usage: dict[str, Any] | None = get_usage(request, group=group, key=lambda *_: who, rate=rate, increment=True)
    if usage is not None and usage["time_left"] < 0:
        raise ConnectionError("the cache gave no count")
    return usage


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
        usage = None
        with _store("the throttle"):
            usage = _count(request, "tryon.create-image", who, conf.THROTTLE_RPM)
        self.usage = usage
        # Kept for limit_headers(): the response needs them whether the request is allowed or not.
        request.tryon_usage = usage  # type: ignore[attr-defined]
        return usage is None or not usage["should_limit"]

    def wait(self) -> float:
        return max(1, self.usage["time_left"]) if self.usage else 1


class KeyGuesses:
    """``KEY_GUESSES`` different wrong keys a minute from one address, and as many with one prefix.

    The same wrong key is one guess however often it comes: a client with an old key, in a loop, learns nothing by it
    and keeps nobody else at its address out. A counter that is full leaves a mark until its window ends, and the marks
    are all that a request with a right key asks the cache for. Those that are looked up in the very moment in which
    the last guess is counted are looked up. Keys are in the cache as keyed hashes only.
    """

    def __init__(self, request: HttpRequest, key: str, prefix: str) -> None:
        self._request = request
        self._key = _hidden(key)
        self._counters = (f"ip:{client_address(request)}", f"prefix:{_hidden(prefix)}")

    def wait(self) -> int:
        """Seconds for which no key is looked at from this address or with this prefix; 0 if it is."""
        ends: dict[str, int] = {}
        if conf.KEY_GUESSES:
            with _store("wrong keys"):
                ends = _cache().get_many([self._mark(counter) for counter in self._counters])
        return max(0, max(ends.values(), default=0) - int(time.time()))

    def count(self) -> None:
        """The key was wrong."""
        if conf.KEY_GUESSES:
            with _store("wrong keys"):
                for counter in self._counters:
                    if self._is_new(counter):
                        self._count(counter)

    def _is_new(self, counter: str) -> bool:
        """Whether this key was not counted there in the last minute."""
        name = f"tryon.wrong-key:{_hidden(counter)}:{self._key}"
        if _cache().add(name, 1, WINDOW):
            return True
        if _cache().get(name) is None:
            raise ConnectionError("the cache keeps nothing")
        return False

    def _count(self, counter: str) -> None:
        usage = _count(self._request, "tryon.wrong-keys", counter, conf.KEY_GUESSES)
        if usage is not None and usage["count"] >= usage["limit"]:
            left = usage["time_left"] + 1  # the last second is still in the window
            _cache().set(self._mark(counter), int(time.time()) + left, left)

    @staticmethod
    def _mark(counter: str) -> str:
        return f"tryon.wrong-keys-full:{_hidden(counter)}"


def _cache() -> BaseCache:
    """The cache that django-ratelimit counts in."""
    return caches[getattr(settings, "RATELIMIT_USE_CACHE", "default")]


def _hidden(text: str) -> str:
    """What stands for a text in the cache. Keyed: a mere hash would not hide a password that was sent for a key."""
    return salted_hmac("tryon.throttling", text, algorithm="sha256").hexdigest()


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
