"""Merge and reset: one adapter after another on the same base, so that together they reach a rank that none has alone.

With LoRA this is ReLoRA (Lialin et al. 2023, arXiv 2307.05695): each A is drawn anew, and n adapters of rank r reach
rank n·r. With MoRA's sharing it is ReMoRA (Jiang et al. 2024): each M sees its layer through the next of the four
layouts. Those are two ways in times two ways out, so two of them already reach the highest rank that there is, 2·r̂;
the third and the fourth add freedom, not rank.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from mora_peft.errors import UserError
from mora_peft.operators import LAYOUTS, Sharing
from mora_peft.tuner import MoraLayer
from mora_peft.tuner.sharding import shared_out, whole

BASE = "merged_base.safetensors"


class MergeAndReset(TrainerCallback):
    """After every `every` optimizer steps, add ΔW to the base and let the adapter start again from ΔW = 0.

    The model computes the same before and after. The optimizer forgets all that it knew of the adapter's parameters:
    what it had gathered was about another A, or another layout. Then the learning rate climbs back in equal parts: step
    i after a merge, i = 1, 2, ..., runs at min(1, i / (rewarm + 1)) times the schedule, which goes on beneath. After
    the last step of all nothing is merged.

    What was merged is in the base, so an adapter alone is not the result: that is `model.merge_and_unload()`.
    Checkpoints hold the adapted layers' base weights in `merged_base.safetensors` beside the adapter, and a resumed run
    reads them from `output_dir`. A new A is drawn from a seed of its own: all processes draw the same, resumed or not.

    Args:
        every: Optimizer steps between merges.
        rewarm: Steps after a merge that run below the schedule.
        layouts: For MoRA's sharing: the layouts, taken in turn; the first one is set before the first step.

    Raises:
        UserError: A number out of range, an unknown layout; when training begins: no adapter that can be merged and
            reset, a base that is not float32, DeepSpeed, a schedule that is not one of learning rate factors.
    """

    def __init__(self, every: int, rewarm: int, layouts: list[str] | None = None):
        if every < 1:
            raise UserError(f"every, the steps between merges, must be at least 1, not {every}.")
        if not 0 <= rewarm < every:
            raise UserError(f"rewarm must be from 0 to {every - 1}, less than the steps between merges, not {rewarm}.")
        unknown = [name for name in layouts or () if name not in LAYOUTS]
        if unknown or layouts == []:
            raise UserError(f"layouts must be some of {', '.join(LAYOUTS)}, not {', '.join(unknown) or 'none'}.")
        self.every, self.rewarm, self.layouts = every, rewarm, layouts
        self.merges = 0

    def on_train_begin(self, args, state, control, model, lr_scheduler, **kwargs):
        if args.deepspeed_plugin:
            raise UserError(
                "DeepSpeed's optimizer cannot forget one parameter, which merging and resetting an adapter asks for: "
                "train without DeepSpeed."
            )
        asked = args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if asked and not _sharded(model):
            raise UserError("FSDP's first version hides the weights that are merged into: set fsdp_version to 2.")
        self._check(model)
        self.merges = 0
        if state.global_step:
            self.load(model, Path(args.output_dir) / f"checkpoint-{state.global_step}")
        else:
            self._lay_out(model)
        if not isinstance(lr_scheduler, torch.optim.lr_scheduler.LambdaLR):
            raise UserError(f"The learning rate cannot be warmed again with a {type(lr_scheduler).__name__}.")
        lr_scheduler.lr_lambdas = [self._rewarmed(schedule) for schedule in lr_scheduler.lr_lambdas]

    def on_step_end(self, args, state, control, model, optimizer, **kwargs):
        if state.global_step % self.every or state.global_step == state.max_steps:
            return
        self.merges += 1
        for parameter in merge_and_reset(model, seed=args.seed * 1_000_003 + self.merges):
            _forget(optimizer, parameter)
        self._lay_out(model)

    def on_save(self, args, state, control, model, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if _sharded(model) or not (folder / BASE).exists():
            self.save(model, folder, args.should_save)

    def save(self, model: PeftModel, folder: Path, write: bool = True) -> None:
        """Write the adapted layers' base weights, and how often they were merged into, to the checkpoint `folder`.

        Where weights are sharded, every process must come here, to gather them, and one of them with `write`.
        """
        tensors = {}
        for name, layer in _layers(model) if self.merges else ():
            for key, tensor in layer.get_base_layer().state_dict().items():
                tensor = whole(tensor)
                if write:
                    tensors[f"{name}.{key}"] = tensor.cpu().contiguous()
        if write:
            partial = folder / (BASE + ".partial")
            save_file(tensors, partial, metadata={"merges": str(self.merges)})
            os.replace(partial, folder / BASE)

    @torch.no_grad()
    def load(self, model: PeftModel, folder: Path) -> None:
        """Take over what `save` wrote to the checkpoint `folder`: base weights, and the layout that the adapter has."""
        if not (folder / BASE).is_file():
            raise UserError(f"{folder} has no {BASE}, which holds the merged weights: start the run anew.")
        with safe_open(folder / BASE, framework="pt") as file:
            self.merges = int(file.metadata()["merges"])
            for name, layer in _layers(model) if self.merges else ():
                for key, tensor in layer.get_base_layer().state_dict().items():
                    tensor.copy_(shared_out(file.get_tensor(f"{name}.{key}"), like=tensor))
        self._lay_out(model)

    def _lay_out(self, model: PeftModel) -> None:
        """Give every layer, and the adapter's configuration, the layout whose turn it is."""
        if not self.layouts:
            return
        layout = self.layouts[self.merges % len(self.layouts)]
        adapter = model.active_adapter
        for _, layer in _layers(model):
            operator = layer.operator[adapter]
            layer.operator[adapter] = Sharing(operator.k, operator.d, operator.r_hat, layout)
        model.peft_config[adapter].layout = layout

    def _rewarmed(self, schedule: Callable[[int], float]) -> Callable[[int], float]:
        """`schedule`, a factor on the learning rate by step, with the climbs after merges."""

        # A plain function: Transformers saves the attributes of any other callable, and refuses to load them again.
        def jagged(step: int) -> float:
            since = step % self.every if step >= self.every else self.rewarm
            return schedule(step) * min(1.0, (since + 1) / (self.rewarm + 1))

        return jagged

    def _check(self, model: nn.Module) -> None:
        layers = list(_layers(model))
        if not isinstance(model, PeftModel) or not layers:
            raise UserError("There is no adapter to merge and reset: train with LoRA, or with MoRA's sharing.")
        adapter = model.active_adapter
        config = model.peft_config[adapter]
        for name, layer in layers:
            if self.layouts:
                if not isinstance(layer, MoraLayer) or not isinstance(layer.operator.get(adapter), Sharing):
                    raise UserError(f"{name} has no layout to change: ReMoRA needs MoRA with the operator sharing.")
            elif not isinstance(layer, LoraLayer) or adapter not in layer.lora_A:
                raise UserError(f"{name} cannot be merged and reset: ReLoRA needs LoRA on linear layers.")
            elif layer.lora_variant or layer.lora_bias[adapter] or config.init_lora_weights is not True:
                raise UserError("ReLoRA needs plain LoRA: leave out use_dora, lora_bias and init_lora_weights.")
            weight = layer.get_base_layer().weight
            if weight.dtype != torch.float32:
                raise UserError(
                    f"{name} is {str(weight.dtype).removeprefix('torch.')}, in which merging would round small updates "
                    "away: load the base in float32 (and compute in bfloat16 by autocast)."
                )


