"""What a run made, published; a second time only where its record would say something else, and never in the place of
another language's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.config import AdapterConfig, BackboneSize
from adapters.durable import naming
from adapters.errors import DataError, TonguesError
from adapters.language import language_key, language_tag
from adapters.store import AdapterStore
from adapters.training.licence import licences_in
from adapters.vocab import Vocab


def check_replaces(store: AdapterStore, name: str, language: str) -> None:
    """Raises :class:`~adapters.errors.DataError` where ``name`` is an adapter of another language."""
    try:
        there = store.record(name).language
    except TonguesError:  # there is none, or it is of no use
        return
    if language_key(there) != language_key(language):
        raise DataError(
            f"{store} has an adapter {name!r} already, of the language {there!r}: one of {language!r} would replace "
            "it; take another --name"
        )


def publish_once(
    store: AdapterStore,
    name: str,
    tensors: dict[str, Tensor],
    vocab: Vocab,
    *,
    language: str,
    config: AdapterConfig,
    size: BackboneSize,
    fingerprint: str,
    default: bool,
    metrics: dict[str, dict[str, float]],
    training: Mapping[str, Any],
    licence: str | None,
    synthetic: bool,
) -> None:
    """:meth:`AdapterStore.publish`, unless what is published as ``name`` is this already, with what it was given since:
    a language model, say, and its licence. Raises what that raises."""
    said = {"fingerprint": fingerprint, "training": json.loads(json.dumps(training)), "synthetic": synthetic}
    try:
        record = store.record(name)
        licences = licences_in(licence or "") <= licences_in(record.licence or "") | {""}
        same = licences and language_tag(record.language) == language_tag(language)
        same = same and all(getattr(record, field) == value for field, value in said.items())
        if same and all(record.metrics.get(split) == rates for split, rates in metrics.items()):
            found = store.load(record, size=size)
            if found.vocab == vocab and all(torch.equal(found.tensors[key], tensors[key]) for key in tensors):
                return
    except TonguesError:  # there is none, or it is of no use
        pass
    with naming(Path(str(store))):
        store.publish(
            name,
            tensors,
            vocab,
            language=language,
            config=config,
            size=size,
            fingerprint=fingerprint,
            default=default,
            metrics=metrics,
            training=training,
            licence=licence,
            synthetic=synthetic,
        )
