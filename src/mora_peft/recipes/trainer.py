"""TRL's trainer, with a task's metric, checkpoints that appear whole, and an end to runs that diverge."""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerState
from trl import SFTTrainer
from trl.trainer import sft_trainer

from mora_peft.errors import UserError, is_disk_full
from mora_peft.tuner.sharding import whole_state

from . import checkpoints, streaming
from .decoding import evaluating
from .relora import MergeAndReset
from .sharded import WholeCheckpoints
from .together import SEES, as_inputs

# Tokens whose logits are computed at once where the loss is measured: a few hundred megabytes for most vocabularies.
_MOST_TOKENS = 4096

Beside = Callable[[torch.nn.Module, int], torch.Tensor | None]


class Diverged(Exception):
    """The loss is no longer a number; the message says at which step."""


class RecipeTrainer(WholeCheckpoints, SFTTrainer):
    """SFTTrainer that measures with `measure`, a function from nothing to metrics by name, besides the loss.

    With `keep_best` the checkpoint with the lowest measured loss stays when older ones are removed. `beside` is a
    function from the model and the number of steps done to a loss besides the rows', in nats like theirs, or None.

    All that it records is in `state.log_history`, which checkpoints carry, so that a resumed run has its whole past.
    """

    def __init__(
        self,
        *args,
        measure: Callable[[], dict[str, float]] | None = None,
        keep_best: bool = False,
        beside: Beside | None = None,
        **kwargs,
    ):
        self._measure, self._keep_best, self._beside = measure, keep_best, beside
        self._clock = _StepClock()
        super().__init__(*args, **kwargs)
        self.add_callback(self._clock)

    def _prepare_dataset(self, dataset, processing_class, args, packing, *others):
        """The rows as tokens; those of rows that are kept on the disk are made part by part, and kept there too."""
        prepare = super()._prepare_dataset
        if not streaming.is_kept_on_disk(dataset):
            return prepare(dataset, processing_class, args, packing, *others)
        tokenizer = getattr(processing_class, "backend_tokenizer", None)
        name = tokenizer.to_str() if tokenizer else processing_class.name_or_path
        key = (name, self.chat_template, processing_class.eos_token, args.max_length, packing, args.packing_strategy)
        with _without_turns():
            return streaming.in_parts(
                dataset, lambda part: prepare(part, processing_class, args, packing, *others), *key
            )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The loss of SFTTrainer; on a CPU computed from logits at the positions that some row has a label for.

        There TRL's tiled output layer takes as long as the rest of a step; these logits take a tenth of that. Rows that
        stand together, and those with a loss beside them, are always computed in this way.
        """
        ours = inputs["labels"].device.type == "cpu" or SEES in inputs or self._beside
        if not ours or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        total, count = labelled_loss(model, inputs)
        if self._beside:
            more = self._beside(self.accelerator.unwrap_model(model), self.state.global_step)
            total = total if more is None else total + more
        if num_items_in_batch is None:
            return total / count
        # Counted over all processes, whose gradients are then averaged.
        return total * self.accelerator.num_processes / num_items_in_batch

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Measure the loss per token on the evaluation rows, and the task's metrics."""
        metrics = {"eval_loss": mean_token_loss(self)} if self.eval_dataset is not None else {}
        metrics |= {f"eval_{name}": value for name, value in (self._measure() if self._measure else {}).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as ever, with the seconds of the last step; raises Diverged where the loss is not finite."""
        if "loss" in logs:
            logs["step_seconds"] = self._clock.seconds
        super().log(logs, start_time)
        if not math.isfinite(logs.get("loss", 0.0)):
            raise Diverged(f"The loss is {logs['loss']} at step {self.state.global_step}: try a lower learning rate.")

    def check_weights(self) -> None:
        """Raise Diverged, in all processes alike, where a trained weight is not finite.

        That may be before a loss says so: the gradient can be the first to fail, in a run's last step even.
        """
        trained = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
        # Where ZeRO-3 has split a parameter, this process holds its part.
        trained = (getattr(parameter, "ds_tensor", parameter).detach() for parameter in trained)
        local = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in trained)
        lost = torch.tensor(float(not all(tensor.isfinite().all() for tensor in local)), device=self.args.device)
        if self.accelerator.reduce(lost).item():
            raise Diverged(
                f"The weights are no longer finite after step {self.state.global_step}: try a lower learning rate."
            )

    @property
    def writes_parts(self) -> str:
        """Who writes checkpoints in parts and a form of its own, FSDP or DeepSpeed; empty where they are whole."""
        if self.is_deepspeed_enabled:
            return "DeepSpeed"
        return "FSDP" if self.is_fsdp_enabled and not self.accelerator.is_fsdp2 else ""

    def whole_state(self, of_base: bool) -> dict[str, torch.Tensor] | None:
        """All weights by name, gathered by all processes together where each holds a part (FSDP, ZeRO-3); else None.

        Of FSDP2 those of the frozen base are left out, unless they are asked for. With them an adapter is merged, which
        also takes all processes, and the names are the base's own.
        """
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return None
        model = self.accelerator.unwrap_model(self.model_wrapped)
        merges = of_base and hasattr(model, "merge_and_unload")
        if merges:
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()  # what a forward pass has left whole would be thrown away, merged or not
            merged = model.merge_and_unload()
        if self.accelerator.is_fsdp2:
            return whole_state(merged if merges else model, frozen=of_base, keep=self.args.should_save)
        state = self.accelerator.get_state_dict(self.model_wrapped)
        return {name.removeprefix("base_model.model."): tensor for name, tensor in state.items()} if merges else state

    def restore(self, checkpoint: Path) -> None:
        """Take over weights and records of the checkpoint of a last step, after which `train` would add one more."""
        self.take_weights(checkpoint)
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))

    def take_weights(self, checkpoint: Path) -> None:
        """Go back to the weights of the checkpoint; the records stay."""
        self._load_from_checkpoint(str(checkpoint))
        for callback in self._merging():
            callback.load(self.model, checkpoint)

    def _get_output_dir(self, trial) -> str:
        # Transformers writes checkpoints here file by file; `_save_checkpoint` moves them out once they are complete.
        return str(Path(self.args.output_dir) / "checkpoint.partial")

    def create_model_card(self, *args, **kwargs) -> None:
        """Nothing: run.json says what a card would say, and TRL's would have to be filled in by hand."""

    def _save_checkpoint(self, model, trial) -> None:
        staging = Path(self._get_output_dir(trial))
        self.check_weights()
        name = f"checkpoint-{self.state.global_step}"
        target = Path(self.args.output_dir) / name
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            for callback in self._merging():
                callback.save(self.model, staging / name, self.args.should_save)
            if self.args.should_save:
                checkpoints.seal(staging / name)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(staging / name, target)
                checkpoints.drop_old(target.parent, but=checkpoints.best(target.parent) if self._keep_best else None)
        except Exception as error:
            if not is_disk_full(error):
                raise
            last = checkpoints.latest(target.parent)
            raise UserError(
                f"The disk is full: {target} could not be written, and "
                f"{f'{last.name} is whole' if last else 'there is no checkpoint before it'}; "
                "free some space and run the same command again."
            ) from error
        finally:
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def _merging(self) -> list[MergeAndReset]:
        """The callbacks that change the base, which a checkpoint must then hold too."""
        return [callback for callback in self.callback_handler.callbacks if isinstance(callback, MergeAndReset)]


@contextmanager
def _without_turns() -> Iterator[None]:
    """Keep TRL from letting processes prepare rows in turn, where one prepares while the others wait for its file."""
    turns = sft_trainer.global_then_local_main_first
    sft_trainer.global_then_local_main_first = nullcontext
    try:
        yield
    finally:
        sft_trainer.global_then_local_main_first = turns


@torch.no_grad()
def mean_token_loss(trainer: SFTTrainer) -> float:
    """The mean negative log-likelihood, in nats, of the evaluation rows' tokens that the loss is on.

    Each process computes its share, and all as often: a model whose weights are sharded is gathered by all at once.
    """
    world, found = trainer.accelerator, torch.zeros(2, dtype=torch.float64)
    with evaluating(trainer.model):
        number = 0
        for number, part in enumerate(_parts_to_measure(trainer), start=1):
            if number % world.num_processes == world.process_index:
                loss, count = labelled_loss(trainer.model, part)
                found += torch.tensor([loss.item(), count], dtype=torch.float64)
        last = number % world.num_processes  # the processes from 1 to here have had one part more
        if last and not 1 <= world.process_index <= last:
            labelled_loss(trainer.model, part)
    if world.num_processes > 1:
        found = world.reduce(found.to(world.device))
    total, tokens = found.tolist()
    if not tokens:
        raise UserError("No row to measure has a token that counts: their prompts fill max_length; raise --max_length.")
    return total / tokens


def _parts_to_measure(trainer: SFTTrainer) -> Iterator[dict[str, torch.Tensor]]:
    """The evaluation rows in batches of few enough tokens, on the model's device; the same in every process."""
    rows = trainer._remove_unused_columns(trainer.eval_dataset, description="Evaluation")
    batches = DataLoader(rows, batch_size=trainer.args.eval_batch_size, collate_fn=trainer.data_collator)
    for batch in batches:
        size = max(1, _MOST_TOKENS // batch["input_ids"].shape[1])
        for part in zip(*(value.to(trainer.args.device).split(size) for value in batch.values()), strict=True):
            yield dict(zip(batch, part, strict=True))


def labelled_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """The summed negative log-likelihood of the tokens of `batch` that have a label, and their number.

    `batch` holds input_ids, attention_mask and labels, each (rows, length), or rows that stand together; labels are
    -100 where there is no loss.
    """
    logits, targets = labelled_logits(model, batch)
    loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
    return loss, (targets != -100).sum().item()


def labelled_logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits (n, vocabulary) in float32, and targets (n), at positions of `batch` where some row has a label."""
    targets = batch["labels"][:, 1:]
    positions = (targets != -100).any(dim=0).nonzero().squeeze(1)
    # Counted from the end, because prompt tuning puts vectors of its own before the row.
    logits = model(**as_inputs(batch), logits_to_keep=positions - batch["labels"].shape[1], use_cache=False).logits
    return logits.flatten(0, 1).float(), targets[:, positions].flatten()


class _StepClock(TrainerCallback):
    """Times each step, without measurements and checkpoints."""

    seconds = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self.began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds = time.perf_counter() - self.began
