"""Django's middleware, made lean for the API.

Django runs each of its middleware methods in a thread of its own under ASGI, which costs the API more than its
view. Those that do no I/O run here on the event loop instead; those that only the admin needs skip the API.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest, HttpResponseBase
from django.middleware import clickjacking, common, csrf, security

from tryon import headers
from tryon.conf import conf

ADMIN_STYLE = "'sha256-M4YPHlujy6CHK6ELLBHOjOAlR+OGvIy1ImqakbhF770='"
"""The one style inside of a page of the admin: the picture's, in templates/admin/tryon/tryon/change_form.html."""

LOCAL_FILES = "django.core.files.storage.FileSystemStorage"
NO_SESSION_PATHS = ("/api/", "/health")
KEYS_ONLY = ("tryon.authentication.ApiKeyAuthentication",)


class OnTheLoop:
    """For middleware that only computes: call it where we are, without a change of threads."""

    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self_: Any = self
        response: HttpResponseBase | None = None
        if hasattr(self, "process_request"):
            response = self_.process_request(request)
        response = response or await self.get_response(request)
        if hasattr(self, "process_response"):
            response = self_.process_response(request, response)
        return response


class NotForTheAPI:
    """For middleware of logged-in pages: the API has keys, no sessions, unless the settings let others in as well."""

    get_response: Callable[[HttpRequest], Any]

    def __call__(self, request: HttpRequest) -> Any:
        if request.path.startswith(NO_SESSION_PATHS) and tuple(conf.AUTHENTICATION_CLASSES) == KEYS_ONLY:
            return self.get_response(request)
        return super().__call__(request)  # type: ignore[misc]


class SecurityMiddleware(OnTheLoop, security.SecurityMiddleware):
    """Django's, and the headers of tryon/headers.py for what has none of its own: the admin, redirects, errors."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        is_page = response.headers.get("Content-Type", "").startswith("text/html")
        headers.secure(response, page_policy(response.status_code) if is_page else headers.DATA)
        return super().process_response(request, response)


def page_policy(status: int) -> str:
    """The policy of a page, which is one of the admin's; or, while DEBUG is on, of Django's about an error."""
    if settings.DEBUG and status >= 400:
        scripts = headers.INLINE if status == 500 else "'none'"
        return f"default-src 'none'; script-src {scripts}; style-src {headers.INLINE}; frame-ancestors 'none'"
    # The pictures are wherever the storage says.
    backend = settings.STORAGES.get(conf.STORAGE, {}).get("BACKEND")
    is_here = backend == LOCAL_FILES and not urlsplit(settings.MEDIA_URL).netloc
    return headers.page(styles=ADMIN_STYLE, images="" if is_here else "https:")


class XFrameOptionsMiddleware(OnTheLoop, clickjacking.XFrameOptionsMiddleware):
    pass


class SessionMiddleware(NotForTheAPI, sessions.SessionMiddleware):
    pass


class CommonMiddleware(NotForTheAPI, common.CommonMiddleware):
    pass


class CsrfViewMiddleware(NotForTheAPI, csrf.CsrfViewMiddleware):
    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        if self.async_mode:
            self.process_view = self._on_the_loop  # type: ignore[assignment]

    async def _on_the_loop(self, *args: Any) -> HttpResponseBase | None:
        return super().process_view(*args)


class AuthenticationMiddleware(NotForTheAPI, auth.AuthenticationMiddleware):
    pass


class MessageMiddleware(NotForTheAPI, messages.MessageMiddleware):
    pass
