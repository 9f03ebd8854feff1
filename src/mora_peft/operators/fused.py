"""The training path: a frozen linear layer and its MoRA in one autograd step."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import Operator


def mora_linear(x: Tensor, M: Tensor, W: Tensor, bias: Tensor | None, operator: Operator, scaling: float) -> Tensor:
    """`W x + bias + scaling · decompress(M · compress(x))` for a W and bias that need no gradient.

    x (..., k), M (r̂, r̂), W (d, k), bias (d,) → (..., d). The adapter's product is computed in M's dtype, under
    autocast in autocast's, and added to the base's output in that output's dtype.

    Beside the frozen layer's own work this costs 3 · b · r̂² multiply-adds a token (b = 1 for sharing), and for
    backward it keeps r̂ numbers a token (sharing) or x itself, which the layers that share it keep once. Base and
    adapter write one output and one gradient of x, with no intermediate of their size.
    """
    if autocasts(x):
        dtype = torch.get_autocast_dtype(x.device.type)
        with torch.autocast(x.device.type, enabled=False):
            return _MoraLinear.apply(x.to(dtype), M, W, bias, operator, scaling, dtype)
    return _MoraLinear.apply(x, M, W, bias, operator, scaling, M.dtype)


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on where x is; on some devices, such as meta, it does not exist."""
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


class _MoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, M, W, bias, operator, scaling, dtype):
        flat = x.reshape(-1, x.shape[-1])
        out = F.linear(flat, W.to(x.dtype), None if bias is None else bias.to(x.dtype))
        taken = operator.take(flat, dtype)
        blocks = operator.expand((M * scaling if scaling != 1.0 else M).to(dtype))
        operator.put_(out, _product(taken, blocks.transpose(1, 2)).to(out.dtype))
        ctx.operator, ctx.scaling, ctx.dtype = operator, scaling, dtype
        ctx.save_for_backward(taken if operator.saves_compressed else x, M, W)
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx, grad_out):
        saved, M, W = ctx.saved_tensors
        operator, dtype = ctx.operator, ctx.dtype
        flat = grad_out.reshape(-1, grad_out.shape[-1])
        grad_put = operator.put_adjoint(flat, dtype)
        grad_x = grad_M = None
        if ctx.needs_input_grad[0]:
            blocks = operator.expand((M * ctx.scaling if ctx.scaling != 1.0 else M).to(dtype))
            grad_x = flat @ W.to(flat.dtype)
            operator.take_adjoint_(grad_x, _product(grad_put, blocks).to(grad_x.dtype))
            grad_x = grad_x.view(*grad_out.shape[:-1], grad_x.shape[-1])
        if ctx.needs_input_grad[1]:
            taken = saved
            if not operator.saves_compressed:
                taken = operator.take(saved.reshape(-1, saved.shape[-1]), dtype)
            grad_M = operator.contract(torch.matmul(grad_put.transpose(1, 2), taken)).to(M.dtype)
            if ctx.scaling != 1.0:
                grad_M = grad_M * ctx.scaling
        return grad_x, grad_M, None, None, None, None, None


def _product(taken: Tensor, blocks: Tensor) -> Tensor:
    """(b, T, r̂) @ (b, r̂, r̂) → (b, T, r̂), laid out in memory with tokens first, as a layer's output is."""
    rows = taken.new_empty(taken.shape[1], taken.shape[0], blocks.shape[-1]).transpose(0, 1)
    return torch.bmm(taken, blocks, out=rows)
