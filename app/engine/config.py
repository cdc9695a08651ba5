"""What an engine serves and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from adapters.windows import WindowShape
from app.engine.scheduler import Budget


@dataclass(frozen=True)
class EngineConfig:
    """``backbone`` is a folder in Hugging Face layout, ``stores`` folders of adapters, the first to be asked first.

    ``threads``: of the forward on a CPU, None for torch's choice. ``max_seats``: adapters on the device.
    ``max_host_bytes``: host copies kept beyond those in use. ``max_requests``: permits.
    """

    backbone: Path
    stores: tuple[Path, ...]
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    threads: int | None = None
    max_seats: int = 64
    max_host_bytes: int = 1 << 30
    max_requests: int = 128
    windows_in_flight: int = 2
    request_timeout_s: float = 3_600.0
    budget: Budget = field(default_factory=Budget)
    window: WindowShape = field(default_factory=WindowShape)
