"""What remains of a server's throughput when the same requests are spread over 2,000 adapters instead of 5.

`python benchmarks/serving_scale.py PART [--folder FOLDER] [--repeats N] [--seconds S] [--more]` writes
benchmarks/results/serving_scale/PART.json; with `--more` it adds its runs to those that are there. The parts stand
for themselves and can be run at any time:

    rotation, sharing   MoRA through `mora serve`
    lora                LoRA at the same r through `mora serve`
    stock-lora          LoRA through vLLM alone, with its own resolver
    converted           sharing MoRA as the exact LoRA that it is, through vLLM alone; 5 adapters only
    peft                MoRA in one process by PEFT: one adapter at a time, requests of the same one together
    beside              rotation through `mora serve` with what `converted` and `peft` get, to compare them with

The workload is that of `mora bench serve`, after the S-LoRA paper, with its lengths scaled to one CPU thread; requests
come faster than they can be served, as they do there. A server gets 2,000 adapters in its folder; they are asked for
cold first; then all are loaded once, and 5 and 2,000 take turns. The adapters (5 MB each) are made in FOLDER and kept.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _common  # first: sets the number of threads
from _adapters import MODEL, make
from _server import resident, stock_settings

from mora_peft.recipes.serving.bench import summary
from mora_peft.recipes.serving.launch import Machine, ServeConfig, prepare
from mora_peft.recipes.serving.server import free_port, running
from mora_peft.recipes.serving.trace import Laws, draw_trace

FEW, MANY = 5, 2000
RATE, SECONDS = 8.0, 60.0
LENGTHS = (8, 64)
#: Requests that run at once, and as many slots for adapters.
BATCH = 32
#: Two ways to serve take so much longer that they get the first seconds of the workload only.
SHORT, SHORT_SECONDS = ("converted", "peft", "beside"), 4.0


def main(part: str, folder: Path, many: int, repeats: int, seconds: float, more: bool) -> None:
    seconds = min(seconds, SHORT_SECONDS) if part in SHORT else seconds
    if part in ("converted", "beside"):
        many = FEW
    workload = {"adapters": [FEW, many], "rate": RATE, "seconds": seconds, "alpha": 1.0, "cv": 1.0}
    workload |= {"lengths": list(LENGTHS), "batch": BATCH}
    kind = {"stock-lora": "lora", "peft": "rotation", "beside": "rotation"}.get(part, part)
    adapters = make(folder, kind, many)
    measure = with_peft if part == "peft" else with_server
    found = measure(part, adapters, many, repeats, seconds)
    found["workload"] = workload
    if more:
        found["runs"] = earlier(part, workload) + found["runs"]
    warm = [run for run in found["runs"] if not run["cold"]]
    rates = {count: [run["requests_per_second"] for run in warm if run["adapters"] == count] for count in (FEW, many)}
    found["requests_per_second"] = {count: statistics.median(values) for count, values in rates.items()}
    if many != FEW:
        found["remaining"] = statistics.median(b / a for a, b in zip(rates[FEW], rates[many], strict=True))
    _common.save(f"serving_scale/{part}", found)


def earlier(part: str, workload: dict) -> list[dict]:
    """The runs that were written before, which must be of the same workload."""
    path = _common.RESULTS / "serving_scale" / f"{part}.json"
    if not path.is_file():
        return []
    results = json.loads(path.read_text())["results"]
    if results["workload"] != workload:
        raise SystemExit(f"{path} is of another workload, {results['workload']}: leave out --more to replace it.")
    return results["runs"]


def with_server(part: str, adapters: Path, many: int, repeats: int, seconds: float) -> dict:
    """The runs against a server that has `many` adapters: cold, and then in turns."""
    stock = part in ("stock-lora", "converted")
    port = free_port()
    vllm = ["--port", str(port), "--max-model-len", "256", "--max-num-seqs", str(BATCH)]
    vllm += ["--max-loras", str(min(BATCH, many))]
    vllm += ["--max-cpu-loras", str(max(many, BATCH)), "--no-enable-log-requests", "--enforce-eager"]
    command, environment = prepare(ServeConfig(MODEL, str(adapters), vllm=vllm), os.environ, Machine.here())
    if stock:
        environment |= stock_settings(adapters)
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    # One step of `converted`, where vLLM gathers A and B for every token, may take minutes.
    environment |= {"VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3600"}
    runs = []
    with running(command, port, adapters.parent / f"{part}.log", environment) as url:
        before = resident()
        if many != FEW:
            runs.append({"cold": True, **bench(url, adapters, many, seconds)})
        bench(url, adapters, many, 1.0, "--warmup")
        after = resident()
        for _ in range(repeats):
            runs += [{"cold": False, **bench(url, adapters, count, seconds)} for count in dict.fromkeys((FEW, many))]
    return {"runs": runs, "resident_bytes": {"started": before, "all_loaded": after}}


def bench(url: str, adapters: Path, count: int, seconds: float, *words: str) -> dict:
    """What `mora bench serve` measures with the first `count` adapters."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        command = [sys.executable, "-m", "mora_peft.cli.main", "bench", "serve", "--url", url, "--output", str(output)]
        command += ["--adapters", str(adapters), "--count", str(count), "--rate", str(RATE), "--duration", str(seconds)]
        lengths = json.dumps(LENGTHS)
        subprocess.run([*command, "--input_range", lengths, "--output_range", lengths, *words], check=True)
        return {"adapters": count, **json.loads(output.read_text())["results"]}


