"""Training of what was made of the documents: how many steps the time allows, and when there is no more to gain."""

import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from mora_peft.recipes.methods import apply
from mora_peft.recipes.together import Together, can_stand_together
from mora_peft.recipes.train import TrainConfig
from mora_peft.recipes.trainer import labelled_loss

from .keeping import Keeping, labelled
from .rows import passages_a_pass
from .settings import FEW, TeachConfig, rate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_TIMED = 5  # steps
_MEASUREMENTS = 8  # in a run
_ENOUGH = 0.99  # recall
_PATIENCE = 3  # measurements without a new best
_SETTLED = 0.75  # of all steps, after which recall is expected to grow steadily
# Of the time; the rest is for measurements and checkpoints, and for steps that take longer than those that were timed:
# in two trainings on a CPU 1.3 and 1.8 times as long.
_FOR_STEPS = 0.7
# Training may take this much longer than planned before it is cut off, so that the schedule ends in most cases.
_SLACK = 1.25


def train_config(config: TeachConfig, folder: Path, model: str, method: str, options: dict, steps: int) -> TrainConfig:
    """The settings of the training of `method` in `folder`, on the rows that lie beside it."""
    rows = Path(config.output) / "rows"
    return TrainConfig(
        output=str(folder),
        model=model,
        method=method,
        method_options=options,
        learning_rate=rate(config, method, options),
        task="memorization",
        data=str(rows / "schedule.jsonl"),
        eval_data=str(rows / "progress.jsonl"),
        forgetting_data=str(rows / "general.jsonl"),
        r=config.r,
        steps=steps,
        batch_size=config.batch_size,
        packing="batch",
        max_length=max(256, config.passage_tokens + 64),
        dtype=config.dtype,
        seed=config.seed,
        evaluate_every=max(1, steps // _MEASUREMENTS),
        checkpoint_every=max(1, steps // _MEASUREMENTS),
    )


def step_seconds(
    config: TeachConfig,
    base: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[dict[str, Any]],
    keeping: Keeping,
) -> float:
    """Seconds that a training step on `rows`, in their order, takes here: the median of a few."""
    import torch

    model = apply(config.method, base, config.r, "all-linear", config.method_options).model.train()
    collator = Together() if can_stand_together(model) else DataCollatorForLanguageModeling(tokenizer.pad_token_id)
    took = []
    for step in range(_TIMED + 1):  # the first is not counted
        first = step * config.batch_size
        chosen = [labelled(tokenizer, rows[n % len(rows)]) for n in range(first, first + config.batch_size)]
        began = time.perf_counter()
        batch = {name: value.to(model.device) for name, value in collator(chosen).items()}
        (labelled_loss(model, batch)[0] + (keeping(model, step) or 0)).backward()
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    model.unload().eval()
    return median(took[1:])


def facts_in_time(config: TeachConfig, seconds: float, facts: int, recall: int, texts: int) -> int:
    """How many of `facts` facts, which have `recall` rows, can be seen a few times in config.minutes; not below 16."""
    in_a_pass = steps_in_time(config, seconds) * config.batch_size / FEW - passages_a_pass(recall, texts, config)
    return min(facts, max(16, int(facts * in_a_pass / max(1, recall))))


def planned_steps(config: TeachConfig, rows: int, seconds: float | None) -> int:
    """Steps for all passes of `rows` each, or as many as fit into the time at `seconds` a step, if that is less."""
    wanted = max(1, round(config.passes * rows / config.batch_size))
    return wanted if seconds is None else max(1, min(wanted, steps_in_time(config, seconds)))


def steps_in_time(config: TeachConfig, seconds: float) -> int:
    """How many steps of so many seconds fit into config.minutes."""
    return int(60 * _FOR_STEPS * config.minutes / seconds)


class EnoughLearned(TrainerCallback):
    """Ends a run when recall is as good as complete or has stopped growing, and when its time is over by a quarter."""

    def __init__(self, minutes: float | None):
        self.limit = minutes * 60 * _SLACK if minutes else None
        self.reason: str | None = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.began = time.monotonic()

    def on_evaluate(self, args, state, control, **kwargs):
        recall = [entry["eval_exact_match"] for entry in state.log_history if "eval_exact_match" in entry]
        if recall[-1] >= _ENOUGH:
            self.reason = "recall is complete"
        # While the learning rate is high, recall goes up and down, and grows most when the rate comes down.
        elif state.global_step >= _SETTLED * state.max_steps and len(recall) > _PATIENCE:
            before, last = max(recall[:-_PATIENCE]), max(recall[-_PATIENCE:])
            if before > 0 and last <= before:
                self.reason = f"recall has not grown in {_PATIENCE} measurements"
        control.should_training_stop |= self.reason is not None

    def on_step_end(self, args, state, control, **kwargs):
        if self.limit is not None and time.monotonic() - self.began > self.limit:
            self.reason = "the time is over"
            control.should_training_stop = True
