"""What two backbones of one structure differ in beyond the rounding of their files, and where it may be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from adapters.config import Projection
from adapters.encoder import Encoder

_TARGETS: tuple[Projection, ...] = get_args(Projection)
_FOLDED = "encoder.pos_conv_embed.conv.weight"
_FOLDED_STEPS = 4  # of rounding: weight norm multiplies two rounded numbers and divides by the norm of others
_TINY = 1e-7  # below float16's normal numbers


@dataclass(frozen=True)
class Difference:
    """Of a tuned backbone and the one that it began from. ``fixed``: tensors of what no adapter changes, by how much of
    their size (Frobenius norms); ``norms``: layers whose layer norms differ; ``weights`` (out, in) and ``biases``
    (out,): what was added to the linears; ``final_norm``: whether the norm above the last layer differs."""

    fixed: Mapping[str, float]
    norms: tuple[int, ...]
    weights: Mapping[tuple[int, Projection], Tensor]
    biases: Mapping[tuple[int, Projection], Tensor]
    final_norm: bool

    @property
    def layers(self) -> tuple[int, ...]:
        """Those whose linears differ."""
        return tuple(sorted({layer for layer, _ in self.sites}))

    @property
    def targets(self) -> tuple[Projection, ...]:
        """Those that differ in any layer, in the order of a method's."""
        return tuple(target for target in _TARGETS if any(target == at for _, at in self.sites))

    @property
    def sites(self) -> frozenset[tuple[int, Projection]]:
        """Every linear that differs."""
        return frozenset(self.weights.keys() | self.biases.keys())


def difference(base: Encoder, tuned: Encoder, rounding: float) -> Difference:
    """``rounding``: the coarsest relative step of the numbers in either's file. Both have one structure."""
    fixed: dict[str, float] = {}
    norms: set[int] = set()
    added: dict[str, dict[tuple[int, Projection], Tensor]] = {"weight": {}, "bias": {}}
    final_norm = False
    theirs = weights_of(tuned)
    for name, ours in weights_of(base).items():
        if _same(ours, theirs[name], rounding * (_FOLDED_STEPS if name == _FOLDED else 1)):
            continue
        *path, part = name.split(".")
        if path[:2] == ["encoder", "layers"] and path[-1] in _TARGETS:
            added[part][int(path[2]), path[-1]] = theirs[name] - ours
        elif path[:2] == ["encoder", "layers"]:
            norms.add(int(path[2]))
        elif path == ["encoder", "layer_norm"] and base.pre_norm:
            final_norm = True
        else:
            fixed[name] = float((theirs[name] - ours).norm() / ours.norm().clamp_min(_TINY))
    return Difference(fixed, tuple(sorted(norms)), added["weight"], added["bias"], final_norm)


def _same(ours: Tensor, theirs: Tensor, rounding: float) -> bool:
    step = torch.maximum(ours.abs(), theirs.abs()) * rounding + _TINY
    return bool(((theirs - ours).abs() <= step).all())


def weights_of(encoder: Encoder) -> dict[str, Tensor]:
    """All that counts in what comes out of a backbone: neither its mask vector nor adapters of MMS within it."""
    state: dict[str, Tensor] = encoder.model.state_dict()
    return {
        name: tensor for name, tensor in state.items() if name != "masked_spec_embed" and ".adapter_layer." not in name
    }


def told(fixed: Mapping[str, float], shown: int = 3) -> str:
    """Tensors by how much they differ, the most first."""
    most = sorted(fixed.items(), key=lambda one: -one[1])
    some = ", ".join(f"{name} by {share:.2%}" for name, share in most[:shown])
    return some + (f" and {len(most) - shown} more" if len(most) > shown else "")
