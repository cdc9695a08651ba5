"""MMS's adapters as transformers keeps them beside a backbone: ``adapter.LANG.safetensors``, nested ``vocab.json``.

A file holds ``wav2vec2.encoder.layers.I.adapter_layer.{norm,linear_1,linear_2}.{weight,bias}`` of every layer and
``lm_head.{weight,bias}``; ``vocab.json`` is ``{LANG: {token: id}}`` (transformers, ``Wav2Vec2ForCTC.load_adapter``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch, DataError
from adapters.formats import Imported
from adapters.language import language_tag
from adapters.vocab import Vocab

FILE = re.compile(r"adapter\.(?P<language>[A-Za-z0-9_.-]+)\.safetensors")
_INSIDE = re.compile(r"(?:\w+\.)?encoder\.layers\.(\d+)\.adapter_layer\.((?:norm|linear_1|linear_2)\.(?:weight|bias))")
_SCRIPTS = {
    "arabic": "Arab", "bengali": "Beng", "burmese": "Mymr", "cyrillic": "Cyrl", "devanagari": "Deva",
    "gujarati": "Gujr", "gurmukhi": "Guru", "hebrew": "Hebr", "kannada": "Knda", "khmer": "Khmr", "lao": "Laoo",
    "latin": "Latn", "malayalam": "Mlym", "odia": "Orya", "simplified": "Hans", "syllabics": "Cans", "tamil": "Taml",
    "telugu": "Telu", "thai": "Thai", "tibetan": "Tibt", "traditional": "Hant",
}  # fmt: skip
_HEAD = {"lm_head.weight": "head.weight", "lm_head.bias": "head.bias"}


def mms_language(code: str) -> str | None:
    """The tag of what MMS calls a language: ``de`` for ``deu``, ``uz-Cyrl`` for ``uzb-script_cyrillic``; of a dialect
    (``quc-dialect_east``) that of its language; None where the code is of none."""
    base, _, rest = code.partition("-")
    kind, _, which = rest.partition("_")
    script = _SCRIPTS.get(which) if kind == "script" else None
    return language_tag(f"{base}-{script}" if script else base)


def mms_config(width: int, vocab_size: int, size: BackboneSize) -> AdapterConfig:
    """Of an adapter ``width`` wide (``adapter_attn_dim`` of the backbone's configuration) over every layer."""
    return AdapterConfig("mms", width, tuple(range(size.layers)), "none", vocab_size)


def read_mms(name: str, tensors: Mapping[str, Tensor], tokens: Mapping[str, int], size: BackboneSize) -> Imported:
    """The tensors of a file and its language's part of ``vocab.json``, for a backbone of this size.

    Raises :class:`~adapters.errors.AdapterFormatError` for tensors that no such file has or a vocabulary that is none,
    :class:`~adapters.errors.AdapterMismatch` for those of another backbone.
    """
    vocab = mms_vocab(name, tokens)
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        inside = _INSIDE.fullmatch(key)
        if inside is None and key not in _HEAD:
            raise AdapterFormatError(name, f"{key!r} has no place in an adapter of MMS")
        found[f"layers.{inside[1]}.layer.{inside[2]}" if inside else _HEAD[key]] = tensor
    narrow = found.get("layers.0.layer.linear_1.weight")
    if narrow is None or narrow.ndim != 2:
        raise AdapterFormatError(name, "no adapter_layer.linear_1.weight of layer 0, which an adapter of MMS has")
    above = max(int(key.split(".")[1]) for key in found if key.startswith("layers."))
    if above >= size.layers:
        raise AdapterMismatch(name, f"it has an adapter for layer {above}, and the backbone has {size.layers} layers")
    return Imported(mms_config(narrow.shape[0], vocab.size, size), found, vocab)


def mms_vocab(name: str, tokens: Mapping[str, int]) -> Vocab:
    """One language's part of ``vocab.json``. Raises :class:`~adapters.errors.AdapterFormatError`."""
    try:
        return Vocab.from_ids(tokens)
    except DataError as error:
        raise AdapterFormatError(name, f"its part of vocab.json: {error}") from error
