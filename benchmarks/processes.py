"""Two processes (DDP over gloo) against one: losses, weights and tokens a second of `mora train` on SmolLM2-135M.

`python benchmarks/processes.py [DATA]` writes benchmarks/results/processes.json. DATA is a JSONL file that
`mora train --data` reads; without it ../shared/data/math/gsm8k.train.jsonl.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import _common
from safetensors.torch import load_file

MODEL = "models/SmolLM2-135M-Instruct"
METHODS = {"mora": {}, "remora": {"every": 4, "rewarm": 1}}
STEPS = 8


def run(data: str, method: str, processes: int, folder: Path) -> Path:
    output = folder / f"{method}-{processes}"
    words = ["train", "--output", output, "--model", MODEL, "--data", data, "--method", method, "--steps", STEPS,
             "--method-options", json.dumps(METHODS[method]), "--batch-size", 4, "--max-length", 128,
             "--dtype", "float32", "--learning-rate", 1e-3]  # fmt: skip
    start = ["-m", "mora_peft.cli.main"]
    if processes > 1:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, *start, "--"]
    subprocess.run(
        [str(word) for word in (sys.executable, *start, *words)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        check=True,
    )
    return output


def compared(one: Path, two: Path) -> dict:
    runs = [json.loads((folder / "run.json").read_text()) for folder in (one, two)]
    losses = [[point["loss"] for point in found["history"]] for found in runs]
    states = [load_file(next(folder.glob("*/*.safetensors"))) for folder in (one, two)]
    return {
        "losses": losses,
        "largest_loss_difference": max(abs(a - b) / a for a, b in zip(*losses, strict=True)),
        "largest_weight_difference": max(
            ((states[0][name] - states[1][name]).norm() / states[0][name].norm()).item() for name in states[0]
        ),
        "step_seconds": [found["step_seconds_median"] for found in runs],
        "trained_tokens": [found["tokens"] for found in runs],
    }


def main(data: str) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        rows = {method: compared(*(run(data, method, count, folder) for count in (1, 2))) for method in METHODS}
    finally:
        shutil.rmtree(folder)
    _common.save("processes", rows)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/math/gsm8k.train.jsonl")
