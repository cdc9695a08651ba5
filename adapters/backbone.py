"""A backbone on disk: load it to drive it, and know it again (its fingerprint)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn.utils import parametrize
from transformers import HubertConfig, Wav2Vec2Config
from transformers.utils import logging as transformers_logging

from adapters.encoder import Encoder
from adapters.errors import BackboneError
from adapters.fused import fuse_attention
from adapters.quantised import quantise_linears

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig, BackboneModel

Quantise = Literal["none", "int8"]

_CONFIGS: dict[str, Any] = {"wav2vec2": Wav2Vec2Config, "hubert": HubertConfig}

_STRUCTURE = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "do_stable_layer_norm",
    "feat_extract_norm",
    "feat_extract_activation",
    "conv_dim",
    "conv_kernel",
    "conv_stride",
    "conv_bias",
    "num_conv_pos_embeddings",
    "num_conv_pos_embedding_groups",
)

# parts of a checkpoint that are not the backbone
_NOT_BACKBONE = (
    "lm_head.",
    "quantizer.",
    "project_",
    "masked_spec_embed",
    "adapter.",
    "classifier.",
    "projector.",
)


def load_backbone(
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    quantise: Quantise = "none",
) -> Encoder:
    """The backbone in ``folder`` (Hugging Face layout, safetensors only), frozen, in eval mode, ready to serve.

    The weight norm of the positional convolution is folded into its weight, and q, k and v of a layer are one matrix
    product: the same output for less work. ``quantise="int8"``: the layers' linears in int8, on a CPU in float32 only
    (:mod:`adapters.quantised`).
    Raises :class:`~adapters.errors.BackboneError` for a folder that holds no such backbone, or not the whole of it, and
    where it cannot be quantised.
    """
    if quantise != "none" and (torch.device(device).type != "cpu" or dtype != torch.float32):
        raise BackboneError(
            f"{quantise} is for a CPU in float32, not for {device} in {str(dtype).removeprefix('torch.')}"
        )
    encoder = Encoder(load_model(folder, dtype=dtype))
    fold_weight_norm(encoder)
    fuse_attention(encoder)
    if quantise == "int8":
        quantise_linears(encoder)
    return encoder.requires_grad_(False).eval().to(device)


def load_model(folder: Path, *, dtype: torch.dtype = torch.float32) -> BackboneModel:
    """transformers' model of the backbone in ``folder``, weight norm and all. Raises as :func:`load_backbone`."""
    config = read_config(folder)
    _weights_file(folder)
    from transformers import HubertModel, Wav2Vec2Model

    model_class: Any = HubertModel if config.model_type == "hubert" else Wav2Vec2Model
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its load report names every head
    try:
        model, told = model_class.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise BackboneError(f"{folder}: the weights do not load: {error}") from error
    if missing := sorted(name for name in told["missing_keys"] if _counts(name)):  # transformers would invent them
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BackboneError(f"{folder}: model.safetensors lacks {some}, which config.json speaks of")
    found: BackboneModel = model
    return found


def read_config(folder: Path) -> BackboneConfig:
    """The configuration in ``folder``. Raises :class:`~adapters.errors.BackboneError` where there is none of a kind
    that the encoder can drive."""
    path = folder / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BackboneError(f"{folder}: no config.json; a backbone is a folder in Hugging Face layout") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BackboneError(f"{path}: not readable as JSON: {error}") from error
    kind = data.get("model_type") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _CONFIGS:
        raise BackboneError(f"{path}: model_type is {kind!r}; the encoder drives {' and '.join(_CONFIGS)}")
    try:
        config: BackboneConfig = _CONFIGS[kind].from_dict(data)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise BackboneError(f"{path}: not a configuration of {kind}: {error}") from error
    if getattr(config, "conv_pos_batch_norm", False):
        raise BackboneError(f"{path}: batch norm in the positional convolution is not supported; weight norm is")
    return config


def read_normalised(folder: Path) -> bool:
    """Whether the checkpoint wants each window at zero mean and unit variance (``do_normalize``; yes by default)."""
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return True
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("do_normalize", True))
    except (OSError, ValueError, AttributeError) as error:
        raise BackboneError(f"{path}: not a preprocessor configuration: {error}") from error


def fold_weight_norm(encoder: Encoder) -> None:
    """Replace the weight norm of the positional convolution by the weight that it amounts to."""
    conv = encoder.model.encoder.pos_conv_embed.conv
    if parametrize.is_parametrized(conv, "weight"):
        parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)


def structure(config: BackboneConfig) -> dict[str, Any]:
    """What of a configuration decides, besides the weights, what comes out of a backbone."""
    return {name: getattr(config, name) for name in _STRUCTURE}


def fingerprint(folder: Path) -> str:
    """What an adapter remembers its backbone by: 16 hex digits over the structure and the weights.

    Taken over the file's tensors as float32 under canonical names, before folding, fusing or casting to the dtype that
    serves; heads, quantisers and adapters that a checkpoint may carry do not count.
    Raises :class:`~adapters.errors.BackboneError`.
    """
    config = read_config(folder)
    digest = hashlib.sha256()
    digest.update(json.dumps(structure(config), sort_keys=True, default=list).encode())
    path = _weights_file(folder)
    try:
        with safe_open(path, framework="pt") as file:
            names = {_canonical(name): name for name in file.keys()}  # noqa: SIM118 - not a mapping
            for canonical in sorted(filter(_counts, names)):
                tensor: Tensor = file.get_tensor(names[canonical])
                digest.update(f"{canonical}{tuple(tensor.shape)}".encode())
                digest.update(tensor.float().contiguous().numpy().tobytes())
    except (OSError, SafetensorError) as error:
        raise BackboneError(f"{path}: not readable as safetensors: {error}") from error
    return digest.hexdigest()[:16]


def _canonical(name: str) -> str:
    """One name for a tensor whatever wrapped the model when it was saved, and whichever torch named its weight norm."""
    for prefix in _CONFIGS:
        name = name.removeprefix(f"{prefix}.")
    name = name.replace("parametrizations.weight.original0", "weight_g")
    return name.replace("parametrizations.weight.original1", "weight_v")


def _counts(canonical: str) -> bool:
    """Whether a tensor is part of the backbone."""
    return not canonical.startswith(_NOT_BACKBONE) and ".adapter_layer." not in canonical


def _weights_file(folder: Path) -> Path:
    path = folder / "model.safetensors"
    if not path.is_file():
        pickled = (
            "; pytorch_model.bin is a pickle, which is never loaded" if (folder / "pytorch_model.bin").exists() else ""
        )
        raise BackboneError(f"{folder}: no model.safetensors{pickled}")
    return path
