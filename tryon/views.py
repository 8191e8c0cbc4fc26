"""HTTP in and out; the work is done in pipeline.py."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, cast

from asgiref.sync import sync_to_async
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    PermissionDenied,
    RequestDataTooBig,
    TooManyFieldsSent,
)
from django.core.handlers.wsgi import WSGIRequest
from django.core.signals import got_request_exception
from django.db import InterfaceError, OperationalError, connections, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import reverse
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import (
    APIException,
    AuthenticationFailed,
    MethodNotAllowed,
    NotAuthenticated,
    ParseError,
    Throttled,
    UnsupportedMediaType,
    ValidationError,
)
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.serializer_helpers import ReturnDict
from rest_framework.views import APIView
from rest_framework.views import exception_handler as drf_exception_handler

from . import bodies, health, pipeline, recovery, request_id, runs
from .authentication import is_foreign
from .conf import conf
from .dispatch import close_providers
from .exceptions import STATUS, DatabaseUnavailable, ShuttingDown, TryOnError, UserGone
from .headers import DATA, INLINE, page, secure
from .lifespan import is_draining
from .models import TryOn, connect
from .openapi import extend_schema, request_examples, request_header, response_header
from .serializers import CreateImageFormSerializer, CreateImageSerializer, ErrorSerializer, ResultSerializer
from .throttling import TryOnThrottle, limit_headers

if TYPE_CHECKING:
    from django.contrib.auth.models import User

AsyncView: TypeAlias = Callable[..., Coroutine[Any, Any, HttpResponseBase]]

RETRY_AFTER: Final = 5
"""Seconds a client is asked to wait when nobody knows better."""
LONGEST_RETRY_AFTER: Final = 3600
"""Seconds, whatever a vendor says."""

LONGEST_SENTENCE: Final = 500
"""Characters of what a refusal says."""

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
LONGEST_KEY: Final = 255
ACCEPTABLE_KEY: Final = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")

logger = logging.getLogger("tryon.views")


def non_atomic(view: Callable[..., Any]) -> Callable[..., Any]:
    """Take an async view out of ATOMIC_REQUESTS, which it cannot run in, of whichever databases have it on."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


class TryOnView(APIView):
    """What the views of the API share: who may ask and how often, and errors and headers of our own."""

    throttle_classes = [TryOnThrottle]
    permission_classes = []
    renderer_classes = [JSONRenderer, BrowsableAPIRenderer]
    versioning_class = None
    for_users: ClassVar[tuple[str, ...]] = ()
    """Methods that demand a user, and count for the throttle."""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        return non_atomic(super().as_view(**initkwargs))

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [import_string(path)() for path in conf.AUTHENTICATION_CLASSES]

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return exception_handler

    def perform_authentication(self, request: Request) -> None:
        """Demand a user where one is needed. What is refused before counts against the address that sends it."""
        if request.method not in self.for_users:
            # Now, and without a demand: the browsable API asks who is looking when the answer is under way.
            with contextlib.suppress(APIException):
                _ = request.user
            return
        try:
            self.demand_user(request)
        except (APIException, TryOnError) as error:
            throttle = TryOnThrottle()
            if _is_the_clients(error) and conf.THROTTLE_RPM and not throttle.count(request._request):
                self.throttled(request, throttle.wait())
            raise

    def demand_user(self, request: Request) -> None:
        """Raise ``NotAuthenticated``, or what an authentication class raises."""
        if not (request.user and request.user.is_authenticated):
            raise NotAuthenticated

    def check_throttles(self, request: Request) -> None:
        if request.method in self.for_users:
            super().check_throttles(request)

    def get_authenticate_header(self, request: Request) -> str:
        # DRF turns a 401 without this header into a 403, and a host's first class, say for sessions, may have none.
        return super().get_authenticate_header(request) or 'Bearer realm="try-on"'

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        plain: HttpRequest = getattr(request, "_request", request)
        response.headers[request_id.HEADER] = request_id.assign(plain)
        secure(response, page(styles=INLINE) if self.is_browsed(request) else DATA)
        response.headers["Cache-Control"] = "no-store"
        for name, value in limit_headers(plain).items():
            response.headers[name] = value
        return response

    @staticmethod
    def is_browsed(request: Request) -> bool:
        """Whether a person looks at this in a browser."""
        return isinstance(getattr(request, "accepted_renderer", None), BrowsableAPIRenderer)


