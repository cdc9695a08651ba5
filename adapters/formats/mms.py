"""MMS's adapters as transformers keeps them beside a backbone: ``adapter.LANG.safetensors``, nested ``vocab.json``.

A file holds ``wav2vec2.encoder.layers.I.adapter_layer.{norm,linear_1,linear_2}.{weight,bias}`` of every layer and
``lm_head.{weight,bias}``; ``vocab.json`` is ``{LANG: {token: id}}`` (transformers, ``Wav2Vec2ForCTC.load_adapter``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
from langcodes import Language
from torch import Tensor

from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterFormatError, AdapterMismatch, DataError
from adapters.formats import Imported
from adapters.formats.files import read_json
from adapters.formats.tokenizer import Tokenizer, unused
from adapters.formats.vocabulary import fitted, vocab_of
from adapters.formats.written import write_files, writing_into
from adapters.language import is_macrolanguage, language_key, language_tag
from adapters.vocab import BLANK, Vocab

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig
    from adapters.loaded import LoadedAdapter

FILE = re.compile(r"adapter\.(?P<language>[A-Za-z0-9_.-]+)\.safetensors")
_INSIDE = re.compile(
    r"(?:\w+\.)?encoder\.layers\.(\d{1,4})\.adapter_layer\.((?:norm|linear_1|linear_2)\.(?:weight|bias))"
)
_SCRIPTS = {
    "arabic": "Arab", "bengali": "Beng", "burmese": "Mymr", "cyrillic": "Cyrl", "devanagari": "Deva",
    "gujarati": "Gujr", "gurmukhi": "Guru", "hebrew": "Hebr", "kannada": "Knda", "khmer": "Khmr", "lao": "Laoo",
    "latin": "Latn", "malayalam": "Mlym", "odia": "Orya", "simplified": "Hans", "syllabics": "Cans", "tamil": "Taml",
    "telugu": "Telu", "thai": "Thai", "tibetan": "Tibt", "traditional": "Hant",
}  # fmt: skip
_CODE = re.compile(r"[a-z]{3}(-\w+)?")
VOCAB = "vocab.json"
_HEAD = {"lm_head.weight": "head.weight", "lm_head.bias": "head.bias"}


def mms_language(code: str) -> str | None:
    """The tag of what MMS calls a language: ``de`` for ``deu``, ``uz-Cyrl`` for ``uzb-script_cyrillic``; of a dialect
    (``quc-dialect_east``) that of its language; None where the code is of none."""
    base, _, rest = code.partition("-")
    kind, _, which = rest.partition("_")
    script = _SCRIPTS.get(which) if kind == "script" else None
    return language_tag(f"{base}-{script}" if script else base)


def mms_code(name: str, language: str) -> str:
    """What MMS calls the language of the adapter ``name``: its very name, where that is a code of its language, or else
    the ISO 639-3 code.

    Raises :class:`~adapters.errors.AdapterFormatError` where several codes could be meant: of a language in a script,
    and of one that is a macrolanguage.
    """
    code = mms_language(name) if _CODE.fullmatch(name) else None
    if code is not None and language_key(code) == language_key(language):
        return name
    key = language_key(language) or language
    if "-" in key or is_macrolanguage(key):
        right = "say which with --code, such as uzb-script_cyrillic or cmn-script_simplified"
        raise AdapterFormatError(name, f"MMS has several codes for what {language!r} may be: {right}")
    try:
        return Language.get(key).to_alpha3()
    except LookupError:
        raise AdapterFormatError(name, f"{language!r} has no ISO 639-3 code: say one with --code") from None


def mms_config(width: int, vocab_size: int, size: BackboneSize) -> AdapterConfig:
    """Of an adapter ``width`` wide (``adapter_attn_dim`` of the backbone's configuration) over every layer."""
    return AdapterConfig("mms", width, tuple(range(size.layers)), "none", vocab_size)


def read_mms(
    name: str,
    tensors: Mapping[str, Tensor],
    tokens: Mapping[str, int],
    size: BackboneSize,
    tokenizer: Tokenizer | None = None,
) -> Imported:
    """The tensors of a file and its language's part of ``vocab.json``, for a backbone of this size. ``tokenizer``: how
    texts are made of them, where it is not as transformers' begins, and the tokens that it adds.

    Raises :class:`~adapters.errors.AdapterFormatError` for tensors that no such file has or a vocabulary that is none,
    :class:`~adapters.errors.AdapterMismatch` for those of another backbone.
    """
    vocab = mms_vocab(name, tokens, tokenizer, head_rows(tensors))
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
    if narrow.shape[0] > size.hidden:
        raise AdapterMismatch(name, f"it is {narrow.shape[0]} wide, wider than the backbone's {size.hidden}")
    return Imported(mms_config(narrow.shape[0], vocab.size, size), found, vocab)


def head_rows(tensors: Mapping[str, Tensor]) -> int | None:
    """How many tokens the head among the tensors of a file says."""
    head = tensors.get("lm_head.weight")
    return head.shape[0] if head is not None and head.ndim == 2 else None


def mms_vocab(name: str, tokens: Mapping[str, int], tokenizer: Tokenizer | None, rows: int | None) -> Vocab:
    """One language's part of ``vocab.json`` and what the tokenizer adds, for a head of so many ``rows``, or, where they
    are not known, of one for each token. Raises :class:`~adapters.errors.AdapterFormatError`."""
    told, source = tokenizer or Tokenizer(), "its part of vocab.json"
    return vocab_of(name, fitted(name, tokens, told, rows, source), told, source, rows)


def write_mms(
    loaded: LoadedAdapter, folder: Path, code: str, backbone: BackboneConfig, *, force: bool = False
) -> tuple[Path, ...]:
    """Write ``loaded`` as the language ``code`` of a model in ``folder``, beside whose other files transformers'
    ``load_adapter`` finds it: its part of ``vocab.json``, and ``adapter.CODE.safetensors``; returns them. ``force``:
    replace the language where it is there already.

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
    if not (weights := FILE.fullmatch(f"adapter.{code}.safetensors")):
        raise AdapterFormatError(name, f"{code!r} is no code of a language as MMS's files are named by, such as 'deu'")
    width = expected_width(name, folder, backbone)
    if width is not None and width != config.size:
        right = f"load_adapter takes it where that is {config.size}"
        raise AdapterFormatError(name, f"it is {config.size} wide, and adapter_attn_dim is {width}: {right}")
    with writing_into(folder):
        spoken = _spoken(name, folder / VOCAB)
        mine = _named_as_there(name, loaded.vocab, folder)
        alone = not (folder / weights[0]).exists()
        if alone and spoken.get(code, mine) != mine and not force:
            right = "choose another folder or --code, or replace them with --force"
            raise AdapterFormatError(name, f"{folder / VOCAB} has other tokens for {code!r} already: {right}")
        spoken[code] = mine
        theirs = {ours: theirs for theirs, ours in _HEAD.items()}
        prefix = f"{backbone.model_type}.encoder."
        tensors = {theirs.get(key) or _their_name(prefix, key): tensor for key, tensor in loaded.tensors.items()}
        in_order = {key: tensors[key].contiguous() for key in sorted(tensors)}
        contents = {
            VOCAB: (json.dumps(spoken, ensure_ascii=False, indent=2) + "\n").encode(),
            weights[0]: safetensors.torch.save(in_order, {"format": "pt"}),
        }
        return write_files(name, folder, contents, force=force, shared=(VOCAB,))


def expected_width(name: str, folder: Path, backbone: BackboneConfig) -> int | None:
    """``adapter_attn_dim`` of the model that is to load what lies in ``folder``: the one there, or else the backbone;
    None where it has no place for adapters."""
    config = folder / "config.json"
    width = read_json(name, config).get("adapter_attn_dim") if config.exists() else backbone_width(backbone)
    return width if isinstance(width, int) else None


def backbone_width(backbone: BackboneConfig) -> int | None:
    """``adapter_attn_dim`` of a backbone: how wide the adapters of MMS within its layers are; None without any."""
    width: int | None = getattr(backbone, "adapter_attn_dim", None)
    return width


def _spoken(name: str, path: Path) -> dict[str, Any]:
    spoken = read_json(name, path) if path.exists() else {}
    if not all(isinstance(part, dict) for part in spoken.values()):
        raise AdapterFormatError(
            name, f"{path} is of one language, not nested by language as MMS's is; choose another folder"
        )
    return spoken


def _named_as_there(name: str, vocab: Vocab, folder: Path) -> dict[str, int]:
    """``{token: id}`` with the blank under the name that the tokenizer in ``folder`` has for it."""
    tokenizer = Tokenizer.read(name, folder)
    blank = tokenizer.pad or BLANK
    tokens = [unused(i) if token == blank else token for i, token in enumerate(vocab.tokens)]
    tokens[vocab.blank] = blank
    try:
        there = Vocab(tokenizer.named(tokens))
        told = [(vocab.token_text(i), there.token_text(i)) for i in range(vocab.size)]
        said = next((f"what says {ours!r} here says {theirs!r} there" for ours, theirs in told if ours != theirs), None)
    except DataError as error:
        said = str(error)
    if said is not None:
        right = "choose another folder, or give its tokenizer this adapter's delimiter and case"
        raise AdapterFormatError(name, f"the tokenizer in {folder} makes other texts of its tokens: {said}; {right}")
    return {token: i for i, token in enumerate(tokens)}


def _their_name(prefix: str, ours: str) -> str:
    """Of a tensor in a layer: ``layers.3.layer.linear_1.weight``."""
    layers, layer, _, rest = ours.split(".", 3)
    return f"{prefix}{layers}.{layer}.adapter_layer.{rest}"
