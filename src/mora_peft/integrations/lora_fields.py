"""A configuration written for LoRA, read as one for MoRA."""

from dataclasses import fields
from typing import Any

from peft import LoraConfig

from mora_peft.errors import UserError
from mora_peft.tuner import MoraConfig

#: Fields of PEFT's LoraConfig that MoraConfig calls otherwise.
RENAMED = {"lora_dropout": "mora_dropout"}
#: Those that change nothing here: ΔW is multiplied by `scaling`, not alpha / r; `Conv1D` is recognized by its type.
IGNORED = ("lora_alpha", "fan_in_fan_out")


def mora_config(**options: Any) -> MoraConfig:
    """The MoraConfig for the keywords of a `LoraConfig`, of a `MoraConfig`, or some of each.

    `lora_alpha` and `fan_in_fan_out` are passed over. So is what is off: empty, or as LoRA has it by default.

    Raises:
        UserError: Something that LoRA has and MoRA has not is on.
    """
    known, lora = {field.name for field in fields(MoraConfig)}, LoraConfig()
    kept = {}
    for name, value in options.items():
        target = RENAMED.get(name, name)
        if target in known:
            if value is not None:
                kept[target] = value
        elif value and name not in IGNORED and value != getattr(lora, name, None):
            raise UserError(f"MoRA has no {name}, but it is {value!r}: leave it out, or train with LoRA.")
    return MoraConfig(**kept)
