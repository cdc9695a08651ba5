"""Small adapters for the tests of the store and the registry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.record import AdapterRecord, StoredFile
from adapters.shapes import expected_shapes
from adapters.store import AdapterStore
from adapters.vocab import Vocab

FINGERPRINT = "f" * 64
SIZE = BackboneSize(hidden=16, layers=4, feed_forward=32)
VOCAB = Vocab.from_texts(["grüße aus bonn"])
CONFIG = AdapterConfig("bottleneck", 4, (2, 3), "adapted", VOCAB.size)


def tensors(seed: int = 0, config: AdapterConfig = CONFIG, size: BackboneSize = SIZE) -> dict[str, torch.Tensor]:
    """Random weights for ``config``, in half precision as they are stored."""
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(config, size)
    return {key: torch.randn(shape, generator=generator).half() for key, shape in shapes.items()}


def publish(store: AdapterStore, name: str = "de", seed: int = 0, **changed: Any) -> AdapterRecord:
    """Publish a valid adapter, but for what is ``changed``."""
    given = {"tensors": tensors(seed), "vocab": VOCAB, "language": "de", "config": CONFIG, "fingerprint": FINGERPRINT}
    given["size"] = SIZE
    return store.publish(name, **{**given, **changed})


def files(store: AdapterStore, name: str = "de") -> set[str]:
    """What lies in an adapter's folder."""
    return {path.name for path in (store.folder / name).iterdir()}


def place(
    store: AdapterStore, record: AdapterRecord, weights: bytes | None = None, vocab: bytes | None = None
) -> AdapterRecord:
    """Put files on disk as a careless or hostile writer would: the record names what is there, unchecked."""
    if weights is not None:
        record = replace(record, weights=StoredFile.of("weights", "safetensors", weights))
        (store.folder / record.name / record.weights.name).write_bytes(weights)
    if vocab is not None:
        record = replace(record, vocab=StoredFile.of("vocab", "json", vocab))
        (store.folder / record.name / record.vocab.name).write_bytes(vocab)
    (store.folder / record.name / "adapter.json").write_text(record.to_json())
    return store.record(record.name)


def _without_head() -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors().items() if key != "head.weight"}


def _with_nan(value: float) -> dict[str, torch.Tensor]:
    given = tensors()
    next(iter(given.values())).view(-1)[0] = value
    return given


#: what no adapter may be: the change, the error, and what it says
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"tensors": _without_head()}, AdapterMismatch, "'head.weight' is missing"),
    ({"tensors": {**tensors(), "evil": torch.zeros(1)}}, AdapterMismatch, "'evil' has no place"),
    ({"tensors": {**tensors(), "head.weight": torch.zeros(3, 3).half()}}, AdapterMismatch, "head.weight is of shape"),
    ({"tensors": {**tensors(), "head.weight": tensors()["head.weight"].float()}}, AdapterMismatch, "float32"),
    ({"tensors": {key: value.to(torch.int8) for key, value in tensors().items()}}, AdapterMismatch, "int8"),
    ({"tensors": _with_nan(float("nan"))}, AdapterFormatError, "NaN"),
    ({"tensors": _with_nan(float("inf"))}, AdapterFormatError, "infinity"),
    ({"tensors": {}}, AdapterMismatch, "none"),
    ({"vocab": Vocab.from_texts(["ab"])}, AdapterMismatch, "tokens in the vocabulary"),
    ({"size": replace(SIZE, hidden=32)}, AdapterMismatch, "is of shape"),
    ({"config": replace(CONFIG, layers=(1, 3))}, AdapterMismatch, "is missing|has no place"),
    ({"config": replace(CONFIG, method="telepathy")}, AdapterMismatch, "fits the backbone"),
    ({"config": replace(CONFIG, size=0)}, AdapterMismatch, "of size 0 adapts nothing"),
    ({"language": "Elvish"}, AdapterFormatError, "tag of a language"),
    ({"training": {"x": object()}}, AdapterFormatError, "JSON"),
    ({"training": {"x": float("nan")}}, AdapterFormatError, "JSON"),
    ({"training": {"x": "y" * 2_000_000}}, AdapterFormatError, "record of"),
    ({"metrics": {"test": {"wer": -0.1}}}, AdapterFormatError, "metrics"),
]
