"""Everything that decides what training for one language makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from adapters.config import Norms
from adapters.training.augmentation import Augmentation

Method = Literal["bottleneck", "lora", "head", "full"]
METHODS: tuple[Method, ...] = ("bottleneck", "lora", "head", "full")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what comes out; saved with the adapter.

    ``method``: an adapter's, or ``full``, the baseline: the backbone's own layers train. ``size``: a bottleneck's
    width, LoRA's rank. ``layers``: how many from the top are adapted or trained, None for half of them, or with
    ``full`` for all, and then everything but the convolutions in front. ``variations``: how many variations of each
    clip the steps draw from, the first of them the clip itself. ``batch_s``: seconds of clips a step, padding with
    them. ``sources``: train on these sources alone. ``minutes``: train on so much of them at most, drawn at random.
    ``also_share``: of the seconds, those of clips from beside the corpus, where there are any. ``patience``: end after
    so many looks at the dev split without a lower CER, None to go through all steps.
    """

    method: Method = "bottleneck"
    size: int = 32
    layers: int | None = None
    norms: Norms = "adapted"
    lr: float = 2e-3
    steps: int = 600
    batch_s: float = 24.0
    variations: int = 3
    augmentation: Augmentation = field(
        default_factory=lambda: Augmentation(speed=0.15, telephone=0.15, noise=0.15, filter=0.3)
    )
    sources: tuple[str, ...] = ()
    minutes: float | None = None
    also_share: float = 0.5
    patience: int | None = None
    seed: int = 0
