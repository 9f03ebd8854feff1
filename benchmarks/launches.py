"""Kernels that one adapted layer launches in a training step, over LoRA's: what bounds small models on a GPU.

`python benchmarks/launches.py` writes benchmarks/results/launches.json: operations on tensors that compute or copy, of
the layer's forward and backward pass, r=8, bfloat16 base and float32 adapter; views launch nothing and are left out.
The numbers are exact, and hang on neither the machine nor its load.
"""

import _common
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode

from mora_peft import MoraConfig

#: The linear layers of SmolLM2-135M.
SHAPES = [(576, 576), (576, 192), (576, 1536), (1536, 576)]
METHODS = {
    "lora": lambda **to: LoraConfig(r=8, **to),
    "dora": lambda **to: LoraConfig(r=8, use_dora=True, **to),
    "mora-sharing": lambda **to: MoraConfig(r=8, operator="sharing", **to),
    "mora-rotation": lambda **to: MoraConfig(r=8, operator="rotation", **to),
    "mora-rotation-fold": lambda **to: MoraConfig(r=8, operator="rotation", fold=True, **to),
}


class Launches(TorchDispatchMode):
    """Counts operations whose result is not a view of an argument, and that are more than an allocation."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        view = any(ret.alias_info is not None and not ret.alias_info.is_write for ret in operation._schema.returns)
        empty = "empty" in operation.name() or operation.name() == "aten::_unsafe_view"
        self.count += not (view or empty)
        return operation(*args, **kwargs or {})


def launches(config, k: int, d: int) -> int:
    model = torch.nn.Sequential(torch.nn.Linear(k, d, bias=False)).to(torch.bfloat16)
    model = get_peft_model(model, config(target_modules=["0"])).train()
    x, grad = torch.randn(256, k, dtype=torch.bfloat16, requires_grad=True), torch.randn(256, d, dtype=torch.bfloat16)
    model(x).backward(grad)  # tables of rotation are made once
    model.zero_grad()
    with Launches() as found:
        model(x).backward(grad)
    return found.count


def main() -> None:
    rows = {name: [launches(config, k, d) for k, d in SHAPES] for name, config in METHODS.items()}
    _common.save("launches", {"shapes": SHAPES, "launches": rows})


if __name__ == "__main__":
    main()