@torch.no_grad()
def merge_and_reset(model: PeftModel, seed: int) -> list[Tensor]:
    """Add the active adapter's ΔW to the base weights, set it to ΔW = 0, and return its parameters.

    LoRA's B becomes 0 and its A is drawn as PEFT draws it, on the CPU and from `seed`; MoRA's M becomes 0.
    """
    generator = torch.Generator().manual_seed(seed)
    adapter = model.active_adapter
    parameters = []
    for _, layer in _layers(model):
        layer.merge(adapter_names=[adapter])
        if isinstance(layer, MoraLayer):
            layer.keep_merged(adapter)
            layer.mora_M[adapter].zero_()
            parameters.append(layer.mora_M[adapter])
            continue
        layer.merged_adapters.remove(adapter)  # it is the base's now: nothing may subtract it again
        A, B = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        A.copy_(shared_out(nn.init.kaiming_uniform_(torch.empty(A.shape), a=math.sqrt(5), generator=generator), A))
        B.zero_()
        parameters += [A, B]
    return parameters


def _forget(optimizer: torch.optim.Optimizer, parameter: Tensor) -> None:
    """Let the optimizer know no more of `parameter` than before the first step.

    Sharded, its records become zeros instead: PyTorch gives an optimizer without any some when it saves them, by a step
    that is counted.
    """
    if not isinstance(parameter, DTensor):
        optimizer.state.pop(parameter, None)
        return
    for record in optimizer.state[parameter].values():
        if isinstance(record, Tensor):
            record.zero_()


def _sharded(model: nn.Module) -> bool:
    """Whether FSDP2 has shared the weights out."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _layers(model: nn.Module) -> Iterator[tuple[str, BaseTunerLayer]]:
    """The adapted layers by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
