"""Serves the demo photos, for development."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from ..headers import MEDIA, POLICY
from ..views import not_found, reading
from . import FILES, sample


async def serve_sample(request: HttpRequest, name: str) -> HttpResponse:
    """One demo photo."""
    if name not in FILES:
        return not_found(request)
    return HttpResponse(sample(name).read_bytes(), content_type="image/jpeg", headers={POLICY: MEDIA})


urlpatterns = [path("<str:name>", reading(serve_sample), name="sample")]
