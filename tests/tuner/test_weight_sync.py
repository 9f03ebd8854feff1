"""TRL's weight sync to vLLM, run as it stands against a server that only writes down what it gets.

TRL merges the adapter, walks over the model's parameters, renames them, sends them, and unmerges.
"""

from copy import deepcopy
from itertools import pairwise

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import get_peft_model
from tiny_models import ARCHITECTURES, adapted, mora_config, same
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl.distributed import DistributedBackend
from trl.generation import vllm_generation

from mora_peft import MoraConfig

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def sent(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What one sync sends, by the names that it is sent under."""
    sync = object.__new__(vllm_generation.VLLMGeneration)
    sync.model, sync.accelerator = model, Accelerator(cpu=True)
    sync._dist = DistributedBackend(sync.accelerator)
    return {name: tensor.clone() for name, tensor in sync._iter_named_params()}


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.data for name, parameter in model.named_parameters()}


@every_architecture
@pytest.mark.parametrize("operator", ["sharing", "rotation"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_merged_models_weights_are_sent_under_the_plain_models_names(name, operator, dtype):
    model = adapted(name, dtype, operator=operator, task_type=None)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    merged = parameters(deepcopy(model).merge_and_unload())
    assert merged.keys() == parameters(ARCHITECTURES[name].build()).keys()
    for _ in range(3):
        assert same(sent(model), merged)
        assert same(dict(model.state_dict()), before)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    ],
    ids=str,
)
def test_modules_that_are_trained_whole_or_share_a_weight_are_sent_once(options):
    config = deepcopy(ARCHITECTURES["llama"].config)
    config.tie_word_embeddings = "modules_to_save" not in options
    base = AutoModelForCausalLM.from_config(config)
    names = parameters(base).keys()
    model = get_peft_model(base, mora_config("llama", **options))
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data.add_(1)
    merged = parameters(deepcopy(model).merge_and_unload())
    found = sent(model)
    assert found.keys() == names
    assert same(found, {name: merged[name] for name in names})


class Server:
    """A vLLM server as far as TRL's client shows it: it keeps the weights and answers at random."""

    def __init__(self, **_) -> None:
        self.syncs: list[dict[str, torch.Tensor]] = []

    def init_communicator(self, **_) -> None: ...

    def close_communicator(self) -> None: ...

    def reset_prefix_cache(self) -> None: ...

    def update_named_params(self, metadata, named_params) -> None:
        self.syncs.append({name: tensor.clone() for name, tensor in named_params})
        shapes = [(name, str(w.dtype).removeprefix("torch."), list(w.shape)) for name, w in self.syncs[-1].items()]
        assert metadata == shapes

    def generate(self, prompts, n, max_tokens, **_) -> dict:
        answers = torch.randint(1, 90, (len(prompts) * n, max_tokens)).tolist()
        logprobs = [[[-4.0]] * max_tokens for _ in answers]
        return {"prompt_ids": prompts, "completion_ids": answers, "logprobs": logprobs}


@pytest.mark.parametrize("operator", ["sharing", "rotation"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_of_GRPO_sends_every_steps_weights(operator, dtype, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "VLLMClient", Server)
    args = GRPOConfig(
        str(tmp_path),
        use_vllm=True,
        vllm_mode="server",
        vllm_importance_sampling_correction=False,
        model_init_kwargs={"dtype": dtype},
        max_steps=3,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        learning_rate=1e-2,
        report_to="none",
        bf16=False,
    )
    trainer = GRPOTrainer(
        tiny_model,
        reward_funcs=lambda completions, **_: [float(sum(map(ord, text))) for text in completions],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["Name a river.", "Name a fruit."]}),
        peft_config=MoraConfig(r=2, target_modules="all-linear", operator=operator, task_type="CAUSAL_LM"),
    )
    trainer.train()
    trainer.vllm_generation.sync_weights()

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=getattr(torch, dtype))
    syncs = trainer.vllm_generation.vllm_client.syncs
    assert len(syncs) == 1 + args.max_steps
    assert same(syncs[0], parameters(base))  # M = 0
    for earlier, later in pairwise(syncs):
        assert not same(earlier, later)
    unmerged = {k.replace(".base_layer", ""): v for k, v in trainer.model.base_model.model.state_dict().items()}
    assert all(torch.equal(unmerged[key], weight) for key, weight in base.state_dict().items())
    assert same(syncs[-1], parameters(trainer.model.merge_and_unload()))
