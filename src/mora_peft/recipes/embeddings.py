"""Embeddings and output layer: trained whole beside an adapter, as a model without a past needs, or adapted."""

from typing import TYPE_CHECKING

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from torch.nn import Module


def train_embeddings(model: "Module") -> None:
    """Train the input embeddings and the output layer of an adapted model whole, as one where its base ties them.

    They become PEFT's `modules_to_save`: copies that are saved with the adapter and stay when it is merged. A model
    without an adapter is left as it is. Raises UserError for a base that is not float32.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTuner
    from peft.utils import set_additional_trainable_modules

    if not isinstance(model, PeftModel):
        return
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


def check_output_layer(model: "Module") -> None:
    """Raise UserError where the output layer of `model` carries an adapter, which TRL's loss would pass by."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    output = model.get_output_embeddings()
    if isinstance(output, BaseTunerLayer):
        raise UserError(
            "TRL computes the loss from the output layer's weight, so an adapter on it would never be trained: leave "
            "it out of target_modules (and ensure_weight_tying off), or train with Transformers' own Trainer."
        )
