"""Merging an adapter into all its layers and taking it out again, as online trainers do at every step, over LoRA: r=8.

`python benchmarks/merge_cycle.py` writes benchmarks/results/merge_cycle.json: for SmolLM2-135M and for one decoder
layer of the shape of Llama 7B (random weights), the time of `merge_adapter` and of `unmerge_adapter` over that of LoRA;
the share of the base's entries that are not what they were after ten such rounds; and the share of them that is kept
meanwhile.
"""

import time
from collections.abc import Callable

import _common  # first: sets the number of threads
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from mora_peft import MoraConfig
from mora_peft.tuner import MoraLayer

TARGETS = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
METHODS = {
    "lora": lambda: LoraConfig(r=8, **TARGETS),
    "sharing": lambda: MoraConfig(r=8, operator="sharing", **TARGETS),
    "rotation": lambda: MoraConfig(r=8, operator="rotation", **TARGETS),
}
#: The standard deviation of the entries of ΔW, about a fiftieth of the base's: what a few hundred steps leave.
SIZE = 1e-3
ROUNDS = 10


def smollm2(dtype: torch.dtype) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained("models/SmolLM2-135M-Instruct", dtype=dtype)


def llama_layer(dtype: torch.dtype) -> torch.nn.Module:
    config = AutoConfig.from_pretrained("configs/shapes/llama-7b.json")
    config.num_hidden_layers, config.vocab_size = 1, 8
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype)


def adapted(base: torch.nn.Module, method: str) -> PeftModel:
    """`base` with an adapter whose ΔW has entries of standard deviation SIZE, where it has any."""
    torch.manual_seed(1)
    model = get_peft_model(base, METHODS[method]())
    for name, parameter in model.named_parameters():
        if "mora_M" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter)
    for layer in model.modules():
        if not hasattr(layer, "get_delta_weight"):
            continue
        delta = layer.get_delta_weight("default")
        factor = SIZE / delta[delta != 0].float().std()
        trained = layer.mora_M["default"] if isinstance(layer, MoraLayer) else layer.lora_B["default"].weight
        trained.data.mul_(factor)
    return model


def base_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {key: value for key, value in model.state_dict().items() if key.endswith("base_layer.weight")}


def kept(model: PeftModel) -> int:
    """How many entries of the base are kept while the adapter is merged."""
    layers = (layer for layer in model.modules() if isinstance(layer, MoraLayer))
    return sum(part.numel() for layer in layers for part in layer._overwritten["default"])


def measure(make_base: Callable[[], torch.nn.Module]) -> dict[str, dict[str, float]]:
    models = {method: adapted(make_base(), method) for method in METHODS}
    before = {method: {key: w.clone() for key, w in base_weights(model).items()} for method, model in models.items()}
    seconds = {step: {method: [] for method in METHODS} for step in ("merge", "unmerge")}
    entries_kept = {}
    for _ in range(ROUNDS):
        for method, model in models.items():
            for step in seconds:
                start = time.perf_counter()
                getattr(model, f"{step}_adapter")()
                seconds[step][method].append(time.perf_counter() - start)
                if step == "merge":
                    entries_kept[method] = kept(model) if method != "lora" else 0
    ratios = {step: _common.ratios({m: s[1:] for m, s in times.items()}, "lora") for step, times in seconds.items()}
    rows = {}
    for method, model in models.items():
        pairs = [(weight, before[method][key]) for key, weight in base_weights(model).items()]
        entries = sum(weight.numel() for weight, _ in pairs)
        rows[method] = {
            "merge_over_lora": ratios["merge"][method],
            "unmerge_over_lora": ratios["unmerge"][method],
            "changed_of_base": round(sum((a != b).sum().item() for a, b in pairs) / entries, 4),
            "kept_of_base": round(entries_kept[method] / entries, 4),
        }
    return rows


def main() -> None:
    torch.set_num_threads(1)
    _common.save(
        "merge_cycle",
        {
            f"{name} {str(dtype).removeprefix('torch.')}": measure(lambda make=make, dtype=dtype: make(dtype))
            for name, make in (("SmolLM2-135M", smollm2), ("one layer of Llama 7B's shape", llama_layer))
            for dtype in (torch.float32, torch.bfloat16)
        },
    )


if __name__ == "__main__":
    main()
