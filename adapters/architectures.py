"""Sizes of well-known backbones, from transformers' configuration classes alone: no weights, no download."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import HubertConfig, Wav2Vec2Config

from adapters.backbone import read_config
from adapters.config import AdapterConfig
from adapters.encoder import size_of
from adapters.errors import BackboneError
from adapters.shapes import expected_shapes, head_shapes, method_shapes, norm_shapes

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig

_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
_BILLION: dict[str, Any] = {**_LARGE, "hidden_size": 1280, "num_hidden_layers": 48, "intermediate_size": 5120}

ARCHITECTURES: dict[str, BackboneConfig] = {
    "wav2vec2-base": Wav2Vec2Config(),
    "wav2vec2-large": Wav2Vec2Config(
        **{**_LARGE, "feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
    ),
    "wav2vec2-large-lv60": Wav2Vec2Config(**_LARGE),
    "wav2vec2-xls-r-300m": Wav2Vec2Config(**_LARGE),
    "wav2vec2-xls-r-1b": Wav2Vec2Config(**_BILLION),
    "mms-300m": Wav2Vec2Config(**_LARGE),
    "mms-1b": Wav2Vec2Config(**_BILLION),
    "hubert-base": HubertConfig(),
    "hubert-large": HubertConfig(**_LARGE),
}


def find_architecture(name: str) -> BackboneConfig:
    """The configuration of a folder or of a known architecture.

    Raises :class:`~adapters.errors.BackboneError` for a name that is neither, naming what there is.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if (Path(name) / "config.json").exists():
        return read_config(Path(name))
    raise BackboneError(
        f"{name!r} is neither a folder with a config.json nor a known architecture ({', '.join(ARCHITECTURES)})"
    )


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a backbone with one adapter. ``backbone`` has no head."""

    backbone: int
    adapters: int
    norms: int
    head: int

    @property
    def trainable(self) -> int:
        """What training touches: adapters, norms and head."""
        return self.adapters + self.norms + self.head

    @property
    def whole(self) -> int:
        """All, adapters and head included; trained norms stand in the place of the backbone's."""
        return self.backbone + self.adapters + self.head

    @property
    def percent(self) -> float:
        """Trained parameters of all: the paper's figure (its section 3)."""
        return 100 * self.trainable / self.whole

    def to_dict(self) -> dict[str, int | float]:
        """Plain JSON, ``percent`` to three digits."""
        return {**asdict(self), "trainable": self.trainable, "percent": round(self.percent, 3)}


def count_parameters(config: BackboneConfig, adapter: AdapterConfig) -> ParameterCounts:
    """Count without allocating anything. Raises ``ValueError`` for layers that the backbone does not have."""
    from transformers import HubertModel, Wav2Vec2Model

    config = copy(config)
    config.adapter_attn_dim = None  # adapters of MMS within its layers are a method here
    with torch.device("meta"):
        model = HubertModel(config) if isinstance(config, HubertConfig) else Wav2Vec2Model(config)
    size = size_of(config)
    expected_shapes(adapter, size)
    return ParameterCounts(
        backbone=sum(parameter.numel() for parameter in model.parameters()),
        adapters=_numel(method_shapes(adapter, size)),
        norms=_numel(norm_shapes(adapter, size)),
        head=_numel(head_shapes(adapter, size)),
    )


def _numel(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())
