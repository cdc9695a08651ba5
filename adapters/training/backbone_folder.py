"""A trained backbone as a folder: what shape it has, and how it is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from adapters.backbone import fingerprint, load_model
from adapters.durable import naming
from adapters.encoder import Encoder
from adapters.errors import BackboneError, DataError
from adapters.frontend import SAMPLE_RATE
from adapters.vocab import Vocab

if TYPE_CHECKING:
    from adapters.encoder import BackboneModel

Architecture = Literal["wav2vec2", "hubert"]

_HEAD = "head.safetensors"
_PREPROCESSOR = "preprocessor_config.json"
_RECORD = "pretraining.json"


@dataclass(frozen=True)
class BackboneShape:
    """Sizes of a backbone to train; the defaults make 7.1 million parameters. ``dropout``: of what every sublayer adds
    and within the feed forward, while training."""

    hidden_size: int = 256
    layers: int = 8
    heads: int = 4
    feed_forward: int = 1024
    conv_channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 256)
    position_kernel: int = 64
    dropout: float = 0.0
    architecture: Architecture = "wav2vec2"

    def model(self) -> BackboneModel:
        """transformers' model with random weights: pre-norm, group norm in front (1.7 times faster to train than layer
        norm)."""
        sizes: dict[str, Any] = {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "conv_dim": self.conv_channels,
            "num_conv_pos_embeddings": self.position_kernel,
            "do_stable_layer_norm": True,
            "feat_extract_norm": "group",
            "hidden_dropout": self.dropout,
            "attention_dropout": 0.0,
            "activation_dropout": self.dropout,
            "feat_proj_dropout": 0.0,
            "final_dropout": 0.0,
            "layerdrop": 0.0,
            "mask_time_prob": 0.08,
            "mask_time_length": 10,
        }
        if self.architecture == "hubert":
            return HubertModel(HubertConfig(**sizes))
        return Wav2Vec2Model(Wav2Vec2Config(**sizes))


def write_backbone(
    folder: Path,
    encoder: Encoder,
    head: tuple[nn.Linear, Vocab] | None,
    record: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write ``encoder`` in Hugging Face layout, with its multilingual CTC head, where it has one, beside it as a start
    for new heads, and ``record``, which says how it came about. Raises :class:`~adapters.errors.BackboneError` where
    it cannot be written, on a full disk, say, and ``OSError``."""
    folder.mkdir(parents=True, exist_ok=True)
    if head is None:  # one that lay there would hear nothing in these weights
        for name in (_HEAD, "vocab.json"):
            (folder / name).unlink(missing_ok=True)
    with _writing(folder):
        _write_weights(folder, encoder, dtype)
        if head is not None:
            linear, vocab = head
            save_file({name: tensor.detach().to(dtype) for name, tensor in linear.named_parameters()}, folder / _HEAD)
    if head is not None:
        (folder / "vocab.json").write_text(vocab.to_json() + "\n", encoding="utf-8")
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE,
        "padding_value": 0.0,
        "do_normalize": True,
        "return_attention_mask": True,
    }
    (folder / _PREPROCESSOR).write_text(json.dumps(preprocessor, indent=2) + "\n")
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
    _let_all_read(folder)


def check_tuned(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Raises :class:`~adapters.errors.DataError` where a backbone lies in ``folder`` that :func:`write_tuned` did not
    write for the run that is made from the same: adapters may stand on it."""
    if not (folder / "config.json").exists():
        return
    if _record(folder).get("tuned") != json.loads(json.dumps(made_from)):
        raise DataError(f"{folder}: there is a backbone already; full fine-tuning makes one of its own, in a new --out")


def write_tuned(
    folder: Path, start: Path, encoder: Encoder, made_from: Mapping[str, Any], *, dtype: torch.dtype = torch.float16
) -> None:
    """Write what fine-tuning made of the backbone in ``start`` in Hugging Face layout; it wants its audio the same.
    ``made_from``: what the run is made from. Raises as :func:`check_tuned` does."""
    check_tuned(folder, made_from)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"started_from": read_record(start), "tuned": made_from}
    with naming(folder / _RECORD):  # first: what is cut off here is written again
        (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
    with _writing(folder):
        _write_weights(folder, encoder, dtype)
    if (start / _PREPROCESSOR).exists():
        shutil.copyfile(start / _PREPROCESSOR, folder / _PREPROCESSOR)
    _let_all_read(folder)


def _write_weights(folder: Path, encoder: Encoder, dtype: torch.dtype) -> None:
    state = {name: tensor.detach().to(dtype).contiguous() for name, tensor in encoder.model.state_dict().items()}
    encoder.model.save_pretrained(folder, state_dict=state)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        with naming(folder):
            yield
    except SafetensorError as error:
        raise BackboneError(f"{folder}: the backbone cannot be written: {error}") from error


def _let_all_read(folder: Path) -> None:
    """What was written here, and nothing that lies beside it: transformers' weights are their owner's alone."""
    for name in ("config.json", "vocab.json", "model*.safetensors*", _HEAD, _PREPROCESSOR, _RECORD):
        for file in folder.glob(name):
            file.chmod(0o644)


def read_record(folder: Path) -> dict[str, Any]:
    """How the backbone in ``folder`` came about, as far as it says, and its fingerprint."""
    return {"fingerprint": fingerprint(folder), **_record(folder)}


def _record(folder: Path) -> dict[str, Any]:
    path = folder / _RECORD
    found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return found


def start_backbone(folder: Path, encoder: Encoder) -> None:
    """Begin training from the weights in ``folder``. Raises :class:`~adapters.errors.BackboneError` where they are of
    another shape."""
    try:
        encoder.model.load_state_dict(load_model(folder).state_dict())
    except RuntimeError as error:
        raise BackboneError(f"{folder}: not of the shape that is trained here: {error}") from error


def read_head(folder: Path) -> tuple[dict[str, Tensor], Vocab]:
    """The multilingual CTC head beside the backbone in ``folder``, weight (V, D) and bias (V,), and its tokens.

    Raises :class:`~adapters.errors.BackboneError` where there is none.
    """
    if not (folder / _HEAD).exists():
        raise BackboneError(f"{folder}: no {_HEAD}, the CTC head over all languages that `tongues pretrain` writes")
    return load_file(folder / _HEAD), Vocab.from_json((folder / "vocab.json").read_bytes())


def start_head(folder: Path, vocab: Vocab, weight: Tensor, bias: Tensor) -> None:
    """Fill a head over ``vocab``, weight (V, D) and bias (V,), from the multilingual head in ``folder`` where it knows
    the token; a folder without one leaves all as it is."""
    if not (folder / _HEAD).exists():
        return
    head, spoken = read_head(folder)
    known = {token: row for row, token in enumerate(spoken.tokens)}
    with torch.no_grad():
        for row, token in enumerate(vocab.tokens):
            if token in known:
                weight[row] = head["weight"][known[token]].float()
                bias[row] = head["bias"][known[token]].float()
