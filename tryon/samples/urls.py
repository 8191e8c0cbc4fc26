"""Serves the demo photos, for development."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path

from . import FILES, sample


def serve_sample(request: HttpRequest, name: str) -> HttpResponse:
    """One demo photo."""
    if name not in FILES:
        raise Http404(f"There is no demo photo {name!r}; there are: {', '.join(FILES)}.")
    return HttpResponse(sample(name).read_bytes(), content_type="image/jpeg")


urlpatterns = [path("<str:name>", serve_sample, name="sample")]
