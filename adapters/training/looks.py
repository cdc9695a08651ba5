"""Looks at the dev split while a run trains: error rates from where its frozen layers ended, which heard it once."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters.ctc import BestPath, best_tokens, transcript
from adapters.frontend import SAMPLE_RATE
from adapters.training.data import epoch_batches
from adapters.training.evaluate import Rates, Said, error_rates
from adapters.training.manifest import Clip
from adapters.training.trainee import Trainee
from adapters.training.trunk import Start
from adapters.vocab import Vocab

_BATCH_FRAMES = 1_600


class Looks:
    """``clips``, row i of ``start`` each, as greedy decoding hears them.

    The trunk may have been kept in half precision, and clips are not cut into windows: these rates choose between
    steps of a run. What is published is measured as it is served (:mod:`adapters.training.evaluate`).
    """

    def __init__(self, clips: Sequence[Clip], start: Start, vocab: Vocab) -> None:
        self._clips, self._start, self._vocab = clips, start, vocab
        lengths = [int(start.frames[row]) for row in range(len(clips))]
        self._batches = epoch_batches(lengths, _BATCH_FRAMES, seed=0, epoch=0)

    @torch.inference_mode()
    def rates(self, trainee: Trainee) -> Rates:
        """CER and WER with the values that ``trainee`` has now."""
        frame_s = trainee.encoder.geometry.hop / SAMPLE_RATE
        said = []
        for rows in self._batches:
            ids, sure = (found.cpu().numpy() for found in best_tokens(trainee(self._start.batch(rows))))
            for place, row in enumerate(rows):
                clip, length = self._clips[row], int(self._start.frames[row])
                path = BestPath(ids[place, :length], sure[place, :length])
                heard = transcript(path, self._vocab, frame_s=frame_s, duration_s=clip.seconds).text
                said.append(Said(clip, heard))
        return error_rates(said)
