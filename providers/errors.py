"""What can go wrong at a provider, in words that do not depend on the vendor.

An adapter turns every failure of its vendor into one of these classes. The message is for the
operator's log; it names the vendor, never a key, a photo or the vendor's raw body.
"""

from __future__ import annotations

from typing import ClassVar


class ProviderError(Exception):
    """A provider did not deliver a picture.

    ``provider`` is the alias in the settings; ``status`` the vendor's HTTP status where there was one;
    ``retry_after`` the seconds the vendor asked us to wait; ``request_id`` the vendor's own id of the call.
    ``job_is_over`` says that the vendor's job ended with this: there is no picture left to ask for.
    """

    code: ClassVar[str] = "provider_error"
    """Stable name of the failure, for clients, logs and the run's row."""

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed a moment later."""

    def __init__(
        self,
        message: str,
        *,
        provider: str = "",
        status: int | None = None,
        retry_after: float | None = None,
        request_id: str = "",
        job_is_over: bool = False,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.status = status
        self.retry_after = retry_after
        self.request_id = request_id
        self.job_is_over = job_is_over


class ProviderUnavailable(ProviderError):
    """Not reached, reset, overloaded, or an error of the vendor's own (5xx)."""

    code = "provider_unavailable"
    retryable = True


class ProviderTimeout(ProviderUnavailable):
    """No answer within the time that was left."""

    code = "provider_timeout"


class ProviderRateLimited(ProviderUnavailable):
    """The vendor asks us to slow down (429 that is a rate limit)."""

    code = "provider_rate_limited"


class ProviderMisconfigured(ProviderError):
    """Bad or missing key, no permission, a retired model, a wrong option: the operator must act."""

    code = "provider_misconfigured"


class ProviderQuotaExceeded(ProviderMisconfigured):
    """The operator's account at the vendor has no money or quota left."""

    code = "provider_quota_exceeded"


class InvalidProviderResponse(ProviderError):
    """The vendor answered, but not with a picture: empty, truncated, HTML, another type."""

    code = "provider_invalid_response"


class ProviderRejectedInput(ProviderError):
    """The vendor calls our request invalid (400, 413, 422) and repeating it would not help."""

    code = "provider_rejected_input"


class UnsupportedFeature(ProviderError):
    """The request asks for something this provider cannot do; nothing was sent."""

    code = "unsupported_feature"

    def __init__(self, message: str, *, field: str = "", **kwargs: object) -> None:
        super().__init__(message, **kwargs)  # type: ignore[arg-type]
        self.field = field
        """The request's field that asks for it."""


class ContentRefused(ProviderError):
    """The vendor's content policy refuses the photos or the result. Never retried."""

    code = "content_refused"

    def __init__(self, message: str, *, category: str = "", **kwargs: object) -> None:
        super().__init__(message, **kwargs)  # type: ignore[arg-type]
        self.category = category


class ImageUnusable(ProviderError):
    """A photo is not usable for a try-on; the message tells the shopper which one and how to change it.

    It begins with ``Person photo: `` or ``Garment photo: ``: an adapter does not know what the request calls it.
    """

    code = "image_unusable"
