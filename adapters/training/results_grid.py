"""Which trials make the paper's experiment on our data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from adapters.training.train_config import TrainConfig

REQUIRED = ("cs", "fr")
SEEDS = (0, 1, 2)
RATES = {"bottleneck": (5e-4, 2e-3), "lora": (1e-3, 4e-3), "head": (1e-3, 4e-3), "full": (1e-4, 3e-4)}
"""Learning rates that are tried for each method, on :data:`TUNED_ON` with the first seed; the better on dev counts."""
TUNED_ON = "fr"


@dataclass(frozen=True)
class Trial:
    """One training run. ``name`` is its folder's, and says all that sets it apart. ``on``: a backbone beside the main
    one, by what it is called."""

    language: str
    config: TrainConfig
    on: str = ""

    @property
    def name(self) -> str:
        c = self.config
        parts = [*([self.on] if self.on else []), self.language, c.method]
        if c.method in ("bottleneck", "lora"):
            parts.append(f"{c.size}")
        if c.method != "head":
            parts.append("all" if c.layers is None else f"top{c.layers}")
        if c.method != "full":
            parts.append(f"norms-{c.norms}")
        if c.minutes is not None:
            parts.append(f"{c.minutes:g}min")
        return "-".join([*parts, f"{c.steps}x{c.batch_s:g}s", f"lr{c.lr:g}", f"seed{c.seed}"])


def tuning(usual: TrainConfig, layers: int) -> list[Trial]:
    """Every method in all layers with each of its learning rates."""
    return [
        Trial(TUNED_ON, replace(config, lr=lr))
        for config in _methods(usual, layers).values()
        for lr in RATES[config.method]
    ]


def trials(
    usual: TrainConfig, layers: int, rates: dict[str, float], languages: Iterable[str], others: Iterable[str] = ()
) -> list[Trial]:
    """The grid over a backbone of ``layers`` layers: what the claims need with every seed, the rest with one. Of one
    language and seed those that train more layers come first: others begin with what they kept of the layers below.
    ``others``: further backbones, for adapters in all layers."""
    methods = {name: replace(config, lr=rates[config.method]) for name, config in _methods(usual, layers).items()}
    adapters, full, head = methods["bottleneck"], methods["full"], methods["head"]
    some = sorted({1, 2, layers // 2, layers})
    seeded = [full, head, adapters]
    seeded += [replace(adapters, layers=n) for n in some if n < layers]
    seeded += [replace(full, layers=n) for n in some if n < layers]
    once = [
        methods["lora"],
        *(replace(adapters, size=size) for size in (16, 64, 256)),
        replace(adapters, norms="all", layers=layers // 2),
        *(replace(config, minutes=minutes) for config in (adapters, full) for minutes in (10.0, 30.0)),
    ]
    seeded.sort(key=lambda config: -(layers if config.layers is None else config.layers))  # of less a trunk is left
    found = [Trial(language, replace(c, seed=seed)) for language in REQUIRED for seed in SEEDS for c in seeded]
    found += [Trial(language, c) for language in REQUIRED for c in once]
    found += [Trial(language, adapters, on) for on in others for language in REQUIRED]
    found += [Trial(language, c) for language in languages for c in (full, adapters, head)]
    return list({trial.name: trial for trial in found}.values())


def _methods(usual: TrainConfig, layers: int) -> dict[str, TrainConfig]:
    return {
        "bottleneck": replace(usual, method="bottleneck", layers=layers, norms="adapted"),
        "lora": replace(usual, method="lora", size=8, layers=layers, norms="none"),
        "head": replace(usual, method="head", layers=0, norms="none"),
        "full": replace(usual, method="full", layers=None, norms="none"),
    }
