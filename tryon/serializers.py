"""What comes in and goes out over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import pybase64
from django.core.files.uploadedfile import UploadedFile
from rest_framework import serializers

from providers.base import OUTPUT_FORMATS, SIZES

from . import bodies
from .conf import conf
from .exceptions import ImageTooLarge
from .models import TryOn
from .openapi import extend_schema_field

CATEGORIES = ("auto", "tops", "bottoms", "dresses")
MAX_SEED = 2**32 - 2
"""The largest that every provider with seeds takes."""


class ImageURLField(serializers.CharField):
    """An http(s) URL. Whether it may be fetched is decided when it is (``tryon.fetching``)."""

    default_error_messages = {
        "not_http": "Give an http:// or https:// URL, not {scheme!r}.",
        "no_urls": "This server takes no URLs of photos. Send the photo itself as {field}.",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=2048, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not conf.FETCH_URLS:
            self.fail("no_urls", field=(self.field_name or "").removesuffix("_url"))
        url = super().to_internal_value(data)
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            self.fail("not_http", scheme=url[:40])
        return url


@extend_schema_field({"type": "string", "example": "data:image/jpeg;base64,/9j/4AAQSkZJRg…"})
class PhotoField(serializers.FileField):
    """A photo itself: a file of a form, or a ``data:`` URI. Raise ``ImageTooLarge`` if it has too many bytes."""

    default_error_messages = {"invalid": bodies.NO_PHOTO, "empty": "The file is empty. Send a JPEG, PNG or WebP."}

    def to_internal_value(self, data: Any) -> bodies.Upload:
        name = str(self.field_name)
        if not isinstance(data, UploadedFile):  # the parsers have made files of data: URIs
            self.fail("invalid")
        if not data.size:
            self.fail("empty")
        if data.size > conf.MAX_IMAGE_BYTES:
            raise ImageTooLarge(bodies.image_too_large(name, data.size), field=name)
        return data


@extend_schema_field({"type": "string", "format": "binary"})
class PhotoFileField(PhotoField):
    """The same, as a form's schema shows it."""


class Choice(serializers.ChoiceField):
    """One of a few words, which a refusal names."""

    def __init__(self, choices: Sequence[str], **kwargs: Any) -> None:
        known = ", ".join(choices)
        super().__init__(choices, error_messages={"invalid_choice": f'"{{input}}" is none of: {known}.'}, **kwargs)


class CreateImageSerializer(serializers.Serializer[dict[str, Any]]):
    """The body of ``POST /api/v1/create-image``."""

    user_id = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=254,
        help_text="Your user id. Needed with api_key; must be the key's own user.",
    )
    api_key = serializers.CharField(
        required=False,
        allow_blank=True,
        write_only=True,
        max_length=200,
        style={"input_type": "password"},
        help_text="Your key, unless it comes in a header, Authorization: Bearer or X-API-Key.",
    )
    catalog_id = serializers.CharField(max_length=200, help_text="Your id of the garment; echoed, never interpreted.")
    user_image_url = ImageURLField(required=False, help_text="Photo of the person: the URL of a JPEG, PNG or WebP.")
    catalog_image_url = ImageURLField(required=False, help_text="Catalogue photo of the garment: a URL, likewise.")
    user_image = PhotoField(
        required=False, help_text="Instead of user_image_url the photo itself: a file of a form, or a data: URI."
    )
    catalog_image = PhotoField(required=False, help_text="Instead of catalog_image_url, likewise.")
    category = Choice(
        CATEGORIES, default="auto", initial="auto", help_text="What kind of garment it is; auto looks at the photo."
    )
    seed = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=0,
        max_value=MAX_SEED,
        help_text="The same seed gives a comparable picture, where the provider can repeat one.",
    )
    pictures = serializers.IntegerField(default=1, initial=1, help_text="How many to make; each costs the price.")
    size = Choice(
        SIZES, default="", allow_blank=True, help_text="About 1, 4 or 16 million pixels, where this server offers it."
    )
    output_format = Choice(
        OUTPUT_FORMATS,
        default="",
        allow_blank=True,
        help_text="Where the provider can be told; else it is what comes.",
    )
    no_store = serializers.BooleanField(
        default=False, help_text="Keep no picture here: the answer has it in base64, and nobody can ask for it again."
    )

    def validate_pictures(self, pictures: int) -> int:
        most = conf.MAX_PICTURES
        if not 1 <= pictures <= most:
            offer = f"1 to {most}" if most > 1 else "1"
            raise serializers.ValidationError(f"{pictures} pictures cannot be made at once. Ask for {offer}.")
        return pictures

    def validate_size(self, size: str) -> str:
        if size and size not in conf.SIZES:
            offer = f"Ask for one of: {', '.join(conf.SIZES)}." if conf.SIZES else "Leave size out."
            raise serializers.ValidationError(f"This server does not offer {size}. {offer}")
        return size

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        problems: dict[str, Any] = {}
        for name in bodies.PHOTO_FIELDS:
            url = f"{name}_url"
            if name in attrs and url in attrs:
                problems[name] = f"Send {name} or {url}, not both."
            elif name not in attrs and url not in attrs:
                problems[url] = f"This field is required, or {name}, the photo itself."
        if problems:
            raise serializers.ValidationError(problems)
        return attrs


