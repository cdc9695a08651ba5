"""Meta's adapters for MMS's languages: own layer norm, down, ReLU, up, and a skip, once after each layer.

``y + linear_2(relu(linear_1(norm(y))))`` for the output y of a whole layer, the residual of its feed forward added
(Pratap et al. 2023, "Scaling speech technology to 1,000+ languages"; ``Wav2Vec2AttnAdapterLayer`` in transformers).
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
    """After the layer."""
    return ("layer",)


def shapes(config: AdapterConfig, place: Place, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of one layer: 2·D·b + b + D + 2·D parameters."""
    return {
        "norm.weight": (size.hidden,),
        "norm.bias": (size.hidden,),
        "linear_1.weight": (config.size, size.hidden),
        "linear_1.bias": (config.size,),
        "linear_2.weight": (size.hidden, config.size),
        "linear_2.bias": (size.hidden,),
    }


def start(name: str, tensor: Tensor) -> None:
    """Fill ``tensor`` (named as in :func:`shapes`) with its value before training: near the identity as a whole."""
    if name == "norm.weight":
        tensor.fill_(1.0)
    elif name == "linear_1.weight":
        torch.nn.init.normal_(tensor, std=tensor.shape[1] ** -0.5)
    elif name == "linear_2.weight":
        torch.nn.init.normal_(tensor, std=_START * tensor.shape[1] ** -0.5)
    else:
        tensor.zero_()


def one(y: Tensor, x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """Semantics: a layer's output y (B, T, D), x that counts for nothing here, and one adapter's tensors as in
    :func:`shapes` -> (B, T, D)."""
    z = F.layer_norm(y, y.shape[-1:], w["norm.weight"].to(y.dtype), w["norm.bias"].to(y.dtype), NORM_EPS)
    z = F.relu(F.linear(z, w["linear_1.weight"], w["linear_1.bias"]))  # (B, T, b)
    return y + F.linear(z, w["linear_2.weight"], w["linear_2.bias"])


def many(y: Tensor, x: Tensor, w: Mapping[str, Rows]) -> Tensor:
    """The same, row i wearing ``w[...][i]``."""
    z = rowwise.norm(y, w["norm.weight"], w["norm.bias"], NORM_EPS)
    z = F.relu(rowwise.linear(z, w["linear_1.weight"], w["linear_1.bias"]))  # (B, T, b)
    return rowwise.linear(z, w["linear_2.weight"], w["linear_2.bias"]).add_(y)
