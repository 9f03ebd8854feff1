"""The way to lm-evaluation-harness, which knows hundreds of tasks: a model goes in, metrics come out."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mora_peft.errors import UserError

from .decoding import evaluating

if TYPE_CHECKING:
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


def check_harness() -> None:
    """Raise UserError where the package is not installed."""
    if find_spec("lm_eval") is None:
        raise UserError("lm-evaluation-harness is not installed: pip install 'mora-peft[lm-eval]'.")


def measure_by_harness(
    model: "Module",
    tokenizer: "PreTrainedTokenizerBase",
    tasks: list[str],
    batch_size: int = 16,
    limit: int | None = None,
) -> dict[str, float]:
    """What lm-evaluation-harness measures of `model`, by `task_metric`, or `task_metric_filter` where it has a filter.

    Args:
        tasks: Names that the harness knows, or YAML files of further tasks.
        limit: Measure on so many rows of each task only.

    Raises UserError for a task that there is none of, and where its data cannot be had. Leaves the model in the mode
    that it was in.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    files = [Path(task.strip()) for task in tasks if task.strip().endswith((".yaml", ".yml"))]
    names = [task.strip() for task in tasks if Path(task.strip()) not in files] + [_name(file) for file in files]
    manager = TaskManager(include_path=sorted({str(file.parent.resolve()) for file in files}) or None)
    unknown = [name for name in names if not manager.match_tasks([name])]
    if unknown:
        raise UserError(f"lm-evaluation-harness has no task {unknown[0]}: `lm-eval ls tasks` lists those it has.")
    try:
        with evaluating(model):
            found = simple_evaluate(
                HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
                tasks=names,
                limit=limit,
                task_manager=manager,
                bootstrap_iters=0,
                log_samples=False,
            )
    except OSError as error:
        first_line = str(error).strip().split("\n")[0]
        raise UserError(f"The data of {', '.join(names)} could not be loaded: {first_line}") from error
    metrics = {}
    for task, values in found["results"].items():
        for name, value in values.items():
            metric, _, filtered = name.partition(",")
            if isinstance(value, int | float) and not metric.endswith("_stderr") and metric != "sample_len":
                metrics["_".join([task, metric, *([filtered] if filtered not in ("", "none") else [])])] = float(value)
    return metrics


def _name(file: Path) -> str:
    """The name of the task that a YAML file of the harness defines."""
    try:
        found = re.search(r"^task:\s*(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError as error:
        raise UserError(f"The task file {file} could not be read: {error.strerror}.") from error
    if found is None:
        raise UserError(f"{file} is no task of lm-evaluation-harness: it has no line `task: NAME`.")
    return found[1].strip("\"'")