class CreateImageFormSerializer(CreateImageSerializer):
    """The same as a form with files; for the schema alone."""

    user_image = PhotoFileField(required=False, help_text="Instead of user_image_url the photo itself.")
    catalog_image = PhotoFileField(required=False, help_text="Instead of catalog_image_url the photo itself.")


class ResultSerializer(serializers.Serializer[TryOn]):
    """The answer to a try-on that worked."""

    # Written out: a ModelSerializer finds its fields anew for every answer, which takes longer than the query.
    status = serializers.SerializerMethodField(help_text="Always success.")
    image_url = serializers.SerializerMethodField(help_text="Where the picture is.")
    image_urls = serializers.SerializerMethodField(help_text="Where all pictures are; image_url is the first.")
    image_base64 = serializers.SerializerMethodField(help_text="The picture itself, where it is not kept (no_store).")
    images_base64 = serializers.SerializerMethodField(help_text="Likewise, all pictures.")
    video_base64 = serializers.SerializerMethodField(help_text="Likewise, the clip.")
    content_type = serializers.CharField(help_text="image/jpeg, image/png or image/webp.")
    video_url = serializers.SerializerMethodField(help_text="Where the clip is, from a provider that makes one.")
    latency_ms = serializers.IntegerField(help_text="Milliseconds from request to picture.")
    id = serializers.UUIDField(help_text="The run's id.")
    catalog_id = serializers.CharField(help_text="What you sent.")
    provider = serializers.CharField(help_text="Alias of the provider that made the picture.")
    model = serializers.CharField(help_text="The provider's model.")
    credits = serializers.IntegerField(help_text="Credits that were charged.")
    width = serializers.IntegerField(help_text="Pixels.")
    height = serializers.IntegerField(help_text="Pixels.")
    seed = serializers.IntegerField(allow_null=True, help_text="By which it can be made again, if at all.")
    ai_generated = serializers.BooleanField(
        allow_null=True, help_text="Whether a generative model made the picture; null where nobody knows."
    )
    warnings = serializers.ListField(child=serializers.CharField(), help_text="What to know about this picture.")

    def get_status(self, tryon: TryOn) -> str:
        return "success"

    def get_image_url(self, tryon: TryOn) -> str | None:
        return None if tryon.no_store else self._absolute(tryon.image.url)

    def get_image_base64(self, tryon: TryOn) -> str | None:
        return _base64(tryon.unkept[0]) if tryon.unkept else None

    def get_images_base64(self, tryon: TryOn) -> list[str]:
        return [_base64(data) for data in tryon.unkept]

    def get_video_base64(self, tryon: TryOn) -> str | None:
        return _base64(tryon.unkept_video) if tryon.unkept_video else None

    def get_image_urls(self, tryon: TryOn) -> list[str]:
        if tryon.no_store:
            return []
        return [self._absolute(url) for url in (tryon.image.url, *map(tryon.image.storage.url, tryon.more_images))]

    def get_video_url(self, tryon: TryOn) -> str | None:
        return self._absolute(tryon.video.url) if tryon.video and not tryon.no_store else None

    def _absolute(self, url: str) -> str:
        absolute: str = self.context["request"].build_absolute_uri(url)
        return absolute


def _base64(data: bytes) -> str:
    return pybase64.b64encode(data).decode()


class ErrorSerializer(serializers.Serializer[dict[str, Any]]):
    """Every error."""

    detail = serializers.CharField(help_text="A sentence for people.")
    code = serializers.CharField(help_text="A stable name for programs.")
    errors = serializers.DictField(  # type: ignore[assignment]  # hides Serializer.errors, which is not used here
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="The sentences by field, where fields are to blame.",
    )
