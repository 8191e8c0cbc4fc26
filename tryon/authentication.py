"""Who is asking: an API key in a header or in the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, ValidationError
from rest_framework.request import Request

from .models import ApiKey
from .pipeline import client_name

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LONGEST_KEY: Final = 200
WRONG_KEY: Final = "Wrong API key: it is unknown, revoked, expired, or belongs to another user_id."
"""One sentence for all of it, so that nobody learns which keys exist."""


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer KEY``, ``X-API-Key: KEY``, or ``user_id`` and ``api_key`` in the body.

    Where a ``user_id`` is given with the key, it must be the key's own user.
    """

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        body: Mapping[str, Any] = request.data if isinstance(request.data, Mapping) else {}
        text = _from_header(request) or body.get("api_key")
        if not text:
            return None
        user_id = body.get("user_id")
        if user_id in (None, "") and body.get("api_key"):
            raise ValidationError({"user_id": "Required together with api_key."})
        key = _find(text)
        if key is None or (user_id not in (None, "") and client_name(key.user) != str(user_id)):
            raise AuthenticationFailed(WRONG_KEY)
        key.mark_used(timezone.now())
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="try-on"'


def _from_header(request: Request) -> str:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip()
    return request.headers.get("X-API-Key", "").strip()


def _find(text: object) -> ApiKey | None:
    """The valid key with this text. One query, which also brings the user and the user's credit account."""
    if not isinstance(text, str) or not text.isascii() or len(text) > LONGEST_KEY or "\0" in text:
        return None
    key = ApiKey.objects.select_related("user__credit_account").filter(prefix=ApiKey.prefix_of(text)).first()
    if key is None or not key.matches(text) or not key.is_valid(timezone.now()):
        return None

    return key if key.user.is_active else None
