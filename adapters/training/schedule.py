"""How the learning rate moves over a run."""

from __future__ import annotations

import math


def schedule(step: int, steps: int, warmup: float) -> float:
    """A factor on the learning rate: up in a line over the first ``warmup`` share, then down a cosine to 2 %."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))
