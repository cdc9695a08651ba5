"""What a stage of pretraining minimises, a file each. All take the same steps over the same audio and differ in what
they ask of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from adapters.encoder import Encoder
from adapters.frontend import PaddedAudio


@dataclass(frozen=True)
class Batch:
    """``clips``: which of the run's, row by row. ``targets``: what the objective made of each row. ``masked`` (B, T)
    bool: the frames that the encoder does not get to see; (2B, T) where it sees every row twice. ``step``: of the
    stage, for what changes on the way."""

    audio: PaddedAudio
    frames: Sequence[int]
    clips: Sequence[int]
    targets: Sequence[Any]
    masked: Tensor
    step: int


class Objective(Protocol):
    """What is asked of the audio."""

    @property
    def head(self) -> nn.Module:
        """What trains beside the encoder."""

    @property
    def clips(self) -> Sequence[int]:
        """The clips that it can learn from."""

    def target(self, clip: int, samples: np.ndarray) -> Any:
        """Of one row: clip number ``clip``, varied to (N,) float32. Called in another thread, before its step."""

    def loss(self, encoder: Encoder, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """A scalar, and figures for the log."""
