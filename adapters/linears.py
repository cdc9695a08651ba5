"""The linears of a backbone, exchanged for others that do the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from adapters.encoder import Encoder


def replace_linears(modules: Iterable[nn.Module], make: Callable[[nn.Linear], nn.Module]) -> None:
    """Put what ``make`` makes of it in the place of every linear right within ``modules``. One after the other, each
    dropped before the next, so that memory never holds both backbones."""
    for module in modules:
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, make(child))


def sublayers(encoder: Encoder) -> list[nn.Module]:
    """Attention and feed forward of every layer."""
    layers: Any = encoder.model.encoder.layers
    return [part for layer in layers for part in (layer.attention, layer.feed_forward)]
