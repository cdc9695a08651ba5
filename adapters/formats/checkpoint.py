"""Whole fine-tuned checkpoints: a backbone of their own with a CTC head, in Hugging Face's layout or in ours."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from adapters.backbone import fold_weight_norm, load_model, read_config, read_normalised
from adapters.config import BackboneSize
from adapters.encoder import Encoder
from adapters.errors import AdapterFormatError
from adapters.formats.vocabulary import read_vocabulary
from adapters.language import language_key
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from adapters.weights import Weights, weight_files

_HEAD = ("lm_head.weight", "lm_head.bias")
_TYPES = {"F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Checkpoint:
    """A fine-tuned model. ``weight`` (V, D) and ``bias`` (V,) are its head's, ``encoder`` is all below, its weight norm
    folded; ``rounding`` is the coarsest step, relative, with which its weights lie in the file. ``folder`` is where it
    lies, ``language`` what it speaks, where that was told."""

    encoder: Encoder
    weight: Tensor
    bias: Tensor
    vocab: Vocab
    normalised: bool
    rounding: float
    folder: Path
    language: str | None = None

    def own_model(self, name: str) -> str:
        """What to do where no adapter comes near it: serve it as a model of its own, by the commands that do, whatever
        backbone and stores the environment names."""
        if not (self.folder / "config.json").exists():
            return f"it is a model of its own: tongues serve --models {shlex.quote(str(self.folder))}"
        given, models = shlex.quote(str(self.folder)), shlex.quote(f"models/{name}")
        lang = shlex.quote(self.language or "LANG")
        return (
            f"serve it as a model of its own (with the same --audio, if any): "
            f"mkdir -p {models} && cp -rL {given} {models}/backbone && "
            f"TONGUES_BACKBONE= TONGUES_ADAPTERS= tongues adapters extract {given} --name {shlex.quote(name)} "
            f"--lang {lang} --models {models}"
        )


def read_checkpoint(name: str, folder: Path, language: str | None = None) -> Checkpoint:
    """A folder with ``config.json``, ``model.safetensors`` (with ``lm_head``) and ``vocab.json``, or one as full
    fine-tuning writes it here, ``backbone/`` and a head in ``adapters/``. ``language``: whose part of a nested
    vocabulary, or whose head, where there are several.

    Raises :class:`~adapters.errors.BackboneError` for what is no backbone that the encoder drives,
    :class:`~adapters.errors.AdapterFormatError` for one without a CTC head or its vocabulary.
    """
    backbone = folder if (folder / "config.json").exists() else folder / "backbone"
    encoder = read_plain(backbone)
    if getattr(read_config(backbone), "adapter_attn_dim", None) is not None:
        right = (
            "write it with safetensors.torch.save_file(model._get_adapters(), 'adapter.LANG.safetensors'), and give "
            "that to tongues adapters import"
        )
        raise AdapterFormatError(name, f"{folder} wears an adapter of MMS within (adapter_attn_dim); {right}")
    if backbone == folder:
        weight, bias = _head(name, folder)
        vocab = read_vocabulary(name, folder / "vocab.json", weight.shape[0], language)
    else:
        weight, bias, vocab = _our_head(name, folder, encoder.size, language)
    if weight.shape != (vocab.size, encoder.hidden_size) or bias.shape != (vocab.size,):
        shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
        raise AdapterFormatError(name, f"the head is of shapes {shapes} on a backbone {encoder.hidden_size} wide")
    normalised = read_normalised(backbone)
    return Checkpoint(encoder, weight, bias, vocab, normalised, rounding(backbone), folder, language)


def read_plain(folder: Path) -> Encoder:
    """The backbone in ``folder`` in float32 with its weights under their own names: nothing is fused, and the weight
    norm is folded, since different parts of it can amount to the same. Raises as
    :func:`~adapters.backbone.load_backbone`."""
    encoder = Encoder(load_model(folder)).requires_grad_(False).eval()
    fold_weight_norm(encoder)
    return encoder


def rounding(folder: Path) -> float:
    """The coarsest relative step between the numbers in which the weights in ``folder`` lie: 2^-23 of float32."""
    kinds = set()
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            kinds |= {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118 - not a mapping
    return max(torch.finfo(_TYPES.get(kind, torch.float32)).eps for kind in kinds)


def _head(name: str, folder: Path) -> tuple[Tensor, Tensor]:
    with Weights(folder) as weights:
        if missing := set(_HEAD) - set(weights):
            right = "a CTC checkpoint (Wav2Vec2ForCTC, HubertForCTC) has one"
            raise AdapterFormatError(name, f"no {min(missing)} in the weights of {folder}; {right}")
        weight, bias = (weights[key].float() for key in _HEAD)
    return weight, bias


def _our_head(name: str, folder: Path, size: BackboneSize, language: str | None) -> tuple[Tensor, Tensor, Vocab]:
    store = AdapterStore(folder / "adapters")
    names = store.names()
    if len(names) > 1 and language is not None:
        names = tuple(n for n in names if language_key(store.record(n).language) == language_key(language))
    if len(names) != 1:
        said = f"{len(names)} adapters" + (f" ({', '.join(names)})" if names else "")
        raise AdapterFormatError(
            name, f"{store.folder} has {said}; a fine-tuned model has its head there, and it alone"
        )
    loaded = store.load(store.record(names[0]), size=size)
    config = loaded.record.config
    if config.method != "head" or config.norms != "none":
        right = "an adapter of ours is copied with its folder"
        raise AdapterFormatError(name, f"{names[0]} in {store.folder} is of the method {config.method!r}; {right}")
    return loaded.tensors["head.weight"].float(), loaded.tensors["head.bias"].float(), loaded.vocab
