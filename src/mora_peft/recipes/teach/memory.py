"""Whether a model fits this machine's memory, said before it is loaded, with the numbers.

A rule of thumb, which needs no more of a model than its shapes: the plan of `mora inspect` says it more exactly, but
takes seconds, and not every model that can be taught can be planned.
"""

from mora_peft.errors import UserError
from mora_peft.recipes.adapters import skeleton
from mora_peft.recipes.free_memory import available_memory
from mora_peft.recipes.models import resolve_dtype

#: Beside the weights, training holds activations and what libraries take, about so many times the weights, and so much.
_SHARE, _FIXED = 0.5, 1.0e9


def check_memory(model: str, dtype: str) -> None:
    """Raise UserError where `model` in `dtype` needs more memory to be trained than there is."""
    weights = sum(parameter.numel() for parameter in skeleton(model).parameters())
    size = weights * resolve_dtype(dtype).itemsize
    needed, free, where = (1 + _SHARE) * size + _FIXED, *_free()
    if needed > free:
        raise UserError(
            f"{model} has {weights / 1e9:.2f} billion weights: {size / 1e9:.1f} GB in "
            f"{str(resolve_dtype(dtype)).removeprefix('torch.')}, and about {needed / 1e9:.1f} GB to be taught, but "
            f"{free / 1e9:.1f} GB {where} are free; choose a smaller model, or free some memory."
        )


def _free() -> tuple[float, str]:
    """Bytes that can still be had, and of which memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0], "of the GPU's memory"
    return available_memory(), "of memory"
