"""What a language head is fitted on: clips through the trunk, and through the top of every language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adapters.backbone import fingerprint, load_backbone, read_normalised
from adapters.bank import Bank, Seat
from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder
from adapters.errors import ChoiceError, DataError
from adapters.frontend import SAMPLE_RATE, few_widths, pad
from adapters.language_head import Letters
from adapters.registry import RegisteredAdapter, Registry
from adapters.store import AdapterStore
from adapters.training.augmentation import Augmentation
from adapters.training.backbone_folder import read_head
from adapters.training.data import AudioCache, epoch_batches
from adapters.training.manifest import Clip
from adapters.training.precision import check_device

LONG_S = 2.0  #: from here on a clip counts for what is aimed at
_BATCH_S = 30
_AUGMENTATION = Augmentation(speed=0.1, telephone=0.15, noise=0.15, filter=0.3)


@dataclass(frozen=True)
class Heard:
    """Clips with their letters, pooled (N, K), and the score of each language's best path (N, L), if that was asked
    for; ``truth`` (N,) are numbers of languages."""

    clips: list[Clip]
    letters: np.ndarray
    scores: np.ndarray
    truth: np.ndarray

    @property
    def long(self) -> np.ndarray:
        """(N,) bool: clips of :data:`LONG_S` and more."""
        return np.array([clip.seconds >= LONG_S for clip in self.clips], dtype=bool)


class Listener:
    """Runs the trunk, and the top of every language."""

    def __init__(self, models: Path, languages: Sequence[str], cache: Path, device: str) -> None:
        """``languages``: those that there are clips of; ``cache``: the folder for their samples."""
        check_device(device)
        self._encoder: Encoder = load_backbone(models / "backbone", device=device)
        self._normalised = read_normalised(models / "backbone")
        self._cache = cache
        self._device = device
        size = self._encoder.size
        registry = Registry([AdapterStore(models / "adapters")], fingerprint(models / "backbone"), size)
        found: dict[str, RegisteredAdapter] = {}
        for language in languages:
            try:
                found[language] = registry.resolve(language=language)
            except ChoiceError:
                continue
        if len(found) < 2:
            raise DataError(
                f"{models}: adapters for at least two of {', '.join(languages)} are needed to tell them apart"
            )
        self.languages = tuple(found)
        self.letters = _letters(models / "backbone", self._encoder)
        self._bank = Bank(size, limit=len(found), device=torch.device(device))
        self._seats: list[Seat] = []
        for adapter in found.values():
            loaded = registry.load(adapter)
            self._seats.append(self._bank.seat(loaded.record.config, loaded.tensors))
        self.layer = min(seat.lowest_layer for seat in self._seats)
        if self.layer == 0:
            raise DataError(f"{models}: an adapter changes the lowest layer, so there is no trunk to tell languages by")

    @torch.inference_mode()
    def hear(self, clips: Sequence[Clip], *, variations: int, scored: bool) -> Heard:
        """Every clip in each variation, the first of them the clip itself."""
        if not clips:
            raise DataError("train, dev and test each need clips to tell languages by")
        cache = AudioCache(clips, self._cache)
        count = len(clips) * variations
        letters = np.zeros((count, len(self.letters.bias) - 1), dtype=np.float32)
        scores = np.zeros((count if scored else 0, len(self.languages)), dtype=np.float32)
        lengths = [cache.length(row % len(clips)) for row in range(count)]
        for rows in epoch_batches(lengths, _BATCH_S * SAMPLE_RATE, seed=0, epoch=0):
            waves = [self._wave(cache, row) for row in rows]
            audio = pad(waves, normalised=self._normalised, width=few_widths).to(self._device)
            frames = self._encoder.trunk(audio, self.layer)
            letters[rows] = self.letters.pooled(frames).cpu().numpy()
            for number in range(len(self.languages) if scored else 0):
                worn = self._bank.dress([self._seats[number]] * len(rows))
                ids, best = (found.cpu().numpy() for found in best_tokens(self._encoder.top(frames, worn)))
                for place, (row, length) in enumerate(zip(rows, frames.lengths, strict=True)):
                    path = BestPath(ids[place, :length], best[place, :length])
                    scores[row, number] = path.log_probability / length
        truth = np.array([self.languages.index(clip.language) for clip in clips] * variations)
        return Heard(list(clips) * variations, letters, scores, truth)

    def _wave(self, cache: AudioCache, row: int) -> np.ndarray:
        variation, index = divmod(row, len(cache))
        samples = cache.samples(index)
        return _AUGMENTATION(samples, np.random.default_rng([variation, index])) if variation else samples


def _letters(backbone: Path, encoder: Encoder) -> Letters:
    """The CTC head that lies beside the backbone, blank first, and the norm below it."""
    head, vocab = read_head(backbone)
    order = [vocab.blank, *(row for row in range(vocab.size) if row != vocab.blank)]
    norm = encoder.model.encoder.layer_norm
    weight, bias = (head[name].to(norm.weight.device).float()[order] for name in ("weight", "bias"))
    return Letters(weight, bias, norm.weight.float(), norm.bias.float())
