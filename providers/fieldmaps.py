"""Platforms that run anybody's models: how a request becomes the inputs of one of them, whatever it calls them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, ClassVar, Final

from .base import Problem, Secret, TryOnRequest, TryOnResult
from .errors import ProviderMisconfigured
from .rest import JobProvider, Reply
from .utils import bad_option, data_uri, image_type, prompt_for

NAMES: Final = ("person", "garment", "prompt", "category", "seed", "pictures", "output_format")
"""What of a request a model can be given, in the order in which it is."""
OUTPUT_FORMATS: Final = ("png", "jpeg", "webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldMap:
    """The inputs of a model."""

    fields: Mapping[str, str]
    """Which input gets what of ``NAMES``; ``"image_urls[]"`` is an input that is a list, and gets one more entry."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """The model's words for our categories where it has others. "auto" is not sent unless it is here."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """What is always sent as it is."""
    max_pictures: int = 1
    output_formats: tuple[str, ...] = ()
    price: Decimal | None = None
    """US dollars for a picture, where there is one price for all."""

    def inputs_for(self, request: TryOnRequest) -> dict[str, Any]:
        category = self.categories.get(request.category, "" if request.category == "auto" else request.category)
        values: dict[str, Any] = {
            "person": data_uri(request.person),
            "garment": data_uri(request.garment),
            "prompt": request.prompt if "category" in self.fields else prompt_for(request),
            "category": category or None,
            "seed": request.seed,
            "pictures": request.pictures,
            "output_format": request.output_format or None,
        }
        inputs = dict(self.inputs)
        lists: dict[str, list[Any]] = {}
        for name in NAMES:
            target, value = self.fields.get(name, ""), values[name]
            if target.endswith("[]"):
                lists.setdefault(target[:-2], []).append(value)
            elif target and value is not None:
                inputs[target] = value
        return inputs | lists

    def photo_at(self, place: Sequence[object]) -> str:
        """``person`` or ``garment``, for the input and the index in it that a vendor complains of; or nothing."""
        for name in ("person", "garment"):
            target = self.fields[name]
            if place[:1] == [target] or (target.endswith("[]") and place[:2] == [target[:-2], self._index(name)]):
                return name
        return ""

    def _index(self, name: str) -> int:
        """Of the entry of a list."""
        before = NAMES[: NAMES.index(name)]
        return sum(self.fields.get(other) == self.fields[name] for other in before)


