"""Memory of `mora train` on a file of rows, by the file's size: SmolLM2-135M; and a kill -9 in the middle of a pass.

`python benchmarks/streaming.py [MEGABYTES ...]` (10 and 40) writes benchmarks/results/streaming.json. A file of texts
is made from ../shared/data/math/gsm8k.train.jsonl, over and over with a number in front. Each run is a process of its
own, with a cache of its own, which keeps its rows in memory or on the disk; its private memory (RssAnon) is read every
ten milliseconds. The last of them is repeated, killed after its third step and started again.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

import _common
import torch
from safetensors.torch import load_file

MODEL, DATA = "models/SmolLM2-135M-Instruct", "../shared/data/math/gsm8k.train.jsonl"
STEPS = 5


def write_texts(file: Path, megabytes: int) -> int:
    """Fill `file` with rows, and return how many."""
    rows = [json.loads(line) for line in Path(DATA).read_text(encoding="utf-8").split("\n") if line]
    with open(file, "w", encoding="utf-8") as out:
        for number in count():
            row = rows[number % len(rows)]
            out.write(json.dumps({"text": f"{number}. {row['prompt']} {row['completion']}"}) + "\n")
            if not number % 1000 and out.tell() > megabytes * 2**20:
                return number + 1


def private_bytes() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


def child(data: str, output: str, in_memory: bool, kill_at: int) -> None:
    """Train, and write the peak before the first step and that of all to peaks.json beside the output."""
    from transformers import TrainerCallback

    from mora_peft.recipes import streaming, train

    most, begun = [0, 0], time.monotonic()

    def watch() -> None:
        while True:
            most[-1] = max(most[-1], private_bytes())
            time.sleep(0.01)

    class Watch(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            most[0], self.seconds = most[1], time.monotonic() - begun

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    streaming.IN_MEMORY = 2**60 if in_memory else 0
    threading.Thread(target=watch, daemon=True).start()
    watch = Watch()
    config = train.TrainConfig(output=output, model=MODEL, data=data, steps=STEPS, batch_size=2, checkpoint_every=1,
                               dtype="float32", max_length=512, method_options={"mora_dropout": 0.1})  # fmt: skip
    train.train(config, callbacks=[watch])
    found = {"before_the_first_step": most[0], "at_all": most[1], "seconds_before_the_first_step": watch.seconds}
    Path(f"{output}.json").write_text(json.dumps(found))


def run(data: Path, output: Path, in_memory: bool = False, kill_at: int = -1) -> int:
    words = [str(word) for word in (data, output, int(in_memory), kill_at)]
    cache = output.parent / f"cache-{data.stem}"
    return subprocess.run(
        [sys.executable, __file__, "--child", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ).returncode


def main(sizes: list[int]) -> None:
    folder, rows = Path(tempfile.mkdtemp()), []
    try:
        for size in sizes:
            data = folder / f"{size}.jsonl"
            texts = write_texts(data, size)
            for in_memory in (True, False):
                output = folder / f"{size}-{in_memory}"
                assert run(data, output, in_memory) == 0
                found = json.loads(Path(f"{output}.json").read_text())
                rows.append({"megabytes": size, "texts": texts, "kept": "in memory" if in_memory else "on the disk"}
                            | {name: round(value, 1) for name, value in found.items()})  # fmt: skip
        killed = folder / "killed"
        assert run(data, killed, kill_at=3) == -signal.SIGKILL
        went_on_from = sorted(path.name for path in killed.glob("checkpoint-*"))[-1]
        assert run(data, killed) == 0
        mine, yours = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (killed, output))
        equal = mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)
    finally:
        shutil.rmtree(folder)
    _common.save("streaming", {"peaks": rows, "kill": {"went_on_from": went_on_from, "equal_weights": equal}})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4] == "1", int(sys.argv[5]))
    else:
        main([int(word) for word in sys.argv[1:]] or [10, 40])
