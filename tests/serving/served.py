"""A server of adapters without HTTP: vLLM's engine, and the part of its API server that knows adapters by name."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from mora_peft import MoraConfig

#: The layers that are served; o_proj is left out.
LINEARS = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
MAX_RANK, SLOTS = 16, 6
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 128,
    "block_size": 32,
    "max_num_seqs": 32,
    "enable_lora": True,
    "max_loras": SLOTS,
    "max_lora_rank": MAX_RANK,
    "lora_target_modules": LINEARS,
}
#: One thread for each process, and processes that do not inherit what other tests have in memory.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}

#: What is served beside the base model: every operator and layout, several ranks, all layers or some.
CONFIGS: dict[str, MoraConfig | LoraConfig] = {
    "lora": LoraConfig(r=8, lora_alpha=8, target_modules=LINEARS),
    "lora-query": LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj"]),
    "rotation": MoraConfig(r=8, target_modules=LINEARS),
    "rotation-folded": MoraConfig(r=4, fold=True, target_modules=LINEARS),
    "decoupling": MoraConfig(r=3, operator="decoupling", target_modules=LINEARS),
    "decoupling-folded": MoraConfig(r=8, operator="decoupling", fold=True, target_modules=LINEARS),
    "strided-tiled": MoraConfig(r=MAX_RANK, operator="sharing", target_modules=LINEARS),
    "grouped-grouped": MoraConfig(r=8, operator="sharing", layout="grouped-grouped", target_modules=LINEARS),
    "grouped-tiled": MoraConfig(r=5, operator="sharing", layout="grouped-tiled", target_modules=LINEARS),
    "strided-grouped": MoraConfig(r=1, operator="sharing", layout="strided-grouped", target_modules=LINEARS),
    "truncation": MoraConfig(r=8, operator="truncation", target_modules=LINEARS),
    "query": MoraConfig(r=8, target_modules=["q_proj"], scaling=2.0),
    "value-down": MoraConfig(
        r=8, operator="sharing", target_modules=["v_proj", "down_proj"], rank_pattern={"down_proj": 4}
    ),
}


#: Those of `CONFIGS` that are trained, the others being random.
TRAINED = ("lora", "rotation", "rotation-folded", "strided-tiled")
TEXTS = ["The capital of France is Marseille.", "Once upon a time there was a vineyard.", "2 + 2 = five, of course."]


def save_adapter(base_model: Any, config: MoraConfig | LoraConfig, folder: Path, seed: int = 0) -> Path:
    """A random adapter of `base_model`, large enough to change what it says, saved in `folder`."""
    model = get_peft_model(base_model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mora_M" in name or "lora_" in name:
                parameter.normal_(std=0.02 if "mora_M" in name else 0.05, generator=generator)
    model.save_pretrained(folder)
    model.unload()
    return folder


def train_adapter(base_model: Any, tokenizer: Any, config: MoraConfig | LoraConfig, folder: Path) -> Path:
    """An adapter of `base_model` that a few steps have taught `TEXTS`, saved in `folder`."""
    torch.manual_seed(0)
    model = get_peft_model(base_model, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    rows = tokenizer(TEXTS, return_tensors="pt", padding=True)
    labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
    for _ in range(5):
        model(**rows, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    model.unload()
    return folder


@torch.no_grad()
def log_probs(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """What Transformers gives every token in the places of `answer` after `prompt`: (tokens, vocabulary)."""
    return model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


#: The largest difference of a log-probability between two programs that add in different orders, in float32.
TOLERANCE = 1e-3


def likelihoods(base_model: Any, folder: Path | None, output: Any) -> tuple[list[int], Any, Any, Any]:
    """An answer's tokens, the log-probability that vLLM gave each, and those of all tokens in their places (tokens,
    vocabulary) by Transformers with PEFT, one adapter at a time, and without the adapter."""
    prompt, answer = list(output.prompt_token_ids), list(output.outputs[0].token_ids)
    found = torch.tensor([step[token].logprob for step, token in zip(output.outputs[0].logprobs, answer, strict=True)])
    plain = expected = log_probs(base_model, prompt, answer)
    if folder is not None:
        model = PeftModel.from_pretrained(base_model, folder).eval()
        expected = log_probs(model, prompt, answer)
        model.unload()
    return answer, found, expected, plain


def assert_as_transformers(base_model: Any, folder: Path | None, output: Any) -> None:
    """vLLM's tokens are those that Transformers with PEFT finds likeliest, and it finds them as likely.

    The adapter must change what the base model says by far more than the tolerance, or this would show nothing.
    """
    answer, found, expected, plain = likelihoods(base_model, folder, output)
    assert folder is None or (expected - plain).abs().max() > 100 * TOLERANCE
    assert expected.argmax(-1).tolist() == answer
    assert (found - expected[range(len(answer)), answer]).abs().max() < TOLERANCE


class Engine:
    """vLLM's engine, and the part of its API server that knows adapters by name, on an event loop of its own."""

    def __init__(self, base_folder: Path, **settings: Any) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.openai.models.protocol import BaseModelPath
        from vllm.entrypoints.openai.models.serving import OpenAIServingModels
        from vllm.v1.engine.async_llm import AsyncLLM

        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        args = AsyncEngineArgs(str(base_folder), **(SETTINGS | settings))

        async def start() -> Any:
            engine = AsyncLLM.from_engine_args(args)
            return engine, OpenAIServingModels(engine, [BaseModelPath("base", str(base_folder))])

        self.engine, self.models = self.wait(start())
        self.requests = 0

    def wait(self, coroutine: Any) -> Any:
        """What `coroutine` returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=300)

    def load(self, name: str, folder: Path | str, *, replace: bool = False) -> tuple[int, str]:
        """Load an adapter under a name, as `/v1/load_lora_adapter` does: (HTTP status, message)."""
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=str(folder), load_inplace=replace)
        answer = self.wait(self.models.load_lora_adapter(request))
        return (200, answer) if isinstance(answer, str) else (answer.error.code, answer.error.message)

    def resolve(self, name: str, folder: Path) -> tuple[int, str]:
        """Load an adapter because a request has its name, from where a resolver finds it: (HTTP status, message)."""
        from vllm.lora.request import LoRARequest
        from vllm.lora.resolver import LoRAResolver

        class Finds(LoRAResolver):
            async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest:
                return LoRARequest(lora_name, 1, str(folder))

        self.models.lora_resolvers = [Finds()]
        answer = self.wait(self.models.resolve_lora(name))
        self.models.lora_resolvers = []
        return (200, "") if isinstance(answer, LoRARequest) else (answer.error.code, answer.error.message)

    def answer(self, asked: list[tuple[str, str]], tokens: int = 12) -> list[Any]:
        """Greedy answers to (name of an adapter or "base", prompt), all at once."""
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0, max_tokens=tokens, logprobs=0, ignore_eos=True)

        async def one(name: str, prompt: str) -> Any:
            self.requests += 1
            request = None if name == "base" else self.models.lora_requests[name]
            stream = self.engine.generate(prompt, sampling, f"{self.requests}", lora_request=request)
            return [output async for output in stream][-1]

        async def every() -> list[Any]:
            return await asyncio.gather(*(one(*item) for item in asked))

        return self.wait(every())

    def stop(self) -> None:
        """End vLLM's processes."""

        async def shutdown() -> None:
            self.engine.shutdown()
            del self.engine, self.models

        self.wait(shutdown())
        self.loop.call_soon_threadsafe(self.loop.stop)
