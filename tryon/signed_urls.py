"""Addresses of pictures: the storage's own, or with ``SIGNED_URLS`` one of ours that is signed and expires.

A signed address names the run, which of its files, and until when; nothing of it can be changed, and it tells no name
in the storage. It needs no login, so whoever has it can see the picture until then.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.urls import URLResolver, get_resolver, get_urlconf, reverse

from .conf import conf
from .models import TryOn

APP: Final = "tryon"
SALT: Final = "tryon.signed_urls"


class Claim(NamedTuple):
    """What a signed address says."""

    run: UUID
    which: str
    """A key of ``files()``."""
    expires: int
    """Seconds since 1970."""


def files(tryon: TryOn) -> dict[str, str]:
    """The names of a run's files in the storage, by what signed addresses call them."""
    pictures = [tryon.image.name, *tryon.more_images]
    found = {str(number): name for number, name in enumerate(pictures, 1)}
    found |= {"video": str(tryon.video.name)} | {f"photo{n}": name for n, name in enumerate(tryon.inputs, 1)}
    return {which: name for which, name in found.items() if name}


def address(tryon: TryOn, name: str, request: Any = None) -> str:
    """Where the file ``name`` of a run can be seen; with ``request``, by the URLs that it came in by."""
    if not conf.SIGNED_URLS:
        return str(TryOn.image.field.storage.url(name))
    which = next(which for which, other in files(tryon).items() if other == name)
    token = sign(Claim(tryon.pk, which, int(time.time()) + conf.SIGNED_URLS))
    return reverse(f"{_namespace(request)}:picture", args=[token])


def sign(claim: Claim) -> str:
    """The token of a claim."""
    return _signer().sign(f"{claim.run.hex}.{claim.which}.{claim.expires}")


def read(token: str) -> Claim | None:
    """What a token claims; None if it is not one of ours, or has expired."""
    try:
        run, which, expires = _signer().unsign(token).split(".")
    except signing.BadSignature:
        return None
    claim = Claim(UUID(run), which, int(expires))
    return claim if time.time() < claim.expires else None


def _signer() -> signing.Signer:
    return signing.Signer(salt=SALT, sep=".")


def _namespace(request: Any) -> str:
    """Of the app's URLs, wherever the host has mounted them."""
    match = getattr(request, "resolver_match", None)
    if match is not None and match.app_names[-1:] == [APP]:
        return str(match.namespace)
    return _mounted(get_urlconf() or settings.ROOT_URLCONF)


@cache
def _mounted(urlconf: str) -> str:
    return _find(get_resolver(urlconf)) or APP


def _find(resolver: URLResolver) -> str:
    inner = {namespace: found for namespace, (_, found) in resolver.namespace_dict.items()}
    ours = [namespace for namespace, found in inner.items() if found.app_name == APP]
    if ours:
        return APP if APP in ours else ours[0]
    deeper = (f"{namespace}:{found}" for namespace, each in inner.items() if (found := _find(each)))
    return next(deeper, "")
