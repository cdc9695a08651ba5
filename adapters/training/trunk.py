"""Where each step of training starts: what the frozen layers below make of the clips.

They are the same for every step, epoch and adapter, so their output is computed once for the variations of clips that
the steps draw and kept on disk, memory-mapped, under a key of the backbone and the data. A run that adapts fewer layers
starts from what one with more has left there, and keeps what it made of that.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from adapters.durable import naming
from adapters.encoder import Encoder, Frames
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE, few_widths, pad
from adapters.training.augmentation import Augmentation
from adapters.training.data import AudioCache, epoch_batches

_BATCH_S = 60
_HOP = 320  # samples a frame; only for how widths are rounded


@dataclass(frozen=True)
class Variations:
    """``count`` variations of each clip of ``cache``, the first of them the clip itself. Row ``variation * clips +
    clip`` is always the same. ``weights``: how often an epoch draws each clip, once each without it."""

    cache: AudioCache
    count: int
    augmentation: Augmentation
    seed: int
    weights: Sequence[float] | None = None

    def __len__(self) -> int:
        return self.count * len(self.cache)

    def samples(self, row: int) -> np.ndarray:
        """(N,) float32."""
        variation, index = divmod(row, len(self.cache))
        samples = self.cache.samples(index)
        return (
            self.augmentation(samples, np.random.default_rng([self.seed, variation, index])) if variation else samples
        )

    def batches(self, batch_s: float) -> Iterator[list[int]]:
        """Batches of rows, without end, each of at most so many seconds of clips and padding: an epoch draws
        every clip in one variation, as often as its weight says."""
        clips = len(self.cache)
        lengths = [self.cache.length(clip) for clip in range(clips)]
        for epoch in itertools.count():
            variation = np.random.default_rng([self.seed, epoch]).integers(0, self.count, clips)
            most = int(batch_s * SAMPLE_RATE)
            for batch in epoch_batches(lengths, most, seed=self.seed, epoch=epoch, weights=self.weights):
                yield [clip + clips * int(variation[clip]) for clip in batch]

    @property
    def key(self) -> dict[str, object]:
        """All that decides the samples."""
        varied = {"augmentation": asdict(self.augmentation), "seed": self.seed} if self.count > 1 else {}
        return {"data": self.cache.key, "variations": self.count, **varied}


class Start(Protocol):
    """Where steps start."""

    def batch(self, rows: Sequence[int]) -> Frames:
        """The rows side by side, padded, on the encoder's device; the host knows their lengths."""


def known_lengths(frames: Frames) -> tuple[int, ...]:
    """The frames of each row of a :class:`Start`'s batch."""
    assert isinstance(frames.lengths, tuple)
    return frames.lengths


