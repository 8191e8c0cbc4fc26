"""What can go wrong in a run, and the HTTP status each outcome has.

Every error a client sees has a stable ``code``; ``STATUS`` is the one table that turns codes into statuses.
Configuration errors are ``ImproperlyConfigured`` and not part of this family.
"""

from __future__ import annotations

import traceback
from typing import ClassVar

from providers.errors import ContentRefused, ImageUnusable, ProviderError, UnsupportedFeature
from providers.utils import one_line

STATUS: dict[str, int] = {
    "invalid": 400,
    "parse_error": 400,
    "unsupported_feature": 400,
    "not_authenticated": 401,
    "authentication_failed": 401,
    "insufficient_credits": 403,
    "permission_denied": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "idempotency_key_in_use": 409,
    "not_kept": 410,
    "body_too_large": 413,
    "image_too_large": 413,
    "unsupported_media_type": 415,
    "not_an_image": 415,
    "image_unreachable": 422,
    "image_unusable": 422,
    "content_refused": 422,
    "idempotency_key_reused": 422,
    "throttled": 429,
    "error": 500,
    "provider_error": 502,
    "provider_invalid_response": 502,
    "provider_misconfigured": 502,
    "provider_quota_exceeded": 502,
    "provider_rejected_input": 502,
    "provider_rate_limited": 503,
    "provider_unavailable": 503,
    "counter_unavailable": 503,
    "database_unavailable": 503,
    "outcome_unknown": 503,
    "overloaded": 503,
    "shutting_down": 503,
    "storage_unavailable": 503,
    "deadline_exceeded": 504,
    "provider_timeout": 504,
}
"""HTTP status of each error code."""


class TryOnError(Exception):
    """Root of all run-time errors of the app. ``str()`` of it is fit for the client."""

    code: str = "error"
    default_detail: ClassVar[str] = "The try-on failed. Nothing was charged."

    def __init__(self, detail: str = "", *, field: str = "") -> None:
        super().__init__(detail or self.default_detail)
        self.field = field
        """The request's field that the error is about, if it is about one."""

    @property
    def status(self) -> int:
        return STATUS[self.code]


class InsufficientCredits(TryOnError):
    """The balance does not cover the price."""

    code = "insufficient_credits"
    default_detail = "Not enough credits for this picture."


class UserGone(TryOnError):
    """The user was deleted a moment after signing in."""

    code = "authentication_failed"
    default_detail = "This user no longer exists. Sign in as another one."


class ImageUnreachable(TryOnError):
    """The URL was refused or did not deliver; the client is not told which, so that we are no port scanner."""

    code = "image_unreachable"
    default_detail = "The image could not be fetched. Give a public http(s) URL that delivers an image."


class ImageTooLarge(TryOnError):
    """More bytes or pixels than the settings allow."""

    code = "image_too_large"


class NotAnImage(TryOnError):
    """The bytes are not an image of an accepted type, whatever their name or header says."""

    code = "not_an_image"


class UnusableImage(TryOnError):
    """An image, but damaged or too small to work with."""

    code = "image_unusable"


class BodyTooLarge(TryOnError):
    """The request's body has more bytes than MAX_BODY_BYTES."""

    code = "body_too_large"


class CounterUnavailable(TryOnError):
    """The cache that counts requests is down and THROTTLE_FAIL_OPEN is off."""

    code = "counter_unavailable"
    default_detail = "The service cannot take requests at the moment. Please try again shortly."


class DatabaseUnavailable(TryOnError):
    """The database is away, or went away before anything was charged."""

    code = "database_unavailable"
    default_detail = "The service cannot reach its database. Nothing was charged; please try again shortly."


class StorageUnavailable(TryOnError):
    """The storage takes no picture, or hands out none."""

    code = "storage_unavailable"
    default_detail = "The service cannot reach its pictures. Nothing was charged; please try again shortly."


class OutcomeUnknown(TryOnError):
    """The database went away as the charge was committed; recovery will see whether it was."""

    code = "outcome_unknown"
    default_detail = (
        "The service lost its database at the last moment and cannot say yet whether this picture was stored and "
        "charged. Send the same request with the same Idempotency-Key again to learn it, or to have it made."
    )


