"""Who is asking: an API key in a header or in the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from django.http import HttpRequest
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException, AuthenticationFailed, Throttled, ValidationError
from rest_framework.request import Request

from .exceptions import STATUS, CounterUnavailable
from .models import ApiKey
from .runs import client_name
from .throttling import KeyGuesses

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LONGEST_KEY: Final = 200
ABSENT: Final = (None, "")
"""A ``user_id`` that is not given. 0 is, and may be somebody's."""
WRONG_KEY: Final = "Wrong API key: it is unknown, revoked, expired, or belongs to another user_id."
"""One sentence for all of it, so that nobody learns which keys exist."""
TOO_MANY_GUESSES: Final = "Too many different API keys from this address, or with this beginning, were wrong."


class GuessesUncounted(APIException):
    """``CounterUnavailable`` as DRF knows errors, also in a host's own views."""

    status_code = STATUS[CounterUnavailable.code]
    default_code = CounterUnavailable.code
    default_detail = CounterUnavailable.default_detail
    wait = 5
    """Seconds, for Retry-After."""


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer KEY``, ``X-API-Key: KEY``, or ``user_id`` and ``api_key`` in the body.

    Where a ``user_id`` is given with the key, it must be the key's own user; where a key is given twice, it must be
    the same. Whoever guesses keys hears ``Throttled`` after ``KEY_GUESSES`` of them, before any key is looked up.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        body: Mapping[str, Any] = request.data if isinstance(request.data, Mapping) else {}
        texts = [text for text in (*_from_headers(request), body.get("api_key")) if text]
        if not texts:
            return None
        if any(text != texts[0] for text in texts):
            raise AuthenticationFailed("There is more than one API key in this request. Send one.")
        if body.get("user_id") in ABSENT and body.get("api_key"):
            raise ValidationError({"user_id": "Required together with api_key."})
        if not _may_be_a_key(texts[0]):
            raise AuthenticationFailed(WRONG_KEY)
        try:
            key = _find(request._request, texts[0], body.get("user_id"))
        except CounterUnavailable as error:
            raise GuessesUncounted from error
        key.mark_used(timezone.now())
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="try-on"'


def is_foreign(user_id: object, user: User) -> bool:
    """Whether a request's ``user_id`` is given and names somebody else."""
    return user_id not in ABSENT and str(user_id) != client_name(user)


def _from_headers(request: Request) -> tuple[str, str]:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    return (text.strip() if scheme.lower() == "bearer" else ""), request.headers.get("X-API-Key", "").strip()


def _may_be_a_key(text: object) -> TypeGuard[str]:
    """Whether it can be looked up at all. What cannot is wrong, and no guess."""
    return isinstance(text, str) and text.isascii() and len(text) <= LONGEST_KEY and "\0" not in text


def _find(request: HttpRequest, text: str, user_id: object) -> ApiKey:
    """The valid key with this text, of this user. Raise ``AuthenticationFailed``; ``Throttled`` before any query."""
    guesses = KeyGuesses(request, text, ApiKey.prefix_of(text))
    if wait := guesses.wait():
        raise Throttled(wait, TOO_MANY_GUESSES)
    key = ApiKey.find(text, timezone.now())
    if key is None or is_foreign(user_id, key.user):
        guesses.count()
        raise AuthenticationFailed(WRONG_KEY)
    return key
