"""The phone of every frame, as a synthesizer says that it spoke it: no plateau to leave, and no lack of data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from adapters.encoder import Encoder
from adapters.frontend import SAMPLE_RATE, Geometry
from adapters.training.losses import unit_losses
from adapters.training.manifest import Clip
from adapters.training.objectives import Batch


class Phones:
    """Cross-entropy over the phones of all languages, of masked and of seen frames alike."""

    def __init__(self, clips: Sequence[Clip], lengths: Sequence[int], geometry: Geometry, hidden_size: int) -> None:
        """``lengths``: the samples of each clip as recorded, which its phones' times are of."""
        names = sorted({name for clip in clips for name, _ in clip.phones})
        self.head = nn.Linear(hidden_size, max(1, len(names)))
        self.clips = [index for index, clip in enumerate(clips) if clip.phones]
        self._ids = {name: number for number, name in enumerate(names)}
        self._spoken, self._lengths, self._geometry = [clip.phones for clip in clips], lengths, geometry

    def target(self, clip: int, samples: np.ndarray) -> np.ndarray:
        """(T,) int16. Faster or slower speech has its phones as much earlier or later."""
        stretch = samples.size / self._lengths[clip]
        starts = np.array([start * stretch for _, start in self._spoken[clip]])
        ids = np.array([self._ids[name] for name, _ in self._spoken[clip]], np.int16)
        frames = np.arange(self._geometry.frames(samples.size))
        centres = (frames * self._geometry.hop + self._geometry.receptive_field / 2) / SAMPLE_RATE
        found: np.ndarray = ids[np.clip(np.searchsorted(starts, centres, side="right") - 1, 0, None)]
        return found

    def loss(self, encoder: Encoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        x = encoder.hidden(encoder.trunk(batch.audio, 0, masked=batch.masked), encoder.bare)
        hidden, seen = unit_losses(self.head(x), batch.targets, batch.masked)
        return hidden + seen, {"masked": float(hidden.detach()), "seen": float(seen.detach())}
