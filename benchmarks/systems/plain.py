"""transformers' own model for CTC, run as its users do: what the systems beside the engine are made of."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Wav2Vec2ForCTC
from transformers.utils import logging

from adapters.frontend import Geometry, PaddedAudio, pad
from benchmarks.backbones import VOCAB
from benchmarks.systems.system import SystemSpec, SystemUnable


def load_plain(spec: SystemSpec, **changes: Any) -> Wav2Vec2ForCTC:
    """``Wav2Vec2ForCTC`` over the backbone, with a head of random weights; ``changes`` go into its configuration.

    Raises :class:`SystemUnable` for a backbone that is no wav2vec 2.0.
    """
    logging.set_verbosity_error()  # it reports the head that the checkpoint lacks
    logging.disable_progress_bar()
    try:
        model = Wav2Vec2ForCTC.from_pretrained(
            spec.backbone, dtype=spec.dtype, local_files_only=True, vocab_size=VOCAB.size, **changes
        )
    except (OSError, ValueError) as error:
        raise SystemUnable(f"transformers does not load the backbone: {error}") from error
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    return model.requires_grad_(False).eval().to(spec.device)  # type: ignore[no-any-return]


def padded(clips: Sequence[np.ndarray], spec: SystemSpec) -> tuple[PaddedAudio, dict[str, Tensor]]:
    """Clips of several lengths -> the batch, and what transformers' models take: values and, where rows are padded,
    their mask. Each clip is brought to unit variance first, as the checkpoints' extractor does."""
    audio = pad(clips)
    inputs = {"input_values": audio.samples.to(spec.device, spec.dtype)}
    if len(set(audio.lengths)) > 1:
        mask = torch.zeros(audio.samples.shape, dtype=torch.long)
        for row, length in enumerate(audio.lengths):
            mask[row, :length] = 1
        inputs["attention_mask"] = mask.to(spec.device)
    return audio, inputs


def frames(model: Any, audio: PaddedAudio) -> list[int]:
    """The valid frames of each row."""
    geometry = Geometry(tuple(model.config.conv_kernel), tuple(model.config.conv_stride))
    return [geometry.frames(length) for length in audio.lengths]


def tokens(logits: Tensor, lengths: Sequence[int] | Tensor) -> list[list[int]]:
    """(B, T, V) and the valid frames of each row -> the greedy CTC decoding."""
    return collapsed(logits.argmax(dim=-1), lengths)


def collapsed(best: Tensor, lengths: Sequence[int] | Tensor) -> list[list[int]]:
    """Best tokens (B, T) and the valid frames of each row -> without repeats and blanks."""
    told = []
    for row, length in zip(best.cpu().numpy(), map(int, lengths), strict=True):
        path = row[:length]
        changed = np.concatenate([[True], path[1:] != path[:-1]]) if length else np.zeros(0, bool)
        told.append(path[changed & (path != VOCAB.blank)].tolist())
    return told


def jittered(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Another adapter of the same shapes."""
    random = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(tensor.shape, generator=random) * 0.02 for name, tensor in tensors.items()}
    return {name: tensor.detach().cpu() + noise[name].to(tensor.dtype) for name, tensor in tensors.items()}
