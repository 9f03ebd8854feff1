"""A plugin for Axolotl: `adapter: mora`, on stock PEFT and on quantized bases.

    plugins:
      - mora_peft.integrations.axolotl.MoraPlugin
    adapter: mora

Axolotl's keys for LoRA keep their meaning where MoRA has the same thing; `mora_*` keys are added.
"""

import difflib
from collections.abc import Callable
from functools import wraps
from typing import Any

from axolotl.integrations.base import AdapterCapabilities, BasePlugin
from axolotl.utils.logging import get_logger
from peft import PeftConfig, PeftModel, get_peft_model
from pydantic import BaseModel, model_validator
from torch import nn

from mora_peft.errors import UserError
from mora_peft.tuner import MoraConfig

from .lora_fields import mora_config

LOG = get_logger(__name__)

#: Axolotl's keys by the field that they fill, of LoraConfig or MoraConfig.
KEYS = {
    "lora_r": "r",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "lora_target_parameters": "target_parameters",
    "lora_modules_to_save": "modules_to_save",
    "lora_rank_pattern": "rank_pattern",
    "lora_fan_in_fan_out": "fan_in_fan_out",
    "lora_alpha_pattern": "alpha_pattern",
    "peft_layers_to_transform": "layers_to_transform",
    "peft_layers_pattern": "layers_pattern",
    "peft_ensure_weight_tying": "ensure_weight_tying",
    "peft_use_dora": "use_dora",
    "peft_use_rslora": "use_rslora",
    "peft_layer_replication": "layer_replication",
    "peft_trainable_token_indices": "trainable_token_indices",
    "peft_init_lora_weights": "init_lora_weights",
    "mora_operator": "operator",
    "mora_layout": "layout",
    "mora_fold": "fold",
    "mora_type": "mora_type",
    "mora_scaling": "scaling",
}
#: Keys that speed up or tune LoRA's two matrices, or go by their names.
FOR_LORA_ONLY = (
    "lora_mlp_kernel",
    "lora_qkv_kernel",
    "lora_o_kernel",
    "lora_embedding_kernel",
    "loraplus_lr_ratio",
)


class MoraArgs(BaseModel):
    """The keys that the plugin adds to Axolotl's, and what it checks of the others; see `MoraConfig`."""

    mora_operator: str | int | None = None
    mora_layout: str | None = None
    mora_fold: bool | None = None
    mora_type: int | None = None
    mora_scaling: float | None = None

    @model_validator(mode="before")
    @classmethod
    def check_mora(cls, data: Any) -> Any:
        own = list(MoraArgs.model_fields)
        for key in data:
            if key.startswith("mora_") and key not in own:
                near = difflib.get_close_matches(key, own, n=1)
                raise ValueError(
                    f"Unknown key {key!r}: " + (f"did you mean {near[0]!r}?" if near else f"known: {own}.")
                )
        if data.get("adapter") != "mora":
            return data
        _config(data)
        for key in FOR_LORA_ONLY:
            if data.get(key):
                raise ValueError(f"`{key}` is for LoRA only: leave it out with `adapter: mora`.")
        if data.get("load_in_4bit") and (data.get("fsdp_config") or data.get("fsdp")):
            raise ValueError("`adapter: mora` does not run under FSDP on a 4-bit base: use DDP, or a base in 16 bits.")
        if data.get("merge_lora"):  # Axolotl's other way reads LoRA's two matrices from the file
            data["merge_method"] = "legacy"
        return data


class MoraPlugin(BasePlugin):
    """`adapter: mora` for Axolotl."""

    def get_input_args(self) -> str:
        return f"{__name__}.MoraArgs"

    def get_adapter_capabilities(self) -> list[AdapterCapabilities]:
        return [AdapterCapabilities(name="mora")]

    def register(self, cfg: dict) -> None:
        if cfg.get("adapter") == "mora":
            _quantize_as_for_lora()

    def load_adapter(
        self, model: nn.Module, cfg: Any, inference: bool = False, config_only: bool = False
    ) -> tuple[nn.Module | None, PeftConfig] | None:
        """The model with its adapter, new or from `lora_model_dir`, and the adapter's configuration."""
        if cfg.adapter != "mora":
            return None
        config = _config(cfg, model)
        if config_only:
            return None, config
        if cfg.lora_alpha:
            LOG.info("`lora_alpha` is passed over: MoRA multiplies ΔW by `mora_scaling`, %s.", config.scaling)
        options = {}
        if cfg.peft_autocast_adapter_dtype is not None:
            options["autocast_adapter_dtype"] = cfg.peft_autocast_adapter_dtype
        if cfg.lora_model_dir:
            model = PeftModel.from_pretrained(model, cfg.lora_model_dir, is_trainable=not inference, **options)
        else:
            model = get_peft_model(model, config, **options)
        model.print_trainable_parameters()
        return model, config


def _config(cfg: Any, model: nn.Module | None = None) -> MoraConfig:
    """The adapter that the keys describe; with a model, its layers are found as Axolotl finds them for LoRA."""
    options = {field: cfg.get(key) for key, field in KEYS.items()}
    if model is not None:
        options["task_type"] = "SEQ_CLS" if "SequenceClassification" in type(model).__name__ else "CAUSAL_LM"
        if cfg.get("lora_target_linear"):
            from axolotl.loaders.adapter import find_all_linear_names

            named = options["target_modules"] or []
            options["target_modules"] = [*([named] if isinstance(named, str) else named), *find_all_linear_names(model)]
    return mora_config(**options)


def _quantize_as_for_lora() -> None:
    """Let Axolotl read `load_in_4bit` and `load_in_8bit`, which it does for adapters named lora and qlora only."""
    from axolotl.loaders.model import ModelLoader

    for name in ("_set_quantization_config", "_prepare_model_for_quantization"):
        method = getattr(ModelLoader, name, None)
        if method is None:
            raise UserError(f"This Axolotl has no ModelLoader.{name}, which the plugin needs: use Axolotl 0.19.")
        if not hasattr(method, "__wrapped__"):
            setattr(ModelLoader, name, _named_as_lora(method))


def _named_as_lora(method: Callable) -> Callable:
    @wraps(method)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.cfg.adapter != "mora":
            return method(self, *args, **kwargs)
        self.cfg.adapter = "qlora" if self.cfg.load_in_4bit else "lora"
        try:
            return method(self, *args, **kwargs)
        finally:
            self.cfg.adapter = "mora"

    return wrapper
