"""Everything that decides what pretraining makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from adapters.training.augmentation import Augmentation
from adapters.training.backbone_folder import BackboneShape

Stage = Literal["units", "contrastive", "phones", "ctc"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Halfway = Literal["letters", "sounds"]


@dataclass(frozen=True)
class StageConfig:
    """One stage: how many updates of how many seconds over all processes, how fast, and how the audio is varied.

    ``conv_lr``: of the convolutions, as a share of ``lr``. The contrastive stage makes its targets of what they give:
    where they learn as fast as what predicts them, few codes soon stand for everything. The paper has a tenth of their
    gradient, which Adam would undo.
    """

    steps: int
    batch_s: float
    lr: float
    mask_probability: float
    augmentation: Augmentation
    warmup: float = 0.05
    conv_lr: float = 1.0


STAGE: dict[Stage, StageConfig] = {
    "units": StageConfig(1_300, 24.0, 1e-3, 0.08, Augmentation(speed=0.15, filter=0.3)),
    "contrastive": StageConfig(1_300, 24.0, 1e-3, 0.065, Augmentation(speed=0.15, filter=0.3), conv_lr=0.1),
    "phones": StageConfig(1_300, 24.0, 1e-3, 0.02, Augmentation(speed=0.15, filter=0.3)),
    "ctc": StageConfig(5_800, 24.0, 1e-3, 0.01, Augmentation(speed=0.1, telephone=0.05, noise=0.05, filter=0.2)),
}
"""Each as it is run unless something else is asked for."""


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides what comes out; saved with it.

    ``stages``: run in their order; one of no steps is left out. ``unmasked_weight``: of the frames that are not masked,
    in stage ``units``. ``intermediate_weight``: of a second CTC loss half way up, over ``halfway``: the
    letters again, or the sounds that they make, which all languages share. ``ema``: of the weights that are
    kept. ``language_balance``: 0 draws clips as they come, 1 every language for as many seconds as the largest.
    ``start``: a backbone folder to go on from, whose record is kept. ``also_share``: of the seconds, those that
    further manifests give. ``consistency_weight``: stage ``ctc`` sees each clip behind two masks, which should make no
    difference; 0 for one mask.
    """

    shape: BackboneShape = field(default_factory=BackboneShape)
    units: int = 200
    unmasked_weight: float = 0.5
    intermediate_weight: float = 0.3
    halfway: Halfway = "letters"
    consistency_weight: float = 0.0
    ema: float = 0.999
    language_balance: float = 0.5
    seed: int = 0
    start: str | None = None
    also_share: float = 0.4
    stages: dict[Stage, StageConfig] = field(default_factory=lambda: {name: STAGE[name] for name in ("units", "ctc")})
