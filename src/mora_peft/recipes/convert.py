"""Adapters from and to other formats, as folders: the authors' checkpoints → MoRA, MoRA → LoRA."""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mora_peft.errors import UserError

from . import provenance
from .adapters import (
    CONFIG,
    PICKLE,
    check_output,
    linear_shapes,
    load_adapter,
    read_adapter,
    read_config,
)
from .files import whole_folder, write_json
from .merge import probe_logits, relative_error

if TYPE_CHECKING:
    from torch import Tensor

RECORD = "convert.json"


@dataclass
class ConvertConfig:
    """Turn a checkpoint of the authors' code into a MoRA adapter, or a MoRA adapter into a LoRA.

    Args:
        output: Folder for the new adapter.
        from_authors: Folder of a checkpoint of the authors' code (use_mora in its configuration).
        to_lora: Folder of a MoRA adapter.
        rank: Rank of the LoRA. Sharing is exact without it; other operators need it.
        base: Base model, a local folder or a hub id; without it the one that the adapter names.
    """

    output: str
    from_authors: str | None = None
    to_lora: str | None = None
    rank: int | None = None
    base: str | None = None

    def __post_init__(self):
        if (self.from_authors is None) == (self.to_lora is None):
            raise UserError("Give either --from-authors DIR or --to-lora ADAPTER.")
        if self.rank is not None and self.to_lora is None:
            raise UserError("rank is that of a LoRA: give it with --to-lora only.")
        if self.rank is not None and self.rank < 1:
            raise UserError(f"rank must be at least 1, not {self.rank}.")


def convert(config: ConvertConfig) -> Path:
    """Convert, write the new adapter and convert.json with its errors, and return the folder.

    Raises UserError for a damaged adapter, one that is not what the option says, or one that does not fit its base.
    """
    from mora_peft.tuner.convert import save_state

    from .libraries import quiet_libraries

    quiet_libraries()
    output = Path(config.output)
    check_output(output, RECORD)
    try:
        made, state, record = _from_authors(config) if config.from_authors else _to_lora(config)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
    with whole_folder(output) as folder:
        save_state(folder, made, state)
        write_json(folder / RECORD, {"config": asdict(config), **record, "versions": provenance.versions()})
    print(f"Adapter: {output}")
    return output


def _from_authors(config: ConvertConfig) -> tuple[Any, dict[str, "Tensor"], dict[str, Any]]:
    from mora_peft.tuner.convert import from_authors

    folder = Path(config.from_authors)
    base = config.base or read_config(folder).get("base_model_name_or_path")
    try:
        shapes = linear_shapes(base) if base else None
    except UserError as error:
        if config.base:
            raise
        print(f"The sides are not checked against the base model: {error}")
        shapes = None
    try:
        made, state = from_authors(folder, shapes)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise UserError(
            f"{folder / PICKLE} is damaged, or holds more than tensors, which is not read because it can run code."
        ) from error
    made.base_model_name_or_path = base
    print(f"MoRA adapter: {made.operator}, r={made.r}, {sum(key.endswith('mora_M') for key in state)} layers")
    return made, state, {"operator": made.operator, "cap_r_hat": made.cap_r_hat, "checked_against_base": bool(shapes)}


def _to_lora(config: ConvertConfig) -> tuple[Any, dict[str, "Tensor"], dict[str, Any]]:
    import torch
    from peft import get_peft_model, set_peft_model_state_dict

    from mora_peft.tuner.convert import to_lora

    if read_adapter(config.to_lora).config.peft_type != "MORA":
        raise UserError(f"{config.to_lora} is not a MoRA adapter: {CONFIG} names another method.")
    model, _ = load_adapter(config.to_lora, config.base, torch.float32)
    lora, state, errors = to_lora(model, rank=config.rank)
    expected = probe_logits(model)
    base = model.unload()
    effect = relative_error(probe_logits(base), expected)
    twin = get_peft_model(base, lora)
    set_peft_model_state_dict(twin, state)
    logits = relative_error(probe_logits(twin), expected)
    lora.base_model_name_or_path = config.base or model.peft_config["default"].base_model_name_or_path
    total = errors.pop("total")
    print(f"LoRA of rank {config.rank or 'r_hat, exact'}: ΔW differs by {total:.2e} (relative, Frobenius norm)")
    print(f"Logits differ by {logits:.2e} (the adapter itself changes them by {effect:.2e})")
    record = {"rank": config.rank, "weight_error": total, "logit_error": logits, "adapter_effect": effect}
    return lora, state, record | {"weight_error_by_layer": errors}
