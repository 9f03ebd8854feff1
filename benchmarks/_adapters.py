"""Distinct random adapters of SmolLM2-135M by the hundred: all linear layers, r=8, bfloat16, as PEFT saves them."""

from pathlib import Path

import torch
from peft import LoraConfig

from mora_peft import MoraConfig
from mora_peft.operators import make_operator, needs_even_side, r_hat_for
from mora_peft.recipes.adapters import linear_shapes
from mora_peft.recipes.files import whole_folder
from mora_peft.tuner.convert import save_state

MODEL = "models/SmolLM2-135M-Instruct"
R = 8
#: Large enough to change answers, small enough that text stays text.
SCALE = 0.02


def make(root: Path, method: str, count: int) -> Path:
    """ROOT/METHOD with the adapters 0000, 0001, ... of `method`; those that are there already are kept.

    `rotation` and `sharing` are MoRA; `lora` is LoRA at the same r; `converted` is `sharing` as the LoRA that it is.
    """
    folder = root / method
    shapes = linear_shapes(MODEL, output=False)
    for number in range(count):
        target = folder / f"{number:04d}"
        if target.is_dir():
            continue
        config, state = drawn(method, shapes, number)
        config.base_model_name_or_path = MODEL
        with whole_folder(target) as partial:
            save_state(partial, config, state)
    return folder


def drawn(
    method: str, shapes: dict[str, tuple[int, int]], seed: int
) -> tuple[MoraConfig | LoraConfig, dict[str, torch.Tensor]]:
    """The configuration and the tensors of one adapter."""
    draw = torch.Generator().manual_seed(seed)
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    settings = {"target_modules": targets, "task_type": "CAUSAL_LM", "inference_mode": True}
    state = {}

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=draw) * SCALE).to(torch.bfloat16)

    for name, (k, d) in shapes.items():
        if method == "lora":
            state |= _pair(name, random(R, k), random(d, R))
            continue
        operator = "sharing" if method == "converted" else method
        side = r_hat_for(k, d, R, even=needs_even_side(operator))
        M = random(side, side)
        if method == "converted":
            A, B = make_operator(operator, k=k, d=d, r_hat=side).lora_factors(M)
            state |= _pair(name, A.contiguous(), B.contiguous())
        else:
            state[f"base_model.model.{name}.mora_M"] = M
    if method in ("rotation", "sharing"):
        return MoraConfig(r=R, operator=method, **settings), state
    # vLLM knows one scale, alpha / r; each layer's rank it takes from the tensors.
    r = max(min(tensor.shape) for tensor in state.values())
    return LoraConfig(r=r, lora_alpha=r, **settings), state


def _pair(name: str, A: torch.Tensor, B: torch.Tensor) -> dict[str, torch.Tensor]:
    return {f"base_model.model.{name}.lora_A.weight": A, f"base_model.model.{name}.lora_B.weight": B}
