"""From LoRA's rank to the side of MoRA's square matrix, and back to parameter counts."""

import math


def r_hat_for(k: int, d: int, r: int, *, even: bool = False, cap: bool = True) -> int:
    """The side r̂ of M for a layer with `k` inputs and `d` outputs at LoRA's rank `r`.

    r̂ = round(sqrt((k + d) · r)), so that r̂² is the parameter count (k + d) · r of a LoRA of rank r
    (Jiang et al. 2024, section 3.2).

    Args:
        k, d: Input and output features, at least 1.
        r: The LoRA-equivalent budget, at least 1.
        even: Round down to an even side (rotation pairs the features of a row).
        cap: Keep r̂ at or under min(k, d); a larger M has entries that cannot add rank.

    Returns:
        r̂, at least 1 (at least 2 with `even`, even where k or d is 1).

    Raises:
        ValueError: k, d or r below 1.
    """
    for name, value in (("k", k), ("d", d), ("r", r)):
        if value < 1:
            raise ValueError(f"`{name}` must be 1 or more, but is {value}.")
    r_hat = int(math.sqrt((k + d) * r) + 0.5)
    if cap:
        r_hat = min(r_hat, k, d)
    if even:
        r_hat = max(r_hat - r_hat % 2, 2)
    return r_hat


def lora_parameters(k: int, d: int, r: int) -> int:
    """Parameters of a LoRA of rank `r` on a layer with `k` inputs and `d` outputs: the budget that `r` stands for."""
    return (k + d) * r
