"""LoRA as PEFT keeps it: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.

The tensors are those that PEFT put into a ``Wav2Vec2ForCTC`` or ``HubertForCTC``,
``base_model.model.wav2vec2.encoder.layers.I.attention.q_proj.lora_{A,B}.weight`` and so on, and the head of
``modules_to_save``, ``base_model.model.lm_head.{weight,bias}``. PEFT scales B A by ``lora_alpha / r``, or by
``lora_alpha / sqrt(r)`` (Kalajdzievski 2023, rsLoRA); here that is within B.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.config import AdapterConfig, BackboneSize, Projection
from adapters.errors import AdapterFormatError, AdapterMismatch
from adapters.fit import check_tensors
from adapters.formats import Imported
from adapters.formats.files import read_header, read_json, read_tensors
from adapters.formats.peft_settings import LoraSettings
from adapters.formats.vocabulary import read_vocabulary
from adapters.methods.lora import TARGETS, USUAL
from adapters.vocab import Vocab

CONFIG, WEIGHTS, VOCAB = "adapter_config.json", "adapter_model.safetensors", "vocab.json"
PREFIX = "base_model.model."
HEAD = {f"{PREFIX}lm_head.{part}": f"head.{part}" for part in ("weight", "bias")}
_WITHIN = "attention.(?:q_proj|k_proj|v_proj|out_proj)|feed_forward.(?:intermediate_dense|output_dense)"
_LORA = re.compile(
    rf"base_model\.model\.((wav2vec2|hubert)\.encoder\.layers\.(\d{{1,4}})\.({_WITHIN}))\.lora_(A\.weight|B\.weight|B\.bias)"
)
_MODULE = re.compile(r"base_model\.model\.(?P<module>.+?)\.(?:lora_\w+|weight$|bias$|base_layer).*")
_LONGEST_NAME = 200


@dataclass
class _Site:
    """One projection that LoRA changes, as the file has it. ``module``: what PEFT calls it."""

    module: str
    parts: dict[str, Tensor] = field(default_factory=dict)


_Sites = dict[tuple[int, Projection], _Site]


def read_peft(
    name: str,
    folder: Path,
    size: BackboneSize,
    vocab: Vocab | Path | None = None,
    *,
    language: str | None = None,
    model_type: str | None = None,
) -> Imported:
    """The adapter in ``folder``, for a backbone of this size. Ranks that differ are padded with zeros to the largest,
    and a projection that one layer lacks and another has is zero there: the same output. Where every B is zero it is a
    head alone.

    ``vocab`` counts instead of the ``vocab.json`` in the folder; where a file is nested, ``language`` names its part.
    ``model_type``: refuse what was made for another, ``wav2vec2`` or ``hubert``.
    Raises :class:`~adapters.errors.AdapterFormatError` for what is no such adapter or has what ours have no place for,
    by name, :class:`~adapters.errors.AdapterMismatch` for one of another backbone.
    """
    raw = read_json(name, folder / CONFIG)
    settings = LoraSettings.read(name, raw)
    sites, head = _sorted(name, read_header(name, folder / WEIGHTS), size, model_type)
    for place, site in sites.items():
        _check_shapes(name, place, site, settings, size)
    if vocab is None and not (folder / VOCAB).exists():
        raise AdapterFormatError(name, f"no {VOCAB} in {folder}, and none was given: the head's tokens by id")
    if not isinstance(vocab, Vocab):
        vocab = read_vocabulary(name, vocab or folder / VOCAB, head["head.weight"].shape[0], language)
    _check_head(name, head, vocab, size)
    tensors = read_tensors(name, folder / WEIGHTS)
    sites, head = _sorted(name, tensors, size, model_type)
    scaled = {place: _scaled(site, settings) for place, site in sites.items()}
    config, found = _stacked(scaled, size, vocab.size)
    dtype = _dtype(tensors, sites, scaled)
    found = {key: tensor.to(dtype).contiguous() for key, tensor in (found | head).items()}
    check_tensors(name, config, str(dtype).removeprefix("torch."), found, vocab, size)
    return Imported(config, found, vocab, _base_model(raw))


def _sorted(
    name: str, tensors: Mapping[str, Tensor], size: BackboneSize, model_type: str | None
) -> tuple[_Sites, dict[str, Tensor]]:
    sites: _Sites = {}
    head: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key in HEAD:
            head[HEAD[key]] = tensor
        elif (at := _LORA.fullmatch(key)) is None:
            raise AdapterFormatError(name, _no_place(key))
        elif model_type is not None and at[2] != model_type:
            raise AdapterMismatch(name, f"{key} is of a {at[2]} model, and the backbone is of {model_type}")
        elif int(at[3]) >= size.layers:
            raise AdapterMismatch(name, f"it changes layer {int(at[3])}, and the backbone has {size.layers} layers")
        else:
            projection = cast(Projection, at[4].split(".")[1])
            sites.setdefault((int(at[3]), projection), _Site(at[1])).parts[at[5]] = tensor
    if missing := HEAD.values() - head.keys():
        right = "train it with modules_to_save=['lm_head']"
        raise AdapterFormatError(name, f"no lm_head ({min(missing)}) in {WEIGHTS}; {right}")
    if not sites:
        raise AdapterFormatError(name, f"nothing of LoRA in {WEIGHTS}")
    if any(tensor.ndim != 2 for key, tensor in head.items() if key == "head.weight"):
        raise AdapterMismatch(name, f"lm_head.weight is of shape {tuple(head['head.weight'].shape)}, not (V, D)")
    return sites, head


def _no_place(key: str) -> str:
    known = f"what can be worn is {', '.join(TARGETS)} in the layers of a wav2vec2 or a hubert model"
    module = _MODULE.fullmatch(key)
    if module is None:
        return f"{key!r} has no place in an adapter of PEFT"
    if "lora_magnitude" in key:
        return f"DoRA at {module['module']!r} ({key}); plain LoRA and rsLoRA can be worn"
    if ".lora_" in key:
        return f"LoRA at {module['module']!r}; {known}"
    return f"{key!r}: {module['module']!r} was trained whole, and of such modules only lm_head can be worn"


def _check_shapes(
    name: str, place: tuple[int, Projection], site: _Site, settings: LoraSettings, size: BackboneSize
) -> None:
    """Before any number is read."""
    if missing := {"A.weight", "B.weight"} - site.parts.keys():
        raise AdapterFormatError(name, f"{site.module} lacks lora_{min(missing)}")
    a, b = site.parts["A.weight"], site.parts["B.weight"]
    rank = settings.rank(site.module)
    if a.ndim != 2 or b.ndim != 2 or (a.shape[0], b.shape[1]) != (rank, rank):
        shapes = f"lora_A {tuple(a.shape)} and lora_B {tuple(b.shape)}"
        raise AdapterMismatch(name, f"{site.module} has {shapes}, and {CONFIG} says rank {rank}")
    if rank > size.feed_forward:
        raise AdapterMismatch(name, f"rank {rank}, and no linear of the backbone is wider than {size.feed_forward}")
    into, out = _widths(place[1], size)
    if a.shape[1] != into or b.shape[0] != out:
        said = f"layers.{place[0]}.{place[1]} changes {a.shape[1]} -> {b.shape[0]}"
        raise AdapterMismatch(name, f"{said}, and the backbone's own is {into} -> {out}")
    if (bias := site.parts.get("B.bias")) is not None and tuple(bias.shape) != (out,):
        raise AdapterMismatch(name, f"{site.module} has lora_B.bias of shape {tuple(bias.shape)}, not ({out},)")


def _check_head(name: str, head: Mapping[str, Tensor], vocab: Vocab, size: BackboneSize) -> None:
    for key, shape in {"head.weight": (vocab.size, size.hidden), "head.bias": (vocab.size,)}.items():
        if tuple(head[key].shape) != shape:
            raise AdapterMismatch(name, f"{key} is of shape {tuple(head[key].shape)}, not {shape}")


def _widths(target: Projection, size: BackboneSize) -> tuple[int, int]:
    """What goes into a projection of the backbone, and what comes out."""
    into = size.feed_forward if target == "output_dense" else size.hidden
    return into, size.feed_forward if target == "intermediate_dense" else size.hidden


def _base_model(raw: Mapping[str, Any]) -> str | None:
    """What PEFT says that it was trained on."""
    found = raw.get("base_model_name_or_path")
    return found[:_LONGEST_NAME] if isinstance(found, str) and found.isprintable() and found else None


def _scaled(site: _Site, settings: LoraSettings) -> dict[str, Tensor]:
    """Under our names and in float32, with the scale within B."""
    a, b = site.parts["A.weight"], site.parts["B.weight"]
    scale = settings.scale(site.module)
    found = {"lora_A.weight": a.float(), "lora_B.weight": b.float() * scale}
    if (bias := site.parts.get("B.bias")) is not None:
        found["lora_B.bias"] = bias.float() * scale
    return found


def _stacked(
    sites: Mapping[tuple[int, Projection], dict[str, Tensor]], size: BackboneSize, vocab_size: int
) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """Of one rank, at the same projections of each layer that is changed."""
    if not any(bool(t.any()) for parts in sites.values() for key, t in parts.items() if key != "lora_A.weight"):
        return AdapterConfig("head", 0, (), "none", vocab_size), {}
    rank = max(parts["lora_A.weight"].shape[0] for parts in sites.values())
    biased = any("lora_B.bias" in parts for parts in sites.values())
    targets = tuple(target for target in TARGETS if any(target == at for _, at in sites))
    options: dict[str, Any] = ({} if targets == USUAL else {"targets": targets}) | ({"bias": True} if biased else {})
    layers = tuple(sorted({layer for layer, _ in sites}))
    config = AdapterConfig("lora", rank, layers, "none", vocab_size, options)
    found: dict[str, Tensor] = {}
    for layer in layers:
        for target in targets:
            into, out = _widths(target, size)
            parts = sites.get((layer, target), {})
            a = parts.get("lora_A.weight", torch.zeros(rank, into))
            b = parts.get("lora_B.weight", torch.zeros(out, rank))
            found[f"layers.{layer}.{target}.lora_A.weight"] = F.pad(a, (0, 0, 0, rank - a.shape[0]))
            found[f"layers.{layer}.{target}.lora_B.weight"] = F.pad(b, (0, rank - b.shape[1]))
            if biased:
                found[f"layers.{layer}.{target}.lora_B.bias"] = parts.get("lora_B.bias", torch.zeros(out))
    return config, found


def _dtype(
    tensors: Mapping[str, Tensor],
    sites: _Sites,
    scaled: Mapping[tuple[int, Projection], Mapping[str, Tensor]],
) -> torch.dtype:
    """The file's own where the scale rounds nothing in it, else float32."""
    (dtype, *others) = {tensor.dtype for tensor in tensors.values()}
    if others or dtype not in (torch.float16, torch.bfloat16):
        return torch.float32
    exact = all(torch.equal(t.to(dtype).float(), t) for place in sites for t in scaled[place].values())
    return dtype if exact else torch.float32
