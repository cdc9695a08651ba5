"""What trains in one run: an adapter, and where the baseline is full fine-tuning, the backbone above the trunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from adapters.adapter import Adapter
from adapters.architectures import count_parameters
from adapters.backbone import load_backbone, load_model
from adapters.config import AdapterConfig, top_layers
from adapters.encoder import Encoder, Frames
from adapters.errors import DataError
from adapters.training.train_config import TrainConfig

_OWN = "backbone."


class Trainee(nn.Module):
    """An ``adapter`` on an ``encoder``, the parameters that train, and the ``layer`` up to which nothing does: -1 where
    the projection of the features and the positions train as well."""

    encoder: Encoder
    adapter: Adapter

    def __init__(self, backbone: Path, config: TrainConfig, vocab_size: int, device: str) -> None:
        """Raises :class:`~adapters.errors.BackboneError` for a folder without a backbone, and
        :class:`~adapters.errors.DataError` where it has fewer layers than are to be trained."""
        super().__init__()
        full = config.method == "full"
        self.encoder = Encoder(load_model(backbone)).eval() if full else load_backbone(backbone, serving=False)
        self.encoder.requires_grad_(False).to(device)
        count = self.encoder.layer_count
        chosen = _layers(config, count)
        worn = AdapterConfig(
            method="head" if full else config.method,
            size=config.size if config.method in ("bottleneck", "lora") else 0,
            layers=chosen if config.method in ("bottleneck", "lora") else (),
            norms="none" if full else config.norms,
            vocab_size=vocab_size,
        )
        torch.manual_seed(config.seed)
        self.adapter = Adapter(worn, self.encoder.size).to(device)
        self.adapter.start_from(self.encoder.model.encoder.layers)
        self._tuned = _tuned(self.encoder, len(chosen)) if full else {}
        for parameter in self._tuned.values():
            parameter.requires_grad_(True)
        self.layer = self.adapter.lowest_layer
        if full:
            self.layer = count - len(chosen) if len(chosen) < count else -1

    def forward(self, frames: Frames) -> Tensor:
        """From where the frozen layers ended: logits (B, T, V)."""
        return self.encoder.top(frames, self.adapter)

    @property
    def trained(self) -> list[nn.Parameter]:
        """All that train."""
        return [*self.adapter.parameters(), *self._tuned.values()]

    @property
    def counts(self) -> dict[str, float]:
        """``parameters`` that train, and the ``percent`` that they are of the whole model, adapter and all: what
        `tongues parameters` says."""
        counts = count_parameters(self.encoder.model.config, self.adapter.config)
        trained = counts.trainable + sum(parameter.numel() for parameter in self._tuned.values())
        return {"parameters": trained, "percent": round(100 * trained / counts.whole, 3)}

    def tensors(self) -> dict[str, Tensor]:
        """Everything that trains, by name: the adapter's as on disk, the backbone's behind a prefix."""
        return {**self.adapter.tensors(), **{f"{_OWN}{name}": tensor for name, tensor in self._tuned.items()}}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values in. Raises ``KeyError`` for a missing tensor."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(tensors[name])

    def train(self, mode: bool = True) -> Trainee:
        """Dropout, where the backbone's configuration has any and its own layers train."""
        self.training = mode
        if self._tuned:
            self.encoder.train(mode)
        return self


def _tuned(encoder: Encoder, layers: int) -> dict[str, nn.Parameter]:
    """Of the backbone: the top ``layers`` and what norms their output; where those are all, everything but the
    convolutions in front, which stay frozen as in wav2vec 2.0's own recipe."""
    every = dict(encoder.model.named_parameters())
    if layers == encoder.layer_count:
        apart = ("feature_extractor.", "masked_spec_embed")
        return {name: parameter for name, parameter in every.items() if not name.startswith(apart)}
    within = tuple(f"encoder.layers.{layer}." for layer in top_layers(encoder.layer_count, layers))
    if encoder.pre_norm:
        within += ("encoder.layer_norm.",)
    return {name: parameter for name, parameter in every.items() if name.startswith(within)}


def _layers(config: TrainConfig, count: int) -> tuple[int, ...]:
    usual = count if config.method == "full" else count // 2
    chosen = usual if config.layers is None else config.layers
    if chosen > count:
        raise DataError(f"{chosen} layers are to be adapted, and the backbone has {count}")
    if config.method == "full" and not chosen:
        raise DataError("full fine-tuning trains one layer at least; --method head trains none")
    return top_layers(count, chosen)
