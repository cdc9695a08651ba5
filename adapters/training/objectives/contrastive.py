"""The objective of wav2vec 2.0: tell a masked frame's quantised features from those of other masked frames of its clip
(Baevski et al. 2020, section 3.2), by transformers' ``Wav2Vec2ForPreTraining``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining
from transformers.modeling_outputs import Wav2Vec2BaseModelOutput

from adapters.encoder import Encoder
from adapters.errors import DataError
from adapters.frontend import PaddedAudio
from adapters.training.objectives import Batch

if TYPE_CHECKING:
    from adapters.encoder import BackboneConfig

_HOTTEST, _COOLEST, _COOLING = 2.0, 0.5, 0.9995
"""Of the quantiser's softmax; the paper's 0.999995 a step is for 400,000 of them."""


class Contrastive:
    """The quantiser, the projections and the loss are transformers'; the hidden states are our encoder's, whose rows
    keep apart."""

    def __init__(self, config: BackboneConfig, clip_count: int) -> None:
        """Raises :class:`~adapters.errors.DataError` for a HuBERT, which has no such objective."""
        if not isinstance(config, Wav2Vec2Config):
            raise DataError("the contrastive objective is wav2vec 2.0's; a HuBERT learns its units")
        self.head = cast(Any, Wav2Vec2ForPreTraining(config))
        self._encoded = _Encoded()
        self.head.wav2vec2 = self._encoded
        self.clips = range(clip_count)
        self._negatives = config.num_negatives

    def target(self, clip: int, samples: np.ndarray) -> None:
        """The audio is its own."""

    def loss(self, encoder: Encoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([batch.step, *batch.clips])
        self.head.set_gumbel_temperature(max(_HOTTEST * _COOLING**batch.step, _COOLEST))
        self._encoded.given = (encoder, batch.audio)
        negatives = torch.from_numpy(sample_negatives(batch.masked.cpu().numpy(), self._negatives, rng))
        found = self.head(
            None, mask_time_indices=batch.masked, sampled_negative_indices=negatives.to(batch.masked.device)
        )
        count = max(1, int(batch.masked.sum()))
        figures = {"contrastive": float(found.contrastive_loss.detach()) / count}
        return found.loss / count, {**figures, "codes": float(found.codevector_perplexity.detach())}


class _Encoded(nn.Module):
    """In the place of transformers' own backbone, and without parameters: they are the encoder's."""

    given: tuple[Encoder, PaddedAudio]  # a tuple: as an attribute of its own the encoder would become a part of this

    def forward(self, _: None, attention_mask: None, mask_time_indices: Tensor) -> Wav2Vec2BaseModelOutput:
        encoder, audio = self.given
        features, lengths = encoder.frontend.features(audio)
        x = encoder.hidden(encoder.begin(encoder.frontend.project(features), lengths, mask_time_indices), encoder.bare)
        return Wav2Vec2BaseModelOutput(last_hidden_state=x, extract_features=features)


def sample_negatives(masked: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """For each frame of (B, T) bool, masked or not, ``count`` indices into the flattened frames, (B, T, count): other
    masked frames of its row. A row with one masked frame has nothing to be told from and gets that frame."""
    batch, width = masked.shape
    found = np.zeros((batch, width, count), np.int64)
    for row in range(batch):
        places = np.flatnonzero(masked[row])
        if len(places) < 2:
            found[row] = row * width + (places[0] if len(places) else 0)
            continue
        drawn = rng.integers(0, len(places) - 1, (len(places), count))
        drawn += drawn >= np.arange(len(places))[:, None]  # never the frame itself
        found[row, places] = row * width + places[drawn]
    return found
