"""Adapters loaded and unloaded over and over while other requests run: does one fail, and does memory grow?

`python benchmarks/serving_churn.py [--stock] [--cycles N] [--minutes LIMIT] [--clients N] [--model MODEL]` writes
benchmarks/results/serving_churn.json. A cycle loads an adapter under a name of its own, checks its answer, unloads it,
and checks that the name is gone; meanwhile clients ask the base model and other adapters without a pause. Every status
other than the one that is right counts as a failure. Memory is that of all of the server's processes. With `--stock`
all adapters are LoRAs, vLLM serves them without this package, and the results are in serving_churn_stock.json.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

import _common  # first: sets the number of threads
from _adapters import MODEL
from _server import PROMPTS, Memory, ask, call, make_adapters, serving

from mora_peft.recipes.serving.client import Server

#: What is asked all the time, and what comes and goes.
STAYING = {"stays-rotation": "rotation", "stays-sharing": "sharing", "stays-lora": "lora"}
CHURNED = {f"{method}-{number}": method for number in range(2) for method in ("rotation", "sharing", "lora")}
TOKENS = 4


def main(model: str, cycles: int, minutes: float, clients: int, stock: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "served"
        methods = STAYING | CHURNED
        make_adapters(root, model, dict.fromkeys(methods, "lora") if stock else methods)
        with serving(model, root, Path(folder) / "log", stock=stock) as server:
            results = asyncio.run(churn(server, root, cycles, minutes * 60, clients))
    _common.save("serving_churn" + "_stock" * stock, {"model": model, "clients": clients, **results})


async def churn(server: Server, root: Path, cycles: int, limit: float, clients: int) -> dict:
    """`cycles` cycles, or as many as `limit` seconds have room for, and what came of them."""
    failures: Counter[str] = Counter()
    asked, memory, end = Counter(), Memory(), time.monotonic() + limit
    async with server.session() as session:

        async def expect(what: str, status: int, right: bool) -> None:
            asked[what] += 1
            if not right:
                failures[f"{what}: {status}"] += 1

        async def traffic(number: int) -> None:
            names = ["base", *STAYING]
            while True:
                name = names[number % len(names)]
                status, _ = await ask(session, server, name, PROMPTS[number % len(PROMPTS)], 16)
                await expect("traffic", status, status == 200)
                number += 1

        expected = {name: await ask(session, server, name, PROMPTS[0], TOKENS) for name in CHURNED}
        background = [asyncio.create_task(traffic(number)) for number in range(clients)]
        done = 0
        for done in range(1, cycles + 1):
            source = list(CHURNED)[done % len(CHURNED)]
            name = f"churn-{done}"
            place = {"lora_name": name, "lora_path": str(root / source)}
            status, _ = await call(session, server, "load_lora_adapter", place)
            await expect("load", status, status == 200)
            answer = await ask(session, server, name, PROMPTS[0], TOKENS)
            await expect("answer", answer[0], answer == expected[source])
            status, _ = await call(session, server, "unload_lora_adapter", {"lora_name": name})
            await expect("unload", status, status == 200)
            status, _ = await ask(session, server, name, PROMPTS[0], 1)
            await expect("gone", status, status == 404)
            if done % max(cycles // 100, 1) == 0:
                memory.sample(cycles=done)
            if time.monotonic() > end or any(task.done() for task in background):
                break
        for task in background:
            task.cancel()
        for lost in await asyncio.gather(*background, return_exceptions=True):
            if not isinstance(lost, asyncio.CancelledError):
                failures[f"traffic: {lost!r}"] += 1
    return {
        "cycles": done,
        "requests": dict(asked),
        "failed_requests": sum(failures.values()),
        "failures": dict(failures),
        "bytes_per_cycle": round(memory.slope("cycles")),
        "resident": memory.samples,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--stock", action="store_true")
    main(**vars(parser.parse_args()))
