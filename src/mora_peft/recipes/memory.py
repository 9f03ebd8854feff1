"""Memory that a training step needs, found from a model's configuration alone: the step is run on tensors without data.

PyTorch's fake tensors have shapes, dtypes and storages, but no numbers; every operation of a real step, forward and
backward, runs on them, and each storage is counted from its making to its end. So whatever a model, an adapter or
checkpointed activations keep is counted as it is, and no formula has to know an architecture.
"""

import weakref
from dataclasses import dataclass
from typing import Literal

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.pytorch_utils import Conv1D

from mora_peft.operators.rotation import forget_tables

Quantization = Literal["none", "nf4", "int8"]

# Bytes a weight: 4 bits in blocks of 64 with a scale in 8 bits, themselves in blocks of 256 with one in 32 bits
# (Dettmers et al. 2023, double quantization); 8 bits with a scale in 32 bits a row (Dettmers et al. 2022).
_NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment of a training step when most are in use.

    `weights` are the base's, `optimizer` AdamW's two moments, `activations` what the forward pass keeps for backward,
    and `working` the rest: gradients, logits and their gradient, intermediate results.
    """

    weights: int
    adapter: int
    optimizer: int
    activations: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.optimizer + self.activations + self.working


def memory_of_step(model: PeftModel, batch_size: int, length: int, quantization: Quantization = "none") -> Memory:
    """What a step of AdamW on `batch_size` rows of `length` tokens needs, a loss on every one of them.

    Args:
        model: A causal language model with an adapter, on the meta device and in the dtypes it would have. It is
            changed: its parameters are fake tensors afterwards.
        quantization: How the base's linear layers are stored, but for the output layer; each is expanded to the dtype
            of `model` when it is used.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adapter = _bytes(trained)
    frozen = _bytes(parameter for parameter in model.parameters() if not parameter.requires_grad)
    weights, expanded = _quantized(model, quantization)
    forget_tables()  # real ones must not meet fake tensors, nor fake ones real tensors
    try:
        kept, peak = _fake_step(model, batch_size, length)
    finally:
        forget_tables()
    return Memory(
        weights=frozen + weights,
        adapter=adapter,
        optimizer=2 * adapter,
        activations=kept,
        working=peak - kept + expanded,
    )


def _fake_step(model: PeftModel, batch_size: int, length: int) -> tuple[int, int]:
    """Bytes above the parameters: kept at the end of the forward pass, and at the most."""
    # Without numbers Transformers cannot see that no row is padded, and would make a mask that a real step goes
    # without. An attention of another name gets none.
    AttentionInterface.register("sdpa_unmasked", sdpa_attention_forward)
    model.get_base_model().set_attn_implementation("sdpa_unmasked")
    with FakeTensorMode():
        _fill(model)
        ids = torch.zeros(batch_size, length, dtype=torch.long, device="cpu")
        with _Live([*model.parameters(), *model.buffers(), ids]) as live:
            loss = model.train()(input_ids=ids, labels=ids, use_cache=False).loss
            kept = live.now
            loss.backward()
        return kept, live.peak


def _fill(model: nn.Module) -> None:
    """Put fake tensors on the CPU in the place of the meta device's: there attention takes its usual path."""
    made: dict[Tensor, Tensor] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, old in table.items():
                if old is not None and old not in made:
                    new = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                    made[old] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                table[name] = made.get(old)


class _Live(TorchDispatchMode):
    """Counts the bytes of all storages that operations make, beside those of `given`."""

    def __init__(self, given: list[Tensor]):
        super().__init__()
        self.now = self.peak = 0
        self.seen = weakref.WeakSet(tensor.untyped_storage() for tensor in given)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes())
        return out

    def _gone(self, size: int) -> None:
        self.now -= size


def _bytes(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _quantized(model: PeftModel, quantization: Quantization) -> tuple[int, int]:
    """How many bytes more (or less) the linear layers take, and those of the largest of them when expanded."""
    if quantization == "none":
        return 0, 0
    output = model.get_output_embeddings()
    kinds = nn.Linear | Conv1D
    linear = [layer.weight for layer in model.modules() if isinstance(layer, kinds) and layer is not output]
    stored = sum(w.numel() * _NF4 if quantization == "nf4" else w.numel() + 4 * w.shape[0] for w in linear)
    return int(stored) - _bytes(linear), max(map(lambda w: _bytes([w]), linear))
