import contextlib
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, URLResolver, include, path, re_path
from django.views.decorators.csrf import csrf_exempt
from django.views.static import serve
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularRedocView, SpectacularSwaggerSplitView

from tryon import headers, views
from tryon.samples import urls as samples


@csrf_exempt
def media(request: HttpRequest, path: str) -> HttpResponse:
    """A result, for development. Read at once: Django cannot stream files under ASGI without a warning."""
    try:
        response = serve(request, path, document_root=settings.MEDIA_ROOT)
    except (Http404, SuspiciousOperation):
        return views.not_found(request)
    with contextlib.closing(response):
        policy = {headers.POLICY: headers.MEDIA}
        return HttpResponse(b"".join(response), headers={**response.headers, **policy}, status=response.status_code)


class Page:
    """For a view that answers with a page: what it refuses is JSON, as everywhere."""

    def handle_exception(self, error: Exception) -> HttpResponse:
        response = super().handle_exception(error)  # type: ignore[misc]
        kept = {name: value for name, value in response.headers.items() if name != "Content-Type"}
        return JsonResponse(response.data, status=response.status_code, headers=kept)

    def finalize_response(self, *args: Any, **kwargs: Any) -> Any:
        # Both write styles into the page, and ReDoc searches in a worker that it makes.
        response = super().finalize_response(*args, **kwargs)  # type: ignore[misc]
        headers.secure(response, headers.page(styles=headers.INLINE, workers="blob:"))
        return response


class Docs(Page, SpectacularSwaggerSplitView):
    """Swagger UI whose script is a file of its own, at the same address with ``?script``."""


class Redoc(Page, SpectacularRedocView):
    pass


PAGE = {"url_name": "schema", "http_method_names": ["get", "head"]}

urlpatterns: list[URLPattern | URLResolver] = [path("", include("tryon.urls"))]
if settings.ADMIN_ENABLED:
    urlpatterns += [path("admin/", admin.site.urls)]
if settings.DOCS_ENABLED:
    urlpatterns += [
        path("api/schema", SpectacularJSONAPIView.as_view(), name="schema"),
        path("docs", Docs.as_view(**PAGE), name="docs"),
        path("redoc", Redoc.as_view(**PAGE, template_name="redoc.html"), name="redoc"),
    ]
if settings.DEBUG:
    urlpatterns += [path("samples/", include(samples))]
    urlpatterns += [path(f"{settings.MEDIA_URL.strip('/')}/<path:path>", media)]
# JSON for unknown addresses, with DEBUG too. "admin" is left to APPEND_SLASH.
urlpatterns += [re_path("^(?!admin$)" if settings.ADMIN_ENABLED else "", views.not_found)]

handler400 = "tryon.views.bad_request"
handler403 = "tryon.views.forbidden"
handler404 = "tryon.views.not_found"
handler500 = "tryon.views.server_error"