@dataclass(frozen=True)
class Kept:
    """The trunk's output: of each row hidden states (T, D) float16, memory-mapped."""

    states: Mapping[int, np.ndarray]
    layer: int
    device: torch.device

    def batch(self, rows: Sequence[int]) -> Frames:
        found = [self.states[row] for row in rows]
        lengths = tuple(len(states) for states in found)
        width = max(max(lengths), few_widths(max(lengths) * _HOP) // _HOP)
        hidden = torch.zeros(len(rows), width, found[0].shape[1])
        for i, states in enumerate(found):
            hidden[i, : lengths[i]] = torch.from_numpy(states.astype(np.float32))
        return Frames(hidden.to(self.device), lengths, self.layer)


@dataclass(frozen=True)
class Computed:
    """The layers below ``layer`` at every step anew, for what trains within them, or without a file."""

    variations: Variations
    encoder: Encoder
    layer: int
    normalised: bool

    def batch(self, rows: Sequence[int]) -> Frames:
        waves = [self.variations.samples(row) for row in rows]
        audio = pad(waves, normalised=self.normalised, width=few_widths)
        return self.encoder.trunk(audio.to(next(self.encoder.parameters()).device), self.layer)


class TrunkCache:
    """What was kept of ``variations`` below some layers of one backbone, in a folder named for both.

    Each run that misses rows adds a part of its own: a file of their states, one row after the other, and last, beside
    it, an index of which they are. So runs that draw from the same clips side by side do not wait for one another.
    """

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
    def below(self, layer: int, rows: Iterable[int]) -> Kept:
        """The output of the layers below ``layer``, of ``rows`` at least: kept already, made from what was kept of
        fewer layers, or from the audio.

        Raises :class:`~adapters.errors.DataError` where it does not fit float16.
        """
        kept = self._kept(layer)
        missing = sorted(set(rows) - kept.states.keys())
        if missing:
            self._make(layer, missing)
            kept = self._kept(layer)
        return kept

    def _kept(self, layer: int) -> Kept:
        states: dict[int, np.ndarray] = {}
        for index in self.folder.glob(f"layer-{layer}-*.npz"):
            with np.load(index) as part:
                rows, frames = part["rows"], part["frames"]
            shape = (int(frames.sum()), self._encoder.hidden_size)
            every = np.memmap(index.with_suffix(".f16"), np.float16, "r", shape=shape)
            ends = np.cumsum(frames)
            for row, begin, end in zip(rows.tolist(), (ends - frames).tolist(), ends.tolist(), strict=True):
                states[row] = every[begin:end]
        return Kept(states, layer, self._device)

    def _make(self, layer: int, rows: list[int]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"layer-{layer}.{os.getpid()}.tmp"
        order: list[int] = []
        frames: list[int] = []
        try:
            with naming(temporary), temporary.open("wb") as file:
                for batch, found in self._run(layer, rows):
                    if float(found.hidden.abs().max()) > torch.finfo(torch.float16).max:
                        raise DataError(
                            f"the states below layer {layer} do not fit float16, as they are kept; adapt more layers"
                        )
                    order += batch
                    frames += known_lengths(found)
                    for states, length in zip(found.hidden, known_lengths(found), strict=True):
                        file.write(states[:length].half().cpu().numpy().tobytes())
                file.flush()
                os.fsync(file.fileno())
            name = hashlib.sha256(json.dumps([order, frames]).encode()).hexdigest()[:16]  # one name, one layout
            index = self.folder / f"layer-{layer}-{name}.npz"
            temporary.replace(index.with_suffix(".f16"))
            with naming(index), temporary.open("wb") as file:
                np.savez(file, rows=np.array(order), frames=np.array(frames))
            temporary.replace(index)  # last: what is there is whole
        finally:
            temporary.unlink(missing_ok=True)

    def _run(self, layer: int, rows: Iterable[int]) -> Iterator[tuple[list[int], Frames]]:
        """Batches of rows and what comes out below ``layer``."""
        cache = self._variations.cache
        for start, some in self._starts(layer, rows):
            lengths = [cache.length(row % len(cache)) for row in some]
            for batch in epoch_batches(lengths, _BATCH_S * SAMPLE_RATE, seed=0, epoch=0):
                chosen = [some[place] for place in batch]
                with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
                    yield chosen, self._encoder.further(start.batch(chosen), layer)

    def _starts(self, layer: int, rows: Iterable[int]) -> Iterator[tuple[Start, list[int]]]:
        """What the rows are made from, and which of them: the highest of the lower layers that they were kept below."""
        left = set(rows)
        lower = {int(path.stem.split("-")[1]) for path in self.folder.glob("layer-*-*.npz")}
        for below in sorted((other for other in lower if other < layer), reverse=True):
            kept = self._kept(below)
            yield kept, sorted(left & kept.states.keys())
            left -= kept.states.keys()
        yield Computed(self._variations, self._encoder, layer, self._normalised), sorted(left)

    @property
    def _device(self) -> torch.device:
        return next(self._encoder.parameters()).device
