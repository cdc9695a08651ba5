"""What an engine serves and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from adapters.backbone import Quantise
from adapters.errors import EngineError
from adapters.windows import WindowShape
from app.engine.pace import Pace
from app.engine.scheduler import Budget


@dataclass(frozen=True)
class EngineConfig:
    """``backbone`` is a folder in Hugging Face layout or the id of a repository of the hub, ``stores`` folders and
    addresses of adapters, the first to be asked first, ``language_head`` the folder of what tells languages, which may
    be missing. ``cache``: a folder for copies of what lies at addresses, of up to ``cache_bytes``; None for no copies.

    ``lanes``: forwards side by side, each of ``threads`` threads on a CPU (None for torch's choice). ``max_seats``:
    adapters on the device, ``pinned`` those that never leave it. ``max_host_bytes``: host copies kept beyond those that
    requests need or that are seated. ``watch_s``: between two looks at the stores, None for never. ``sweeps``: what the
    first of them holds and no record names is deleted in time. ``max_requests``: permits. ``windows_in_flight``: of one
    request. ``pace``: what the frames of the budget are measured by at start; None to leave them.
    """

    backbone: Path | str
    stores: tuple[Path | str, ...]
    cache: Path | None = None
    cache_bytes: int = 1 << 32
    language_head: Path | None = None
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    quantise: Quantise = "none"
    lanes: int = 1
    threads: int | None = None
    max_seats: int = 64
    pinned: tuple[str, ...] = ()
    max_host_bytes: int = 1 << 30
    watch_s: float | None = 1.0
    sweeps: bool = False
    max_requests: int = 128
    windows_in_flight: int = 2
    request_timeout_s: float = 3_600.0
    budget: Budget = field(default_factory=Budget)
    pace: Pace | None = None
    window: WindowShape = field(default_factory=WindowShape)

    def __post_init__(self) -> None:
        if len(self.pinned) >= self.max_seats:
            raise EngineError(
                f"{len(self.pinned)} adapters are pinned, which must be fewer than the {self.max_seats} device slots"
            )
