"""A training step on a GPU over PEFT LoRA's: time and memory, r=8, all linear layers, bfloat16 base.

`python benchmarks/step_time_gpu.py` writes benchmarks/results/step_time_gpu.json. Weights are random: neither time nor
memory hangs on them. All methods of a shape stand on one frozen base and are run in turn. `kept_mb` is what is
allocated between the forward and the backward pass, beyond the weights.
"""

import copy
import statistics
import sys
from pathlib import Path

import _common
import torch
from peft import LoraConfig, MissConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from mora_peft import MoraConfig

SHAPES = Path(__file__).resolve().parents[1] / "configs" / "shapes"
TARGETS = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
#: The configuration, rows and tokens a row.
CASES = {
    "SmolLM2-135M": ("smollm2-135m", 16, 128),
    "Llama-7B": ("llama-7b", 4, 512),
}
METHODS = {
    "lora": lambda: LoraConfig(r=8, **TARGETS),
    "mora-sharing": lambda: MoraConfig(r=8, operator="sharing", **TARGETS),
    "mora-rotation": lambda: MoraConfig(r=8, operator="rotation", **TARGETS),
    "mora-rotation-fold": lambda: MoraConfig(r=8, operator="rotation", fold=True, **TARGETS),
    "miss": lambda: MissConfig(r=16, **TARGETS),
    "dora": lambda: LoraConfig(r=8, use_dora=True, **TARGETS),
}


def beside(base: nn.Module) -> nn.Module:
    """The model once more, on the same weights."""
    return copy.deepcopy(base, {id(p): p for p in base.parameters()})


def case(shape: str, rows: int, length: int, repeats: int) -> dict:
    with torch.device("cuda"):
        base = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(SHAPES / f"{shape}.json"), dtype=torch.bfloat16
        )
        ids = torch.randint(0, base.config.vocab_size, (rows, length))
    steps, found = {}, {}
    for name, config in METHODS.items():
        model = get_peft_model(beside(base), config()).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4)

        def step(model=model, optimizer=optimizer) -> None:
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        step()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        loss = model(input_ids=ids, labels=ids).loss
        kept = torch.cuda.memory_allocated() - before
        torch.cuda.reset_peak_memory_stats()
        loss.backward()
        peak = torch.cuda.max_memory_allocated() - before
        optimizer.zero_grad()
        del loss
        steps[name] = step
        found[name] = {"parameters": sum(p.numel() for p in trained), "kept_mb": round(kept / 2**20)}
        found[name]["peak_beyond_weights_mb"] = round(peak / 2**20)
    seconds = timed(steps, repeats)
    over_lora = _common.ratios(seconds, "lora")
    return {
        name: {"over_lora": over_lora[name], "median_ms": round(statistics.median(seconds[name]) * 1e3, 2)} | values
        for name, values in found.items()
    }


def timed(steps: dict, repeats: int) -> dict[str, list[float]]:
    """Seconds of each step by the GPU's clock, in turn, after one unmeasured round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            step()
            stop.record()
            stop.synchronize()
            if repeat:
                seconds[name].append(start.elapsed_time(stop) / 1e3)
    return seconds


def main() -> None:
    if not torch.cuda.is_available():
        print("There is no GPU here, so nothing is measured.")
        return
    torch.manual_seed(0)
    results = {}
    for name in sys.argv[1:] or CASES:
        results[name] = case(*CASES[name], repeats=11)
        torch.cuda.empty_cache()
    _common.save("step_time_gpu", results)


if __name__ == "__main__":
    main()
