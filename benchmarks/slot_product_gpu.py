"""What a MoRA costs on a GPU for each layer and step, over a LoRA of equal r in plain PyTorch.

    python benchmarks/slot_product_gpu.py

Decoding is 1 to 256 tokens, each with an adapter of its own; LoRA's A and B are then gathered by two `bmm`. Prefill is
2048 tokens of one adapter; LoRA is two `matmul`. Every case is a captured CUDA graph over enough layers that no cache
holds their adapters. Before it is timed, a graph captured with empty slots must give what the plain path gives for
adapters loaded afterwards. Without a GPU it says so and does nothing.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import torch
from _common import ratios, save

from mora_peft.operators import make_operator, needs_even_side, r_hat_for
from mora_peft.operators.batched import Slots, Step, add_adapters_, plain

SHAPES = [(4096, 4096), (4096, 11008), (11008, 4096)]
#: More than the caches of GPUs hold, in bytes, and the most layers that a graph has.
CACHES, LAYERS = 2**28, 64


def captured(run: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """`run` as a graph, after what it needs was compiled."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def timed(graphs: dict[str, torch.cuda.CUDAGraph], repeats: int) -> dict[str, list[float]]:
    """Seconds of each graph, replayed in turn after one unmeasured round, by the GPU's own clock."""
    seconds: dict[str, list[float]] = {name: [] for name in graphs}
    for repeat in range(repeats + 1):
        for name, graph in graphs.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            stop.record()
            stop.synchronize()
            if repeat:
                seconds[name].append(start.elapsed_time(stop) / 1e3)
    return seconds


def fill(slots: Slots, operator: str, r: int) -> None:
    k, d = slots.k, slots.d
    side = r_hat_for(k, d, r, even=needs_even_side(operator))
    for index in range(slots.count):
        M = torch.randn(side, side, device="cuda") / side
        slots.put_mora(index, make_operator(operator, k=k, d=d, r_hat=side), M)


def check(graph: torch.cuda.CUDAGraph, y: torch.Tensor, x: torch.Tensor, slots: Slots, step: Step) -> float:
    """The largest difference between one layer's graph and the plain path, as a part of the largest result."""
    graph.replay()
    expected = plain.add_(torch.zeros_like(y), x, slots, step).float()
    largest = expected.abs().max().item()
    off = (y.float() - expected).abs().max().item() / largest
    if not largest or off > 2**-6:
        sys.exit(f"The kernels are wrong: off by {off:.2e} of the largest number {largest:.2e}, allowed 2^-6.")
    return off


def case(operator: str, k: int, d: int, r: int, tokens: int, adapters: int, repeats: int) -> dict:
    dtype, device = torch.bfloat16, "cuda"
    step = Step((torch.arange(tokens, device=device) % adapters).int())
    x, y = torch.randn(tokens, k, device=device, dtype=dtype), torch.zeros(tokens, d, device=device, dtype=dtype)

    one = Slots(k, d, adapters, r, dtype, device)
    graph = captured(lambda: add_adapters_(y, x, one, step))
    fill(one, operator, r)
    off = check(graph, y, x, one, step)

    count = max(1, min(LAYERS, -(-CACHES // one.buffer.nbytes)))
    layers = [one, *(Slots(k, d, adapters, r, dtype, device) for _ in range(count - 1))]
    for slots in layers[1:]:
        slots.buffer.copy_(one.buffer)
        slots.table.copy_(one.table)
        slots.turns.copy_(one.turns)
    A = [torch.randn(adapters, k, r, device=device, dtype=dtype) / k for _ in layers]
    B = [torch.randn(adapters, r, d, device=device, dtype=dtype) for _ in layers]

    def lora():
        for a, b in zip(A, B, strict=True):
            if adapters == 1:
                y.addmm_(x @ a[0], b[0])
            else:
                which = step.slots.long()
                y.add_(torch.bmm(torch.bmm(x.unsqueeze(1), a[which]), b[which]).squeeze(1))

    def mora():
        for slots in layers:
            add_adapters_(y, x, slots, step)

    seconds = timed({"mora": captured(mora), "lora": captured(lora)}, repeats)
    medians = {name: statistics.median(times) / count for name, times in seconds.items()}
    numbers = adapters * one.contents[0].r_hat ** 2
    return {
        **{f"{name}_us": round(time * 1e6, 2) for name, time in medians.items()},
        "over_lora": ratios(seconds, "lora")["mora"],
        "gb_s_of_M": round(numbers * 2 / medians["mora"] / 1e9, 1),
        "off_by": off,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 128, 256])
    parser.add_argument("--operators", nargs="+", default=["sharing", "rotation"])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no GPU here, so nothing is measured.")
        return
    torch.manual_seed(0)
    batches = [*((f"decode {size}", size, size) for size in options.batches), ("prefill 2048", 2048, 1)]
    results: dict = {}
    with torch.inference_mode():
        for operator in options.operators:
            for k, d in SHAPES:
                for r in options.ranks:
                    for name, tokens, adapters in batches:
                        found = case(operator, k, d, r, tokens, adapters, options.repeats)
                        results.setdefault(operator, {}).setdefault(f"{k} → {d}, r={r}", {})[name] = found
                        torch.cuda.empty_cache()
    save("slot_product_gpu", {"gpu": torch.cuda.get_device_name(), **results})


if __name__ == "__main__":
    main()
