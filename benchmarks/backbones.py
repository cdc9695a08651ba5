"""Model folders to measure with: a backbone, and as many adapters with random weights as are asked for.

Speed does not depend on values, so wav2vec 2.0 Base and XLS-R come from transformers' configurations, not from the net.
All are pre-norm, which ``load_adapter`` needs; it changes the order of operations, not their number.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adapters.adapter import Adapter
from adapters.architectures import ARCHITECTURES
from adapters.backbone import fingerprint, read_config
from adapters.config import AdapterConfig, top_layers
from adapters.encoder import size_of
from adapters.record import AdapterRecord
from adapters.store import AdapterStore
from adapters.vocab import Vocab

VOCAB = Vocab(("<pad>", "|", *"abcdefghijklmnopqrstuvwxyzàèéëïñ'"[:30]))

SHIPPED = "shipped"
_DISTINCT = 8
SIZES = {"wav2vec2-base": "wav2vec2-base", "xls-r-300m": "wav2vec2-xls-r-300m"}
"""Name here -> name in :data:`adapters.architectures.ARCHITECTURES`."""


@dataclass(frozen=True)
class AdapterSize:
    """Bottlenecks of ``bottleneck`` in the top ``layers`` layers, None for all, with the norms of those layers."""

    bottleneck: int
    layers: int | None = None

    def config(self, layer_count: int) -> AdapterConfig:
        layers = top_layers(layer_count, layer_count if self.layers is None else min(self.layers, layer_count))
        return AdapterConfig("bottleneck", self.bottleneck, layers, "adapted", VOCAB.size)


def make_model(folder: Path, backbone: str, shipped: Path, size: AdapterSize, adapters: int) -> Path:
    """``folder``/backbone and ``folder``/adapters with ``adapters`` adapters.

    ``backbone``: ``shipped``, whose model folder is ``shipped``, or one of :data:`SIZES`.
    """
    if backbone == SHIPPED:
        shutil.copytree(shipped / "backbone", folder / "backbone")
    else:
        _make_random(folder / "backbone", SIZES[backbone])
    publish_random(folder, size, adapters)
    return folder


def publish_random(folder: Path, size: AdapterSize, adapters: int) -> None:
    """Publish ``adapters`` adapters into a model folder that has a backbone: float16, as trained ones are stored.

    Eight have weights of their own and others those of one of them: in memory each is a copy of its own all the same.
    """
    config = read_config(folder / "backbone")
    shape = size.config(config.num_hidden_layers)
    store, known_by = AdapterStore(folder / "adapters"), fingerprint(folder / "backbone")
    published = [
        store.publish(
            adapter_name(number),
            random_tensors(shape, config, seed=number),
            VOCAB,
            language="en",
            config=shape,
            size=size_of(config),
            fingerprint=known_by,
        )
        for number in range(min(adapters, _DISTINCT))
    ]
    for number in range(_DISTINCT, adapters):
        _publish_again(store, published[number % _DISTINCT], adapter_name(number))


def _publish_again(store: AdapterStore, record: AdapterRecord, name: str) -> None:
    """The same weights under another name: nobody who loads them can tell, and they need no room on disk."""
    folder = store.folder / name
    folder.mkdir()
    for file in (record.weights.name, record.vocab.name):
        os.link(store.folder / record.name / file, folder / file)
    (folder / "adapter.json").write_text(replace(record, name=name).to_json())


def random_tensors(shape: AdapterConfig, config: Any, *, seed: int) -> dict[str, torch.Tensor]:
    """An adapter away from where training starts."""
    torch.manual_seed(seed)
    adapter = Adapter(shape, size_of(config))
    tensors = {name: tensor.detach() for name, tensor in adapter.tensors().items()}
    return {name: (tensor + torch.randn_like(tensor) * 0.02).half() for name, tensor in tensors.items()}


def adapter_name(number: int) -> str:
    """The name of the adapter ``number``; names sort as numbers do."""
    return f"bench-{number:04d}"


def _make_random(folder: Path, architecture: str) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2Model
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    changes = {"do_stable_layer_norm": True, "pad_token_id": VOCAB.blank}
    config = Wav2Vec2Config.from_dict({**ARCHITECTURES[architecture].to_dict(), **changes})
    Wav2Vec2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
