"""Replicate, a platform of models: POST /v1/models/{owner}/{name}/predictions, or /v1/predictions with a version.

Wire format as in Replicate's HTTP API reference and its SDK 1.0.7: ``urls.get`` is polled, POST .../cancel cancels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final

from .base import Model, Problem, TryOnRequest, TryOnResult
from .errors import InvalidProviderResponse, ProviderUnavailable
from .fieldmaps import FieldMap, MappedProvider

IDM_VTON: Final = "cuuupid/idm-vton"
NON_COMMERCIAL: Final = (IDM_VTON,)


class ReplicateProvider(MappedProvider):
    """Any try-on model at Replicate: ``model`` is "owner/name", or "owner/name:version" for community models.

    There is no default: the best known one, cuuupid/idm-vton, may not be used commercially, which a check says.

    A prediction that failed says why in a sentence only, which names no cause that could be relied on, not even for
    refused content. It ran, and may be billed, so it is not asked for again.
    """

    name: ClassVar[str] = "Replicate"
    default_base_url: ClassVar[str] = "https://api.replicate.com/v1"
    key_variable: ClassVar[str] = "REPLICATE_API_TOKEN"
    supports_prompt = False  # nor anything else that its one known model is not given; others as their fields say
    models: ClassVar[tuple[Model, ...]] = (Model(IDM_VTON),)
    known: ClassVar[Mapping[str, FieldMap]] = {
        IDM_VTON: FieldMap(fields={"person": "human_img", "garment": "garm_img"}),
    }
    model_pattern: ClassVar[str] = r"[\w-][\w.-]*/[\w-][\w.-]*(:\w+)?"
    model_example: ClassVar[str] = "owner/name"

    def check(self) -> Iterator[Problem]:
        yield from super().check()
        if self._model.partition(":")[0] in NON_COMMERCIAL:
            yield Problem(
                f'The provider "{self.alias}" uses {self._model}, whose licence allows no commercial use.',
                hint="Use another model in a shop.",
                fatal=False,
            )

    async def submit(self, request: TryOnRequest) -> str:
        name, _, version = self._model.partition(":")
        path = "/predictions" if version else f"/models/{name}/predictions"
        content = {"input": self._map.inputs_for(request)} | ({"version": version} if version else {})
        reply = await self.ask("POST", path, json=content)
        answer = self.read(reply)
        job, urls = answer.get("id"), answer.get("urls")
        url = urls.get("get") if isinstance(urls, dict) else None
        return self.job_path(reply, url, f"predictions/{job}" if job else "")

    async def poll(self, job: str) -> TryOnResult | None:
        reply = await self.ask_about(f"/{job}")
        answer = self.read(reply)
        match answer.get("status"):
            case "starting" | "processing":
                return None
            case "succeeded":
                output = answer.get("output")
                return await self.result(job, output if isinstance(output, list) else [output])
            case "failed":
                said = f"{self.name} made no picture (failed)."
                raise self.problem(InvalidProviderResponse, reply, said, job_is_over=True)
            case "canceled":
                said = f"{self.name} made no picture (canceled)."
                raise self.problem(ProviderUnavailable, reply, said, job_is_over=True)
        raise self.problem(InvalidProviderResponse, reply, f"{self.name} answered without a status of the job.")

    async def cancel(self, job: str) -> None:
        await self.ask("POST", f"/{job}/cancel")
