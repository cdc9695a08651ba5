"""One matrix product for q, k and v: the same output out of one kernel that reads its input once.

A backbone is fused when it is loaded to serve, after its fingerprint was taken over the three as they lie on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from adapters.encoder import Encoder

PARTS = ("q_proj", "k_proj", "v_proj")


def fuse_attention(encoder: Encoder) -> None:
    """Replace the three projections of every layer by one, (D -> 3·D) in the order q, k, v.

    Layer by layer, the three dropped before the next are joined, so that memory never holds both backbones.
    """
    layers: Any = encoder.model.encoder.layers
    for layer in layers:
        attention = layer.attention
        parts = [getattr(attention, name) for name in PARTS]
        attention.qkv_proj = _joined(parts)
        for name in PARTS:
            delattr(attention, name)


def project(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Semantics: x (B, T, D) -> q, k, v, each (B, T, D); views of one tensor where the projections are fused."""
    if hasattr(attention, "qkv_proj"):
        q, k, v = attention.qkv_proj(x).chunk(3, dim=-1)
        return q, k, v
    return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)


@torch.no_grad()
def _joined(parts: list[nn.Linear]) -> nn.Linear:
    weight = torch.cat([part.weight for part in parts])
    fused = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=weight.dtype)
    fused.weight = nn.Parameter(weight, requires_grad=False)
    fused.bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)
    return fused
