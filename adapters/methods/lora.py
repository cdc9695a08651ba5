"""Low-rank changes of the query and value projections.

``y = W x + B A x`` with A (r, D) and B (D, r) in each adapted layer (Hu et al. 2022, "LoRA", section 4). What PEFT
calls ``lora_alpha / r`` is within B. B starts at zero, so an untrained adapter leaves the backbone as it was.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters import rowwise
from adapters.config import AdapterConfig
from adapters.rowwise import Rows

PLACES = ("q_proj", "v_proj")
OPTIONS: tuple[str, ...] = ()


def shapes(config: AdapterConfig, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors at one place of one layer: 2·D·r parameters."""
    return {"lora_A.weight": (config.size, hidden_size), "lora_B.weight": (hidden_size, config.size)}


def start(name: str, tensor: Tensor) -> None:
    """Fill ``tensor`` (named as in :func:`shapes`) with its value before training."""
    if name == "lora_A.weight":
        torch.nn.init.normal_(tensor, std=tensor.shape[1] ** -0.5)
    else:
        tensor.zero_()


def one(y: Tensor, x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """Semantics: what the projection makes of x, y = W x, both (B, T, D), and one adapter's tensors -> (B, T, D)."""
    return y + F.linear(F.linear(x, w["lora_A.weight"]), w["lora_B.weight"])


def many(y: Tensor, x: Tensor, w: Mapping[str, Rows]) -> Tensor:
    """The same, row i wearing ``w[...][i]``."""
    return y + rowwise.linear(rowwise.linear(x, w["lora_A.weight"]), w["lora_B.weight"])
