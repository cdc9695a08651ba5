"""Which tensors an adapter has on a backbone, by name and shape: what store, bank and training agree on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, cast

from adapters.config import AdapterConfig, BackboneSize, Place
from adapters.methods import METHODS

Norm = Literal["layer_norm", "final_layer_norm"]
NORMS: tuple[Norm, ...] = ("layer_norm", "final_layer_norm")


def method_shapes(config: AdapterConfig, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """The tensors that the method puts into the layers: ``layers.{i}.{place}.{tensor}`` -> shape."""
    method = METHODS[config.method]
    return {
        f"layers.{layer}.{place}.{name}": shape
        for layer in config.layers
        for place in method.places(config)
        for name, shape in method.shapes(config, place, size).items()
    }


Sites = Mapping[tuple[int, Place], Mapping[str, str]]
"""For each place of each layer where a method acts: what it calls its tensors -> their names."""


def sites(names: Iterable[str]) -> Sites:
    """Of the tensors of a method, by their names."""
    found: dict[tuple[int, Place], dict[str, str]] = {}
    for name in names:
        layers, layer, place, short = name.split(".", 3)
        assert layers == "layers", f"{name} is no tensor of a method"
        found.setdefault((int(layer), cast(Place, place)), {})[short] = name
    return found


def norm_shapes(config: AdapterConfig, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """The trained copies of the backbone's layer norms: ``layers.{i}.{norm}.{weight|bias}`` -> shape."""
    return {
        f"layers.{layer}.{norm}.{part}": (size.hidden,)
        for layer in config.norm_layers(size.layers)
        for norm in NORMS
        for part in ("weight", "bias")
    }


def head_shapes(config: AdapterConfig, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """The CTC head."""
    return {"head.weight": (config.vocab_size, size.hidden), "head.bias": (config.vocab_size,)}


def expected_shapes(config: AdapterConfig, size: BackboneSize) -> dict[str, tuple[int, ...]]:
    """Every tensor of an adapter on a backbone of this size, as on disk.

    Raises ``ValueError`` for a method that nobody knows, an option that it does not have, or layers that the backbone
    does not have.
    """
    if config.method not in METHODS:
        raise ValueError(f"unknown method {config.method!r}; there are {', '.join(sorted(METHODS))}")
    if unknown := config.options.keys() - set(METHODS[config.method].OPTIONS):
        raise ValueError(f"the method {config.method!r} has no option {min(unknown)!r}")
    if config.layers and config.layers[-1] >= size.layers:
        raise ValueError(f"layer {config.layers[-1]} is adapted, but the backbone has layers 0 to {size.layers - 1}")
    inside = method_shapes(config, size)
    if inside and config.size < 1:
        raise ValueError(f"the method {config.method!r} of size {config.size} adapts nothing: 1 is the least")
    return {
        **inside,
        **norm_shapes(config, size),
        **head_shapes(config, size),
    }


def parameter_count(config: AdapterConfig, size: BackboneSize) -> int:
    """Trained parameters of an adapter: method, norms and head."""
    shapes = expected_shapes(config, size).values()
    return sum(math.prod(shape) for shape in shapes)
