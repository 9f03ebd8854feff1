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

from mora_peft.errors import UserError

from .. import folders
from .resolver import FolderResolver, forget_if_changed

#: `/v1/models` tells of at most so many adapters that were found by name, the last ones.
LISTED = 500

#: Addresses that run the model, load adapters, or change or tell of the server, and that vLLM leaves open where it
#: asks for a key at /v1: some of them are second names of what is there.
UNGUARDED = (
    *("/adapters", "/invocations", "/generative_scoring", "/tokenize", "/detokenize", "/scale_elastic_ep"),
    *("/is_scaling_elastic_ep", "/kv_event_sources", "/pooling", "/classify", "/score", "/rerank"),
)


def install() -> None:
    """Serve the folder that `MORA_ADAPTERS` names; without it, vLLM is left as it is.

    Raises UserError where it names no folder.
    """
    root, create = folders.configured(), OpenAIServingModels.__init__
    if root is None:
        return

    def __init__(self: OpenAIServingModels, *args: Any, **options: Any) -> None:
        create(self, *args, **options)
        if self.engine_client.vllm_config.parallel_config._api_process_count > 1:
            raise UserError(
                "Several API servers would number the adapters of one engine each for itself: start it with "
                "--api-server-count 1."
            )
        self.folder_resolver = FolderResolver(root)
        self.lora_resolvers.insert(0, self.folder_resolver)

    async def show_available_models(self: OpenAIServingModels) -> ModelList:
        listed = await self.registry.show_available_models()
        base = self.base_model_paths[0].name
        for lora in told_of(self, LISTED):
            parent = lora.base_model_name or base
            listed.data.append(
                ModelCard(id=lora.lora_name, root=lora.path, parent=parent, permission=[ModelPermission()])
            )
        return listed

    OpenAIServingModels.__init__ = __init__
    OpenAIServingModels.show_available_models = show_available_models
    for serving in (BaseServing, PoolingBaseServing):
        serving._check_model = _finding(serving._check_model)
    authenticate.GUARDED_PREFIX = (*authenticate.GUARDED_PREFIX, *UNGUARDED)


def told_of(models: OpenAIServingModels, most: int) -> list[LoRARequest]:
    """The adapters that clients or the command line loaded, and the last `most` that were found by name."""
    found = [name for name in models.lora_requests if models.folder_resolver.has_found(name)]
    hidden = set(found[: max(len(found) - most, 0)])
    return [request for name, request in models.lora_requests.items() if name not in hidden]


def _finding(check: Callable) -> Callable:
    """vLLM asks for a name's adapter only where clients may load adapters of their own; here in any case."""

    async def _check_model(self: BaseServing | PoolingBaseServing, request: Any) -> ErrorResponse | None:
        name = request.model
        if name and not self._is_model_supported(name):
            forget_if_changed(self.models, name)
            found = await self.models.resolve_lora(name)
            if isinstance(found, ErrorResponse) and found.error.code != HTTPStatus.NOT_FOUND:
                if isinstance(self, PoolingBaseServing):  # which looks at no answer here
                    raise ValueError(found.error.message)
                return found
        return await check(self, request)

    return _check_model
