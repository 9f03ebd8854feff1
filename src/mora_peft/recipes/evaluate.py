"""Measure a model or an adapter: loss and perplexity of rows, and all that a task measures."""

import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import provenance
from .adapters import is_adapter, load_adapter
from .data import check_template, load_rows, spoken
from .files import write_json
from .models import load_base, resolve_dtype
from .tasks import Test, nothing, task_named, task_options

if TYPE_CHECKING:
    from datasets import Dataset
    from torch.nn import Module
    from transformers import PreTrainedTokenizerBase


@dataclass
class EvaluateConfig:
    """Measure an adapter or a model: loss and perplexity of rows, and all that a task measures.

    Args:
        model: An adapter's folder, a model's folder, or a hub id.
        data: Rows to measure on, as in `mora train`; with a task, in place of its main test's rows.
        task: What is measured, as in `mora train`; without one, loss, and recall of rows with a prompt and an answer.
        task_options: Options of the task.
        lm_eval: Tasks of lm-evaluation-harness to measure, by name or as YAML files, with commas between them.
        rows: Measure on so many rows of each test only.
        batch_size: Rows measured at once.
        max_length: Longest row in tokens; longer ones are cut.
        dtype: Of the base model.
        output: JSON file for the result.
    """

    model: str
    data: str | None = None
    task: str | None = None
    task_options: dict[str, Any] = field(default_factory=dict)
    lm_eval: str | None = None
    rows: int | None = None
    batch_size: int = 16
    max_length: int = 512
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    output: str = "evaluation.json"

    def __post_init__(self):
        from mora_peft.errors import UserError

        if self.data is None and self.task is None and self.lm_eval is None:
            raise UserError(
                "There is nothing to measure on: give --data FILE, --task memorization, or --lm-eval TASKS."
            )
        if min(self.batch_size, self.max_length, 1 if self.rows is None else self.rows) < 1:
            raise UserError("rows, batch_size and max_length must be at least 1.")


def evaluate(config: EvaluateConfig) -> Path:
    """Measure, print a table, and return the path of the JSON file with the metrics and every answer.

    Raises UserError for bad data or a model that cannot be loaded.
    """
    from .harness import check_harness, measure_by_harness
    from .libraries import quiet_libraries

    quiet_libraries()
    if config.lm_eval:
        check_harness()
    tests = [test.limited(config.rows) for test in _tests(config)]
    load = load_adapter if is_adapter(config.model) else load_base
    model, tokenizer = load(config.model, dtype=resolve_dtype(config.dtype))

    metrics: dict[str, float] = {}
    answers: list[dict[str, str]] = []
    if tests:
        main = tests[0].rows
        check_template(main, tokenizer)
        loss = mean_loss(model, tokenizer, main, config.batch_size, config.max_length)
        metrics |= {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    for test in tests:
        found, said = test.run(model, tokenizer, config.batch_size)
        metrics |= found
        answers += [
            {"test": test.name, "prompt": spoken(row["prompt"]), "expected": _expected(row), "answer": answer}
            for row, answer in zip(test.rows, said, strict=False)
        ]
    if config.lm_eval:
        metrics |= measure_by_harness(model, tokenizer, config.lm_eval.split(","), config.batch_size, config.rows)
    print(
        f"{config.model}" + "".join(f", {len(test.rows)} rows{f' of {test.name}' * bool(test.name)}" for test in tests)
    )
    for name, value in metrics.items():
        print(f"  {name.replace('_', ' '):<28}{value:.4f}")
    result = {
        "config": asdict(config),
        "rows": len(tests[0].rows) if tests else 0,
        "metrics": metrics,
        "answers": answers,
        "versions": provenance.versions(),
        "device": provenance.device(),
    }
    return write_json(Path(config.output), result)


def _tests(config: EvaluateConfig) -> list[Test]:
    """The task's tests; of rows without a task, recall where they are texts to complete, else nothing but the loss."""
    from .measures.recall import recall

    if config.task:
        return task_named(config.task).tests(task_options(config.task, config.task_options), None, config.data)
    if config.data is None:
        return []
    rows = load_rows(config.data)
    texts = "prompt" in rows.column_names and isinstance(rows[0]["prompt"], str)
    return [Test("", rows, recall if texts else nothing)]


def _expected(row: dict[str, Any]) -> str:
    """What the answer to a row should have been, to show: the columns that tests have it in differ."""
    for name in ("completion", "right", "answers", "answer"):
        if name in row:
            return ", ".join(row[name]) if name == "answers" else spoken(row[name])
    return ""


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
