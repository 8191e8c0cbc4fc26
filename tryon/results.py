"""A user's own runs: to list, to look at, to have erased. And their pictures, at signed addresses."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core import signing
from django.core.files.base import File
from django.core.handlers.wsgi import WSGIRequest
from django.db import InterfaceError, OperationalError
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from . import erasing, headers, recovery, request_id, signed_urls
from .exceptions import DatabaseUnavailable, StorageUnavailable, TryOnError
from .models import TryOn, TryOnQuerySet, connect, database
from .openapi import extend_schema, path_parameter, response_examples, response_header
from .serializers import ErasingSerializer, ErrorSerializer, PageSerializer, RunSerializer, RunsQuery
from .signed_urls import Claim
from .threads import in_thread
from .views import RETRY_AFTER, TryOnView, check_host, not_found

logger = logging.getLogger("tryon.results")

SALT: Final = "tryon.results.before"
OPERATORS: Final = ("attempts", "usage", "error_detail")
"""Columns that are not for clients, and not read for them."""

ERRORS: Final = (400, 401, 403, 404, 405, 406, 429, 500, 503)
TAGS: Final = ["try-on"]
RETRY: Final = response_header("Retry-After", "Seconds.", 429, 503)
ID: Final = path_parameter("id", "The run's id, from the answer that came with its picture.")
RUN: Final = {
    "id": "1110de56-4c12-4d6c-8a8e-6f0c4a3b9d11",
    "status": "success",
    "created_at": "2026-11-26T01:20:00.123456Z",
    "catalog_id": "dress-7",
    "image_url": "https://shop.example/media/ada_dress-7_1795423435_1110de564c124d6c8a8e6f0c4a3b9d11.png",
    "credits": 1,
    "error": None,
}
FAILED: Final = RUN | {
    "status": "failed",
    "image_url": None,
    "credits": 0,
    "error": {
        "code": "provider_timeout",
        "detail": "The try-on took too long. Nothing was charged; please try again.",
    },
}


class Unread(BaseParser):
    """For requests whose body means nothing: it is not looked at, whatever it is."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> dict[str, Any]:
        return {}


class RunsView(TryOnView):
    """Of runs, each user sees their own."""

    parser_classes = [Unread]
    for_users = ("GET", "HEAD", "DELETE")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        request_id.assign(request._request)
        check_host(request._request)
        recovery.now_and_then()
        connect()
        super().initial(request, *args, **kwargs)

    def runs(self) -> TryOnQuerySet:
        return TryOn.objects.using(database()).of(cast(Any, self.request.user))

    def erase(self, runs: TryOnQuerySet) -> Response:
        """Flag them, and say how many; erase what can be erased at once."""
        ids = Q(pk__in=list(runs.values_list("pk", flat=True)[: erasing.AT_ONCE]))
        count = runs.flag()
        erasing.erase_quickly(TryOn.objects.filter(ids))
        return Response({"erasing": count}, status=202)


class TryOnsView(RunsView):
    """Your try-ons, the newest first."""

    @extend_schema(
        operation_id="list_tryons",
        summary="List your try-ons",
        description="Your own, the newest first, whatever became of them. `next` leads to older ones.",
        examples=response_examples(200, {"results": [RUN, FAILED], "next": None}),
        responses={200: PageSerializer, **dict.fromkeys(ERRORS, ErrorSerializer)},
        tags=TAGS,
        parameters=[RunsQuery, *RETRY],
    )
    def get(self, request: Request) -> Response:
        query = RunsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        limit = query.validated_data["limit"]
        runs = _before(self.runs(), query.validated_data["before"]).order_by("-created_at", "-pk")
        page = list(runs.defer(*OPERATORS)[: limit + 1])
        rest = None
        if len(page) > limit:
            page = page[:limit]
            rest = replace_query_param(request.build_absolute_uri(), "before", _place(page[-1]))
        one = RunSerializer(context={"request": request})
        return Response({"results": [one.to_representation(tryon) for tryon in page], "next": rest})

    @extend_schema(
        operation_id="erase_tryons",
        summary="Erase all your try-ons",
        description="Pictures, photos and runs. They are seen by nobody from now on, and are gone within minutes; "
        "what is being made, when it has ended. What they cost stays in the books.",
        examples=response_examples(202, {"erasing": 12}),
        responses={202: ErasingSerializer, **dict.fromkeys(ERRORS, ErrorSerializer)},
        tags=TAGS,
        parameters=RETRY,
    )
    def delete(self, request: Request) -> Response:
        return self.erase(self.runs())


