"""Adapters by name from the configured folder: asked for whenever a request names one, told of in moderation."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.pooling.base.serving import PoolingBaseServing
from vllm.entrypoints.serve.engine.protocol import ErrorResponse, ModelCard, ModelList, ModelPermission
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.entrypoints.serve.middleware import authenticate
from vllm.lora.request import LoRARequest

from .. import folders

#: `/v1/models` tells of at most so many adapters that were found by name, the last ones.
LISTED = 500

#: Addresses that run the model, load adapters or change the server, and that vLLM leaves open where it asks for a key
#: at /v1: some of them are second names of what is there.
UNGUARDED = ("/adapters", "/invocations", "/generative_scoring", "/tokenize", "/detokenize", "/scale_elastic_ep")


def install() -> None:
    """Serve the folder that `MORA_ADAPTERS` names; without it, vLLM is left as it is.

    Raises UserError where it names no folder.
    """
    if folders.configured() is None:
        return
    resolve = OpenAIServingModels.resolve_lora

    async def resolve_lora(self: OpenAIServingModels, lora_name: str) -> LoRARequest | ErrorResponse:
        found = await resolve(self, lora_name)
        if isinstance(found, ErrorResponse):  # or else every name that anyone makes up would leave a lock behind
            self.lora_resolver_lock.pop(lora_name, None)
        return found

    async def show_available_models(self: OpenAIServingModels) -> ModelList:
        listed = await self.registry.show_available_models()
        base = self.base_model_paths[0].name
        for lora in self.lora_requests.listed(LISTED):
            parent = lora.base_model_name or base
            listed.data.append(
                ModelCard(id=lora.lora_name, root=lora.path, parent=parent, permission=[ModelPermission()])
            )
        return listed

    OpenAIServingModels.resolve_lora = resolve_lora
    OpenAIServingModels.show_available_models = show_available_models
    for serving in (BaseServing, PoolingBaseServing):
        serving._check_model = _finding(serving._check_model)
    authenticate.GUARDED_PREFIX = (*authenticate.GUARDED_PREFIX, *UNGUARDED)


def _finding(check: Callable) -> Callable:
    """vLLM asks for a name's adapter only where clients may load adapters of their own; here in any case."""

    async def _check_model(self: BaseServing, request: Any) -> ErrorResponse | None:
        name = request.model
        if name and not self._is_model_supported(name) and name not in self.models.lora_requests:
            found = await self.models.resolve_lora(name)
            if isinstance(found, ErrorResponse) and found.error.code != HTTPStatus.NOT_FOUND:
                return found
        return await check(self, request)

    return _check_model
