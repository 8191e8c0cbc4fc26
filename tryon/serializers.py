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
from .exceptions import ImageTooLarge, sentence_for
from .models import TryOn
from .openapi import extend_schema_field
from .signed_urls import address

CATEGORIES = ("auto", "tops", "bottoms", "dresses")
MAX_SEED = 2**32 - 2
"""The largest that every provider with seeds takes."""
STATUS_OF_RUNS = {status.value: status.value for status in TryOn.Status} | {"succeeded": "success"}
"""As the answer to a try-on has it."""


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


# The example is a photo that works, though of one colour: 64 pixels wide and high.
@extend_schema_field(
    {
        "type": "string",
        "example": "data:image/webp;base64,UklGRiQAAABXRUJQVlA4TBcAAAAvP8APAAdQ2iIXtP8BICH8f69F9D/1AwA=",
    }
)
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
        messages: dict[str, Any] = {
            "invalid_choice": f'"{{input}}" is none of: {known}.',
            "no_text": f"Give one of: {known}.",
        }
        super().__init__(choices, error_messages=messages, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):  # DRF looks up, and quotes, whatever Python writes for it
            self.fail("no_text")
        return super().to_internal_value(bodies.cut(data))


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
            asked = bodies.cut(str(pictures))
            raise serializers.ValidationError(f"{asked} pictures cannot be made at once. Ask for {offer}.")
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
    confidence = serializers.FloatField(
        allow_null=True,
        min_value=0,
        max_value=1,
        help_text="How sure the provider is that the picture is right, 0 to 1; null where it does not say.",
    )

    def get_status(self, tryon: TryOn) -> str:
        return "success"

    def get_image_url(self, tryon: TryOn) -> str | None:
        return None if tryon.no_store else self.address(tryon, str(tryon.image.name))

    def get_image_base64(self, tryon: TryOn) -> str | None:
        return _base64(tryon.unkept[0]) if tryon.unkept else None

    def get_images_base64(self, tryon: TryOn) -> list[str]:
        return [_base64(data) for data in tryon.unkept]

    def get_video_base64(self, tryon: TryOn) -> str | None:
        return _base64(tryon.unkept_video) if tryon.unkept_video else None

    def get_image_urls(self, tryon: TryOn) -> list[str]:
        if tryon.no_store:
            return []
        return [self.address(tryon, name) for name in (str(tryon.image.name), *tryon.more_images)]

    def get_video_url(self, tryon: TryOn) -> str | None:
        return self.address(tryon, str(tryon.video.name)) if tryon.video and not tryon.no_store else None

    def address(self, tryon: TryOn, name: str) -> str:
        request = self.context["request"]
        return str(request.build_absolute_uri(address(tryon, name, request)))


class RunErrorSerializer(serializers.Serializer[TryOn]):
    """Why a run has no picture."""

    code = serializers.CharField(source="error_code", help_text="A stable name for programs.")
    detail = serializers.SerializerMethodField(help_text="A sentence for people.")

    def get_detail(self, tryon: TryOn) -> str:
        return sentence_for(tryon.error_code)

    def to_representation(self, tryon: TryOn) -> Any:
        return super().to_representation(tryon) if tryon.error_code else None


class RunSerializer(ResultSerializer):
    """One of a user's runs, whatever became of it: what its answer had, as far as there is any of it, and more."""

    image_base64 = images_base64 = video_base64 = None  # type: ignore[assignment]  # in the answer alone
    status = serializers.SerializerMethodField(help_text=f"One of: {', '.join(STATUS_OF_RUNS.values())}.")
    created_at = serializers.DateTimeField(help_text="When it was asked for.")
    image_url = serializers.SerializerMethodField(help_text="Where the picture is; null if there is none.")
    image_urls = serializers.SerializerMethodField(help_text="Where all pictures are; image_url is the first.")
    latency_ms = serializers.IntegerField(allow_null=True, help_text="Milliseconds from request to end.")
    credits = serializers.SerializerMethodField(help_text="Credits that were charged.")  # type: ignore[assignment]
    width = serializers.IntegerField(allow_null=True, help_text="Pixels.")
    height = serializers.IntegerField(allow_null=True, help_text="Pixels.")
    error = RunErrorSerializer(
        source="*", allow_null=True, help_text="Why there is no picture; null unless it failed."
    )

    def get_status(self, tryon: TryOn) -> str:
        return STATUS_OF_RUNS[tryon.status]

    def get_image_url(self, tryon: TryOn) -> str | None:
        return super().get_image_url(tryon) if self.has_picture(tryon) else None

    def get_image_urls(self, tryon: TryOn) -> list[str]:
        return super().get_image_urls(tryon) if self.has_picture(tryon) else []

    def get_video_url(self, tryon: TryOn) -> str | None:
        return super().get_video_url(tryon) if self.has_picture(tryon) else None

    def get_credits(self, tryon: TryOn) -> int:
        return tryon.credits if tryon.status == TryOn.Status.SUCCEEDED else 0

    @staticmethod
    def has_picture(tryon: TryOn) -> bool:
        return bool(tryon.image) and not tryon.no_store


class PageSerializer(serializers.Serializer[dict[str, Any]]):
    """Some of a user's runs."""

    results = RunSerializer(many=True)
    next = serializers.URLField(allow_null=True, help_text="Where older ones are; null if there are none.")


class RunsQuery(serializers.Serializer[dict[str, Any]]):
    """Which of a user's runs."""

    limit = serializers.IntegerField(default=20, min_value=1, max_value=100, help_text="How many, at most.")
    before = serializers.CharField(
        default="", allow_blank=True, max_length=300, help_text="Those before this place, as next has it."
    )


class ErasingSerializer(serializers.Serializer[dict[str, Any]]):
    """The answer to a wish to be forgotten."""

    erasing = serializers.IntegerField(help_text="How many runs are being erased.")


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
