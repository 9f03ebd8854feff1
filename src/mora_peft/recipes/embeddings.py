"""Embeddings and output layer: trained whole beside an adapter, as a model without a past needs, or adapted."""

from typing import TYPE_CHECKING

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from torch.nn import Module


def train_embeddings(model: "Module") -> int:
    """Train the input embeddings and the output layer of an adapted model whole, as one where its base ties them.

    They become PEFT's `modules_to_save`: copies that are saved with the adapter and stay when it is merged. A model
    without an adapter is left as it is. Returns how many weights are trained that were not, none of which count
    towards a budget. Raises UserError for a base that is not float32.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils import set_additional_trainable_modules

    if not isinstance(model, PeftModel):
        return 0
    before = model.num_parameters(only_trainable=True)
    config = model.peft_config[model.active_adapter]
    base = model.get_base_model()
    names = {module: name for name, module in base.named_modules()}
    inputs, outputs = base.get_input_embeddings(), base.get_output_embeddings()
    if inputs.weight.dtype != torch.float32:
        dtype = str(inputs.weight.dtype).removeprefix("torch.")
        raise UserError(f"Embeddings are trained in float32 only: load the base in float32, not in {dtype}.")
    tied = outputs.weight is inputs.weight
    further = [names[inputs]] if tied else [names[inputs], names[outputs]]
    config.modules_to_save = [*(config.modules_to_save or ()), *further]
    if tied:
        config.modules_to_tie = [names[outputs]]
    set_additional_trainable_modules(
        model=model,
        peft_config=config,
        model_config=BaseTuner.get_model_config(model),
        adapter_name=model.active_adapter,
    )
    return model.num_parameters(only_trainable=True) - before


def untie(model: "Module") -> bool:
    """Give the output layer a weight of its own where merging would change it with the embeddings', which it shares.

    So it is where the base ties the two, one of them carries an adapter, and they are not adapted as one (PEFT's
    `ensure_weight_tying`). Says whether it was.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if not any(isinstance(layer, BaseTunerLayer) for layer in ends):
        return False
    inputs, outputs = (layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer for layer in ends)
    as_one = getattr(model.peft_config[model.active_adapter], "ensure_weight_tying", False)
    if as_one or inputs.weight is not outputs.weight:
        return False
    outputs.weight = Parameter(outputs.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    return True


def check_output_layer(model: "Module") -> None:
    """Raise UserError where the output layer of `model` carries an adapter, which TRL's loss would pass by."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    output = model.get_output_embeddings()
    if isinstance(output, BaseTunerLayer):
        raise UserError(
            "TRL computes the loss from the output layer's weight, so an adapter on it would never be trained: leave "
            "it out of target_modules (and ensure_weight_tying off), or train with Transformers' own Trainer."
        )
