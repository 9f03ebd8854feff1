"""Checkpoints of the authors' code → MoRA; MoRA → LoRA, exactly for sharing and with its error stated otherwise."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from torch import Tensor

from mora_peft.operators import Operator, Sharing, needs_even_side, r_hat_for

from .config import MoraConfig
from .files import PICKLE, WEIGHTS, read_config, read_weights
from .layer import MoraLayer
from .linear import MoraLinear
from .parameter import ParamWrapper

Shapes = dict[str, tuple[int, int]]

_A, _B, _PREFIX = ".lora_A", ".lora_B", "base_model.model."


def from_authors(directory: str | Path, shapes: Shapes | None = None) -> tuple[MoraConfig, dict[str, Tensor]]:
    """The MoRA adapter with the same outputs as a checkpoint of the authors' fork of PEFT (Jiang et al. 2024).

    Such a checkpoint has a LoRA configuration with `use_mora` and `mora_type`, and one square matrix a layer under the
    name `lora_A`, repeated or left empty under `lora_B`. It acts as M does, and its scaling is always 1.

    Args:
        directory: Folder with `adapter_config.json` and `adapter_model.safetensors`, or `adapter_model.bin`, which is
            read without running what a pickle may hold.
        shapes: Inputs and outputs (k, d) of the base model's layers by name. With them every side is checked against
            the rule for r̂, and the cap is left on where it changes nothing; without them it is turned off, since the
            authors' code has none.

    Returns:
        The configuration, and the tensors as PEFT saves them: `base_model.model.NAME.mora_M`, shape (r̂, r̂).

    Raises:
        ValueError: Not such a checkpoint, a damaged one, or a matrix that is not square or does not fit the rule.
    """
    directory = Path(directory)
    fields = read_config(directory)
    if not fields.get("use_mora"):
        raise ValueError(f"{directory} is no checkpoint of the authors' code: its configuration lacks `use_mora`.")
    if (directory / PICKLE).is_file() and not (directory / WEIGHTS).is_file():
        tensors = torch.load(directory / PICKLE, map_location="cpu", weights_only=True)
    else:
        tensors = read_weights(directory)
    return convert_authors(fields, tensors, shapes)


def convert_authors(
    fields: dict[str, Any], tensors: dict[str, Tensor], shapes: Shapes | None = None
) -> tuple[MoraConfig, dict[str, Tensor]]:
    """`from_authors` for a checkpoint that has been read: its configuration's fields and its tensors by name."""
    state: dict[str, Tensor] = {}
    copies: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        key = key if key.startswith(_PREFIX) else _PREFIX + key
        if _A in key:
            state[f"{key.rsplit(_A, 1)[0]}.mora_M"] = _square(key, tensor)
        elif _B in key:
            copies[f"{key.rsplit(_B, 1)[0]}.mora_M"] = tensor
        else:  # a bias, or a module that was trained whole
            state[key] = tensor
    sides = {name: tensor.shape[0] for name, tensor in state.items() if name.endswith(".mora_M")}
    if not sides:
        raise ValueError("The checkpoint has no tensors named lora_A, so there is nothing to convert.")
    for name, copy in copies.items():
        if copy.numel() and not (name in sides and torch.equal(copy, state[name])):
            layer = _layer_of(name)
            raise ValueError(f"{layer} has a lora_B that is not its lora_A: a LoRA's pair, not one matrix of MoRA.")
    if type(number := fields.get("mora_type", 1)) is not int:
        raise ValueError(f"`mora_type` must be a number, but is {number!r}.")
    config = MoraConfig(
        r=fields.get("r"),
        mora_type=number,
        cap_r_hat=False,
        mora_dropout=fields.get("lora_dropout", 0.0),
        bias={"lora_only": "mora_only"}.get(fields.get("bias", "none"), fields.get("bias", "none")),
        **{name: fields.get(name) for name in _KEPT},
    )
    if shapes is not None:
        config.cap_r_hat = _fits_cap(config, {_layer_of(name): side for name, side in sides.items()}, shapes)
    return config, state


# Fields that mean the same in a LoRA configuration and in a MoRA one.
_KEPT = ("base_model_name_or_path", "revision", "task_type", "target_modules", "layers_to_transform", "layers_pattern",
         "modules_to_save", "rank_pattern")  # fmt: skip
_KEPT_BY_LORA = ("exclude_modules", "target_parameters", "ensure_weight_tying")


def _square(key: str, tensor: Tensor) -> Tensor:
    if tensor.ndim != 2 or tensor.shape[0] != tensor.shape[1]:
        raise ValueError(f"{key} must be one square matrix, but has the shape {tuple(tensor.shape)}.")
    return tensor.clone().contiguous()


def _layer_of(key: str) -> str:
    return key.removeprefix(_PREFIX).removesuffix(".mora_M")


def _fits_cap(config: MoraConfig, sides: dict[str, int], shapes: Shapes) -> bool:
    """Whether the capped rule gives every side; ValueError where the rule without the cap gives another side too."""
    capped = True
    even = needs_even_side(config.operator)
    for layer, side in sides.items():
        if layer not in shapes:
            raise ValueError(f"The base model has no linear layer {layer}, which the checkpoint adapts.")
        k, d = shapes[layer]
        r = config.r_for(layer)
        rule = r_hat_for(k, d, r, even=even, cap=False)
        if side != rule:
            raise ValueError(
                f"{layer} has a matrix of side {side}, but with {k} inputs, {d} outputs and r={r} it should be {rule}: "
                "the checkpoint belongs to another base model, or its configuration was changed."
            )
        capped = capped and side == r_hat_for(k, d, r, even=even)
    return capped


