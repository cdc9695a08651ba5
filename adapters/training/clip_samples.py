"""The samples of a corpus' clips, and what is refused of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from adapters.errors import DataError
from adapters.frontend import SAMPLE_RATE
from adapters.training.manifest import Clip

_MOST_APART = 0.1  # of what the manifest says a clip lasts


def check_clips(clips: Sequence[Clip]) -> None:
    """Raises what :func:`clip_samples` does."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for _ in threads.map(clip_samples, clips):
            pass


def clip_samples(clip: Clip) -> np.ndarray:
    """(N,) float32 in -1..1. Raises :class:`~adapters.errors.DataError`, naming the line, for what :func:`read_clip`
    refuses."""
    try:
        samples = read_clip(clip.path)
    except DataError as error:
        raise clip.fault(str(error)) from error
    seconds = samples.size / SAMPLE_RATE
    if abs(seconds - clip.seconds) > _MOST_APART * max(clip.seconds, 1.0):
        raise clip.fault(f"{clip.path}: {seconds:.2f} s, where the manifest says {clip.seconds:g}")
    return samples


def read_clip(path: Path) -> np.ndarray:
    """A recording of a corpus, (N,) float32 in -1..1.

    Raises :class:`~adapters.errors.DataError` where it is missing, broken, empty, or not 16 kHz mono.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if rate != SAMPLE_RATE or samples.shape[1] != 1:
        raise DataError(f"{path}: {rate} Hz, {samples.shape[1]} channels; a corpus is {SAMPLE_RATE} Hz, 1 channel")
    found: np.ndarray = samples[:, 0]
    if not found.size:
        raise DataError(f"{path}: no samples in it")
    if not np.isfinite(found).all():
        raise DataError(f"{path}: samples that are no numbers, or infinite; floats belong in -1..1")
    return found
