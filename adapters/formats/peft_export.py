"""Adapters of ours as PEFT loads them: the files that :mod:`adapters.formats.peft` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch

from adapters.errors import AdapterFormatError
from adapters.formats.mms import backbone_width
from adapters.formats.peft import CONFIG, HEAD, PREFIX, VOCAB, WEIGHTS
from adapters.formats.tokenizer import TOKENIZER
from adapters.formats.written import write_files, writing_into
from adapters.methods.lora import USUAL

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig
    from adapters.loaded import LoadedAdapter
    from adapters.vocab import Vocab


def write_peft(
    loaded: LoadedAdapter,
    folder: Path,
    backbone: BackboneConfig,
    *,
    base_model: str | None = None,
    revision: str | None = None,
    bare: bool = False,
    force: bool = False,
) -> tuple[Path, ...]:
    """Write ``loaded`` so that ``PeftModel.from_pretrained`` puts it into a ``Wav2Vec2ForCTC`` or ``HubertForCTC`` of
    that backbone, made with ``vocab_size`` tokens: the two files, and those of a ``Wav2Vec2CTCTokenizer``; returns
    them. A head alone brings a LoRA of rank 1 that is zero, since PEFT knows no adapter without one.

    ``base_model``: where the backbone lies (``base_model_name_or_path``), at which ``revision``. ``bare``: though the
    backbone has a place for adapters of MMS within its layers, since who loads it says ``adapter_attn_dim=None``.
    ``force``: replace what is there.
    Raises :class:`~adapters.errors.AdapterFormatError` for methods and norms that PEFT's LoRA has no place for.
    """
    name, config = loaded.record.name, loaded.record.config
    if config.method not in ("lora", "head"):
        right = "; tongues adapters export --to mms writes it" if config.method == "mms" else ""
        raise AdapterFormatError(name, f"PEFT has LoRA and heads, and this is of the method {config.method!r}{right}")
    if config.norm_layers(backbone.num_hidden_layers):
        raise AdapterFormatError(name, "it brings layer norms of its own, which PEFT's LoRA has no place for")
    if (width := backbone_width(backbone)) is not None and not bare:
        said = f"adapter_attn_dim of the backbone is {width}: PEFT would run over an adapter of MMS in its layers"
        right = "load it with from_pretrained(..., adapter_attn_dim=None), and say --bare here"
        raise AdapterFormatError(name, f"{said}, which this one ran without; {right}")
    model = PREFIX + backbone.model_type
    dtype = loaded.tensors["head.weight"].dtype
    if config.method == "lora":
        targets, layers, rank = config.options.get("targets", USUAL), config.layers, config.size
        biased = bool(config.options.get("bias"))
        tensors = {_their_name(model, key): t for key, t in loaded.tensors.items() if not key.startswith("head.")}
    else:
        targets, layers, rank, biased = USUAL[:1], (backbone.num_hidden_layers - 1,), 1, False
        at = f"layers.{layers[0]}.{targets[0]}"
        width = backbone.hidden_size
        tensors = {
            _their_name(model, f"{at}.lora_A.weight"): torch.zeros(1, width, dtype=dtype),
            _their_name(model, f"{at}.lora_B.weight"): torch.zeros(width, 1, dtype=dtype),
        }
    tensors |= {theirs: loaded.tensors[ours] for theirs, ours in HEAD.items()}
    settings = {
        "peft_type": "LORA",
        "auto_mapping": {
            "base_model_class": "HubertForCTC" if backbone.model_type == "hubert" else "Wav2Vec2ForCTC",
            "parent_library": f"transformers.models.{backbone.model_type}.modeling_{backbone.model_type}",
        },
        "base_model_name_or_path": base_model,
        "revision": revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_bias": biased,
        "target_modules": list(targets),
        "layers_to_transform": list(layers),
        "layers_pattern": "layers",
        "modules_to_save": ["lm_head"],
    }
    contents = {
        WEIGHTS: safetensors.torch.save({key: tensors[key].contiguous() for key in sorted(tensors)}, {"format": "pt"}),
        VOCAB: (loaded.vocab.to_json() + "\n").encode(),
        TOKENIZER: (json.dumps(_tokenizer(loaded.vocab), indent=2) + "\n").encode(),
        CONFIG: (json.dumps(settings, indent=2) + "\n").encode(),
    }
    with writing_into(folder):
        return write_files(name, folder, contents, force=force)


def _tokenizer(vocab: Vocab) -> dict[str, str | bool | None]:
    """How transformers' tokenizer makes the same texts, with not a token more than the head has rows."""
    return {
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
        "pad_token": vocab.tokens[vocab.blank],
        "unk_token": None if vocab.unknown is None else vocab.tokens[vocab.unknown],
        "word_delimiter_token": None if vocab.delimiter is None else vocab.tokens[vocab.delimiter],
        "bos_token": "<s>" if "<s>" in vocab.tokens else None,
        "eos_token": "</s>" if "</s>" in vocab.tokens else None,
        "do_lower_case": vocab.lowers,
    }


def _their_name(model: str, ours: str) -> str:
    """Of a tensor of LoRA: ``layers.3.q_proj.lora_A.weight``."""
    layers, layer, target, rest = ours.split(".", 3)
    within = "feed_forward" if target.endswith("_dense") else "attention"
    return f"{model}.encoder.{layers}.{layer}.{within}.{target}.{rest}"
