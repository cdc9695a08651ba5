"""The paper's adapter: own layer norm, down, non-linearity, up, and a skip, twice in each adapted layer.

``y + up(gelu(down(norm(y))))`` for the output y of the attention and of the feed forward, before their residual
additions (Thomas, Kessler, Karout 2022, section 2; after Houlsby et al. 2019). ``up`` starts near zero, so an untrained
adapter leaves the backbone as it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters import rowwise
from adapters.config import AdapterConfig, BackboneSize, Place
from adapters.rowwise import Rows

OPTIONS: tuple[str, ...] = ()
NORM_EPS = 1e-5
_START = 1e-4


def places(config: AdapterConfig) -> tuple[Place, ...]:
    """After attention and after the feed forward."""
    return ("attention", "feed_forward")


def shapes(config: AdapterConfig, place: Place, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors at one place of one layer: 2·D·b + b + D + 2·D parameters."""
    return {
        "norm.weight": (size.hidden,),
        "norm.bias": (size.hidden,),
        "down.weight": (config.size, size.hidden),
        "down.bias": (config.size,),
        "up.weight": (size.hidden, config.size),
        "up.bias": (size.hidden,),
    }


def start(name: str, tensor: Tensor) -> None:
    """Fill ``tensor`` (named as in :func:`shapes`) with its value before training: near the identity as a whole."""
    if name == "norm.weight":
        tensor.fill_(1.0)
    elif name == "down.weight":
        torch.nn.init.normal_(tensor, std=tensor.shape[1] ** -0.5)
    elif name == "up.weight":
        torch.nn.init.normal_(tensor, std=_START * tensor.shape[1] ** -0.5)
    else:
        tensor.zero_()


def one(y: Tensor, x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """Semantics: a sublayer's output y (B, T, D), its input x, which does not count here, and one adapter's tensors as
    in :func:`shapes` -> (B, T, D)."""
    z = F.layer_norm(y, y.shape[-1:], w["norm.weight"].to(y.dtype), w["norm.bias"].to(y.dtype), NORM_EPS)
    z = F.gelu(F.linear(z, w["down.weight"], w["down.bias"]))  # (B, T, b)
    return y + F.linear(z, w["up.weight"], w["up.bias"])


def many(y: Tensor, x: Tensor, w: Mapping[str, Rows]) -> Tensor:
    """Semantics: y and x as in :func:`one`, its tensors for each row -> (B, T, D), where row i wears ``w[...][i]``:
    ``torch.stack([one(y[i:i+1], x[i:i+1], {k: v[i] for k, v in w.items()})[0] for i in range(B)])``."""
    z = rowwise.norm(y, w["norm.weight"], w["norm.bias"], NORM_EPS)
    z = F.gelu(rowwise.linear(z, w["down.weight"], w["down.bias"]))  # (B, T, b)
    return rowwise.linear(z, w["up.weight"], w["up.bias"]).add_(y)
