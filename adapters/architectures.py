"""Sizes of well-known backbones, from transformers' configuration classes alone: no weights, no download."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from adapters.backbone import read_config
from adapters.encoder import BackboneConfig
from adapters.errors import BackboneError

_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
_BILLION = {**_LARGE, "hidden_size": 1280, "num_hidden_layers": 48, "intermediate_size": 5120}

ARCHITECTURES: dict[str, BackboneConfig] = {
    "wav2vec2-base": Wav2Vec2Config(),
    "wav2vec2-large": Wav2Vec2Config(**{**_LARGE, "feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}),
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


def backbone_parameters(config: BackboneConfig) -> int:
    """Parameters of the backbone without a head. Counted on the meta device: nothing is allocated."""
    model_class = HubertModel if isinstance(config, HubertConfig) else Wav2Vec2Model
    with torch.device("meta"):
        model = model_class(config)
    return sum(parameter.numel() for parameter in model.parameters())