def to_lora(
    model: PeftModel, adapter_name: str = "default", rank: int | None = None
) -> tuple[LoraConfig, dict[str, Tensor], dict[str, float]]:
    """A MoRA adapter as a LoRA adapter that PEFT loads, with scaling 1.

    Without `rank`, sharing becomes the LoRA of rank r̂ that it is. With it, ΔW of every layer is cut to its `rank`
    largest singular values, which is the nearest matrix of that rank (Eckart and Young 1936).

    Args:
        model: A PEFT model with the adapter.
        adapter_name: The adapter's name in it.
        rank: The rank to cut to; where r̂ (for sharing), k or d are smaller, they are the rank.

    Returns:
        The configuration; the tensors as PEFT saves them; and by layer the relative error ‖ΔW − BA‖ / ‖ΔW‖ in the
        Frobenius norm, that of all layers together under `"total"`.

    Raises:
        ValueError: No such MoRA adapter, a rank below 1 or none where the operator is no LoRA, or a layer that PEFT's
            LoRA has no equal of: a convolution in groups.
    """
    config = model.peft_config.get(adapter_name)
    if not isinstance(config, MoraConfig):
        raise ValueError(f"The model has no MoRA adapter named {adapter_name!r}, so there is nothing to convert.")
    if rank is None and config.operator != "sharing":
        raise ValueError(f"The operator {config.operator!r} is no LoRA: give the rank to cut it to, e.g. {config.r}.")
    if rank is not None and rank < 1:
        raise ValueError(f"`rank` must be 1 or more, but is {rank}.")

    state = {k: v for k, v in get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
             .items() if not k.endswith(".mora_M")}  # fmt: skip
    ranks, errors, lost, total = {}, {}, 0.0, 0.0
    transposed = False
    for name, layer in model.base_model.model.named_modules():
        if not isinstance(layer, MoraLayer) or adapter_name not in layer.operator:
            continue
        pieces = [_factors(layer.operator[adapter_name], M, rank) for M in _matrices(layer, adapter_name)]
        dtype = layer._M(adapter_name).dtype
        tensors = layer.lora_tensors([A for A, *_ in pieces], [B for _, B, *_ in pieces])
        state |= {f"{_PREFIX}{name}.{key}": tensor.to(dtype).contiguous() for key, tensor in tensors.items()}
        error, norm = (sum(piece[i] ** 2 for piece in pieces) for i in (2, 3))
        ranks[_full_name(layer, name)], errors[name] = pieces[0][0].shape[0], (error / norm) ** 0.5 if norm else 0.0
        lost, total = lost + error, total + norm
        transposed = transposed or (isinstance(layer, MoraLinear) and layer._transposed)
    errors["total"] = (lost / total) ** 0.5 if total else 0.0

    common = Counter(ranks.values()).most_common(1)[0][0]
    # PEFT takes the first pattern that ends a layer's name, so longer names go first.
    others = {name: ranks[name] for name in sorted(ranks, key=len, reverse=True) if ranks[name] != common}
    lora = LoraConfig(
        r=common,
        lora_alpha=common,
        rank_pattern=others,
        alpha_pattern=dict(others),
        lora_dropout=config.mora_dropout,
        bias={"mora_only": "lora_only"}.get(config.bias, config.bias),
        fan_in_fan_out=transposed,
        inference_mode=True,
        **{name: getattr(config, name) for name in (*_KEPT[:-1], *_KEPT_BY_LORA)},
    )
    return lora, state, errors


def _full_name(layer: MoraLayer, name: str) -> str:
    """What PEFT matches patterns of ranks with: a layer's name, or a parameter's."""
    if isinstance(layer, ParamWrapper):
        return f"{name.replace('.base_layer', '')}.{layer.parameter_name}"
    return name


def _matrices(layer: MoraLayer, adapter: str) -> Iterator[Tensor]:
    """scaling · M of each expert of a layer, or the one there is."""
    M = layer._merge_M(adapter)
    return iter(M.view(-1, *M.shape[-2:]))


@torch.no_grad()
def _factors(operator: Operator, M: Tensor, rank: int | None) -> tuple[Tensor, Tensor, float, float]:
    """A (rank, k), B (d, rank) with BA ≈ ΔW(M), ‖ΔW − BA‖ and ‖ΔW‖."""
    if isinstance(operator, Sharing):
        A, B = operator.lora_factors(M)
        if rank is None or rank >= operator.r_hat:
            return A, B, 0.0, (B @ A).norm().item()
        # The SVD of BA from those of its thin parts: r̂ x r̂ instead of d x k.
        (left, upper), (right, lower) = torch.linalg.qr(B), torch.linalg.qr(A.T)
        U, S, Vh = torch.linalg.svd(upper @ lower.T)
        U, Vh = left @ U, Vh @ right.T
    else:
        U, S, Vh = torch.linalg.svd(operator.delta_weight(M), full_matrices=False)
    root = S[:rank].sqrt()
    A, B = root[:, None] * Vh[:rank], U[:, :rank] * root
    return A, B, S[rank:].norm().item(), S.norm().item()


def save_state(folder: str | Path, config: Any, state: dict[str, Tensor]) -> None:
    """Write `config` and `state` as PEFT's adapter folder, safetensors only."""
    from safetensors.torch import save_file

    config.save_pretrained(str(folder))
    save_file(state, Path(folder) / WEIGHTS, metadata={"format": "pt"})
