"""Looks at the dev split while a run trains: error rates from where its frozen layers ended, which heard it once."""

from __future__ import annotations

import torch

from adapters.ctc import BestPath, best_tokens, transcript
from adapters.frontend import SAMPLE_RATE
from adapters.training.data import AudioCache, epoch_batches
from adapters.training.evaluate import Rates, Said, error_rates
from adapters.training.trainee import Trainee
from adapters.training.trunk import Start, known_lengths
from adapters.vocab import Vocab

_BATCH_S = 30


class Looks:
    """Clips, row i of ``start`` each, as greedy decoding hears them.

    The trunk may have been kept in half precision, and clips are not cut into windows: these rates choose between
    steps of a run. What is published is measured as it is served (:mod:`adapters.training.evaluate`).
    """

    def __init__(self, cache: AudioCache, start: Start, vocab: Vocab) -> None:
        self._clips, self._start, self._vocab = cache.clips, start, vocab
        lengths = [cache.length(clip) for clip in range(len(cache))]
        self._batches = epoch_batches(lengths, _BATCH_S * SAMPLE_RATE, seed=0, epoch=0)

    @torch.inference_mode()
    def rates(self, trainee: Trainee) -> Rates:
        """CER and WER with the values that ``trainee`` has now."""
        frame_s = trainee.encoder.geometry.hop / SAMPLE_RATE
        said = []
        for rows in self._batches:
            below = self._start.batch(rows)
            ids, sure = (found.cpu().numpy() for found in best_tokens(trainee(below)))
            for place, (row, length) in enumerate(zip(rows, known_lengths(below), strict=True)):
                clip, path = self._clips[row], BestPath(ids[place, :length], sure[place, :length])
                heard = transcript(path, self._vocab, frame_s=frame_s, duration_s=clip.seconds).text
                said.append(Said(clip, heard))
        return error_rates(said)
