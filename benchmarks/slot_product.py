"""What adapters cost a serving step: every path, in GB/s of adapters read and as a share of what the machine can read.

    python benchmarks/slot_product.py

Decoding is one token for each of 32 requests, each with an adapter of its own, through every linear layer of
SmolLM2-135M (210 layers, so that no cache holds the adapters). Prefill is 512 tokens of one adapter in one layer.
"""

import argparse
import os
import statistics

import torch
from _common import interleaved, save

from mora_peft.operators import make_operator, needs_even_side, r_hat_for
from mora_peft.operators.batched import Slots, Step, native, plain

# (k, d) of a decoder layer's linears: q, k, v, o, gate, up, down.
LINEARS = [(576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576)]
OPERATORS = {
    "sharing": {},
    "grouped": {"name": "sharing", "layout": "grouped-grouped"},
    "rotation": {},
    "rotation-fold": {"name": "rotation", "fold": True},
    "lora": {},
}
ADD = {"native": native.add_, "plain": plain.add_}


def layers(operator: str, sizes: list[tuple[int, int]], count: int, r: int, dtype: torch.dtype) -> dict:
    """For each path, its layers: the kernel's slots are packed, the plain path's are not."""
    made = {}
    for path, switch in (("native", "1"), ("plain", "0")):
        os.environ[native.SWITCH] = switch
        native.kernel_for.cache_clear()
        made[path] = [layer(operator, k, d, count, r, dtype) for k, d in sizes]
    return made


def layer(operator: str, k: int, d: int, count: int, r: int, dtype: torch.dtype) -> Slots:
    """Slots with random adapters of one kind, the size of a LoRA of rank `r` each."""
    slots = Slots(k, d, count, r, dtype)
    options = {"name": operator, **OPERATORS[operator]}
    for index in range(count):
        if operator == "lora":
            slots.put_lora(index, torch.randn(r, k), torch.randn(d, r))
        else:
            side = r_hat_for(k, d, r, even=needs_even_side(options["name"]))
            slots.put_mora(index, make_operator(**options, k=k, d=d, r_hat=side), torch.randn(side, side) / side)
    return slots


def decode(operator: str, depth: int, tokens: int, r: int, dtype: torch.dtype, repeats: int) -> dict:
    models = layers(operator, LINEARS * depth, tokens, r, dtype)
    xs = {k: torch.randn(tokens, k, dtype=dtype) for k, _ in LINEARS}
    ys = {d: torch.randn(tokens, d, dtype=dtype) for _, d in LINEARS}
    step = Step(torch.arange(tokens).flip(0))
    everything = torch.randn(2**26)  # 256 MiB: what reading costs at best

    def run(path):
        return lambda: [ADD[path](ys[slots.d], xs[slots.k], slots, step) for slots in models[path]]

    paths = {path: run(path) for path in ADD} | {"read": everything.sum}
    seconds = {name: statistics.median(times) for name, times in interleaved(paths, repeats).items()}
    bytes_read = sum(
        slots.buffer.element_size()
        * tokens
        * (content if isinstance(content, int) else content.r_hat**2)
        * ((slots.k + slots.d) if isinstance(content, int) else 1)
        for slots in models["native"]
        for content in slots.contents[:1]
    )
    limit = everything.nbytes / seconds.pop("read")
    return {
        "adapters_mb": round(bytes_read / 1e6, 1),
        "read_limit_gb_s": round(limit / 1e9, 1),
        **{
            path: {
                "ms_a_step": round(time * 1e3, 2),
                "us_a_layer": round(time * 1e6 / len(models[path]), 1),
                "gb_s": round(bytes_read / time / 1e9, 1),
                "share_of_limit": round(bytes_read / time / limit, 2),
            }
            for path, time in seconds.items()
        },
    }


def prefill(operator: str, tokens: int, r: int, dtype: torch.dtype, repeats: int) -> dict:
    results = {}
    for k, d in dict.fromkeys(LINEARS):
        made = layers(operator, [(k, d)], 1, r, dtype)
        x, y, step = torch.randn(tokens, k, dtype=dtype), torch.randn(tokens, d, dtype=dtype), Step(torch.zeros(tokens))
        W = torch.randn(d, k, dtype=dtype)
        cases = {
            path: lambda add=add, x=x, y=y, slots=made[path][0], step=step: add(y, x, slots, step)
            for path, add in ADD.items()
        } | {"base": lambda x=x, W=W: x @ W.T}
        rows = 1 if operator == "lora" else made["native"][0].contents[0].geometry.rows
        products = rows * r_hat_for(k, d, r) ** 2 * tokens
        seconds = {name: statistics.median(times) for name, times in interleaved(cases, repeats).items()}
        results[f"{k} → {d}"] = {
            **{f"{name}_us": round(time * 1e6) for name, time in seconds.items()},
            "native_gflop_s": round(2 * products / seconds["native"] / 1e9, 1),
            "base_gflop_s": round(2 * k * d * tokens / seconds["base"] / 1e9, 1),
        }
    return results


def overhead(repeats: int) -> float:
    """Microseconds of a call that has next to nothing to compute."""
    slots = layer("sharing", 8, 8, 1, 1, torch.float32)
    x, y, step = torch.randn(1, 8), torch.randn(1, 8), Step(torch.zeros(1))
    from mora_peft.operators.batched import add_adapters_

    times = interleaved({"calls": lambda: [add_adapters_(y, x, slots, step) for _ in range(1000)]}, repeats)["calls"]
    return round(statistics.median(times) * 1e3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--r", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "float16"])
    parser.add_argument("--operators", nargs="+", default=list(OPERATORS), choices=OPERATORS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    with torch.inference_mode():
        results = {
            "us_a_call_at_least": overhead(args.repeats),
            "decode": {o: decode(o, args.layers, args.tokens, args.r, dtype, args.repeats) for o in args.operators},
            "prefill_512": {o: prefill(o, 512, args.r, dtype, args.repeats) for o in args.operators},
        }
    save("slot_product", results)


if __name__ == "__main__":
    main()
