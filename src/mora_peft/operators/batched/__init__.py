"""Many adapters in one batch of tokens, each token with its own: what serving is made of.

>>> import torch
>>> from mora_peft.operators import make_operator
>>> from mora_peft.operators.batched import Slots, Step, add_adapters_
>>> slots = Slots(k=4, d=4, count=2, max_rank=1, dtype=torch.float32)
>>> slots.put_mora(1, make_operator("sharing", k=4, d=4, r_hat=2), torch.eye(2))
>>> x = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 3)
>>> add_adapters_(torch.zeros(3, 4), x, slots, Step(torch.tensor([1, -1, 0])))
tensor([[4., 6., 4., 6.],
        [0., 0., 0., 0.],
        [0., 0., 0., 0.]])
"""

from .segmented import segmented_product
from .slots import Slots, Step, add_adapters_

__all__ = ["Slots", "Step", "add_adapters_", "segmented_product"]
