"""Whether the tensors of an adapter are those that its configuration says, on a backbone of a given size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.record import DTYPES, AdapterRecord
from adapters.shapes import expected_shapes
from adapters.vocab import Vocab

_MAX_HEADER_BYTES = 1 << 20
_MAX_VOCAB_BYTES = 1 << 24
_MAX_LANGUAGE_MODEL_BYTES = 1 << 30


def check_bytes(record: AdapterRecord, size: BackboneSize) -> None:
    """Raises :class:`AdapterMismatch` where the record alone tells that its files hold more than such an adapter has,
    before anybody fetches them."""
    try:
        numbers = sum(math.prod(shape) for shape in expected_shapes(record.config, size).values())
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterMismatch(record.name, f"no adapter of this config fits the backbone: {error}") from error
    most = {
        "weights": 4 * numbers + _MAX_HEADER_BYTES,
        "vocab": _MAX_VOCAB_BYTES,
        "language_model": _MAX_LANGUAGE_MODEL_BYTES,
    }
    for what, stored in record.files.items():
        if stored.size_bytes > most[what]:
            raise AdapterMismatch(record.name, f"{what} of {stored.size_bytes} bytes, and {most[what]} is the most")


def check_tensors(
    name: str,
    config: AdapterConfig,
    dtype: str,
    tensors: Mapping[str, torch.Tensor],
    vocab: Vocab,
    size: BackboneSize,
) -> None:
    """Raises :class:`AdapterMismatch` for names, shapes or types that do not fit, and :class:`AdapterFormatError` for
    numbers that are none."""
    if vocab.size != config.vocab_size:
        raise AdapterMismatch(name, f"{vocab.size} tokens in the vocabulary, {config.vocab_size} in the config")
    if dtype not in DTYPES:
        raise AdapterMismatch(name, f"tensors are of one of {', '.join(DTYPES)}, not {dtype or 'none'}")
    check_shapes(name, config, tensors, size)
    for key, tensor in tensors.items():
        if str(tensor.dtype) != f"torch.{dtype}":
            raise AdapterMismatch(name, f"{key} is of {str(tensor.dtype).removeprefix('torch.')}, not {dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterFormatError(name, f"{key} holds NaN or infinity")


def check_shapes(name: str, config: AdapterConfig, tensors: Mapping[str, torch.Tensor], size: BackboneSize) -> None:
    """Raises :class:`AdapterMismatch` for names or shapes that do not fit. Reads no numbers: tensors may be
    those of a file's header alone."""
    try:
        expected = expected_shapes(config, size)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterMismatch(name, f"no adapter of this config fits the backbone: {error}") from error
    for key in sorted(expected.keys() ^ tensors.keys()):
        raise AdapterMismatch(name, f"the tensor {key!r} {'is missing' if key in expected else 'has no place'}")
    for key, shape in expected.items():
        if tuple(tensors[key].shape) != tuple(shape):
            raise AdapterMismatch(name, f"{key} is of shape {tuple(tensors[key].shape)}, not {tuple(shape)}")
