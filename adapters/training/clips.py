"""Which clips of a corpus one run is about."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from adapters.errors import DataError
from adapters.language import language_key
from adapters.training.manifest import Clip, read_manifest
from adapters.training.train_config import TrainConfig
from adapters.vocab import Vocab

log = logging.getLogger("tongues.training")


def clips_for(manifest: Path, language: str, config: TrainConfig, also: Sequence[Path] = ()) -> dict[str, list[Clip]]:
    """By split, those of ``language`` that ``config`` wants; as ``beside``, the train clips of the manifests ``also``.
    Raises :class:`~adapters.errors.DataError` where there are none."""
    every = read_manifest(manifest)
    spoken = {clip.language for clip in every}
    clips = [clip for clip in every if _speaks(clip, language)]
    clips = [replace(clip, language=language) for clip in clips]  # however the manifest spells it
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
    others = [clip for path in also for clip in read_manifest(path) if clip.split == "train"]
    found["beside"] = [replace(clip, language=language) for clip in others if _speaks(clip, language)]
    if also and not found["beside"]:
        raise DataError(f"{', '.join(map(str, also))}: no train clips of {language!r}; train it without --also")
    return found


def _speaks(clip: Clip, language: str) -> bool:
    return language_key(clip.language) == language_key(language)


def warn_of_letters(clips: Mapping[str, Sequence[Clip]], vocab: Vocab) -> None:
    """Tell of letters that are in ``clips`` of a split and not in ``vocab``."""
    known = {*"".join(vocab.tokens), " "}
    for split, some in clips.items():
        strange = [set(clip.text) - known for clip in some]
        if count := sum(map(bool, strange)):
            letters = ", ".join(map(repr, sorted(set().union(*strange))[:10]))
            log.warning(
                "%d of %d %s clips have letters that no train clip has (%s): they cannot be heard, and count as errors",
                count,
                len(some),
                split,
                letters,
            )


def _some(clips: list[Clip], seconds: float, seed: int) -> list[Clip]:
    """As many of ``clips``, drawn at random, as last ``seconds`` at most; in their order."""
    taken, left = set(), seconds
    for index in np.random.default_rng(seed).permutation(len(clips)):
        if clips[index].seconds <= left:
            taken.add(int(index))
            left -= clips[index].seconds
    return [clip for index, clip in enumerate(clips) if index in taken]
