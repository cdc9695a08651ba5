"""The trunk's output for every variation of every clip, computed once: where each step of training starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adapters.encoder import Encoder, Frames
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE, few_widths, pad
from adapters.training.data import AudioCache, Augmentation, epoch_batches

_BATCH_S = 60
_HOP = 320  # samples a frame; only for how widths are rounded


@dataclass(frozen=True)
class Trunk:
    """Hidden states (all frames, D) float16, memory-mapped; row ``variation * clips + clip`` begins at ``begins[row]``
    and has ``frames[row]`` frames."""

    states: np.memmap
    begins: np.ndarray
    frames: np.ndarray
    layer: int

    def batch(self, rows: Sequence[int], device: str) -> Frames:
        """The rows side by side, padded with zeros, ready for the layers above."""
        lengths = tuple(int(self.frames[row]) for row in rows)
        width = max(max(lengths), few_widths(max(lengths) * _HOP) // _HOP)
        hidden = torch.zeros(len(rows), width, self.states.shape[1])
        for i, row in enumerate(rows):
            begin = self.begins[row]
            hidden[i, : lengths[i]] = torch.from_numpy(self.states[begin : begin + lengths[i]].astype(np.float32))
        return Frames(hidden.to(device), lengths, self.layer)


def run_trunk(
    cache: AudioCache,
    encoder: Encoder,
    layer: int,
    path: Path,
    *,
    variations: int,
    augmentation: Augmentation,
    seed: int,
    normalised: bool,
    bfloat16: bool,
) -> Trunk:
    """Run the layers below ``layer`` over ``variations`` variations of each clip, the first of them the clip itself,
    into a file at ``path``."""
    device = next(encoder.parameters()).device
    waves = []
    for variation in range(variations):
        for index in range(len(cache)):
            rng = np.random.default_rng([seed, variation, index])
            samples = cache.samples(index)
            waves.append(augmentation(samples, rng) if variation else samples)
    frames = np.array([encoder.geometry.frames(wave.size) for wave in waves])
    begins = np.concatenate([[0], np.cumsum(frames)[:-1]])
    states = np.memmap(path, np.float16, "w+", shape=(int(frames.sum()), encoder.hidden_size))
    for batch in epoch_batches([w.size for w in waves], _BATCH_S * SAMPLE_RATE, seed=seed, epoch=0):
        audio = pad([waves[row] for row in batch], normalised=normalised, width=few_widths).to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            hidden = encoder.trunk(audio, layer).hidden
        if float(hidden.abs().max()) > torch.finfo(torch.float16).max:
            raise DataError(f"the states below layer {layer} do not fit float16, as they are kept; adapt more layers")
        for i, row in enumerate(batch):
            states[begins[row] : begins[row] + frames[row]] = hidden[i, : frames[row]].half().cpu().numpy()
    return Trunk(states, begins, frames, layer)
