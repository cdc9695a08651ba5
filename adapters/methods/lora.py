"""Low-rank changes of a layer's linear projections.

``y = W x + B A x`` with A (r, in) and B (out, r) in each adapted layer (Hu et al. 2022, "LoRA", section 4). What PEFT
calls ``lora_alpha / r`` is within B. B starts at zero, so an untrained adapter leaves the backbone as it was.

Options: ``targets``, the projections that are changed (queries and values, unless it says otherwise), and ``bias``,
whether each brings a change of its bias too, ``y = W x + B A x + b``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters import rowwise
from adapters.config import AdapterConfig, BackboneSize, Place, Projection
from adapters.rowwise import Rows

OPTIONS = ("targets", "bias")
TARGETS: tuple[Projection, ...] = get_args(Projection)
USUAL: tuple[Projection, ...] = ("q_proj", "v_proj")


def places(config: AdapterConfig) -> tuple[Place, ...]:
    """The projections that are changed. Raises ``ValueError`` for options that make no sense."""
    targets = config.options.get("targets", USUAL)
    if not isinstance(targets, Sequence) or not targets or list(targets) != [t for t in TARGETS if t in targets]:
        raise ValueError(f"LoRA's targets are some of {', '.join(TARGETS)}, in this order, not {targets!r}")
    if not isinstance(config.options.get("bias", False), bool):
        raise ValueError(f"LoRA's option 'bias' is true or false, not {config.options['bias']!r}")
    return tuple(targets)


def shapes(config: AdapterConfig, place: Place, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors at one projection: (in + out)·r parameters, and out more for its bias."""
    into = size.feed_forward if place == "output_dense" else size.hidden
    out = size.feed_forward if place == "intermediate_dense" else size.hidden
    found: dict[str, tuple[int, ...]] = {"lora_A.weight": (config.size, into), "lora_B.weight": (out, config.size)}
    return {**found, "lora_B.bias": (out,)} if config.options.get("bias") else found


def start(name: str, tensor: Tensor) -> None:
    """Fill ``tensor`` (named as in :func:`shapes`) with its value before training."""
    if name == "lora_A.weight":
        torch.nn.init.normal_(tensor, std=tensor.shape[1] ** -0.5)
    else:
        tensor.zero_()


def one(y: Tensor, x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """Semantics: what the projection makes of x (B, T, in), y = W x (B, T, out), and one adapter's tensors ->
    (B, T, out)."""
    return y + F.linear(F.linear(x, w["lora_A.weight"]), w["lora_B.weight"], w.get("lora_B.bias"))


def many(y: Tensor, x: Tensor, w: Mapping[str, Rows]) -> Tensor:
    """The same, row i wearing ``w[...][i]``."""
    return y + rowwise.linear(rowwise.linear(x, w["lora_A.weight"]), w["lora_B.weight"], w.get("lora_B.bias"))
