"""Norms and linear layers in which every row of a batch has weights of its own.

Where rows find them: on a GPU gathered side by side, for one ``baddbmm``; so are small ones on a CPU. Large matrices
are used there where they lie in the pool, one product a row, since to copy one costs as much as to read it in the
product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Rows = Tensor | tuple[Tensor, ...]
"""A tensor of each row: stacked, (R, ...), or one by one."""

_COPIED = 1 << 16
"""Elements of a tensor that a CPU copies sooner than it makes a call for it."""


def each(view: Tensor, numbers: Sequence[int], slots: Tensor) -> Rows:
    """What each row finds in ``view`` (S, ...), stacked by slot; ``slots`` are the ``numbers`` on its device."""
    if view.is_cuda or view[0].numel() <= _COPIED:
        return view.index_select(0, slots)
    return tuple(view[number] for number in numbers)


def stacked(each: Rows) -> Tensor:
    """(R, ...)."""
    return each if isinstance(each, Tensor) else torch.stack(each)


def norm(x: Tensor, scale: Rows, shift: Rows, eps: float) -> Tensor:
    """Layer norm of x (R, T, D) with each row's own ``scale`` and ``shift`` (D,)."""
    size = x.shape[-1]
    # without weights a CPU takes twice as long; a GPU would have two kernels more to run
    ones, zeros = (None, None) if x.is_cuda else (x.new_ones(size), x.new_zeros(size))
    y = F.layer_norm(x, (size,), ones, zeros, eps)
    return torch.addcmul(stacked(shift)[:, None], y, stacked(scale)[:, None])


def linear(x: Tensor, weight: Rows, bias: Rows | None = None) -> Tensor:
    """x (R, T, D) through each row's own ``weight`` (V, D) and ``bias`` (V,), none for zeros -> (R, T, V)."""
    if isinstance(weight, Tensor):
        across = weight.transpose(1, 2)
        return torch.bmm(x, across) if bias is None else torch.baddbmm(stacked(bias)[:, None], x, across)
    y = x.new_empty(*x.shape[:2], len(weight[0]))
    for row, (x_row, matrix, y_row) in enumerate(zip(x, weight, y, strict=True)):
        if bias is None:
            torch.mm(x_row, matrix.t(), out=y_row)
        else:
            torch.addmm(bias[row], x_row, matrix.t(), out=y_row)
    return y
