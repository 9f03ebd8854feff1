"""An adapter's folder → what a server needs of it, or one clear sentence about why it cannot be served."""

import dataclasses
import math
import re
from dataclasses import dataclass
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

#: Keys of `rank_pattern` with more than names, dots and classes in them that are taken of one adapter.
INTRICATE = 32


@dataclass
class ServedAdapter:
    """A MoRA adapter, read and checked as far as it can be without the base model."""

    folder: Path
    config: MoraConfig
    #: M (r̂, r̂) as stored, by the name of its linear layer in the base model: `model.layers.0.mlp.up_proj`.
    matrices: dict[str, Tensor]
    #: The keys of the configuration's `rank_pattern`, and r of the layers that each is for.
    patterns: list[tuple[re.Pattern, int]]

    def r_for(self, name: str) -> int:
        """r of layer `name`, as `MoraConfig.r_for` has it."""
        return next((r for pattern, r in self.patterns if pattern.match(name)), self.config.r)

    def operator_for(self, name: str, k: int, d: int) -> Operator:
        """The operator of layer `name`, which has `k` inputs and `d` outputs in the served model.

        Raises UserError where M does not have the side that k, d and the adapter's r give.
        """
        config, side, r = self.config, self.matrices[name].shape[0], self.r_for(name)
        expected = r_hat_for(k, d, r, even=needs_even_side(config.operator), cap=config.cap_r_hat)
        if side != expected:
            raise UserError(
                f"{self.folder} does not fit the served model: {name} has a matrix of side {side}, but with {k} "
                f"inputs, {d} outputs and r={r} it should be {expected}: give one of this base model."
            )
        return make_operator(config.operator, k=k, d=d, r_hat=side, layout=config.layout, fold=config.fold)


def read_served(folder: str | Path, limit: int) -> ServedAdapter | None:
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
    tensors = check_weights(folder, limit)
    try:
        config, state = convert_authors(fields, tensors) if authors else (_config(fields), tensors)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise UserError(f"{folder / CONFIG} is not the configuration of a MoRA adapter ({line_of(error)}).") from error
    if type(config.scaling) not in (int, float) or not math.isfinite(config.scaling):
        raise UserError(f"{folder / CONFIG} has scaling {_shown(config.scaling)}: expected a finite number.")
    return ServedAdapter(folder, config, _matrices(folder, state), _patterns(folder, config.rank_pattern))


def check_weights(folder: Path, limit: int) -> dict[str, Tensor]:
    """The tensors in `folder`, of MoRA or of LoRA; UserError for a file, names or numbers that no adapter has."""
    tensors = read_weights(folder, limit)
    for key, tensor in tensors.items():
        if not _NAME.fullmatch(key):
            raise UserError(f"{folder / WEIGHTS} has a tensor with the strange name {_shown(key)}: it is no adapter.")
        if tensor.dtype not in _DTYPES:
            raise UserError(f"{folder / WEIGHTS}: {key} has the type {tensor.dtype}; expected one of {_DTYPES}.")
        if tensor.numel() and not _finite(tensor):
            raise UserError(f"{folder / WEIGHTS}: {key} holds NaN or infinity: the adapter's training went wrong.")
    return tensors


def _config(fields: dict[str, Any]) -> MoraConfig:
    return MoraConfig(**{name: value for name, value in fields.items() if name in _FIELDS and name != "peft_type"})


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


def _patterns(folder: Path, ranks: dict[str, int]) -> list[tuple[re.Pattern, int]]:
    """The keys of a `rank_pattern`, compiled as PEFT matches them: with the end of a layer's name.

    They come from a file that anyone may have written, and a regular expression can take for ever: what repeats or
    branches is taken in small numbers only.
    """
    intricate = [key for key in ranks if re.search(r"[*+?{|(]", key)]
    for key in intricate:
        repeats, branches = len(re.findall(r"[*+?{]", key)), key.count("(")
        if max(repeats, branches) > 2 or re.search(r"\)[*+?{]", key) or len(key) > 256:
            raise UserError(
                f"{folder / CONFIG} has the rank_pattern {_shown(key)}, which is too intricate to be served: name the "
                "layers instead."
            )
    if len(intricate) > INTRICATE:
        raise UserError(
            f"{folder / CONFIG} has {len(intricate)} regular expressions in rank_pattern, but at most {INTRICATE} are "
            "served: name the layers instead."
        )
    try:
        return [(re.compile(rf"(.*\.)?({key})$"), r) for key, r in ranks.items()]
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} has a bad rank_pattern ({line_of(error)}).") from error


def _shown(value: object) -> str:
    """A value from a file, to be put into a sentence: escaped, and short."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
