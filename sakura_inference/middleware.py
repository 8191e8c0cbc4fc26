"""Django's middleware, made lean for the API.

Django runs each of its middleware methods in a thread of its own under ASGI, which costs the API more than its
view. Those that do no I/O run here on the event loop instead; those that only the admin needs skip the API.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from django.contrib.auth import middleware as auth
from django.contrib.messages import middleware as messages
from django.contrib.sessions import middleware as sessions
from django.http import HttpRequest, HttpResponseBase
from django.middleware import clickjacking, common, csrf, security

from tryon.conf import conf

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
    pass


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
