"""Who is asking: an API key in a header or in the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, ValidationError
from rest_framework.request import Request

from .models import ApiKey
from .runs import client_name

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LONGEST_KEY: Final = 200
ABSENT: Final = (None, "")
"""A ``user_id`` that is not given. 0 is, and may be somebody's."""
WRONG_KEY: Final = "Wrong API key: it is unknown, revoked, expired, or belongs to another user_id."
"""One sentence for all of it, so that nobody learns which keys exist."""


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer KEY``, ``X-API-Key: KEY``, or ``user_id`` and ``api_key`` in the body.

    Where a ``user_id`` is given with the key, it must be the key's own user; where a key is given twice, it must be
    the same.
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
        key = _find(texts[0])
        if key is None or is_foreign(body.get("user_id"), key.user):
            raise AuthenticationFailed(WRONG_KEY)
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


def _find(text: object) -> ApiKey | None:
    """The valid key with this text. One query, which also brings the user and the user's credit account."""
    if not isinstance(text, str) or not text.isascii() or len(text) > LONGEST_KEY or "\0" in text:
        return None
    try:
        key = ApiKey.objects.select_related("user__credit_account").get(prefix=ApiKey.prefix_of(text))
    except ApiKey.DoesNotExist:
        return None
    return key if key.matches(text) and key.is_valid(timezone.now()) and key.user.is_active else None
