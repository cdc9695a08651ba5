"""Which clips of a corpus one run is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adapters.errors import DataError
from adapters.training.manifest import Clip, read_manifest
from adapters.training.train_config import TrainConfig


def clips_for(manifest: Path, language: str, config: TrainConfig) -> dict[str, list[Clip]]:
    """By split, those of ``language`` that ``config`` wants. Raises :class:`~adapters.errors.DataError` where there are
    none."""
    every = read_manifest(manifest)
    spoken = {clip.language for clip in every}
    clips = [clip for clip in every if clip.language == language]
    if not clips:
        raise DataError(f"{manifest}: no clips of {language!r}; there are {', '.join(sorted(spoken))}")
    found: dict[str, list[Clip]] = {"train": [], "dev": [], "test": []}
    for clip in clips:
        if not config.sources or clip.source in config.sources:
            found[clip.split].append(clip)
    if config.minutes is not None:
        found["train"] = _some(found["train"], 60 * config.minutes, config.seed)
    for split, some in found.items():
        if not some:
            of = f" from {', '.join(config.sources)}" if config.sources else ""
            raise DataError(f"{manifest}: no {split} clips of {language!r}{of}; train, dev and test each need some")
    return found


def _some(clips: list[Clip], seconds: float, seed: int) -> list[Clip]:
    """As many of ``clips``, drawn at random, as last ``seconds`` at most; in their order."""
    taken, left = set(), seconds
    for index in np.random.default_rng(seed).permutation(len(clips)):
        if clips[index].seconds <= left:
            taken.add(int(index))
            left -= clips[index].seconds
    return [clip for index, clip in enumerate(clips) if index in taken]
