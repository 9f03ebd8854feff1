"""Decode throughput of 32 requests, each with an adapter of its own, over the base model's without adapters.

`python benchmarks/serving_batch.py [--folder FOLDER] [--repeats N]` writes
benchmarks/results/serving_batch.json. Three engines take turns on one thread: vLLM
without adapters, vLLM with the plugin, and vLLM's own LoRA. Every repetition runs each case once; a ratio is the median
over the repetitions of tokens per second over the base's in the same one. The prompts' steps are not counted.

`limit` is what a kernel would leave of the base's throughput that takes no time but for reading the 32 adapters from
memory, once a step and as fast as this thread reads anything at that moment.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _common  # first: sets the number of threads

REQUESTS, TOKENS, PROMPT = 32, 64, 16
#: Each engine, and the adapters that its cases use; None is the base model.
ENGINES = {
    "plain": {"base": None},
    "plugin": {"base": None, "rotation": "rotation", "sharing": "sharing", "lora": "lora", "mixed": "mixed"},
    "stock": {"lora": "lora"},
}


def main(folder: Path, repeats: int) -> None:
    from _adapters import make

    for method in ("rotation", "sharing", "lora"):
        make(folder, method, REQUESTS)
    workers = {name: Worker(name, folder) for name in ENGINES}
    cases = [(engine, case) for engine in ENGINES for case in ENGINES[engine]]
    rates: dict[str, list[float]] = {f"{engine} {case}": [] for engine, case in cases}
    reading: list[float] = []
    try:
        for repeat in range(repeats + 1):
            for engine, case in cases:
                rate = workers[engine].ask(case)
                if repeat:  # the first round warms up
                    rates[f"{engine} {case}"].append(rate)
            if repeat:
                reading.append(read_bytes_per_second())
        memory = {name: worker.ask("memory") for name, worker in workers.items()}
    finally:
        for worker in workers.values():
            worker.stop()
    adapters = REQUESTS * (folder / "sharing" / "0000" / "adapter_model.safetensors").stat().st_size
    steps = [REQUESTS / rate for rate in rates["plain base"]]
    results = {
        "requests": REQUESTS,
        "tokens": TOKENS,
        "base_step_seconds": [round(step, 4) for step in steps],
        "adapters_bytes": adapters,
        "read_bytes_per_second": [round(speed) for speed in reading],
        "limit": statistics.median(
            round(step / (step + adapters / speed), 3) for step, speed in zip(steps, reading, strict=True)
        ),
        "over_base": {case: over(found, rates["plain base"]) for case, found in rates.items()},
        "over_stock_lora": {case: over(found, rates["stock lora"]) for case, found in rates.items()},
        "tokens_per_second": {case: [round(rate, 1) for rate in found] for case, found in rates.items()},
        "resident_bytes": memory,
    }
    _common.save("serving_batch", results)


def over(rates: list[float], reference: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(rates, reference, strict=True)), 3)


def read_bytes_per_second() -> float:
    """How fast one thread reads memory that is in no cache: the best of a few passes over 256 MiB."""
    import torch

    torch.set_num_threads(1)
    memory = torch.ones(2**26)
    return memory.nbytes / min(_common.interleaved({"sum": memory.sum}, 5)["sum"])


class Worker:
    """An engine in a process of its own, which rests while the others run."""

    def __init__(self, engine: str, folder: Path):
        words = [sys.executable, __file__, "--worker", engine, "--folder", str(folder)]
        # Without a name in it the list of plugins is empty: the engine is vLLM's own.
        plugins = "mora" if engine == "plugin" else ""
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "VLLM_LOGGING_LEVEL": "WARNING",
                **os.environ,
                "VLLM_PLUGINS": plugins,
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",
                "VLLM_CPU_KVCACHE_SPACE": "1",
            },
        )
        self.ask("memory")  # wait until it is there

    def ask(self, case: str) -> float:
        """What the worker answers to the name of a case: tokens per second; to `memory`: bytes."""
        print(case, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise SystemExit(f"A worker ended with {self.process.wait()}.")

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def work(engine: str, folder: Path) -> None:
    """Answer the names of cases that come in, one a line, until there are no more."""
    from _adapters import MODEL
    from vllm import LLM

    loras = {
        "enable_lora": True,
        "max_lora_rank": 8,
        "max_loras": REQUESTS,
        "max_cpu_loras": 4 * REQUESTS,
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    }
    llm = LLM(
        MODEL,
        max_model_len=256,
        max_num_seqs=REQUESTS,
        enforce_eager=True,
        enable_prefix_caching=False,
        **({} if engine == "plain" else loras),
    )
    for line in sys.stdin:
        case = line.strip()
        answer = resident() if case == "memory" else decode(llm, ENGINES[engine][case], folder)
        print(f"answer {json.dumps(answer)}", flush=True)


def decode(llm: object, method: str | None, folder: Path) -> float:
    """Tokens per second from the moment when every request has its first one."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    settings = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    for place in range(REQUESTS):
        adapter = None
        if method is not None:
            kind = ("rotation", "sharing", "lora")[place % 3] if method == "mixed" else method
            number = 1 + ("rotation", "sharing", "lora").index(kind) * REQUESTS + place
            adapter = LoRARequest(f"{kind}-{place}", number, str(folder / kind / f"{place:04d}"))
        prompt = {"prompt_token_ids": [1000 + 7 * place + step for step in range(PROMPT)]}
        llm.llm_engine.add_request(str(place), prompt, settings, lora_request=adapter)
    written: dict[str, int] = {}
    start, before = 0.0, 0
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            written[output.request_id] = len(output.outputs[0].token_ids)
        if not start and len(written) == REQUESTS:
            start, before = time.perf_counter(), sum(written.values())
    assert sum(written.values()) == REQUESTS * TOKENS
    return (sum(written.values()) - before) / (time.perf_counter() - start)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    import psutil

    return psutil.Process().memory_info().rss


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mora-adapters")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--worker", choices=list(ENGINES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.folder)
    else:
        main(options.folder, options.repeats)
