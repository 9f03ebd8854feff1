"""What the API server answers: a sentence and a status of 4xx for what a user can put right."""

from http import HTTPStatus
from typing import Any

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest
from vllm.exceptions import LoRAAdapterNotFoundError
from vllm.logger import init_logger
from vllm.lora.request import LoRARequest
from vllm.v1.core import kv_cache_utils

from mora_peft.errors import UserError

from .. import folders
from .refusals import sentence_in
from .resolver import forget_if_changed

logger = init_logger(__name__)


def install() -> None:
    """Answer loads and unknown names with reasons, and never with what an earlier adapter of the name left behind."""
    hash_keys = kv_cache_utils._gen_lora_extra_hash_keys

    def _gen_lora_extra_hash_keys(request: Any) -> list[tuple]:
        # vLLM's key has name and path. Each load has a number of its own, so an adapter that was loaded anew, from
        # the same path even, does not find the prefix cache of the old one.
        number = request.lora_request and str(request.lora_request.lora_int_id)
        return [(*key, number) for key in hash_keys(request)]

    OpenAIServingModels.load_lora_adapter = load_lora_adapter
    OpenAIServingModels.resolve_lora = resolve_lora
    kv_cache_utils._gen_lora_extra_hash_keys = _gen_lora_extra_hash_keys


async def load_lora_adapter(
    self: OpenAIServingModels, request: LoadLoRAAdapterRequest, base_model_name: str | None = None
) -> ErrorResponse | str:
    """As vLLM's, but an adapter that replaces another gets a number of its own instead of being put in its place.

    Requests that run on with the old one are answered by the old one.
    """
    name, path = request.lora_name, request.lora_path
    # Adapters that the command line names may lie anywhere; it is requests that are held inside one folder.
    named_at_start = any((name, path) == (module.name, module.path) for module in self.static_lora_modules or ())
    if not named_at_start:
        try:
            path = str(folders.check_folder(path, folders.configured()))
        except UserError as error:
            return _bad_request(str(error))
    async with self.lora_resolver_lock[name]:
        forget_if_changed(self, name)
        if (refusal := await self._check_load_lora_adapter_request(request)) is not None:
            return refusal
        loaded = LoRARequest(
            lora_name=name,
            lora_int_id=self.lora_id_counter.inc(1),
            lora_path=path,
            is_3d_lora_weight=request.is_3d_lora_weight,
        )
        if base_model_name is not None and self.is_base_model(base_model_name):
            loaded.base_model_name = base_model_name
        try:
            await self.engine_client.add_lora(loaded)
        except Exception as error:
            return _refusal(error, name, path)
        self.lora_requests[name] = loaded
        logger.info("Loaded adapter %r from %r", name, loaded.lora_path)
        return f"Success: LoRA adapter '{name}' added successfully."


async def resolve_lora(self: OpenAIServingModels, lora_name: str) -> LoRARequest | ErrorResponse:
    """As vLLM's: the adapter of that name from the first resolver that has one; but a refusal says why."""
    async with self.lora_resolver_lock[lora_name]:
        if lora_name in self.lora_requests:
            return self.lora_requests[lora_name]
        refusal = None
        for resolver in self.lora_resolvers:
            found = None
            try:
                found = await resolver.resolve_lora(self.model_config.model, lora_name)
                if found is None:
                    continue
                found.lora_int_id = self.lora_id_counter.inc(1)
                await self.engine_client.add_lora(found)
            except Exception as error:
                refusal = _refusal(error, lora_name, found.lora_path if found else "")
                logger.warning("Adapter %r cannot be loaded: %s", lora_name, error)
                continue
            self.lora_requests[lora_name] = found
            logger.info("Loaded adapter %r from %r", lora_name, found.lora_path)
            return found
        # Or else every name that anyone makes up would leave one behind; another that waited may have done it.
        self.lora_resolver_lock.pop(lora_name, None)
        return refusal or create_error_response(
            message=f"LoRA adapter {lora_name} does not exist",
            err_type="NotFoundError",
            status_code=HTTPStatus.NOT_FOUND,
        )


def _refusal(error: Exception, name: str, path: str) -> ErrorResponse:
    """400 with our sentence where the adapter is at fault, 404 where there is none, 500 for all else."""
    sentence = str(error) if isinstance(error, UserError) else sentence_in(str(error))
    if sentence is not None:
        return _bad_request(sentence)
    absent = LoRAAdapterNotFoundError(name, path)
    if str(absent) in str(error):
        return create_error_response(absent)
    return create_error_response(
        message=str(error), err_type="InternalServerError", status_code=HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _bad_request(sentence: str) -> ErrorResponse:
    return create_error_response(message=sentence, err_type="BadRequestError", status_code=HTTPStatus.BAD_REQUEST)
