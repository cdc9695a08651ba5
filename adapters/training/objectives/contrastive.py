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
        self.head.quantizer._compute_perplexity = _perplexity
        self.clips = range(clip_count)
        self._negatives = config.num_negatives

    def target(self, clip: int, samples: np.ndarray) -> None:
        """The audio is its own."""

    def loss(self, encoder: Encoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([batch.step, *batch.clips])
        self.head.set_gumbel_temperature(max(_HOTTEST * _COOLING**batch.step, _COOLEST))
        masked, device = batch.masked, batch.masked.device
        if not masked.any():  # of very little audio: a frame that nothing is told from costs nothing
            masked = masked.clone()
            masked[:, 0] = True
        self._encoded.given = (encoder, batch.audio, masked)
        negatives = torch.from_numpy(sample_negatives(masked.cpu().numpy(), self._negatives, rng))
        count = len(negatives)
        found = self.head(
            None,
            mask_time_indices=torch.ones(1, count, dtype=torch.bool, device=device),
            sampled_negative_indices=negatives[None].to(device),
        )
        figures = {"contrastive": float(found.contrastive_loss.detach()) / count}
        return found.loss / count, {**figures, "codes": float(found.codevector_perplexity.detach())}


class _Encoded(nn.Module):
    """In the place of transformers' own backbone, and without parameters: they are the encoder's. Gives the masked
    frames of all clips as one row: the loss is of those alone, and transformers would compare all with all."""

    given: tuple[Encoder, PaddedAudio, Tensor]  # a tuple: as an attribute the encoder would become a part of this

    def forward(self, _: None, attention_mask: None, mask_time_indices: Tensor) -> Wav2Vec2BaseModelOutput:
        encoder, audio, masked = self.given
        features, lengths = encoder.frontend.features(audio)
        x = encoder.hidden(encoder.begin(encoder.frontend.project(features), lengths, masked), encoder.bare)
        return Wav2Vec2BaseModelOutput(last_hidden_state=x[masked][None], extract_features=features[masked][None])


def _perplexity(probabilities: Tensor, masked: Tensor) -> Tensor:
    """How many codes are in use, summed over the groups: (M, groups, codes) -> (). In the place of transformers', whose
    gradient is no number once a code's probability is 0; all frames that are given are masked."""
    mean = probabilities.mean(dim=0)
    return torch.exp(-(mean * torch.log(mean + 1e-7)).sum(dim=-1)).sum()


def sample_negatives(masked: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """For each of the M masked frames of (B, T) bool, ``count`` others of its row, by their numbers among the M:
    (M, count). One that is alone in its row has nothing to be told from and gets itself."""
    found, before = list[np.ndarray](), 0
    for alike in masked.sum(axis=1):
        drawn = rng.integers(0, max(1, alike - 1), (alike, count))
        drawn += (drawn >= np.arange(alike)[:, None]) & (alike > 1)  # never the frame itself
        found.append(before + drawn)
        before += alike
    return np.concatenate(found)
