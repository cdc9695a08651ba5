"""One adapter's weights as trainable parameters: what training wears, and the plain reference of the bank."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.config import AdapterConfig, BackboneSize, Place
from adapters.methods import METHODS
from adapters.shapes import NORMS, Norm, expected_shapes, method_shapes, sites


class Adapter(nn.Module):
    """One adapter, worn by every row. Implements :class:`~adapters.encoder.Worn`.

    ``norms`` start as copies of the backbone's, which :meth:`start_from` takes over.
    """

    def __init__(self, config: AdapterConfig, size: BackboneSize) -> None:
        """Raises ``ValueError`` where the configuration does not fit the backbone's sizes."""
        super().__init__()
        self._shapes = expected_shapes(config, size)
        self.config = config
        self.lowest_layer = config.lowest_layer(size.layers)
        self._method = METHODS[config.method]
        self._sites = sites(method_shapes(config, size))
        for name, shape in self._shapes.items():
            self.register_parameter(_attribute(name), nn.Parameter(torch.empty(shape)))
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                self._start(name, tensor)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor under its name on disk."""
        return {name: self._parameters[_attribute(name)] for name in self._shapes}  # type: ignore[misc]

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values in, from names on disk. Raises ``KeyError`` for a missing tensor."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(tensors[name])

    def start_from(self, layers: nn.ModuleList) -> None:
        """Copy the layer norms of the backbone's ``layers``: where training them starts."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                _, *path = name.split(".")
                if len(path) == 3 and path[1] in NORMS:
                    tensor.copy_(getattr(getattr(layers[int(path[0])], path[1]), path[2]))

    def norm(self, layer: int, which: Norm, base: nn.LayerNorm, x: Tensor) -> Tensor:
        weight = self._parameters.get(_attribute(f"layers.{layer}.{which}.weight"))
        if weight is None:
            return base(x)  # type: ignore[no-any-return]
        bias = self._parameters[_attribute(f"layers.{layer}.{which}.bias")]
        return F.layer_norm(x, base.normalized_shape, weight, bias, base.eps)

    def adapt(self, layer: int, place: Place, y: Tensor, x: Tensor) -> Tensor:
        if (names := self._sites.get((layer, place))) is None:
            return y
        weights = {short: self._parameters[_attribute(name)] for short, name in names.items()}
        return self._method.one(y, x, weights)  # type: ignore[arg-type]

    def head(self, x: Tensor) -> Tensor:
        return F.linear(x, self._parameters["head__weight"], self._parameters["head__bias"])  # type: ignore[arg-type]

    def _start(self, name: str, tensor: Tensor) -> None:
        *place, last = name.split(".")
        if place[0] == "head":
            nn.init.normal_(tensor, std=0.02) if last == "weight" else tensor.zero_()
        elif place[-1] in NORMS:
            tensor.fill_(1.0 if last == "weight" else 0.0)
        else:
            self._method.start(".".join(name.split(".")[3:]), tensor)


def _attribute(name: str) -> str:
    """torch's parameter names hold no dots."""
    return name.replace(".", "__")
