"""A server by `mora serve` for benchmarks that load and ask it over HTTP, on the loopback address only."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mora_peft.recipes.adapters import linear_shapes
from mora_peft.recipes.serving.client import Server
from mora_peft.recipes.serving.launch import Machine, ServeConfig, prepare
from mora_peft.recipes.serving.server import free_port, running
from mora_peft.tuner.convert import save_state

if TYPE_CHECKING:
    from aiohttp import ClientSession

KEY = "benchmark"
PROMPTS = ("Once upon a time", "The capital of France is", "def add(a, b):", "2 + 2 =", "Dear Sir or Madam,", "To be")


def make_adapters(root: Path, model: str, methods: dict[str, str]) -> None:
    """ROOT/NAME for every name in `methods`, a distinct random adapter of `model` by the method that it stands for."""
    from _adapters import drawn

    shapes = linear_shapes(model, output=False)
    for seed, (name, method) in enumerate(methods.items()):
        save_state(root / name, *drawn(method, shapes, seed))


@contextmanager
def serving(
    model: str, root: Path, log: Path, *, slots: int = 4, kept: int = 8, stock: bool = False
) -> Iterator[Server]:
    """A server of `model` in float32, so that answers do not hang on who shares a batch; `kept` adapters in memory."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is not left behind
    port = free_port()
    vllm = ["--port", str(port), "--served-model-name", "base", "--dtype", "float32", "--max-model-len", "256"]
    vllm += ["--max-loras", str(slots), "--max-cpu-loras", str(kept), "--enforce-eager", "--no-enable-log-requests"]
    environment = os.environ | {"VLLM_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    command, environment = prepare(ServeConfig(model, str(root), True, vllm), environment, Machine.here())
    with running(command, port, log, environment | (stock_settings(root) if stock else {})) as url:
        yield Server(url, KEY, timeout=120)


def stock_settings(root: Path) -> dict[str, str]:
    """The environment in which vLLM finds the adapters of a folder by itself, without this package."""
    return {
        "VLLM_PLUGINS": "lora_filesystem_resolver",
        "VLLM_LORA_RESOLVER_CACHE_DIR": str(root),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    }


async def call(session: "ClientSession", server: Server, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """The status and the body, parsed where it is JSON, of what the server answers to a POST."""
    async with session.post(server.at(path), json=body) as response:
        return response.status, await (response.json() if "json" in response.content_type else response.text())


async def ask(session: "ClientSession", server: Server, model: str, prompt: str, tokens: int) -> tuple[int, str]:
    """(200, greedy answer) or (status, what is wrong)."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    status, answer = await call(session, server, "completions", body)
    return status, answer["choices"][0]["text"] if status == 200 else str(answer)[:200]


class Memory:
    """Bytes that the server's processes hold (their resident sizes, added up), over time."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.samples: list[dict[str, float]] = []

    def sample(self, **more: float) -> None:
        """Look once; `more` is written beside it."""
        self.samples.append({"seconds": round(time.monotonic() - self.start, 1), "bytes": resident(), **more})

    def slope(self, by: str) -> float:
        """Bytes more for each of `by`, by least squares over the second half: the first half fills buffers."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 2:
            return 0.0
        x, y = (torch.tensor([sample[key] for sample in half], dtype=torch.float64) for key in (by, "bytes"))
        x = x - x.mean()
        return (x @ y / (x @ x)).item() if x.any() else 0.0


def resident() -> int:
    """Bytes of memory that this process' children hold."""
    import psutil

    total = 0
    for child in psutil.Process().children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            pass
    return total
