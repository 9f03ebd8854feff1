"""Time of a training step over PEFT LoRA's: SmolLM2-135M, all linear layers, r=8, batch 4x128, one thread.

`python benchmarks/step_time.py [bfloat16|float32]` writes benchmarks/results/step_time_DTYPE.json.
"""

import sys

import _common  # first: sets the number of threads
import torch
from peft import LoraConfig, MissConfig, get_peft_model
from transformers import AutoModelForCausalLM

from mora_peft import MoraConfig

MODEL = "models/SmolLM2-135M-Instruct"
TARGETS = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
# MiSS's budget is r · d a layer; at 15 it has within 2 % as many parameters as the others.
METHODS = {
    "lora": lambda: LoraConfig(r=8, **TARGETS),
    "mora-sharing": lambda: MoraConfig(r=8, operator="sharing", **TARGETS),
    "mora-sharing-muon": lambda: MoraConfig(r=8, operator="sharing", **TARGETS),
    "mora-rotation": lambda: MoraConfig(r=8, operator="rotation", **TARGETS),
    "mora-rotation-fold": lambda: MoraConfig(r=8, operator="rotation", fold=True, **TARGETS),
    "miss": lambda: MissConfig(r=15, **TARGETS),
    "full": None,
}


def main(dtype: torch.dtype, repeats: int = 7) -> None:
    torch.set_num_threads(1)
    ids = torch.randint(0, 49152, (4, 128), generator=torch.Generator().manual_seed(0))
    parameters, cases = {}, {}
    for name, config in METHODS.items():
        model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype)
        model = get_peft_model(model, config()) if config else model
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        parameters[name] = sum(p.numel() for p in trained)
        optimizer = (torch.optim.Muon if name.endswith("muon") else torch.optim.AdamW)(trained, lr=1e-4)

        def step(model=model, optimizer=optimizer) -> None:
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        cases[name] = step
    seconds = _common.interleaved(cases, repeats)
    over_lora = _common.ratios(seconds, "lora")
    rows = {
        name: {"over_lora": over_lora[name], "parameters": parameters[name], "seconds": [round(s, 3) for s in times]}
        for name, times in seconds.items()
    }
    _common.save(f"step_time_{str(dtype).removeprefix('torch.')}", rows)


if __name__ == "__main__":
    main(getattr(torch, sys.argv[1] if len(sys.argv) > 1 else "bfloat16"))
