"""MMS's adapters as transformers keeps them beside a backbone: ``adapter.LANG.safetensors``, nested ``vocab.json``.

A file holds ``wav2vec2.encoder.layers.I.adapter_layer.{norm,linear_1,linear_2}.{weight,bias}`` of every layer and
``lm_head.{weight,bias}``; ``vocab.json`` is ``{LANG: {token: id}}`` (transformers, ``Wav2Vec2ForCTC.load_adapter``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
from torch import Tensor

from adapters.config import AdapterConfig, BackboneSize
from adapters.durable import write_whole
from adapters.errors import AdapterFormatError, AdapterMismatch, DataError
from adapters.formats import Imported
from adapters.formats.files import read_json
from adapters.language import language_tag
from adapters.vocab import Vocab

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig
    from adapters.loaded import LoadedAdapter

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


def write_mms(loaded: LoadedAdapter, folder: Path, code: str, backbone: BackboneConfig) -> tuple[Path, ...]:
    """Write ``loaded`` as the language ``code`` of a model in ``folder``, beside whose other files transformers'
    ``load_adapter`` finds it: ``adapter.CODE.safetensors``, and its part of ``vocab.json``; returns them.

    Raises :class:`~adapters.errors.AdapterFormatError` for what MMS's files have no place for.
    """
    name, config = loaded.record.name, loaded.record.config
    if config.method != "mms":
        right = "; tongues adapters export --to peft writes it" if config.method in ("lora", "head") else ""
        raise AdapterFormatError(name, f"MMS's files hold MMS's adapters, and this is of {config.method!r}{right}")
    if config.norms != "none":
        raise AdapterFormatError(name, "it brings layer norms of its own, which MMS's files have no place for")
    if config.layers != tuple(range(backbone.num_hidden_layers)):
        said = f"{len(config.layers)} of {backbone.num_hidden_layers} layers are adapted"
        raise AdapterFormatError(name, f"{said}, and MMS's files hold an adapter for every layer")
    if not backbone.do_stable_layer_norm:
        right = "transformers has MMS's adapters in pre-norm layers alone (do_stable_layer_norm)"
        raise AdapterFormatError(name, f"its backbone has post-norm layers, and {right}")
    if not (path := FILE.fullmatch(f"adapter.{code}.safetensors")):
        raise AdapterFormatError(name, f"{code!r} is no code of a language as MMS's files are named by, such as 'deu'")
    told = folder / "vocab.json"
    spoken = read_json(name, told) if told.exists() else {}
    if not all(isinstance(part, dict) for part in spoken.values()):
        raise AdapterFormatError(
            name, f"{told} is of one language, not nested by language as MMS's is; choose another folder"
        )
    theirs = {ours: theirs for theirs, ours in _HEAD.items()}
    prefix = f"{backbone.model_type}.encoder."
    tensors = {theirs.get(key) or _their_name(prefix, key): tensor for key, tensor in loaded.tensors.items()}
    spoken[code] = json.loads(loaded.vocab.to_json())
    contents = {
        path[0]: safetensors.torch.save({key: tensors[key].contiguous() for key in sorted(tensors)}, {"format": "pt"}),
        told.name: (json.dumps(spoken, ensure_ascii=False, indent=2) + "\n").encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        write_whole(folder / file, content)
    return tuple(folder / file for file in contents)


def _their_name(prefix: str, ours: str) -> str:
    """Of a tensor in a layer: ``layers.3.layer.linear_1.weight``."""
    layers, layer, _, rest = ours.split(".", 3)
    return f"{prefix}{layers}.{layer}.adapter_layer.{rest}"
