"""MoRA on a table of embeddings, and on an output layer that shares its weight."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mora_peft.operators.units import compress_units

from .config import MoraConfig
from .layer import MoraLayer


class MoraEmbedding(MoraLayer):
    """MoRA on `nn.Embedding`: k is the vocabulary, d the embedding's width, and a lookup reads one column of ΔW.

    Rotation and decoupling always fold: a vocabulary is many times the width, and without folding only its first d
    entries would be adapted. Dropout has nothing to act on here and is left out, as in PEFT's LoRA.
    """

    always_folds = True
    _transposed = True

    def update_layer(self, adapter_name: str, r: int, config: MoraConfig, **kwargs: Any) -> None:
        super().update_layer(adapter_name, r, config=config, **kwargs)
        self.mora_dropout[adapter_name] = nn.Identity()

    def _adapter_output(self, adapter: str, x: Tensor) -> Tensor:
        """(...) indices → (..., d)."""
        operator, M = self.operator[adapter], self._scaled_M(adapter)
        y = operator.decompress(F.linear(compress_units(operator, x, M.dtype), M))
        padding = self.get_base_layer().padding_idx
        if padding is None:
            return y
        return torch.where((x == padding).unsqueeze(-1), y.detach(), y)  # it teaches nothing, as in `nn.Embedding`

    def lora_tensors(self, A: list[Tensor], B: list[Tensor]) -> dict[str, Tensor]:
        return {"lora_embedding_A": A[0], "lora_embedding_B": B[0]}

    def _scaled_M(self, adapter: str) -> Tensor:
        """With the factor that some models (Gemma) put on what they look up."""
        M, factor = super()._scaled_M(adapter), self._get_embed_scale()
        return M if factor is None else M * factor.to(M.dtype)


class MoraTiedHead(MoraLayer):
    """The output layer that shares the embedding's weight (V, d), and with `ensure_weight_tying` its M as well.

    Here that weight maps d numbers to V, so the adapter adds `ΔWᵀ x`, the adjoint of what it adds to the embedding. It
    has no parameters of its own: M stays the embedding's, and both merge the same ΔW.
    """

    always_folds = True
    _transposed = True

    def __init__(self, base_layer: nn.Module, adapter_name: str, embedding: MoraEmbedding, **kwargs: Any) -> None:
        self._tied = (embedding,)  # in a tuple, so that it is not counted as a part of this layer
        super().__init__(base_layer, adapter_name, **kwargs)

    def _features(self, base: nn.Module) -> tuple[int, int]:
        return self._tied[0].in_features, self._tied[0].out_features

    def _make_M(self, adapter: str, zero: bool) -> None:
        """Nothing to make."""

    def _M(self, adapter: str) -> Tensor:
        return self._tied[0].mora_M[adapter]

    def _adapter_output(self, adapter: str, x: Tensor) -> Tensor:
        """(..., d) → (..., V)."""
        operator, M = self.operator[adapter], self._scaled_M(adapter)
        flat = self._cast_input_dtype(x, M.dtype).reshape(-1, x.shape[-1])
        y = torch.bmm(operator.put_adjoint(flat, flat.dtype), operator.expand(M))
        return operator.take_adjoint_(y.new_zeros(len(flat), operator.k), y).view(*x.shape[:-1], operator.k)

    def _is_one_weight(self) -> bool:
        """Whether the embedding merges into this layer's weight already."""
        return self.get_base_layer().weight is self._tied[0].get_base_layer().weight

    def _touched(self, weight: Tensor, adapter: str) -> list[Tensor]:
        return [] if self._is_one_weight() else super()._touched(weight, adapter)

    def _add_delta_(self, weight: Tensor, adapter: str) -> None:
        if not self._is_one_weight():
            super()._add_delta_(weight, adapter)

    def lora_tensors(self, A: list[Tensor], B: list[Tensor]) -> dict[str, Tensor]:
        return {"lora_A.weight": B[0].T, "lora_B.weight": A[0].T}
