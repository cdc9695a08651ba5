"""The batches of a stage of pretraining: which clips, in which order, varied how. All of it follows from the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapters.frontend import SAMPLE_RATE, PaddedAudio, few_widths, pad
from adapters.training.data import AudioCache, epoch_batches, weights_beside
from adapters.training.feed import prepared_ahead
from adapters.training.objectives import Objective
from adapters.training.pretrain_config import STAGES, PretrainConfig, Stage


@dataclass(frozen=True)
class Prepared:
    """A batch before its step: ``clips`` by their numbers, and what the objective wants of each."""

    audio: PaddedAudio
    clips: list[int]
    targets: list[Any]


@dataclass(frozen=True)
class StageBatches:
    """Those that process ``rank`` of ``world`` takes. The first ``recorded`` of ``clips`` are the corpus, the others
    beside it."""

    stage: Stage
    config: PretrainConfig
    objective: Objective
    clips: AudioCache
    recorded: int
    rank: int
    world: int

    def after(self, step: int, workers: int) -> Iterator[Prepared]:
        """Without end, from step ``step`` on, prepared ahead by ``workers`` (:mod:`adapters.training.feed`)."""
        return prepared_ahead(self._prepare, self.order(step), workers)

    def order(self, step: int) -> Iterator[tuple[int, list[int]]]:
        """Without end, the numbers of batches from step ``step`` on, and of their clips."""
        config, clips = self.config.stages[self.stage], self.objective.clips
        balance = self.config.language_balance if self.stage == "ctc" else 0.0
        recorded, beside = self.clips.clips[: self.recorded], self.clips.clips[self.recorded :]
        weights = weights_beside(recorded, beside, balance, self.config.also_share) if self.stage != "phones" else None
        lengths = [self.clips.length(i) for i in clips]
        longest = int(config.batch_s / self.world * SAMPLE_RATE)
        number, epoch = 0, 10_000 * STAGES.index(self.stage)
        while True:
            for batch in epoch_batches(lengths, longest, seed=self.config.seed, epoch=epoch, weights=weights):
                if number >= step * self.world and number % self.world == self.rank:
                    yield number, [clips[i] for i in batch]
                number += 1
            epoch += 1

    def _prepare(self, numbered: tuple[int, list[int]]) -> Prepared:
        number, clips = numbered
        rng = np.random.default_rng([self.config.seed, number, self.stage == "ctc"])
        augmentation = self.config.stages[self.stage].augmentation
        waves = [augmentation(self.clips.samples(i), rng) for i in clips]
        targets = [self.objective.target(clip, wave) for clip, wave in zip(clips, waves, strict=True)]
        return Prepared(pad(waves, width=few_widths), clips, targets)
