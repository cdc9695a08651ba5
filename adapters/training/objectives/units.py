"""Masked prediction of k-means units over MFCC, one a frame (HuBERT, first iteration; Hsu et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor, nn

from adapters.encoder import Encoder
from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE
from adapters.training.losses import unit_losses
from adapters.training.objectives import Batch

try:
    import kaldi_native_fbank
    from sklearn.cluster import MiniBatchKMeans
except ModuleNotFoundError as error:
    raise DataError(f"pretraining needs {error.name}: pip install 'tongues[train]'") from error


class Units:
    """The unit of every frame, of those that are seen as well, with ``seen_weight``: a small model learns faster so."""

    def __init__(self, centres: np.ndarray, clip_count: int, hidden_size: int, seen_weight: float) -> None:
        self.head = nn.Linear(hidden_size, len(centres))
        self.clips = range(clip_count)
        self._centres, self._seen_weight = centres, seen_weight

    def target(self, clip: int, samples: np.ndarray) -> np.ndarray:
        return assign_units(mfcc(samples), self._centres)

    def loss(self, encoder: Encoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        x = encoder.hidden(encoder.trunk(batch.audio, 0, masked=batch.masked), encoder.bare)
        hidden, seen = unit_losses(self.head(x), batch.targets, batch.masked)
        return hidden + self._seen_weight * seen, {"masked": float(hidden.detach()), "seen": float(seen.detach())}


def mfcc(samples: np.ndarray) -> np.ndarray:
    """(N,) float32 -> (T, 39) float32: 13 coefficients with first and second differences, mean and variance taken out.

    25 ms windows every 20 ms without padding, so T is the frame count of the backbone itself.
    """
    options = kaldi_native_fbank.MfccOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.frame_length_ms = 25
    options.frame_opts.frame_shift_ms = 20
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = True
    options.use_energy = False
    computer = kaldi_native_fbank.OnlineMfcc(options)
    computer.accept_waveform(SAMPLE_RATE, (samples * 32768).tolist())
    computer.input_finished()
    frames = np.stack([computer.get_frame(i) for i in range(computer.num_frames_ready)])
    first = np.gradient(frames, axis=0) if len(frames) > 1 else np.zeros_like(frames)
    second = np.gradient(first, axis=0) if len(frames) > 1 else np.zeros_like(frames)
    features = np.concatenate([frames, first, second], axis=1)
    scaled: np.ndarray = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-3)
    return scaled.astype(np.float32)


def learn_units(features: Iterable[np.ndarray], count: int, seed: int) -> np.ndarray:
    """Rows of (T, 39) features -> ``count`` centres, (count, 39) float32. Raises
    :class:`~adapters.errors.DataError` where there are fewer frames than centres."""
    rows = np.concatenate(list(features))
    if len(rows) < count:
        raise DataError(f"{len(rows)} frames of train clips cannot have {count} kinds; pretraining takes more speech")
    found = MiniBatchKMeans(count, batch_size=10_000, n_init=3, max_iter=60, random_state=seed).fit(rows)
    centres: np.ndarray = found.cluster_centers_.astype(np.float32)
    return centres


def assign_units(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(T, 39) features -> (T,) int16, the nearest centre of each frame."""
    distance = (centres**2).sum(axis=1)[None, :] - 2 * features @ centres.T
    units: np.ndarray = distance.argmin(axis=1).astype(np.int16)
    return units
