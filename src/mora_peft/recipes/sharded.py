"""Checkpoints of weights that FSDP2 has shared out, in the form of those that are whole.

So a run goes on on any number of processes, sharded or not, and a checkpoint of an adapter is no larger than it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor
from torch.optim import Optimizer
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from mora_peft.tuner.sharding import shared_out, whole, whole_state


class WholeCheckpoints(Trainer):
    """A trainer whose checkpoints are under FSDP2 what they are without it."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if not self.accelerator.is_fsdp2:
            return super().save_model(output_dir, _internal_call)
        model = self.accelerator.unwrap_model(self.model_wrapped)
        state = whole_state(model, frozen=not isinstance(model, PeftModel), keep=self.args.should_save)
        if self.args.should_save:
            self._save(output_dir, state_dict=state)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.accelerator.is_fsdp2:
            return super()._save_optimizer_and_scheduler(output_dir)
        state = optimizer_state(self.optimizer, keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        if not self.accelerator.is_fsdp2:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_weights(self.accelerator.unwrap_model(self.model_wrapped), Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.accelerator.is_fsdp2:
            return super()._load_optimizer_and_scheduler(checkpoint)
        optimizer, schedule = (torch.load(Path(checkpoint, name)) for name in (OPTIMIZER_NAME, SCHEDULER_NAME))
        load_optimizer(self.optimizer, optimizer)
        self.lr_scheduler.load_state_dict(schedule)


def optimizer_state(optimizer: Optimizer, keep: bool) -> dict[str, Any]:
    """`optimizer.state_dict()` with whole tensors on the CPU; every process must come here.

    Those that do not `keep` it gather without holding on to what they have gathered.
    """
    state = optimizer.state_dict()
    records: dict[int, dict[str, Any]] = {}
    for number, record in state["state"].items():
        for name, value in record.items():
            value = whole(value).cpu() if isinstance(value, Tensor) else value
            if keep:
                records.setdefault(number, {})[name] = value
    return {"state": records, "param_groups": state["param_groups"]}


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take over a whole `state`, sharing its tensors out as the parameters are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, record in state["state"].items():
        like = parameters[number]
        for name, value in record.items():
            if isinstance(value, Tensor) and value.shape == like.shape:
                record[name] = shared_out(value, like)
    optimizer.load_state_dict(state)


@torch.no_grad()
def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Take over what a checkpoint holds: the adapter of a PeftModel, or all weights of another model."""
    parameters = dict(model.named_parameters())
    if isinstance(model, PeftModel):
        trained = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
        parameters = get_peft_model_state_dict(model, trained, save_embedding_layers=False)
    for name, tensor in _tensors(folder):
        if name in parameters:
            parameters[name].copy_(shared_out(tensor, parameters[name]))


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted({*folder.glob("model*.safetensors"), *folder.glob("adapter_model.safetensors")}):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                yield name, file.get_tensor(name)
