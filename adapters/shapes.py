"""Which tensors an adapter has on a backbone, by name and shape: what store, bank and training agree on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from adapters.config import AdapterConfig
from adapters.methods import METHODS

Place = Literal["attention", "feed_forward", "q_proj", "v_proj"]
Norm = Literal["layer_norm", "final_layer_norm"]
NORMS: tuple[Norm, ...] = ("layer_norm", "final_layer_norm")


def method_shapes(config: AdapterConfig, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """The tensors that the method puts into the layers: ``layers.{i}.{place}.{tensor}`` -> shape."""
    method = METHODS[config.method]
    return {
        f"layers.{layer}.{place}.{name}": shape
        for layer in config.layers
        for place in method.PLACES
        for name, shape in method.shapes(config, hidden_size).items()
    }


def tensors_at(names: Iterable[str], layer: int, place: Place) -> dict[str, str]:
    """Those of ``names`` that belong to one place, by what the method calls them."""
    prefix = f"layers.{layer}.{place}."
    return {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}


def norm_shapes(config: AdapterConfig, hidden_size: int, layer_count: int) -> dict[str, tuple[int, ...]]:
    """The trained copies of the backbone's layer norms: ``layers.{i}.{norm}.{weight|bias}`` -> shape."""
    return {
        f"layers.{layer}.{norm}.{part}": (hidden_size,)
        for layer in config.norm_layers(layer_count)
        for norm in NORMS
        for part in ("weight", "bias")
    }


def head_shapes(config: AdapterConfig, hidden_size: int) -> dict[str, tuple[int, ...]]:
    """The CTC head."""
    return {"head.weight": (config.vocab_size, hidden_size), "head.bias": (config.vocab_size,)}


def expected_shapes(config: AdapterConfig, hidden_size: int, layer_count: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of an adapter on a backbone of ``layer_count`` layers of ``hidden_size``, as on disk.

    Raises ``ValueError`` for a method that nobody knows, an option that it does not have, or layers that the backbone
    does not have.
    """
    if config.method not in METHODS:
        raise ValueError(f"unknown method {config.method!r}; there are {', '.join(sorted(METHODS))}")
    if unknown := config.options.keys() - set(METHODS[config.method].OPTIONS):
        raise ValueError(f"the method {config.method!r} has no option {min(unknown)!r}")
    if config.layers and config.layers[-1] >= layer_count:
        raise ValueError(f"layer {config.layers[-1]} is adapted, but the backbone has layers 0 to {layer_count - 1}")
    return {
        **method_shapes(config, hidden_size),
        **norm_shapes(config, hidden_size, layer_count),
        **head_shapes(config, hidden_size),
    }


def parameter_count(config: AdapterConfig, hidden_size: int, layer_count: int) -> int:
    """Trained parameters of an adapter: method, norms and head."""
    shapes = expected_shapes(config, hidden_size, layer_count).values()
    return sum(math.prod(shape) for shape in shapes)