class MappedProvider(JobProvider):
    """Base of adapters whose ``model`` is anybody's.

    ``known`` has the inputs of some models. For others, and to change these, there are options:

    * ``fields``: which input gets ``person`` and ``garment`` (these two are needed), ``prompt``, ``category``,
      ``seed``, ``pictures`` and ``output_format``, for instance ``{"person": "human", "garment": "cloth"}``. Photos
      are sent as data URIs. Where both go into one list: ``{"person": "images[]", "garment": "images[]"}``.
    * ``categories``: the model's words for ``tops``, ``bottoms`` and ``dresses`` where it has others, and for
      ``auto``, which is not sent otherwise.
    * ``inputs``: what is always sent as it is, for instance ``{"output_format": "png"}``.
    * ``max_pictures`` and ``output_formats``: what the model can do, if ``fields`` has an input for it.

    What a request may ask for follows from these.
    """

    known: ClassVar[Mapping[str, FieldMap]] = {}
    default_model: ClassVar[str] = ""
    model_pattern: ClassVar[str]
    model_example: ClassVar[str]

    def __init__(
        self,
        alias: str,
        *,
        api_key: str | Secret = "",
        model: str = "",
        fields: Mapping[str, str] | None = None,
        categories: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        max_pictures: int | None = None,
        output_formats: Collection[str] | None = None,
        base_url: str = "",
        poll_every: float = 1.0,
    ) -> None:
        super().__init__(alias, api_key=api_key, base_url=base_url, poll_every=poll_every)
        model = self.default_model if model == "" else model
        if model != "" and not (isinstance(model, str) and re.fullmatch(self.model_pattern, model)):
            raise bad_option(
                alias, "model", model, f'Give the name of a try-on model, such as "{self.model_example}".'
            )
        self._model = model
        known = self.known.get(model.partition(":")[0])
        options = {
            "categories": categories,
            "inputs": inputs,
            "max_pictures": max_pictures,
            "output_formats": None if output_formats is None else _words(alias, output_formats),
        }
        changes: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if fields is not None:
            self._map = FieldMap(fields=_checked_fields(alias, fields), **changes)
        elif known is not None:
            self._map = replace(known, **changes)
        elif not model:
            self._map = FieldMap(fields={})  # nothing is asked of no model
        else:
            raise bad_option(alias, "fields", fields, f"Say which inputs of {model} get what. {_EXAMPLE}")
        self._check_map(alias)
        self.supports_prompt = "prompt" in self._map.fields
        self.supports_seed = "seed" in self._map.fields
        self.supports_category = "category" in self._map.fields or self.supports_prompt
        self.max_pictures = self._map.max_pictures
        self.output_formats = self._map.output_formats

    def _check_map(self, alias: str) -> None:
        for option in ("categories", "inputs"):
            value = getattr(self._map, option)
            if not isinstance(value, Mapping):
                raise bad_option(alias, option, value, "Give a dict.")
        pictures, formats = self._map.max_pictures, self._map.output_formats
        if type(pictures) is not int or pictures < 1:
            raise bad_option(alias, "max_pictures", pictures, "Give a whole number from 1.")
        if pictures > 1 and "pictures" not in self._map.fields:
            raise bad_option(alias, "max_pictures", pictures, 'Say in "fields" which input gets "pictures".')
        if not set(formats) <= set(OUTPUT_FORMATS):
            raise bad_option(alias, "output_formats", formats, f"Use some of: {', '.join(OUTPUT_FORMATS)}.")
        if formats and "output_format" not in self._map.fields:
            raise bad_option(alias, "output_formats", formats, 'Say in "fields" which input gets "output_format".')

    @property
    def model(self) -> str:
        return self._model

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        if not self._model:
            yield Problem(
                f'TRYON["PROVIDERS"]["{self.alias}"]["OPTIONS"]["model"] is empty.',
                hint=f'Give the name of a try-on model, such as "{self.model_example}".',
            )

    async def generate_image(self, request: TryOnRequest) -> TryOnResult:
        if not self._model:
            raise ProviderMisconfigured(f"{self.name} has no model. Name one in its OPTIONS.")
        return await super().generate_image(request)

    def job_path(self, reply: Reply, url: object, otherwise: str) -> str:
        """The job, as the path of its ``url`` if that is below ``base_url``, or as the path ``otherwise``.

        The vendor's URLs are followed where they stay at the server that the operator chose. Behind a proxy they lead
        elsewhere; the same paths then lead to the job.
        """
        prefix = f"{self._base_url}/"
        path = url.removeprefix(prefix) if isinstance(url, str) and url.startswith(prefix) else ""
        return self.job_id(reply, next(filter(_is_path, (path, otherwise)), None))

    async def result(self, job: str, links: object) -> TryOnResult:
        """The result of a job that ended with the pictures behind ``links``."""
        pictures = await self.pictures(links)
        price = self._map.price
        return TryOnResult(
            data=pictures[0],
            more=tuple(pictures[1:]),
            content_type=image_type(pictures[0]),
            model=self._model,
            provider_id=job.rpartition("/")[2],
            cost_usd=None if price is None else price * len(pictures),
        )


_EXAMPLE: Final = 'For instance {"person": "human_image", "garment": "cloth_image", "prompt": "prompt"}.'


def _words(alias: str, formats: object) -> tuple[str, ...]:
    if not isinstance(formats, list | tuple) or not all(isinstance(each, str) for each in formats):
        raise bad_option(alias, "output_formats", formats, f"Give a list of some of: {', '.join(OUTPUT_FORMATS)}.")
    return tuple(formats)


def _is_path(path: str) -> bool:
    """Whether it is one of plain words, which leads nowhere else."""
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)+", path, re.ASCII) is not None


def _checked_fields(alias: str, fields: object) -> Mapping[str, str]:
    """The option, if every input gets one thing or is a list."""
    good = isinstance(fields, Mapping) and {"person", "garment"} <= set(fields) <= set(NAMES)
    targets = list(fields.values()) if isinstance(fields, Mapping) else []
    good = good and all(isinstance(target, str) and target.removesuffix("[]") for target in targets)
    once = [target for target in targets if not (isinstance(target, str) and target.endswith("[]"))]
    if not good or len(set(once)) != len(once):
        advice = f"Give the name of an input for person and for garment, and for what else of {', '.join(NAMES[2:])}"
        advice += f" the model reads; end it with [] if several go into one. {_EXAMPLE}"
        raise bad_option(alias, "fields", fields, advice)
    return dict(fields)  # type: ignore[call-overload, no-any-return]
