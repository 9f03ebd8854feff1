"""How a method's model is made: most are a PEFT configuration whose size is solved for the budget, some need more."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

from .budget import Budget, adapted_layers
from .config import attach, config_class, make_config, read_config
from .knob import PLACES, Knob, Scale
from .method import Build, Built

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Attention pays for every virtual token at every step, so a prompt is kept shorter than the budget would allow.
LONGEST_PROMPT = 64
# VeRA's random matrices are no parameters, but each layer computes with them: from here on they cost more than it.
HIGHEST_VERA_RANK = 1024


def adapter(peft_type: str, knob: Knob | None = None, **settings: Any) -> Build:
    """Builds the method that PEFT calls `peft_type`, with these settings beneath the user's options.

    With a `knob` its size is brought to the budget; without one it has the size that it has.
    """

    def build(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> Built:
        kind = config_class(peft_type)
        chosen = settings | options
        make_config(kind, chosen)  # a mistyped option is reported as one, not as a layer that cannot be counted
        places = {name: chosen[name] for name in PLACES if name in chosen}
        if knob and places:
            places = {"target_modules": budget.target_modules} | places
            # The whole budget goes to the layers that are left.
            budget = replace(budget, layers=adapted_layers(base, **places))
        sizes = knob.settings(kind, budget, chosen) if knob else {}
        where = {"target_modules": budget.target_modules, "task_type": "CAUSAL_LM"}
        return Built(attach(base, make_config(kind, where | sizes | chosen)))

    return build


# LoRA's ΔW is scaled by alpha / r, which PEFT's users keep at 2, whatever r.
LORA = Knob(pattern="rank_pattern", scale=Scale("lora_alpha", 2, "alpha_pattern"))
LOHA = Knob(pattern="rank_pattern", scale=Scale("alpha", 1, "alpha_pattern"))
HIRA = MORA = Knob(pattern="rank_pattern")
MISS = Knob(most=lambda shapes: min(k for k, _ in shapes))
VERA = Knob(most=lambda shapes: HIGHEST_VERA_RANK)
# The smaller RandLora's r, the more bases span the layer, and the more parameters there are.
RANDLORA = Knob(scale=Scale("randlora_alpha", 20), most=lambda shapes: max(map(min, shapes)), saw=True)
C3A = Knob(
    "block_size",
    "block_size_pattern",
    most=lambda shapes: max(math.gcd(*shape) for shape in shapes),
    fit=lambda value, k, d: max(block for block in range(1, value + 1) if math.gcd(k, d) % block == 0),
)


def full(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> Built:
    """Every weight of the base."""
    if options:
        raise UserError(f"Full fine-tuning has no options, but was given {', '.join(options)}.")
    return Built(base.requires_grad_(True))


def prompt(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> Built:
    """Trained vectors before the prompt (Lester et al. 2021); options are those of PromptTuningConfig."""
    tokens = min(budget.parameters // base.config.get_text_config().hidden_size, LONGEST_PROMPT)
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": max(tokens, 1)} | options
    return Built(attach(base, make_config(config_class("PROMPT_TUNING"), settings)))


def any_peft(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> Built:
    """Any method of PEFT, as the JSON file of the option `config` says; other options go before the file's fields."""
    options = dict(options)
    if "config" not in options:
        raise UserError("The method peft needs the option config: the path of a PEFT configuration in JSON.")
    kind, fields = read_config(options.pop("config"))
    fields |= options
    for name, value in {"task_type": "CAUSAL_LM", "target_modules": budget.target_modules}.items():
        if name in kind.__dataclass_fields__ and fields.get(name) is None:
            fields[name] = value
    return Built(attach(base, make_config(kind, fields)))


def lora_plus(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> Built:
    """LoRA whose B learns `loraplus_lr_ratio` times as fast as its A (Hayou et al. 2024, who recommend 16)."""
    options = dict(options)
    ratio = options.pop("loraplus_lr_ratio", 16)
    model = adapter("LORA", LORA)(base, budget, options).model

    def optimizer(arguments):
        from peft.optimizers import create_loraplus_optimizer
        from transformers import Trainer

        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments)
        settings |= {"loraplus_lr_ratio": ratio, "loraplus_weight_decay": arguments.weight_decay}
        return create_loraplus_optimizer(model, kind, **settings)

    return Built(model, optimizer)


def asymmetric_lora(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> Built:
    """LoRA with A fixed at random orthonormal rows, so that B has the whole budget (Zhu et al. 2024)."""
    import torch

    model = adapter("LORA", replace(LORA, frozen="lora_A"))(base, budget, options).model
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            torch.nn.init.orthogonal_(parameter)
            parameter.requires_grad_(False)
    return Built(model)


def merging(build: Build, layouts: bool = False) -> Build:
    """Builds as `build` does, and merges and resets while training.

    The options `every` and `rewarm` are steps: from one merge to the next, and of the climb of the learning rate
    after one. With `layouts` each merge goes on to MoRA's next layout of sharing.
    """

    def merged(base: "PreTrainedModel", budget: Budget, options: dict[str, Any]) -> Built:
        from mora_peft.operators import LAYOUTS

        from ..relora import MergeAndReset

        options = {"every": 50, "rewarm": 5} | options
        callback = MergeAndReset(
            options.pop("every"), options.pop("rewarm"), layouts=list(LAYOUTS) if layouts else None
        )
        return replace(build(base, budget, options), callbacks=(callback,))

    return merged
