"""What all runs of a comparison share, in one dataclass: the model, the rows, the budget and the training."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(kw_only=True)
class Settings:
    """Settings of a training run that do not depend on its method.

    Args:
        output: Folder that the results are written to.
        model: Base model, a local folder or a hub id.
        task: Where rows and metrics come from: memorization, instruction, math, biomedical, finance, pretraining;
            without one `data` is learned, and its loss measured.
        data: Rows to learn: a JSONL file (prompt/completion, messages, text or key/value), a CSV or Parquet file of the
            same fields, a folder of .txt and .md files, or a hub data set as owner/name or owner/name:split.
        eval_data: Rows to measure on, in the same forms; without it a task's own, and without a task none.
        forgetting_data: General text, in the same forms, whose perplexity before and after training tells what was
            forgotten.
        forgetting_rows: Measure forgetting on so many of its rows only.
        task_options: Options of the task. For memorization: facts and pairs (how many of each are made), digits (of
            a pair's key and value; 32 makes a UUID), seed, bits (measure the bits stored of the pairs). For the others
            see docs/comparing.md.
        r: Parameter budget: as many parameters as a LoRA of this rank has over the target modules.
        target_modules: The linear layers to adapt: all-linear, a list of names, or a regular expression.
        seed: Seed of initialization, dropout and data order.
        steps: Optimizer steps.
        batch_size: Rows a step, shared by all processes.
        gradient_accumulation: Batches added up to one step.
        max_length: Longest row in tokens; longer ones are cut.
        packing: What is joined to rows of exactly max_length tokens, so that nothing is cut off or padded: texts; all
            joins rows with a prompt too, each seeing itself alone, which costs much time on a CPU; batch joins those of
            a batch, without padding, and what they begin with alike stands once: quick where rows are short, most of
            all behind a chat template; or none.
        schedule: Shape of the learning rate over the steps.
        warmup: Warm-up of the learning rate, in steps, or as a share of all steps if below 1.
        weight_decay: AdamW's weight decay.
        max_grad_norm: Gradients longer than this are scaled down.
        dtype: Of the frozen base model; what is trained is float32. Automatic is bfloat16 where the hardware computes
            in it, float32 elsewhere.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, more time.
        evaluate_every: Steps between measurements; there is always one before training and one after.
        evaluate_rows: Measure on so many rows only.
        evaluate_batch_size: Rows measured at once.
        checkpoint_every: Steps between checkpoints, from which an interrupted run goes on.
        keep: Which weights a run ends with: those after the last step, or those of the checkpoint with the lowest
            measured loss (best), for which every checkpoint must be measured.
        log_every: Steps between logged losses.
        report_to: Where Transformers also sends the logs: tensorboard, trackio, wandb.
        fresh: Start anew where the output folder already holds a run.
    """

    output: str
    model: str
    task: str | None = None
    data: str | None = None
    eval_data: str | None = None
    forgetting_data: str | None = None
    forgetting_rows: int = 32
    task_options: dict[str, Any] = field(default_factory=dict)
    r: int = 8
    target_modules: str | list[str] = "all-linear"
    seed: int = 0
    steps: int = 200
    batch_size: int = 16
    gradient_accumulation: int = 1
    max_length: int = 512
    packing: Literal["texts", "all", "batch", "none"] = "texts"
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gradient_checkpointing: bool = False
    evaluate_every: int = 50
    evaluate_rows: int | None = None
    evaluate_batch_size: int = 64
    checkpoint_every: int = 50
    keep: Literal["last", "best"] = "last"
    log_every: int = 1
    report_to: list[str] = field(default_factory=list)
    fresh: bool = False

    def __post_init__(self):
        from mora_peft.errors import UserError

        for name in ("r", "steps", "batch_size", "gradient_accumulation", "max_length", "evaluate_every",
                     "evaluate_batch_size", "forgetting_rows", "checkpoint_every", "log_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}.")
        for name in ("warmup", "weight_decay", "max_grad_norm"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} must be 0 or more, not {getattr(self, name)}.")
        if self.keep == "best" and self.checkpoint_every % self.evaluate_every:
            raise UserError(
                f"keep is best, but checkpoint_every ({self.checkpoint_every}) is not a multiple of evaluate_every "
                f"({self.evaluate_every}): make it one, so that every checkpoint's loss is measured."
            )
        if self.task is None and self.data is None:
            raise UserError("There is nothing to learn: give --data FILE, or --task memorization.")
