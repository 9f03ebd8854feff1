"""An adapter's folder → what a server needs of it, or one clear sentence about why it cannot be served."""

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mora_peft.errors import UserError
from mora_peft.operators import Operator, make_operator, needs_even_side, r_hat_for
from mora_peft.tuner.config import MoraConfig
from mora_peft.tuner.convert import convert_authors
from mora_peft.tuner.files import CONFIG, WEIGHTS, line_of, read_config, read_weights

_PREFIX, _M = "base_model.model.", ".mora_M"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,512}")
_FIELDS = {field.name for field in dataclasses.fields(MoraConfig)}

#: The largest weights file that is read where the caller does not know better, in bytes.
LARGEST_WEIGHTS = 2**32


@dataclass
class ServedAdapter:
    """A MoRA adapter, read and checked as far as it can be without the base model."""

    folder: Path
    config: MoraConfig
    #: M (r̂, r̂) as stored, by the name of its linear layer in the base model: `model.layers.0.mlp.up_proj`.
    matrices: dict[str, Tensor]
    ranks: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.ranks = _ranks(self.folder, self.config, list(self.matrices))

    def operator_for(self, name: str, k: int, d: int) -> Operator:
        """The operator of layer `name`, which has `k` inputs and `d` outputs in the served model.

        Raises UserError where M does not have the side that k, d and the adapter's r give.
        """
        config, side = self.config, self.matrices[name].shape[0]
        even = needs_even_side(config.operator)
        expected = r_hat_for(k, d, self.ranks[name], even=even, cap=config.cap_r_hat)
        if side != expected:
            raise UserError(
                f"{self.folder} does not fit the served model: {name} has a matrix of side {side}, but with {k} "
                f"inputs, {d} outputs and r={self.ranks[name]} it should be {expected}: give one of this base model."
            )
        return make_operator(config.operator, k=k, d=d, r_hat=side, layout=config.layout, fold=config.fold)

    def scale_for(self, name: str) -> float:
        """The factor on ΔW of layer `name`."""
        return float(self.config.scaling)


def read_adapter(folder: str | Path, *, limit: int = LARGEST_WEIGHTS) -> ServedAdapter | None:
    """The MoRA adapter in `folder`, as our tuner or the authors' code saved it; None where it is of another method.

    Nothing is unpickled, and no file is memory-mapped.

    Args:
        folder: A local folder.
        limit: The largest weights file that can belong to the served model, in bytes; a larger one is not read.

    Raises:
        UserError: A file that is missing, damaged or too large, a configuration that is not MoRA's, or anything in the
            weights that cannot be served.
    """
    folder = Path(folder)
    fields = read_config(folder)
    authors = bool(fields.get("use_mora"))
    if fields.get("peft_type") != "MORA" and not authors:
        return None
    for option in sorted(set(fields) - _FIELDS):
        # PEFT's name for a variant that changes what the weights mean: use_dora, use_rslora, ...
        if option.startswith("use_") and option != "use_mora" and fields[option]:
            raise UserError(f"{folder / CONFIG} asks for {_shown(option)}, which MoRA does not have: leave it out.")
    for option, kind in (("modules_to_save", "modules trained whole"), ("bias", "trained biases")):
        if fields.get(option) not in (None, "none", []):
            raise UserError(f"{folder} has {kind} ({option}), which cannot be served: train without, or merge it.")
    tensors = read_weights(folder, limit)
    _check_tensors(folder, tensors)
    try:
        config, state = convert_authors(fields, tensors) if authors else (_config(fields), tensors)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder / CONFIG} is not the configuration of a MoRA adapter ({line_of(error)}).") from error
    if type(config.scaling) not in (int, float) or not math.isfinite(config.scaling):
        raise UserError(f"{folder / CONFIG} has scaling {_shown(config.scaling)}: expected a finite number.")
    return ServedAdapter(folder, config, _matrices(folder, state))


def _config(fields: dict[str, Any]) -> MoraConfig:
    return MoraConfig(**{name: value for name, value in fields.items() if name in _FIELDS and name != "peft_type"})


def _check_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Raise UserError for names and numbers that no adapter has."""
    for key, tensor in tensors.items():
        if not _NAME.fullmatch(key):
            raise UserError(f"{folder / WEIGHTS} has a tensor with the strange name {_shown(key)}: it is no adapter.")
        if tensor.dtype not in _DTYPES:
            raise UserError(f"{folder / WEIGHTS}: {key} has the type {tensor.dtype}; expected one of {_DTYPES}.")
        if tensor.numel() and not _finite(tensor):
            raise UserError(f"{folder / WEIGHTS}: {key} holds NaN or infinity: the adapter's training went wrong.")


def _matrices(folder: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    matrices = {}
    for key, M in state.items():
        if not (key.startswith(_PREFIX) and key.endswith(_M)):
            raise UserError(
                f"{folder / WEIGHTS} has the tensor {key}, but only MoRA's matrices (mora_M) can be served."
            )
        if M.ndim != 2 or M.shape[0] != M.shape[1] or not len(M):
            raise UserError(f"{folder / WEIGHTS}: {key} must be one square matrix, but has shape {tuple(M.shape)}.")
        matrices[key.removeprefix(_PREFIX).removesuffix(_M)] = M
    if not matrices:
        raise UserError(f"{folder / WEIGHTS} holds no tensors: it is not a whole adapter; save it again.")
    return matrices


def _finite(tensor: Tensor) -> bool:
    """One pass without a temporary of the tensor's size: a NaN anywhere is both the smallest and the largest value."""
    low, high = torch.aminmax(tensor)
    return math.isfinite(low.item()) and math.isfinite(high.item())


def _ranks(folder: Path, config: MoraConfig, names: list[str]) -> dict[str, int]:
    """r of every layer: the first pattern that matches the end of its name, as in PEFT, or else the common r.

    Patterns come from a file that anyone may have written, and a regular expression can take for ever.
    """
    ranks, left = {}, names
    for key, r in config.rank_pattern.items():
        if len(re.findall(r"[*+{]", key)) > 2 or re.search(r"\)[*+{]", key):
            raise UserError(
                f"{folder / CONFIG} has the rank_pattern {_shown(key)}, which is too intricate to be served: name the "
                "layers instead."
            )
        try:
            pattern = re.compile(rf"(.*\.)?({key})$")
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(f"{folder / CONFIG} has a bad rank_pattern {_shown(key)} ({line_of(error)}).") from error
        found = {name for name in left if pattern.match(name)}
        ranks.update(dict.fromkeys(found, r))
        left = [name for name in left if name not in found]
    return ranks | dict.fromkeys(left, config.r)


def _shown(value: object) -> str:
    """A value from a file, to be put into a sentence: escaped, and short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
