"""What `mora inspect --plan` says against what a GPU allocated: SmolLM2-135M, r=8 on all linear layers, 16x128 tokens.

`python benchmarks/plan_gpu.py` writes benchmarks/results/plan_gpu.json: for each method, bytes planned over those that
benchmarks/step_time_gpu.py measured and keeps in benchmarks/results/step_time_gpu.json, kept between the two passes and
at the peak, beyond the weights. The plan needs no GPU.
"""

import json

import _common
import torch
from peft import get_peft_model
from step_time_gpu import CASES, METHODS, SHAPES
from transformers import AutoConfig, AutoModelForCausalLM

from mora_peft.recipes.memory import memory_of_step


def main() -> None:
    measured = json.loads((_common.RESULTS / "step_time_gpu.json").read_text())
    found: dict[str, dict] = {"measured on": measured["device"]}
    for shape, methods in measured["results"].items():
        name, rows, tokens = CASES[shape]
        for method, taken in methods.items():
            with torch.device("meta"):
                config = AutoConfig.from_pretrained(SHAPES / f"{name}.json")
                model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
                model = get_peft_model(model, METHODS[method]())
            memory = memory_of_step(model, rows, tokens, "none")
            kept, peak = (size / 2**20 for size in (memory.activations, memory.activations + memory.working))
            found.setdefault(shape, {})[method] = {
                "kept_mb": round(kept),
                "over_measured": round(kept / taken["kept_mb"], 3),
                "peak_beyond_weights_mb": round(peak),
                "peak_over_measured": round(peak / taken["peak_beyond_weights_mb"], 3),
            }
    _common.save("plan_gpu", found)


if __name__ == "__main__":
    main()
