"""PEFT configurations from a method's options or from a file, with one clear sentence for what is wrong in them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch.nn import Module


def config_class(peft_type: str) -> type["PeftConfig"]:
    """The configuration of the method that PEFT calls `peft_type`, such as LORA; KeyError where there is none."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    import mora_peft  # noqa: F401  (registers MoRA with PEFT)

    return PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]


def make_config(kind: type["PeftConfig"], settings: dict[str, Any]) -> "PeftConfig":
    """The configuration with these fields; UserError where it has no such field, or refuses a value."""
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind.__name__} does not take these options: {error}") from error


def attach(model: "Module", config: "PeftConfig") -> "PeftModel":
    """The adapter of `config` on `model`; UserError where PEFT refuses it."""
    from peft import get_peft_model

    try:
        return get_peft_model(model, config)
    except (TypeError, ValueError) as error:
        raise UserError(f"{type(config).__name__} does not fit the model: {error}") from error


def read_config(file: str | Path) -> tuple[type["PeftConfig"], dict[str, Any]]:
    """The kind and the fields of a PEFT configuration in JSON, as PEFT saves it or with `peft_type` at least.

    Raises UserError where the file, the method or a field is not what it should be.
    """
    path = Path(file)
    if path.is_dir():
        path /= "adapter_config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror}): give a PEFT configuration in JSON.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): give a PEFT configuration.") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("peft_type"), str):
        raise UserError(f'{path} must hold a JSON object with a peft_type, such as {{"peft_type": "LORA", "r": 8}}.')
    try:
        kind = config_class(fields["peft_type"])
    except KeyError as error:
        from peft import PeftType

        known = ", ".join(PeftType.__members__)
        raise UserError(f"{path} names the unknown method {fields['peft_type']!r}: expected one of {known}.") from error
    for name in _OF_THE_ADAPTER_SAVED:
        fields.pop(name, None)
    unknown = ", ".join(name for name in fields if name not in kind.__dataclass_fields__)
    if unknown:
        raise UserError(f"{path} has the field {unknown}, which {kind.__name__} of this version of PEFT does not have.")
    return kind, fields


# What the file says of the adapter that it was saved with, and not of the method.
_OF_THE_ADAPTER_SAVED = (
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision",
    "runtime_config",
)  # fmt: skip
