"""Measure a model or an adapter on rows: loss and perplexity, and recall where the rows have texts to complete."""

import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import provenance
from .adapters import is_adapter, load_adapter
from .data import load_rows
from .files import write_json
from .models import load_base, resolve_dtype
from .tasks import task_named, task_options

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


@dataclass
class EvaluateConfig:
    """Measure an adapter or a model: loss and perplexity on its rows, and recall by greedy decoding.

    Args:
        model: An adapter's folder, a model's folder, or a hub id.
        data: Rows to measure on, as in `mora train`.
        task: Where rows and metric come from; without data, the rows that the task makes.
        task_options: Options of the task.
        rows: Measure on so many rows only.
        batch_size: Rows measured at once.
        max_length: Longest row in tokens; longer ones are cut.
        dtype: Of the base model.
        output: JSON file for the result.
    """

    model: str
    data: str | None = None
    task: str | None = None
    task_options: dict[str, Any] = field(default_factory=dict)
    rows: int | None = None
    batch_size: int = 16
    max_length: int = 512
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    output: str = "evaluation.json"

    def __post_init__(self):
        from mora_peft.errors import UserError

        if self.data is None and self.task is None:
            raise UserError("There is nothing to measure on: give --data FILE, or --task memorization.")
        if min(self.batch_size, self.max_length, 1 if self.rows is None else self.rows) < 1:
            raise UserError("rows, batch_size and max_length must be at least 1.")


def evaluate(config: EvaluateConfig) -> Path:
    """Measure, print a table, and return the path of the JSON file with the metrics and every answer.

    Rows with a prompt and a completion as texts are completed as in the memorization task; others have a loss alone.
    Raises UserError for bad data or a model that cannot be loaded.
    """
    from .train import quiet_libraries

    quiet_libraries()
    if config.task:
        task = task_named(config.task)
        rows = task.rows(task_options(config.task, config.task_options), config.data)
    else:
        rows = load_rows(config.data)
        texts = "prompt" in rows.column_names and isinstance(rows[0]["prompt"], str)
        task = task_named("memorization") if texts else None
    if config.rows:
        rows = rows.select(range(min(config.rows, len(rows))))
    load = load_adapter if is_adapter(config.model) else load_base
    model, tokenizer = load(config.model, dtype=resolve_dtype(config.dtype))

    loss = mean_loss(model, tokenizer, rows, config.batch_size, config.max_length)
    metrics = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    answers: list[str] = []
    if task:
        recall, answers = task.measure(model, tokenizer, rows, config.batch_size)
        metrics |= recall
    print(f"{config.model} on {len(rows)} rows")
    for name, value in metrics.items():
        print(f"  {name.replace('_', ' '):<28}{value:.4f}")
    result = {
        "config": asdict(config),
        "rows": len(rows),
        "metrics": metrics,
        "answers": [
            {"prompt": row["prompt"], "expected": row["completion"].strip(), "answer": answer}
            for row, answer in zip(rows, answers, strict=False)
        ],
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    return write_json(Path(config.output), result)


def mean_loss(
    model: "Module", tokenizer: "PreTrainedTokenizerBase", rows: "Dataset", batch_size: int = 16, max_length: int = 512
) -> float:
    """The mean negative log-likelihood a token, in nats: of completions where rows have them, else of all the text.

    Rows are cut into tokens as TRL's trainer does it, so that the loss is the one that training lowers.
    """
    import tempfile

    import torch
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig

    from .trainer import RecipeTrainer, mean_token_loss

    columns = [name for name in ("prompt", "completion", "text") if name in rows.column_names]
    rows = rows.select_columns(columns)
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=os.path.join(folder, "unused"),
            per_device_eval_batch_size=batch_size,
            max_length=max_length,
            report_to="none",
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            use_cpu=not torch.accelerator.is_available(),
        )
        trainer = RecipeTrainer(
            model=model, args=arguments, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer
        )
        trainer.remove_callback(PrinterCallback)
        return mean_token_loss(trainer)