def with_peft(part: str, adapters: Path, many: int, repeats: int, seconds: float) -> dict:
    """The runs without a server: the oldest request's adapter is put on, and all that wait for it are answered."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapters / "0000"), adapter_name="a0").eval()
    runs = []
    for _ in range(repeats):
        for count in (FEW, many):
            laws = Laws(int(RATE * seconds), RATE, 1.0, 1.0, LENGTHS, LENGTHS)
            trace = draw_trace(laws, count, seed=0)
            outcomes = answered(model, tokenizer, adapters, trace)
            runs.append({"cold": False, "adapters": count, **summary(outcomes, trace, slo=6.0)})
    return {"runs": runs}


def answered(model, tokenizer, adapters: Path, trace: list) -> list:
    """The outcomes of a trace in PEFT's hands, with at most BATCH adapters in memory."""
    import time

    import torch

    from mora_peft.recipes.serving.client import Outcome

    outcomes, waiting, arrived, start = {}, [], 0, time.perf_counter()
    while len(outcomes) < len(trace):
        now = time.perf_counter() - start
        while arrived < len(trace) and trace[arrived].at <= now:
            waiting.append(arrived)
            arrived += 1
        if not waiting:
            time.sleep(max(trace[arrived].at - now, 0))
            continue
        place = trace[waiting[0]].adapter
        batch = [number for number in waiting if trace[number].adapter == place][:BATCH]
        waiting = [number for number in waiting if number not in batch]
        name = f"a{place}"
        if name not in model.peft_config:
            if len(model.peft_config) == BATCH:
                model.delete_adapter(next(other for other in model.peft_config if other != model.active_adapter))
            model.load_adapter(str(adapters / f"{place:04d}"), adapter_name=name)
        model.set_adapter(name)
        prompts = tokenizer([trace[number].prompt for number in batch], return_tensors="pt", padding=True)
        tokens = max(trace[number].output_tokens for number in batch)
        with torch.inference_mode():
            model.generate(**prompts, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        end = time.perf_counter() - start
        for number in batch:
            # Answers come whole: the first token is there with the last.
            took = end - trace[number].at
            outcomes[number] = Outcome(took, took, len(trace[number].prompt.split()), trace[number].output_tokens)
    return [outcomes[number] for number in range(len(trace))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["rotation", "sharing", "lora", "stock-lora", "converted", "peft", "beside"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mora-adapters")
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time in which requests come")
    parser.add_argument("--more", action="store_true", help="add to the runs that are written already")
    options = parser.parse_args()
    main(options.part, options.folder, options.many, options.repeats, options.seconds, options.more)
