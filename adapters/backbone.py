"""A backbone on disk: load it to drive it, and know it again (its fingerprint)."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import HubertConfig, Wav2Vec2Config

from adapters.encoder import Encoder
from adapters.errors import BackboneError
from adapters.frontend import SAMPLE_RATE
from adapters.fused import PARTS, fuse_attention
from adapters.packed import pack_linears
from adapters.positions import convolve_by_spectrum
from adapters.quantised import quantise_linears
from adapters.weights import Weights, canonical, counts

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig, BackboneModel

Quantise = Literal["none", "int8"]

_POSITIONS = "encoder.pos_conv_embed.conv"
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
_FEATURES_NORMED = "feat_proj_layer_norm"
_ATTENTION = ("attn_implementation", "_attn_implementation")  # a way of transformers' own, whose attention never runs


@torch.inference_mode(False)  # tensors made in that mode could never be trained on, nor parametrisations be removed
def load_backbone(
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    quantise: Quantise = "none",
    serving: bool = True,
) -> Encoder:
    """The backbone in ``folder`` (Hugging Face layout, safetensors only), frozen, in eval mode, ready to serve.

    The weight norm of the positional convolution is folded into its weight, and q, k and v of a layer are one matrix
    product: the same output for less work. So are the product of spectra that the convolution is, on a GPU where that
    is faster (:mod:`adapters.positions`), and in float32 on a CPU the linears packed for its kernels
    (:mod:`adapters.packed`), but where it is not for ``serving``: they run neither on another device than they were
    loaded on nor in another dtype, nor under autocast, and give no gradient. From then on the process' convolutions in
    float32 are not TF32.
    ``quantise="int8"``: the layers' linears in int8, on a CPU in float32 only (:mod:`adapters.quantised`).
    Raises :class:`~adapters.errors.BackboneError` for a folder that holds no such backbone, or not the whole of it, and
    where it cannot be quantised.
    """
    if quantise != "none" and (torch.device(device).type != "cpu" or dtype != torch.float32):
        raise BackboneError(
            f"{quantise} is for a CPU in float32, not for {device} in {str(dtype).removeprefix('torch.')}"
        )
    torch.backends.cudnn.allow_tf32 = False  # who asks for float32 asks for its digits
    encoder = Encoder(_empty(read_config(folder)))
    fold_weight_norm(encoder)
    fuse_attention(encoder)
    _fill(encoder.model, folder, torch.device(device), dtype)
    if quantise == "int8":
        quantise_linears(encoder)
    on_cpu = torch.device(device).type == "cpu"
    if serving and (dtype == torch.float32 or not on_cpu):
        convolve_by_spectrum(encoder)
    if serving and dtype == torch.float32 and on_cpu:
        pack_linears(encoder)
    return encoder.requires_grad_(False).eval()


@torch.inference_mode(False)
def load_model(folder: Path) -> BackboneModel:
    """transformers' model of the backbone in ``folder``, weight norm and all, in float32. Raises as
    :func:`load_backbone`."""
    model = _empty(read_config(folder))
    _fill(model, folder, torch.device("cpu"), torch.float32)
    model.train(False)
    return model


def _empty(config: BackboneConfig) -> BackboneModel:
    """transformers' model without memory for its weights, nor for the adapters of a language."""
    from transformers import HubertModel, Wav2Vec2Model

    config = copy.deepcopy(config)
    config.adapter_attn_dim = None
    try:
        with torch.device("meta"):
            return HubertModel(config) if isinstance(config, HubertConfig) else Wav2Vec2Model(config)
    except (ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise BackboneError(f"no {config.model_type} is of this configuration: {error}") from error


@torch.no_grad()
def _fill(model: BackboneModel, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Give each parameter its values, straight from the mapped file to where it stays: no weight is in memory twice."""
    with Weights(folder) as weights:
        wanted = {canonical(name): name for name, _ in model.named_parameters()}
        sources = {name: _sources(name, weights) for name in wanted}
        if missing := sorted(part for name in wanted for part in sources[name] if part not in weights and counts(part)):
            some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise BackboneError(f"{folder}: the checkpoint lacks {some}, which config.json speaks of")
        for name, parameter in [(canonical(name), parameter) for name, parameter in model.named_parameters()]:
            values = torch.empty(parameter.shape, device=device, dtype=dtype)
            parts = [weights[part] for part in sources[name] if part in weights]
            _copy(folder, name, parts, values)
            owner = model.get_submodule(wanted[name].rpartition(".")[0])
            owner.register_parameter(wanted[name].rpartition(".")[2], nn.Parameter(values))
    assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


def _sources(name: str, weights: Weights) -> tuple[str, ...]:
    """Which tensors of the file make the parameter ``name``."""
    if ".qkv_proj." in name:
        return tuple(name.replace("qkv_proj", part) for part in PARTS)
    if name == f"{_POSITIONS}.weight" and name not in weights:
        return (f"{_POSITIONS}.weight_g", f"{_POSITIONS}.weight_v")
    return (name,)


def _copy(folder: Path, name: str, parts: Sequence[Tensor], values: Tensor) -> None:
    if not parts:  # the vector that masks frames in training, which not every checkpoint keeps
        values.uniform_()
        return
    if name == f"{_POSITIONS}.weight" and len(parts) == 2:
        found = torch._weight_norm(parts[1].float(), parts[0].float(), 2)
    elif len(parts) == 1:
        found = parts[0]
    else:
        found = None
        if len({part.shape for part in parts}) == 1 and values.shape[0] == sum(len(part) for part in parts):
            for part, place in zip(parts, values.chunk(len(parts)), strict=True):
                place.copy_(part)
            return
    if found is None or found.shape != values.shape:
        shapes = " and ".join(str(tuple(part.shape)) for part in parts)
        raise BackboneError(f"{folder}: {name} is of shape {shapes}, not what config.json says")
    values.copy_(found)


def read_config(folder: Path) -> BackboneConfig:
    """The configuration in ``folder``. Raises :class:`~adapters.errors.BackboneError` where there is none of a kind
    that the encoder can drive, or the checkpoint wants audio at another rate than 16 kHz."""
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
    if (quantised := data.get("quantization_config")) is not None:
        how = quantised.get("quant_method") if isinstance(quantised, dict) else None
        said = f"quantization_config is set ({how or quantised}): the weights are not numbers as they lie there"
        raise BackboneError(f"{path}: {said}; take the checkpoint before it was quantised")
    _read_extractor(folder)
    try:
        config: BackboneConfig = _CONFIGS[kind].from_dict({k: v for k, v in data.items() if k not in _ATTENTION})
    except (TypeError, ValueError, ImportError, StrictDataclassError) as error:
        raise BackboneError(f"{path}: not a configuration of {kind}: {error}") from error
    if getattr(config, "conv_pos_batch_norm", False):
        raise BackboneError(f"{path}: batch norm in the positional convolution is not supported; weight norm is")
    if getattr(config, "add_adapter", False):
        said = "add_adapter is set: convolutions above the layers, which the encoder does not run"
        raise BackboneError(f"{path}: {said}; a checkpoint without them can be served")
    return config


def read_normalised(folder: Path) -> bool:
    """Whether the checkpoint wants each window at zero mean and unit variance (``do_normalize``; yes by default), as
    ``processor_config.json`` says it, or ``preprocessor_config.json``. Raises
    :class:`~adapters.errors.BackboneError`, for another rate than 16 kHz too."""
    return bool(_read_extractor(folder).get("do_normalize", True))


def _read_extractor(folder: Path) -> dict[str, Any]:
    """What the checkpoint says of the samples that it wants."""
    for file, part in (("processor_config.json", "feature_extractor"), ("preprocessor_config.json", None)):
        path = folder / file
        if not path.exists():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if part is not None and part not in found:
                continue
            told: dict[str, Any] = found if part is None else found[part]
            rate = told.get("sampling_rate")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BackboneError(f"{path}: not a preprocessor configuration: {error}") from error
        if rate not in (None, SAMPLE_RATE):
            right = f"audio is at {SAMPLE_RATE} Hz here, and only a checkpoint for that can be driven"
            raise BackboneError(f"{path}: sampling_rate is {rate!r}; {right}")
        return told
    return {}


def fold_weight_norm(encoder: Encoder) -> None:
    """Replace the weight norm of the positional convolution by the weight that it amounts to."""
    conv = encoder.model.encoder.pos_conv_embed.conv
    if parametrize.is_parametrized(conv, "weight"):
        parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)


def structure(config: BackboneConfig) -> dict[str, Any]:
    """What of a configuration decides, besides the weights, what comes out of a backbone."""
    normed = not isinstance(config, HubertConfig) or bool(config.feat_proj_layer_norm)
    return {name: getattr(config, name) for name in _STRUCTURE} | {_FEATURES_NORMED: normed}


def fingerprint(folder: Path) -> str:
    """What an adapter remembers its backbone by: 16 hex digits over the structure and the weights.

    Taken over the file's tensors as float32 under canonical names, before folding, fusing or casting to the dtype that
    serves; heads, quantisers and adapters that a checkpoint may carry do not count.
    Raises :class:`~adapters.errors.BackboneError`.
    """
    told = structure(read_config(folder))
    if told[_FEATURES_NORMED]:  # as nearly all are: what was trained before this counted goes on being known
        del told[_FEATURES_NORMED]
    digest = hashlib.sha256()
    digest.update(json.dumps(told, sort_keys=True, default=list).encode())
    with Weights(folder) as weights:
        for name in sorted(filter(counts, weights)):
            tensor = weights[name]
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.float().contiguous().numpy().data)
    return digest.hexdigest()[:16]