def _is_the_clients(error: APIException | TryOnError) -> bool:
    """Whether it is the client's fault, and not counted yet."""
    status = error.status if isinstance(error, TryOnError) else error.status_code
    return status < 500 and not isinstance(error, Throttled)


class CreateImageView(TryOnView):
    """Put a garment on a person: give two photos, get the picture."""

    # DRF has no async views. This is a thin one: authentication, throttling, parsing and validation run in the
    # first of two thread hops, the response is made in the second, and between them only the event loop waits.

    parser_classes = [bodies.JSONParser, bodies.FormParser, bodies.MultiPartParser]
    serializer_class = CreateImageSerializer
    for_users = ("POST",)
    is_over = False
    """Whether nobody waits for the answer any more, while the entering hop may still read the body."""

    def get_serializer(self, *args: Any, **kwargs: Any) -> CreateImageSerializer:
        """Lets the browsable API show a form."""
        return CreateImageSerializer(*args, **kwargs)

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        request_id.assign(request)
        if request.method != "POST":
            try:
                return await sync_to_async(super().dispatch)(request, *args, **kwargs)
            finally:
                bodies.close_files(self.request)  # to look for a key was to read them
        self.args, self.kwargs = args, kwargs
        self.request = self.initialize_request(request, *args, **kwargs)
        self.headers = self.default_response_headers
        try:
            if is_draining():
                raise ShuttingDown
            recovery.now_and_then()
            return await self.post(self.request)
        except Exception as error:  # noqa: BLE001 - exception_handler() knows what each of them means
            return await sync_to_async(self.respond_to)(error)
        finally:
            self.is_over = True
            bodies.close_files(self.request)
            if isinstance(request, WSGIRequest):  # then the event loop ends with the request
                await close_providers()

    @extend_schema(
        operation_id="create_image",
        tags=["try-on"],
        summary="Create a try-on picture",
        description="Give a photo of a person and a catalogue photo of a garment; get the person wearing it. "
        "One picture costs one price in credits; whatever fails costs nothing.",
        request={
            "application/json": CreateImageSerializer,
            "multipart/form-data": CreateImageFormSerializer,
            "application/x-www-form-urlencoded": CreateImageSerializer,
        },
        parameters=[
            *request_header(
                IDEMPOTENCY_KEY,
                "Your name for this picture. Sent again, it is answered again.",
                ACCEPTABLE_KEY.pattern,
                LONGEST_KEY,
            ),
            *response_header("Idempotent-Replayed", "true if this is the answer to an earlier request.", 200),
            *response_header("Retry-After", "Seconds.", 409, 429, 503),
        ],
        examples=request_examples(
            catalog_id="dress-7",
            user_image_url="http://localhost:8001/samples/person.jpg",
            catalog_image_url="http://localhost:8001/samples/garment.jpg",
        ),
        responses={200: ResultSerializer, **dict.fromkeys(sorted(set(STATUS.values())), ErrorSerializer)},
    )
    async def post(self, request: Request) -> HttpResponse:
        return await pipeline.execute(self.enter, self.leave, replay=self.replay)

    def enter(self) -> runs.Order:
        """Everything that happens before the run exists, in the entering hop."""
        try:
            return self.read_order(self.request)
        finally:
            if self.is_over:
                bodies.close_files(self.request)

    def read_order(self, request: Request) -> runs.Order:
        check_host(request._request)
        bodies.check_size(request._request)
        connect()
        self.initial(request, *self.args, **self.kwargs)
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        data = serializer.validated_data
        return runs.Order(
            user=cast("User", request.user),  # perform_authentication() saw to it
            person=data.get("user_image") or data["user_image_url"],
            garment=data.get("catalog_image") or data["catalog_image_url"],
            catalog_id=data["catalog_id"],
            category=data["category"],
            seed=data.get("seed"),
            pictures=data["pictures"],
            size=data["size"],
            output_format=data["output_format"],
            no_store=data["no_store"],
            warnings=tuple(bodies.unknown_fields(request.data, serializer.fields)),
            request_id=request_id.assign(request._request),
            idempotency_key=idempotency_key(request),
        )

    def demand_user(self, request: Request) -> None:
        try:
            body = bodies.read(request)
        except Exception:
            request.user = AnonymousUser()  # or showing the error would authenticate, and so read the body again
            raise
        super().demand_user(request)
        if is_foreign(body.get("user_id"), cast("User", request.user)):
            raise AuthenticationFailed("user_id is not the user who sent this request. Leave it out.")

    def leave(self, tryon: TryOn) -> HttpResponse:
        """The answer, in the leaving hop; rendered, so that nothing about it can fail once it is paid for."""
        data = ResultSerializer(tryon, context={"request": self.request}).data
        response = self.finish(Response(data)).render()
        # Django would change threads once more to render what can render itself.
        length = {"Content-Length": str(len(response.content))}
        kind = partial(_Unstored, tryon) if tryon.no_store else HttpResponse
        return kind(response.content, status=response.status_code, headers={**response.headers, **length})

    def replay(self, tryon: TryOn) -> HttpResponse:
        """The same answer once more, for the same Idempotency-Key."""
        self.headers["Idempotent-Replayed"] = "true"
        return self.leave(tryon)

    def respond_to(self, error: Exception) -> Response:
        if isinstance(error, UserGone):  # DRF's own class gets the header that a 401 must have
            error = AuthenticationFailed(str(error))
        return self.finish(self.handle_exception(error))

    def finish(self, response: Response) -> Response:
        if self.request.method == "POST":
            self.keep_form(response)
        self.response = self.finalize_response(self.request, response, *self.args, **self.kwargs)
        return response

    def keep_form(self, response: Response) -> None:
        """Have the browsable API show the form as it was sent, with its errors; but never send a key back."""
        with contextlib.suppress(UnsupportedMediaType):
            if self.is_browsed(self.request) and isinstance(self.request.data, Mapping):
                sent = {
                    name: _sendable(value)
                    for name, value in self.request.data.items()
                    if isinstance(value, str) and name != "api_key"
                }
                response.data = ReturnDict(response.data, serializer=self.get_serializer(data=sent))

    def http_method_not_allowed(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        if request.method == "GET" and self.is_browsed(request):
            return Response({"detail": "Fill in the form below, or POST the same fields as JSON."})
        raise MethodNotAllowed(str(request.method))


class _Unstored(HttpResponse):
    """The only place where a picture is that is not kept."""

    def __init__(self, tryon: TryOn, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tryon = tryon

    def close(self) -> None:
        """Called by the server when the answer was sent."""
        try:
            runs.note_delivery(self._tryon)
        except Exception:
            logger.exception("Could not write down that %s was answered; its credit goes back.", self._tryon.pk)
        super().close()


def idempotency_key(request: Request) -> str:
    """The header, if there is one. Raise ``ValidationError``; also for an empty one, which protects nobody."""
    sent: str | None = request.headers.get(IDEMPOTENCY_KEY)
    if sent is None:
        return ""
    key = sent.strip()
    if not ACCEPTABLE_KEY.fullmatch(key):
        advice = "Send 1 to 255 characters of printable ASCII, for instance a UUID, or leave the header out."
        found = f"It has {len(key)} characters" if len(key) > LONGEST_KEY else f"It is {key!a}"
        raise ValidationError({IDEMPOTENCY_KEY: f"{found}. {advice}"})
    return key


def check_host(request: HttpRequest) -> None:
    """Look at the Host header now: the picture's address is made of it, when the provider has been paid."""
    try:
        request.get_host()
    except DisallowedHost as error:
        logger.warning("Refused a request: %s", error)
        raise ParseError("The Host header does not name this server.") from None


def exception_handler(error: Exception, context: dict[str, Any]) -> Response:
    """Every error as JSON with ``detail`` and ``code``, whatever the host's own handler does."""
    if isinstance(error, TryOnError):
        return _try_on_error(error)
    if isinstance(error, TooManyFieldsSent | BadRequest):  # of Django's own, over a thousand parameters in the address
        error = ParseError("The request could not be read.")
    if isinstance(error, APIException | Http404 | PermissionDenied):
        return _api_exception(error, context)
    if isinstance(error, OperationalError | InterfaceError):
        logger.error("The database cannot be used.", exc_info=error)
        return _try_on_error(DatabaseUnavailable())
    return _unexpected(error, context)


def _try_on_error(error: TryOnError) -> Response:
    body: dict[str, Any] = {"detail": str(error), "code": error.code}
    if error.field:
        body["errors"] = {error.field: [str(error)]}
    headers = {}
    if error.status in (409, 503):
        wait = getattr(error, "retry_after", None) or RETRY_AFTER
        headers["Retry-After"] = str(round(min(max(1, wait), LONGEST_RETRY_AFTER)))
    return Response(body, status=error.status, headers=headers)


def _api_exception(error: Exception, context: dict[str, Any]) -> Response:
    response = drf_exception_handler(error, context)
    assert response is not None  # noqa: S101 - it knows these classes
    if isinstance(error, ValidationError):
        errors = _flat(error.detail)
        first_field, sentences = next(iter(errors.items()))
        detail = f"The request is invalid: {first_field}: {sentences[0]}"
        response.data = {"detail": detail, "code": "invalid", "errors": errors}
    else:
        detail = response.data["detail"]
        response.data = {"detail": _sentence(detail), "code": detail.code}
    if isinstance(error, Throttled):
        response.headers.setdefault("Retry-After", "1")
    return response


def _flat(detail: Any) -> dict[str, list[str]]:
    """DRF's error details as a list of sentences for each field."""
    if not isinstance(detail, dict):
        detail = {"non_field_errors": detail}
    return {
        str(name): [_sentence(sentence) for sentence in (value if isinstance(value, list) else [value])]
        for name, value in detail.items()
    }


def _sentence(said: object) -> str:
    """A sentence that may quote what the client sent, at whatever length."""
    sentence = _sendable(said)
    return sentence if len(sentence) <= LONGEST_SENTENCE else f"{sentence[:LONGEST_SENTENCE]}…"


def _sendable(text: object) -> str:
    """What the client sent, without what UTF-8 cannot say."""
    return str(text).encode(errors="replace").decode()


def _unexpected(error: Exception, context: dict[str, Any]) -> Response:
    request = context["request"]._request
    logger.error("Unexpected error in %s", request.path, exc_info=error)
    got_request_exception.send(sender=CreateImageView, request=request)
    return _try_on_error(TryOnError("Something went wrong on our side."))


def reading(view: AsyncView) -> Callable[..., Any]:
    """For a view that only tells something: GET and HEAD, and the JSON of a 405 for all else."""

    @csrf_exempt  # else a POST hears of a cookie instead of its method
    @functools.wraps(view)
    async def wrapper(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        id_ = request_id.assign(request)
        if request.method in ("GET", "HEAD"):
            response: HttpResponseBase = await view(request, **kwargs)
        else:
            response = _plain_error("method_not_allowed", f'Method "{request.method}" not allowed.')
            response.headers["Allow"] = "GET, HEAD"
        secure(response)
        response.headers[request_id.HEADER] = id_
        return response

    return non_atomic(wrapper)


async def service_information(request: HttpRequest) -> JsonResponse:
    """What answers here. Costs no query."""
    assert request.resolver_match is not None  # noqa: S101 - Django came here by it
    namespace = request.resolver_match.view_name.removesuffix("service")  # wherever the host has mounted us
    names = {"create_image": "create-image", "health": "health", "ready": "ready"}
    return JsonResponse(
        {
            "service": conf.SERVICE_NAME,
            "status": "running",
            "provider": conf.PROVIDER,
            "endpoints": {key: reverse(namespace + name) for key, name in names.items()},
        }
    )


async def liveness(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok", "service": conf.SERVICE_NAME})


async def readiness(request: HttpRequest) -> JsonResponse:
    """Whether a try-on could work now: database, cache, storage, provider. Never a billed call."""
    recovery.now_and_then()  # a server that is only probed looks, too
    started = time.perf_counter()
    report = await sync_to_async(health.report)()
    ready = all(check["ok"] for check in report.values())
    body = {
        "status": "ready" if ready else "not ready",
        "checks": report,
        "latency_ms": round((time.perf_counter() - started) * 1000),
    }
    return JsonResponse(body, status=200 if ready else 503)


def _plain_error(code: str, detail: str) -> JsonResponse:
    response = JsonResponse({"detail": detail, "code": code}, status=STATUS[code])
    secure(response)
    return response


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """``handler400`` for a project that serves nothing but this API."""
    if isinstance(exception, RequestDataTooBig):
        return _plain_error("body_too_large", "The body is too large.")
    return _plain_error("parse_error", "The request could not be read.")


def forbidden(request: HttpRequest, exception: Exception) -> JsonResponse:
    """``handler403``."""
    return _plain_error("permission_denied", "You may not do this.")


@csrf_exempt
def not_found(request: HttpRequest, exception: Exception | None = None) -> JsonResponse:
    """``handler404``, and a view for whatever no other pattern matches."""
    return _plain_error("not_found", "There is nothing at this address.")


def server_error(request: HttpRequest) -> JsonResponse:
    """``handler500``."""
    return _plain_error("error", "Something went wrong on our side.")