class OneTryOnView(RunsView):
    """One of your try-ons."""

    def found(self, id: str) -> TryOnQuerySet:  # noqa: A002
        """That run; or nothing, whether it is somebody else's, erased, or no run at all."""
        try:
            return self.runs().filter(pk=UUID(id))
        except ValueError:
            raise Http404 from None

    @extend_schema(
        operation_id="get_tryon",
        summary="Look at one of your try-ons",
        examples=response_examples(200, RUN),
        responses={200: RunSerializer, **dict.fromkeys(ERRORS, ErrorSerializer)},
        tags=TAGS,
        parameters=[*ID, *RETRY],
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        tryon = self.found(id).defer(*OPERATORS).first()
        if tryon is None:
            raise Http404
        return Response(RunSerializer(tryon, context={"request": request}).data)

    @extend_schema(
        operation_id="erase_tryon",
        summary="Erase one of your try-ons",
        description="Its pictures, photos and the run, as if it had been erased with all others.",
        examples=response_examples(202, {"erasing": 1}),
        responses={202: ErasingSerializer, **dict.fromkeys(ERRORS, ErrorSerializer)},
        tags=TAGS,
        parameters=[*ID, *RETRY],
    )
    def delete(self, request: Request, id: str) -> Response:  # noqa: A002
        answer = self.erase(self.found(id))
        if not answer.data["erasing"]:
            raise Http404
        return answer


def _place(tryon: TryOn) -> str:
    """Where a page ends. Signed, so that what comes back needs no doubt."""
    return signing.Signer(salt=SALT, sep=".").sign_object([tryon.created_at.isoformat(), tryon.pk.hex])


def _before(runs: TryOnQuerySet, place: str) -> TryOnQuerySet:
    """The runs behind that place. It may be that of a run which is no more."""
    if not place:
        return runs
    try:
        moment, run = signing.Signer(salt=SALT, sep=".").unsign_object(place)
    except signing.BadSignature:
        raise ValidationError(
            {"before": "This is no place in the list. Take it from the next of an answer."}
        ) from None
    created_at = datetime.fromisoformat(moment)
    return runs.filter(created_at__lte=created_at).exclude(created_at=created_at, pk__gte=UUID(run))


# Pictures

CHUNK: Final = 256 * 1024
"""Bytes in memory at once."""
TYPES: Final[dict[str, Callable[[bytes], bool]]] = {
    "image/jpeg": lambda head: head.startswith(b"\xff\xd8\xff"),
    "image/png": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "image/webp": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "video/mp4": lambda head: head[4:8] == b"ftyp",
}
"""By the first bytes, whatever a file is called."""


async def picture(request: HttpRequest, token: str) -> HttpResponseBase:
    """A file of a run, for whoever has its signed address. What is wrong with another address is not told."""
    claim = signed_urls.read(token)
    if claim is None:
        return not_found(request)
    try:
        file = await in_thread(_open, claim)
        if file is None:
            return not_found(request)
        head, size = await sync_to_async(_look_at)(file)
    except TryOnError as error:
        body = {"detail": str(error), "code": error.code}
        return JsonResponse(body, status=error.status, headers={"Retry-After": str(RETRY_AFTER)})
    told = {
        "Content-Disposition": "inline",
        headers.POLICY: headers.MEDIA,
        "Cache-Control": f"private, max-age={max(0, claim.expires - int(time.time()))}",
        "Content-Length": str(size),
        "Content-Type": next((name for name, fits in TYPES.items() if fits(head)), "application/octet-stream"),
    }
    if request.method == "HEAD":
        await sync_to_async(file.close)()
        return HttpResponse(headers=told)
    pieces = _Pieces(file) if isinstance(request, WSGIRequest) else _AsyncPieces(file)
    return StreamingHttpResponse(pieces, headers=told)


def _open(claim: Claim) -> File[bytes] | None:
    """The file; None if there is none any more."""
    try:
        connect()
        visible = TryOn.objects.using(database()).filter(to_erase=False, no_store=False)
        tryon = visible.only("image", "more_images", "video", "inputs").filter(pk=claim.run).first()
    except (OperationalError, InterfaceError) as error:
        logger.error("The database cannot be used.", exc_info=error)
        raise DatabaseUnavailable from error
    name = signed_urls.files(tryon).get(claim.which) if tryon is not None else None
    if not name:
        return None
    try:
        file: File[bytes] = TryOn.image.field.storage.open(name)
    except FileNotFoundError:
        return None
    except Exception as error:
        logger.exception("Could not open %s.", name)
        raise StorageUnavailable from error
    return file


def _look_at(file: File[bytes]) -> tuple[bytes, int]:
    """Its first bytes and its size. It is closed if it cannot be read."""
    try:
        head = file.read(16)
        file.seek(0)
        return head, file.size
    except Exception as error:
        file.close()
        logger.exception("Could not read %s.", file.name)
        raise StorageUnavailable from error


class _Closing:
    """A file that Django closes with the response."""

    def __init__(self, file: File[bytes]) -> None:
        self.file = file

    def close(self) -> None:
        self.file.close()


class _Pieces(_Closing):
    def __iter__(self) -> Iterator[bytes]:
        return iter(partial(self.file.read, CHUNK), b"")


class _AsyncPieces(_Closing):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await sync_to_async(self.file.read)(CHUNK):
            yield piece
