"""What OpenAI's failures are to us: the classes of the SDK's ``_exceptions.py``, the codes of the image guide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from ..base import Secret
from ..errors import (
    ContentRefused,
    InvalidProviderResponse,
    ProviderError,
    ProviderMisconfigured,
    ProviderQuotaExceeded,
    ProviderRateLimited,
    ProviderRejectedInput,
    ProviderTimeout,
    ProviderUnavailable,
)
from ..utils import one_line, retry_after, short

if TYPE_CHECKING:
    import openai

QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
REFUSAL_CODES: Final = frozenset({"moderation_blocked", "content_policy_violation"})
OWN_PARAMS: Final = frozenset({"model", "quality", "size", "output_format", "output_compression", "background", "n"})
"""Fields of the request that hold nothing of the shopper's."""


def refusal(error: openai.APIStatusError, *, model: str, api_key: Secret) -> ProviderError:
    """Our word for an answer that is not a success.

    Only the vendor's codes go into the message: its sentences repeat parts of the key and of the prompt.
    """
    status = error.status_code
    details = error.body if isinstance(error.body, dict) else {}
    code, kind, param = (short(details.get(field), api_key) for field in ("code", "type", "param"))
    known: dict[str, Any] = {
        "status": status,
        "request_id": short(error.request_id, api_key),
        "retry_after": retry_after(error.response.headers),
    }
    named = " ".join(word for word in (code or kind, f"for {param}" if param else "") if word)
    said = f"OpenAI answered {status}" + (f" ({named})." if named else ".")

    category = _refused_category(error.body)
    if category is not None or code in REFUSAL_CODES:
        category = short(category, api_key)
        reason = f" for {category}" if category else ""
        return ContentRefused(f"OpenAI's content policy refused{reason}. {said}", category=category, **known)
    # By its code: an account without money has been seen as 400, 403 and 429.
    if status == 402 or not QUOTA_CODES.isdisjoint((code, kind)):
        return ProviderQuotaExceeded(f"{said} The account has no money or quota left.", **known)
    match status:
        case 401:
            return ProviderMisconfigured(f"{said} Check the api_key.", **known)
        case 403:
            return ProviderMisconfigured(
                f"{said} The key may not use {model}; image models need a verified organization.", **known
            )
        case 404 | 405 | 410:
            return ProviderMisconfigured(f"{said} Check base_url, and that the model {model} is not retired.", **known)
        case 429:
            return ProviderRateLimited(said, **known)
        case 408 | 409 | 425:
            return ProviderUnavailable(said, **known)
    if status >= 500:
        return ProviderUnavailable(said, **known)
    if status < 400:
        return ProviderMisconfigured(f"{said} It redirects; set base_url to where the API is.", **known)
    if code == "model_not_found" or param in OWN_PARAMS:
        return ProviderMisconfigured(f"{said} Check the options of this provider.", **known)
    return ProviderRejectedInput(said, **known)


def lost(error: BaseException) -> ProviderError:
    """Our word for a connection that failed.

    By its root, since the SDK's aiohttp client calls every failed connection a timeout.
    """
    import aiohttp
    import httpx2

    causes = list(_causes(error))
    if any(isinstance(cause, aiohttp.ClientPayloadError | httpx2.DecodingError) for cause in causes):
        return InvalidProviderResponse(f"OpenAI's answer is not complete or not readable: {root(error)}.")
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return ProviderTimeout("OpenAI did not answer in time.")
    return ProviderUnavailable(f"OpenAI could not be reached: {root(error)}.")


def root(error: BaseException) -> str:
    """The class of what went wrong first. Its text may hold anything, its name does not."""
    *_, first = _causes(error)
    return type(first).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _refused_category(body: object) -> str | None:
    """What the content policy objected to, ``""`` if it does not say, None if it is not about content."""
    details = body if isinstance(body, dict) else {}
    found = details.get("safety_violations")
    moderation = details.get("moderation_details")
    if isinstance(moderation, dict):
        found = moderation.get("categories") or found
    if isinstance(found, list) and found:
        return ", ".join(one_line(category) for category in found)
    text = details.get("message") or body
    text = text[:10_000].lower() if isinstance(text, str) else ""
    match = re.search(r"safety_violations=\[([^\]]*)\]", text)
    if match is not None:
        return match[1]
    return "" if moderation or "safety system" in text or "safety_violations" in text else None