class ShuttingDown(TryOnError):
    """The process was told to end and takes nothing new."""

    code = "shutting_down"
    default_detail = "This server is shutting down. Nothing was charged; please send the request again."


class Overloaded(TryOnError):
    """MAX_RUNS runs are under way in this process, or at each provider it may ask; or MAX_DOWNLOADS downloads."""

    code = "overloaded"
    default_detail = "Too many pictures are being made at the moment. Nothing was charged; please try again shortly."


class KeyInUse(TryOnError):
    """The same request, by its Idempotency-Key, is under way."""

    code = "idempotency_key_in_use"
    default_detail = "A request with this Idempotency-Key is being worked on. Ask again when it may be done."
    retry_after = 10.0
    """Seconds. Whoever asks that often stays within the default THROTTLE_RPM."""


class KeyReused(TryOnError):
    """The Idempotency-Key belongs to another request."""

    code = "idempotency_key_reused"
    default_detail = "This Idempotency-Key was used with another body. Use a new key for a new picture."


class NotKept(TryOnError):
    """The Idempotency-Key belongs to a picture that was asked for with ``no_store``."""

    code = "not_kept"
    default_detail = (
        "The picture of this Idempotency-Key was in the answer to its request and was not kept. Use a new key to have "
        "another one made."
    )


class DeadlineExceeded(TryOnError):
    """The run took longer than the DEADLINE setting."""

    code = "deadline_exceeded"
    default_detail = "The try-on took too long. Nothing was charged; please try again."


def let_go_of_locals(error: BaseException) -> None:
    """Empty the frames that an error went through, and those of the errors it came from.

    Frames and errors hold each other, and with them the photos, until the garbage collector comes. What is logged of
    an error stays; and nothing that looks into frames, as error trackers do, finds a photo or a key there.
    """
    seen: set[int] = set()
    errors = [error]
    while errors:
        error = errors.pop()
        if id(error) not in seen:
            seen.add(id(error))
            traceback.clear_frames(error.__traceback__)
            errors += [each for each in (error.__cause__, error.__context__) if each is not None]


PUBLIC_SENTENCE = {
    "provider_rate_limited": "The try-on service is busy. Nothing was charged; please try again shortly.",
    "provider_unavailable": "The try-on service is not available. Nothing was charged; please try again shortly.",
    "provider_timeout": "The try-on took too long. Nothing was charged; please try again.",
}
"""What a client is told about a provider's failure; the provider's own words stay in the log."""


def _public_sentence(error: ProviderError) -> str:
    if isinstance(error, ImageUnusable | UnsupportedFeature):
        return str(error)
    if isinstance(error, ContentRefused):
        named = one_line(error.category)  # a vendor's own words
        category = f" ({named})" if named else ""
        return f"The content policy does not allow this picture{category}. Nothing was charged."
    return PUBLIC_SENTENCE.get(error.code, "")


class GenerationFailed(TryOnError):
    """A provider's error as the client sees it; the ``ProviderError`` itself is the ``__cause__``."""

    default_detail = "The try-on could not be made. Nothing was charged."

    def __init__(self, error: ProviderError) -> None:
        super().__init__(_public_sentence(error), field=error.field if isinstance(error, UnsupportedFeature) else "")
        self.code = error.code if error.code in STATUS else ProviderError.code
        self.retry_after = error.retry_after


SENTENCES: dict[str, str] = {
    **{error.code: error.default_detail for error in TryOnError.__subclasses__()},
    **PUBLIC_SENTENCE,
    "abandoned": "The server that made this picture stopped. Nothing was charged; please try again.",
    "cancelled": "The request was given up before its picture was there. Nothing was charged.",
    "content_refused": "The content policy does not allow this picture. Nothing was charged.",
    "image_too_large": "A photo was too large. Nothing was charged.",
    "image_unusable": "A photo could not be used. Nothing was charged.",
    "not_an_image": "What was sent as a photo was none. Nothing was charged.",
    "unsupported_feature": "The provider cannot make what was asked for. Nothing was charged.",
}
"""What a client is told later about a run that ended with a code. What the run's row says is for the operator."""


def sentence_for(code: str) -> str:
    """What a client is told later about a run that failed."""
    return SENTENCES.get(code, GenerationFailed.default_detail)
