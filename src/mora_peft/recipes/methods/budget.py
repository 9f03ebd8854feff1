"""How much may be trained: as many parameters as a LoRA of rank r has over the target modules."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Targets = str | list[str]
Shape = tuple[int, int]

#: Sizes that agree to this share of the budget count as equal.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Budget:
    """`parameters`, the size of a LoRA of rank `r` over `target_modules`, for `layers`: (inputs, outputs) by name."""

    r: int
    target_modules: Targets
    parameters: int
    layers: dict[str, Shape]


def budget_for(base: "PreTrainedModel", r: int, target_modules: Targets) -> Budget:
    """The budget of a LoRA of rank `r` over `target_modules` of `base`; UserError where these match nothing."""
    layers = adapted_layers(base, target_modules=target_modules)
    return Budget(r, target_modules, r * sum(k + d for k, d in layers.values()), layers)


def lora_size(base: "PreTrainedModel", r: int, target_modules: Targets) -> int:
    """The parameters of a LoRA of rank `r` over `target_modules` of `base`."""
    return budget_for(base, r, target_modules).parameters


def adapted_layers(base: "PreTrainedModel", **places: Any) -> dict[str, Shape]:
    """The (inputs, outputs) of the layers that an adapter on `base` would go to, by name.

    Args:
        places: The fields of LoraConfig that say where, such as `target_modules` and `exclude_modules`.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    with torch.device("meta"):
        twin = type(base)(base.config)
        try:
            tuned = get_peft_model(twin, LoraConfig(r=1, **places))
        except ValueError as error:
            raise UserError(f"{error}") from error
    modules = tuned.base_model.model.named_modules()
    return {name: (layer.in_features, layer.out_features) for name, layer in modules if isinstance(layer, LoraLayer)}
