"""Letters in all languages at once, as MMS trains its backbone before its adapters (Pratap et al. 2023, section 4);
and half way up how they sound, which languages of other letters share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from adapters.encoder import Encoder
from adapters.frontend import Geometry
from adapters.pieces import front
from adapters.training.data import AudioCache, encoded, vocabulary
from adapters.training.losses import consistency_loss, ctc_loss
from adapters.training.objectives import Batch


class Ctc:
    """One head over the union of all languages' characters, of which each clip sees only its own language's; a second
    loss half way up (Lee and Watanabe 2021), of the same head, or of one over the sounds of all languages.

    Where a batch has two masks a row, each row is seen behind both, and what it says is drawn together with
    ``consistency_weight`` (Yao et al. 2025, CR-CTC, section 3.2).
    """

    def __init__(
        self,
        cache: AudioCache,
        geometry: Geometry,
        languages: Sequence[str],
        hidden_size: int,
        halfway_weight: float = 0.3,
        consistency_weight: float = 0.0,
        sounds: Sequence[str] | None = None,
    ) -> None:
        """``sounds``: how the text of each clip is said, a character a sound.

        Raises :class:`~adapters.errors.DataError` for a text that does not fit its clip.
        """
        clips = cache.clips
        self.vocab = vocabulary(clips)
        self.letters = nn.Linear(hidden_size, self.vocab.size)
        self._halfway: Halfway | None = None if sounds is None else Halfway(sounds, hidden_size)
        self.head = nn.ModuleList([self.letters] if self._halfway is None else [self.letters, self._halfway.head])
        self.clips = range(len(clips))
        self._halfway_weight, self._consistency_weight = halfway_weight, consistency_weight
        self._labels = encoded(cache, self.vocab, geometry)
        self._language = [languages.index(clip.language) for clip in clips]
        self.allowed = torch.zeros(len(languages), self.vocab.size, dtype=torch.bool)
        """(languages, V): the tokens of each."""
        self.allowed[:, [self.vocab.blank, self.vocab.delimiter]] = True
        for language, labels in zip(self._language, self._labels, strict=True):
            self.allowed[language, labels] = True

    def target(self, clip: int, samples: np.ndarray) -> list[int]:
        return self._labels[clip]

    def loss(self, encoder: Encoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        x, lengths = front(encoder.frontend, batch.audio)
        views = len(batch.masked) // len(x)
        frames, targets = [*batch.frames] * views, [*batch.targets] * views
        begun = encoder.begin(x.repeat(views, 1, 1), lengths * views, masked=batch.masked)
        half = encoder.further(begun, encoder.layer_count // 2)
        languages = [self._language[clip] for clip in batch.clips] * views
        allowed = self.allowed[languages].to(x.device)
        said = self.letters(encoder.hidden(half, encoder.bare))
        lower = encoder.model.encoder.layer_norm(half.hidden)
        loss = ctc_loss(said, frames, targets, blank=self.vocab.blank, allowed=allowed)
        if self._halfway is not None:
            below = self._halfway.loss(lower, frames, [*batch.clips] * views)
        else:
            below = ctc_loss(self.letters(lower), frames, targets, blank=self.vocab.blank, allowed=allowed)
        total, figures = loss + self._halfway_weight * below, {"ctc": float(loss.detach())}
        if views == 2:
            apart = consistency_loss(said, frames, allowed=allowed) / max(1, sum(map(len, targets)))
            total, figures["apart"] = total + self._consistency_weight * apart, float(apart.detach())
        return total, figures


class Halfway:
    """CTC over the sounds that some language has; number 0 is the blank."""

    def __init__(self, sounds: Sequence[str], hidden_size: int) -> None:
        known = sorted({sound for said in sounds for sound in said})
        self.head = nn.Linear(hidden_size, 1 + len(known))
        numbers = {sound: number for number, sound in enumerate(known, start=1)}
        self._labels = [[numbers[sound] for sound in said] for said in sounds]

    def loss(self, hidden: Tensor, frames: Sequence[int], clips: Sequence[int]) -> Tensor:
        """(B, T, D), the valid frames and the clip of each row -> scalar."""
        return ctc_loss(self.head(hidden), frames, [self._labels[clip] for clip in clips], blank=0)
