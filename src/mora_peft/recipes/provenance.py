"""Where a result comes from: versions, git revision, device, and a fingerprint of what it was asked to do."""

import contextlib
import hashlib
import json
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Settings that say where and how a run is written down, and leave the trained weights and the measurements alone.
BESIDE_THE_POINT = ("output", "fresh", "checkpoint_every", "report_to")


def fingerprint(config: dict[str, Any]) -> str:
    """A hash of the settings that decide a run's result, the contents of its local data files included."""
    digest = hashlib.sha256()
    settings = {name: value for name, value in config.items() if name not in BESIDE_THE_POINT}
    if settings.get("gradient_accumulation", 1) > 1:  # the same rows a step, in smaller parts
        settings["batch_size"] *= settings["gradient_accumulation"]
        settings["gradient_accumulation"] = 1
    if settings.get("gradient_checkpointing"):
        settings["gradient_checkpointing"] = False
    if settings.get("keep") == "best":  # of the checkpoints' weights
        settings["checkpoint_every"] = config["checkpoint_every"]
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in _sources(config):
        files = sorted(file for file in path.rglob("*") if not _is_hidden(file)) if path.is_dir() else [path]
        for file in filter(Path.is_file, files):
            digest.update(file.name.encode() + b"\0")
            with contextlib.suppress(PermissionError), open(file, "rb") as content:
                while part := content.read(2**20):
                    digest.update(part)
    return digest.hexdigest()[:16]


def _is_hidden(file: Path) -> bool:
    """Whether nobody means this file when they name its folder, such as the one that Word makes while it is open."""
    return file.name.startswith((".", "~$"))


def _sources(config: dict[str, Any]) -> list[Path]:
    """The files and folders that a run's settings name, those in its task's and its method's options included."""
    values = [config.get(name) for name in ("data", "eval_data", "forgetting_data", "peft_config")]
    for options in ("task_options", "method_options"):
        for _, value in sorted((config.get(options) or {}).items()):  # in whatever order a file has them
            values += value if isinstance(value, list) else [value]
    model = config.get("model")
    values += [model] if model and str(model).endswith(".json") else []
    return [Path(value) for value in values if isinstance(value, str) and Path(value).exists()]


def versions() -> dict[str, str | None]:
    """Versions of the packages that a result depends on; None for one that is not installed."""
    return {name.replace("-", "_"): _version(name) for name in ("mora-peft", "torch", "peft", "transformers", "trl")}


def git_revision() -> str | None:
    """The commit this package was checked out at, with `+changes` if files differ; None outside a checkout."""
    here = Path(__file__).parent
    revision = _output(["git", "-C", str(here), "rev-parse", "HEAD"])
    if revision is None or _output(["git", "-C", str(here), "ls-files", "--error-unmatch", __file__]) is None:
        return None
    return revision + ("+changes" if _output(["git", "-C", str(here), "status", "--porcelain", "-uno"]) else "")


def device() -> str:
    """The hardware that computes here, in words: 'cpu: AMD EPYC 9R14, AVX512, 1 thread', or 'cuda: NVIDIA H100'."""
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is not None:
        name = torch.cuda.get_device_name() if accelerator.type == "cuda" else platform.machine()
        return f"{accelerator.type}: {name}"
    threads = torch.get_num_threads()
    instructions = torch.backends.cpu.get_cpu_capability()  # decides more than a name that a virtual machine tells
    return f"cpu: {_cpu_name()}, {instructions}, {threads} thread{'s' if threads > 1 else ''}"


def peak_memory_bytes() -> int:
    """The most memory of this process so far: what was allocated on a GPU, where it computes there, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(command: list[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
