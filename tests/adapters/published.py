"""Small adapters for the tests of the store and the registry."""

from __future__ import annotations

from typing import Any

import torch

from adapters.config import AdapterConfig
from adapters.record import AdapterRecord
from adapters.shapes import expected_shapes
from adapters.store import AdapterStore
from adapters.vocab import Vocab

FINGERPRINT = "f" * 64
HIDDEN_SIZE, LAYER_COUNT = 16, 4
SIZES = {"hidden_size": HIDDEN_SIZE, "layer_count": LAYER_COUNT}
VOCAB = Vocab.from_texts(["grüße aus bonn"])
CONFIG = AdapterConfig("bottleneck", 4, (2, 3), "adapted", VOCAB.size)


def tensors(seed: int = 0, config: AdapterConfig = CONFIG, layer_count: int = LAYER_COUNT) -> dict[str, torch.Tensor]:
    """Random weights for ``config``, in half precision as they are stored."""
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(config, HIDDEN_SIZE, layer_count)
    return {key: torch.randn(shape, generator=generator).half() for key, shape in shapes.items()}


def publish(store: AdapterStore, name: str = "de", seed: int = 0, **changed: Any) -> AdapterRecord:
    """Publish a valid adapter, but for what is ``changed``."""
    given = {"tensors": tensors(seed), "vocab": VOCAB, "language": "de", "config": CONFIG, "fingerprint": FINGERPRINT}
    return store.publish(name, **{**given, **SIZES, **changed})
