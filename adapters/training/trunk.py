"""Where each step of training starts: what the frozen layers below make of the clips.

They are the same for every step, epoch and adapter, so their output is computed once for several variations of each
clip and kept on disk, memory-mapped, under a key of the backbone and the data. A run that adapts fewer layers starts
from what one with more has left there, and keeps what it made of that.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from adapters.encoder import Encoder, Frames
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE, PaddedAudio, few_widths, pad
from adapters.training.data import AudioCache, Augmentation, epoch_batches

_BATCH_S = 60
_HOP = 320  # samples a frame; only for how widths are rounded


@dataclass(frozen=True)
class Variations:
    """``count`` variations of each clip of ``cache``, the first of them the clip itself. Row ``variation * clips +
    clip`` is always the same."""

    cache: AudioCache
    count: int
    augmentation: Augmentation
    seed: int

    def __len__(self) -> int:
        return self.count * len(self.cache)

    def samples(self, row: int) -> np.ndarray:
        """(N,) float32."""
        variation, index = divmod(row, len(self.cache))
        samples = self.cache.samples(index)
        return (
            self.augmentation(samples, np.random.default_rng([self.seed, variation, index])) if variation else samples
        )

    @property
    def key(self) -> dict[str, object]:
        """All that decides the samples."""
        varied = {"augmentation": asdict(self.augmentation), "seed": self.seed} if self.count > 1 else {}
        return {"data": self.cache.key, "variations": self.count, **varied}


class Start(Protocol):
    """Where steps start."""

    @property
    def frames(self) -> np.ndarray:
        """Frames of each row."""

    def batch(self, rows: Sequence[int]) -> Frames:
        """The rows side by side, padded, on the encoder's device."""


@dataclass(frozen=True)
class Kept:
    """The trunk's output: hidden states (all frames, D) float16, memory-mapped; row i begins at ``begins[i]`` and has
    ``frames[i]`` frames."""

    states: np.memmap
    begins: np.ndarray
    frames: np.ndarray
    layer: int
    device: torch.device

    def batch(self, rows: Sequence[int]) -> Frames:
        lengths = tuple(int(self.frames[row]) for row in rows)
        width = max(max(lengths), few_widths(max(lengths) * _HOP) // _HOP)
        hidden = torch.zeros(len(rows), width, self.states.shape[1])
        for i, row in enumerate(rows):
            begin = self.begins[row]
            hidden[i, : lengths[i]] = torch.from_numpy(self.states[begin : begin + lengths[i]].astype(np.float32))
        return Frames(hidden.to(self.device), lengths, self.layer)


class Computed:
    """The layers below ``layer`` at every step anew, for what trains within them, or without a file."""

    def __init__(self, variations: Variations, encoder: Encoder, layer: int, *, normalised: bool) -> None:
        self._variations, self._encoder, self._layer, self._normalised = variations, encoder, layer, normalised
        self.frames = np.array(
            [encoder.geometry.frames(variations.samples(row).size) for row in range(len(variations))]
        )

    def batch(self, rows: Sequence[int]) -> Frames:
        waves = [self._variations.samples(row) for row in rows]
        return self._encoder.trunk(_padded(waves, self._encoder, self._normalised), self._layer)


class TrunkCache:
    """What was kept of the clips of ``variations`` below some layers of one backbone, in a folder named for both."""

    def __init__(
        self,
        folder: Path,
        variations: Variations,
        encoder: Encoder,
        fingerprint: str,
        *,
        normalised: bool,
        bfloat16: bool,
    ) -> None:
        self._variations, self._encoder, self._normalised, self._bfloat16 = variations, encoder, normalised, bfloat16
        made_from = {"backbone": fingerprint, "normalised": normalised, "bfloat16": bfloat16, **variations.key}
        digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / f"trunk-{digest}"

    @torch.inference_mode()
    def below(self, layer: int) -> Kept:
        """The output of the layers below ``layer``: kept already, made from what was kept of fewer, or from the audio.

        Raises :class:`~adapters.errors.DataError` where it does not fit float16.
        """
        if not self._index(layer).exists():
            self._make(layer)
        index = np.load(self._index(layer))
        begins, frames = index["begins"], index["frames"]
        shape = (int(frames.sum()), self._encoder.hidden_size)
        states = np.memmap(self._states(layer), np.float16, "r", shape=shape)
        return Kept(states, begins, frames, layer, self._device)

    def _make(self, layer: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        begins = np.zeros(len(self._variations), np.int64)
        frames = np.zeros(len(self._variations), np.int64)
        temporary = self._states(layer).with_suffix(f".{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                for rows, found in self._run(layer):
                    assert isinstance(found.lengths, tuple)
                    if float(found.hidden.abs().max()) > torch.finfo(torch.float16).max:
                        raise DataError(
                            f"the states below layer {layer} do not fit float16, as they are kept; adapt more layers"
                        )
                    for i, row in enumerate(rows):
                        begins[row] = file.tell() // (2 * self._encoder.hidden_size)
                        frames[row] = found.lengths[i]
                        file.write(found.hidden[i, : found.lengths[i]].half().cpu().numpy().tobytes())
            temporary.replace(self._states(layer))
            with temporary.open("wb") as file:
                np.savez(file, begins=begins, frames=frames)
            temporary.replace(self._index(layer))  # last: what is there is whole
        finally:
            temporary.unlink(missing_ok=True)

    def _run(self, layer: int) -> Iterator[tuple[list[int], Frames]]:
        """Batches of rows and what comes out below ``layer``."""
        encoder = self._encoder
        lower = [int(path.stem.removeprefix("layer-")) for path in self.folder.glob("layer-*.npz")]
        start = max((kept for kept in lower if kept < layer), default=None)
        kept = None if start is None else self.below(start)
        count = len(self._variations.cache)
        lengths = [self._variations.cache.length(row % count) for row in range(len(self._variations))]
        for rows in epoch_batches(lengths, _BATCH_S * SAMPLE_RATE, seed=0, epoch=0):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
                if kept is not None:
                    yield rows, encoder.further(kept.batch(rows), layer)
                else:
                    waves = [self._variations.samples(row) for row in rows]
                    yield rows, encoder.trunk(_padded(waves, encoder, self._normalised), layer)

    @property
    def _device(self) -> torch.device:
        return next(self._encoder.parameters()).device

    def _states(self, layer: int) -> Path:
        return self.folder / f"layer-{layer}.f16"

    def _index(self, layer: int) -> Path:
        return self.folder / f"layer-{layer}.npz"


def _padded(waves: list[np.ndarray], encoder: Encoder, normalised: bool) -> PaddedAudio:
    return pad(waves, normalised=normalised, width=few_widths).to(next(encoder.parameters()).device)
