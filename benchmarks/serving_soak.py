"""Mixed traffic for minutes on end, every answer compared with the one that the same request got alone.

`python benchmarks/serving_soak.py [--minutes N] [--clients N] [--model MODEL]` writes
benchmarks/results/serving_soak.json. The base model, MoRA and LoRA adapters are asked by name, more of them than there
are slots; first one by one, then at random by several clients at once. Greedy answers in float32 must be equal.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import _common  # first: sets the number of threads
from _adapters import MODEL
from _server import PROMPTS, Memory, ask, make_adapters, serving

from mora_peft.recipes.serving.client import Server

ADAPTERS = {f"{method}-{number}": method for number in range(3) for method in ("rotation", "sharing", "lora")}
TOKENS = 24
SECONDS_BETWEEN_SAMPLES = 5.0


def main(model: str, minutes: float, clients: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "served"
        make_adapters(root, model, ADAPTERS)
        with serving(model, root, Path(folder) / "log") as server:
            results = asyncio.run(soak(server, minutes * 60, clients))
    _common.save("serving_soak", {"model": model, "clients": clients, **results})
    if results["wrong"] or not results["answers"]:
        raise SystemExit(f"{results['wrong']} of {results['answers']} answers were not the expected ones.")


async def soak(server: Server, seconds: float, clients: int) -> dict:
    """What came of `seconds` of random requests by `clients` clients at once."""
    asked, wrong, memory = Counter(), [], Memory()
    async with server.session() as session:
        wanted = {(name, prompt): None for name in ("base", *ADAPTERS) for prompt in PROMPTS}
        for name, prompt in wanted:
            status, wanted[name, prompt] = await ask(session, server, name, prompt, TOKENS)
            if status != 200:
                raise SystemExit(f"{name} does not answer: {wanted[name, prompt]}")
        end = time.monotonic() + seconds

        async def client(number: int) -> None:
            draw = random.Random(number)
            while time.monotonic() < end:
                name, prompt = draw.choice(list(wanted))
                tokens = draw.randint(1, TOKENS)
                status, text = await ask(session, server, name, prompt, tokens)
                asked[name] += 1
                # A shorter answer may end within a character, of which it says nothing yet.
                right = text == wanted[name, prompt] if tokens == TOKENS else begins(wanted[name, prompt], text)
                if status != 200 or not right:
                    wrong.append({"model": name, "prompt": prompt, "tokens": tokens, "status": status, "answer": text})

        async def watch() -> None:
            while time.monotonic() < end:
                memory.sample()
                await asyncio.sleep(SECONDS_BETWEEN_SAMPLES)

        await asyncio.gather(watch(), *(client(number) for number in range(clients)))
    return {
        "seconds": seconds,
        "answers": sum(asked.values()),
        "wrong": len(wrong),
        "wrong_answers": wrong[:20],
        "distinct_answers": len(set(wanted.values())),
        "asked": dict(sorted(asked.items())),
        "bytes_per_minute": round(60 * memory.slope("seconds")),
        "resident": memory.samples,
    }


def begins(whole: str, part: str) -> bool:
    """Whether `whole` begins with `part`, whose last characters may be the replacement for half a character."""
    return whole.startswith(part.rstrip("\N{REPLACEMENT CHARACTER}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=6)
    main(**vars(parser.parse_args()))
