"""Linears whose weights lie in memory in the order in which a CPU's kernel reads them (oneDNN).

A plain product puts its weights in that order anew at every call, which over few frames costs as much as reading them:
the forward of a clip of a second or two gains a tenth, a long batch a twentieth. A backbone that serves never changes
its weights, so that once is enough.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adapters.linears import replace_linears, sublayers

if TYPE_CHECKING:
    from adapters.encoder import Encoder


class PackedLinear(nn.Module):
    """``linear`` with its weight packed: of the same bytes, for a CPU in float32, without a gradient.

    Semantics: x (..., K) float32 -> (..., N) float32, but for the order in which products are added up.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        bias: Tensor | None = linear.bias
        self.bias: Tensor | None
        self.register_buffer("bias", bias if bias is None else bias.detach(), persistent=False)
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return y


def packs() -> bool:
    """Whether this build of torch can pack for this CPU."""
    return (
        platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    )


def pack_linears(encoder: Encoder) -> None:
    """Replace the linears of ``encoder``, which then serves on a CPU in float32 and cannot train; where :func:`packs`
    says no, leave them."""
    if packs():
        replace_linears([encoder.model.feature_projection, *sublayers(encoder)], PackedLinear)
