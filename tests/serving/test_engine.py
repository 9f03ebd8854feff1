"""vLLM with the plugin answers as Transformers with PEFT does, adapter by adapter, and stays alive."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from served import LINEARS, MAX_RANK, SLOTS, Engine, assert_as_transformers, likelihoods, save_adapter

from mora_peft import MoraConfig

PROMPTS = ["The capital of France is", "Once upon a time there was a", "To boil an egg,", "2 + 2 ="]
#: Longer than a block of the prefix cache.
LONG = "The quick brown fox jumps over the lazy dog. " * 5


def test_one_batch_of_all_adapters_and_the_base_model(engine, base_model, adapters):
    """Every operator and layout, several ranks, some layers or all, beside LoRA; more than slots: they change hands."""
    assert len(adapters) > 2 * SLOTS
    for name, folder in adapters.items():
        assert engine.load(name, folder)[0] == 200
    asked = [(name, PROMPTS[i % len(PROMPTS)]) for i, name in enumerate(["base", *adapters, "base"])]
    for (name, _), output in zip(asked, engine.answer(asked), strict=True):
        assert_as_transformers(base_model, adapters.get(name), output)


@pytest.mark.parametrize("config", [MoraConfig(r=8, target_modules=LINEARS), LoraConfig(target_modules=LINEARS)])
def test_replaced_adapter_takes_effect(engine, base_model, tmp_path, config):
    """Under the same name, from the same folder, with a prompt whose blocks the old adapter left in the cache."""
    save_adapter(base_model, config, tmp_path, seed=1)
    assert engine.load("replaced", tmp_path, replace=True)[0] == 200
    first = engine.answer([("replaced", LONG)])[0]
    assert len(first.prompt_token_ids) > 32
    assert_as_transformers(base_model, tmp_path, first)
    save_adapter(base_model, config, tmp_path, seed=2)
    assert engine.load("replaced", tmp_path)[0] == 400
    assert engine.load("replaced", tmp_path, replace=True)[0] == 200
    assert_as_transformers(base_model, tmp_path, engine.answer([("replaced", LONG)])[0])


def change_tensors(folder: Path, change) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(dict(change(*item) for item in load_file(file).items()), file)


#: What is wrong with an adapter, the adapter, how its tensors are changed, and words of the answer.
REFUSED = {
    "side of M": (
        MoraConfig(r=8, target_modules=["q_proj"]),
        lambda name, M: (name, M[:-2, :-2].contiguous()),
        "does not fit the served model",
    ),
    "layer": (
        MoraConfig(r=8, target_modules=["q_proj"]),
        lambda name, M: (name.replace("layers.7.", "layers.77."), M),
        "model.layers.77.self_attn.q_proj, which the served model does not have",
    ),
    "layer that is not served": (
        MoraConfig(r=8, target_modules=["o_proj"]),
        None,
        "with o_proj among --lora-target-modules",
    ),
    "rank": (MoraConfig(r=MAX_RANK + 1, target_modules=["q_proj"]), None, f"--max-lora-rank {MAX_RANK + 1}"),
    "rank of a LoRA": (LoraConfig(r=MAX_RANK + 1, target_modules=["q_proj"]), None, "max_lora_rank"),
    "shape of a LoRA": (
        LoraConfig(r=8, target_modules=["q_proj"]),
        lambda name, matrix: (name, torch.cat([matrix] * 2) if "lora_B" in name else matrix),
        "B of model.layers.0.self_attn.q_proj has shape (1152, 8)",
    ),
    "NaN": (MoraConfig(target_modules=["q_proj"]), lambda name, M: (name, M / 0), "NaN or infinity"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_refused(engine, base_model, tmp_path, wrong):
    """A clear sentence and 400, by the load endpoint and by a resolver; the engine goes on as before."""
    config, change, words = REFUSED[wrong]
    save_adapter(base_model, config, tmp_path)
    if change is not None:
        change_tensors(tmp_path, change)
    status, message = engine.load("refused", tmp_path)
    assert status == 400 and words in message and "[mora-peft" not in message
    status, message = engine.resolve("refused", tmp_path)
    assert status == 400 and words in message
    assert "refused" not in engine.models.lora_requests


def test_engine_lives_after_refusals(engine, base_model, adapters, tmp_path):
    assert engine.load("absent", tmp_path / "absent")[0] in (400, 404)
    shutil.copytree(adapters["rotation"], tmp_path / "good")
    assert engine.load("good", tmp_path / "good")[0] == 200
    for name, output in zip(("good", "base"), engine.answer([("good", PROMPTS[0]), ("base", PROMPTS[0])]), strict=True):
        assert_as_transformers(base_model, adapters["rotation"] if name == "good" else None, output)


def test_adapter_that_vanished_fails_alone(engine, base_model, adapters, tmp_path):
    """Dropped to make room, and its files gone: its requests end with an error, the others in the batch go on."""
    folder = shutil.copytree(adapters["query"], tmp_path / "vanishing")
    assert engine.load("vanishing", folder)[0] == 200
    others = list(adapters)[: SLOTS + 1]
    for name in others:
        assert engine.load(name, adapters[name], replace=True)[0] == 200
    shutil.rmtree(folder)
    asked = [(name, LONG) for name in ("vanishing", "base", *others[:3])]
    lost, *kept = engine.answer(asked)
    assert lost.outputs[0].finish_reason == "error" and not lost.outputs[0].token_ids
    for (name, _), output in zip(asked[1:], kept, strict=True):
        assert_as_transformers(base_model, adapters.get(name), output)
    shutil.copytree(adapters["query"], folder)
    assert_as_transformers(base_model, folder, engine.answer(asked[:1])[0])


#: What an engine computes with, and how far from float32 that may lead a log-probability; adapters move it by 10 to 20.
NUMBERS = {"bfloat16": 0.5, "float16": 0.06, "4 bits": 0.06}


@pytest.mark.parametrize("numbers", NUMBERS)
def test_other_numbers_than_float32(environment, tmp_path, numbers):
    """Half precision, and a quantized base: adapters change answers as they should."""
    if numbers == "4 bits" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        pytest.skip("vLLM's kernel for 4 bits on a CPU needs AVX-512")
    model, folders = small_llama_with_adapters(tmp_path)
    if numbers == "4 bits":
        quantize(tmp_path / "model", model)
    dtype = "float16" if numbers == "4 bits" else numbers  # its kernel for bfloat16 rounds as the processor has it
    engine = Engine(tmp_path / "model", dtype=dtype, skip_tokenizer_init=True)
    try:
        for name, folder in folders.items():
            assert engine.load(name, folder)[0] == 200
        asked = [(name, {"prompt_token_ids": [3, 1, 4, 1, 5]}) for name in ("base", *folders)]
        for (name, _), output in zip(asked, engine.answer(asked), strict=True):
            answer, found, expected, plain = likelihoods(model, folders.get(name), output)
            assert (found - expected[range(len(answer)), answer]).abs().max() < NUMBERS[numbers]
            assert name == "base" or (plain - expected).abs().max() > 8
    finally:
        engine.stop()


def test_tensor_parallel(environment, tmp_path):
    """Two processes, each with half of the layers, and one key-value head that both hold."""
    model, folders = small_llama_with_adapters(tmp_path)
    engine = Engine(tmp_path / "model", tensor_parallel_size=2, skip_tokenizer_init=True)
    try:
        for name, folder in folders.items():
            assert engine.load(name, folder)[0] == 200
        asked = [(name, {"prompt_token_ids": [3, 1, 4, 1, 5]}) for name in ("base", *folders)]
        for (name, _), output in zip(asked, engine.answer(asked), strict=True):
            assert_as_transformers(model, folders.get(name), output)
    finally:
        engine.stop()


def small_llama_with_adapters(folder: Path):
    """A random model, saved in FOLDER/model, and the folders of adapters that change it much."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        vocab_size=512,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder / "model")
    configs = {
        operator: MoraConfig(r=8, operator=operator, target_modules=LINEARS, scaling=5.0)
        for operator in ("rotation", "sharing", "truncation")
    }
    configs["lora"] = LoraConfig(r=8, lora_alpha=40, target_modules=LINEARS)
    return model, {name: save_adapter(model, config, folder / name) for name, config in configs.items()}


def quantize(folder: Path, model) -> None:
    """Turn the linear layers of the checkpoint in `folder` into 4-bit integers, a scale for every 32, as
    compressed-tensors packs them; and those of `model` into the numbers that they stand for."""
    file, tensors = folder / "model.safetensors", {}
    for name, weight in load_file(file).items():
        if not name.endswith("proj.weight"):
            tensors[name] = weight
            continue
        groups = weight.unflatten(1, (-1, 32))
        scale = groups.abs().amax(2, keepdim=True) / 7
        numbers = (groups / scale).round()
        model.get_parameter(name).data.copy_((numbers * scale).flatten(1))
        words = ((numbers + 8).long().flatten(1).unflatten(1, (-1, 8)) << torch.arange(0, 32, 4)).sum(2)
        tensors[f"{name}_packed"] = torch.where(words < 2**31, words, words - 2**32).int()
        tensors[f"{name}_scale"] = scale.squeeze(2)
        tensors[f"{name}_shape"] = torch.tensor(weight.shape)
    save_file(tensors, file, metadata={"format": "pt"})
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))
