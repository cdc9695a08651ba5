"""What an adapter is, in numbers: its method, its size, the layers that it sits in, the norms that it brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Norms = Literal["none", "adapted", "all"]
Projection = Literal["q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"]
"""The linear layers within a layer: of its attention, and of its feed forward."""
Place = Literal["attention", "feed_forward", "layer"] | Projection
"""Where in a layer an adapter may act: after a sublayer, after the whole layer, or at a projection."""


@dataclass(frozen=True)
class BackboneSize:
    """What of a backbone decides the shapes of its adapters: the width of its hidden states, its layers, and the width
    inside its feed forwards."""

    hidden: int
    layers: int
    feed_forward: int


@dataclass(frozen=True)
class AdapterConfig:
    """The shape of one adapter on one backbone.

    ``method`` names a file of :mod:`adapters.methods`; ``size`` is its one dimension (a bottleneck's width, LoRA's
    rank). ``layers`` are the adapted transformer layers, ascending, counted from 0 at the bottom. ``norms`` says which
    of the backbone's own layer norms the adapter brings a trained copy of: none, those of the adapted layers, or those
    of all layers (the paper's way, which leaves no shared trunk). ``options`` hold what only one method knows.
    """

    method: str
    size: int
    layers: tuple[int, ...]
    norms: Norms
    vocab_size: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = {name: tuple(value) if isinstance(value, list) else value for name, value in self.options.items()}
        object.__setattr__(self, "options", options)
        if tuple(sorted(set(self.layers))) != self.layers or (self.layers and self.layers[0] < 0):
            raise ValueError(f"layers must ascend from 0 without repeats, not {self.layers}")
        if self.norms not in ("none", "adapted", "all"):
            raise ValueError(f"norms must be none, adapted or all, not {self.norms!r}")
        if self.size < 0 or self.vocab_size < 1:
            raise ValueError(f"size must be 0 or more and vocab_size 1 or more, not {self.size} and {self.vocab_size}")

    def norm_layers(self, layer_count: int) -> tuple[int, ...]:
        """The layers whose two layer norms the adapter replaces, of a backbone with ``layer_count`` layers."""
        if self.norms == "all":
            return tuple(range(layer_count))
        return self.layers if self.norms == "adapted" else ()

    def lowest_layer(self, layer_count: int) -> int:
        """The lowest layer that the adapter changes; all below is trunk. ``layer_count`` for a head alone."""
        return min((*self.layers, *self.norm_layers(layer_count)), default=layer_count)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "layers": list(self.layers), "options": dict(self.options)}


def top_layers(layer_count: int, adapted: int) -> tuple[int, ...]:
    """The indices of the top ``adapted`` of ``layer_count`` layers (the paper's ablation adapts from the top)."""
    if not 0 <= adapted <= layer_count:
        raise ValueError(f"cannot adapt {adapted} of {layer_count} layers")
    return tuple(range(layer_count - adapted, layer_count))
