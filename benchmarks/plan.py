"""What `mora inspect --plan` says against what a step takes: SmolLM2-135M, MoRA r=8 on all linear layers, one thread.

`python benchmarks/plan.py` writes benchmarks/results/plan.json: for SmolLM2 planned and measured bytes, the latter the
resident memory of a process of its own during two steps, above that before the model was made; measured once more
where glibc gives freed memory back at once (MALLOC_MMAP_THRESHOLD_=65536: every tensor beyond 64 KiB has pages of its
own); for the shapes in configs/shapes what is planned, in GiB.
"""

import os
import subprocess
import sys
import threading
import time

import _common  # first: sets the number of threads
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from mora_peft import MoraConfig
from mora_peft.recipes.memory import memory_of_step

MODEL = "models/SmolLM2-135M-Instruct"
#: Rows, tokens a row, dtype, whether activations are recomputed.
MEASURED = [(4, 128, "float32", 0), (8, 256, "float32", 0), (4, 128, "float32", 1), (8, 256, "float32", 1),
            (4, 128, "bfloat16", 0), (8, 256, "bfloat16", 0)]  # fmt: skip
#: Shape, how it is stored, whether activations are recomputed; 1 row of 2048 tokens in bfloat16.
PLANNED = [(f"llama-{size}", stored, again) for size in ("7b", "13b", "70b") for stored in ("none", "nf4")
           for again in (False, True)]  # fmt: skip


def adapted(source: str, dtype: str, again: bool):
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source), dtype=getattr(torch, dtype))
    model = get_peft_model(model, MoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def planned(source: str, rows: int, tokens: int, dtype: str, again: bool, stored: str = "none"):
    with torch.device("meta"):
        model = adapted(source, dtype, again)
    return memory_of_step(model, rows, tokens, stored)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def measure(rows: int, tokens: int, dtype: str, again: bool) -> tuple[int, float]:
    """The most resident memory during two steps, read every two milliseconds, and the seconds of the second step's CPU.

    Run in a fresh process.
    """
    before, most, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, resident())
            time.sleep(0.002)

    model = adapted(MODEL, dtype, again).train()
    watcher = threading.Thread(target=watch)
    watcher.start()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    for _ in range(2):
        begun = time.process_time()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = time.process_time() - begun
    done.set()
    watcher.join()
    return most - before, round(seconds, 2)


def main() -> None:
    small, shapes = [], []
    for rows, tokens, dtype, again in MEASURED:
        case = {"rows": rows, "tokens": tokens, "dtype": dtype, "recomputed": bool(again)}
        case["planned"] = planned(MODEL, rows, tokens, dtype, bool(again)).total
        for name, settings in (("", {}), ("_given_back", {"MALLOC_MMAP_THRESHOLD_": "65536"})):
            found = subprocess.run(
                [sys.executable, __file__, *map(str, (rows, tokens, dtype, again))],
                env=os.environ | settings,
                capture_output=True,
                check=True,
                text=True,
            )
            peak, seconds = found.stdout.split()[-2:]
            case |= {f"measured{name}": int(peak), f"ratio{name}": round(case["planned"] / int(peak), 3)}
            case[f"seconds{name}"] = float(seconds)
        small.append(case)
    for name, stored, again in PLANNED:
        memory = planned(f"configs/shapes/{name}.json", 1, 2048, "bfloat16", again, stored)
        parts = {part: round(getattr(memory, part) / 2**30, 2) for part in
                 ("weights", "adapter", "optimizer", "activations", "working", "total")}  # fmt: skip
        shapes.append(
            {"shape": name, "stored": "bfloat16" if stored == "none" else stored, "recomputed": again} | parts
        )
    _common.save("plan", {"smollm2": small, "shapes": shapes})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*measure(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1"))
    else:
        main()
