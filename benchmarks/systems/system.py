"""What a system is to a benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch


class SystemUnable(Exception):
    """A system cannot do what is asked of it; the message says why, and is printed in its place."""


@dataclass(frozen=True)
class SystemSpec:
    """``model``: a model folder with ``adapters`` adapters, named by :func:`benchmarks.backbones.adapter_name`.
    ``memory_bytes``: what it may take of the host or, on a GPU, of the device. ``seats``: adapters that may be on the
    device at once, None for all."""

    model: Path
    adapters: int
    device: str
    cores: int
    memory_bytes: int
    seats: int | None = None

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """What every system computes in on this device."""
        return torch.float32 if self.on_cpu else torch.float16

    @property
    def backbone(self) -> Path:
        return self.model / "backbone"


class System(Protocol):
    """Answers clips in languages that are numbers from 0 on; every method runs on one event loop."""

    async def start(self) -> None:
        """Load and choose. Raises :class:`SystemUnable`."""

    async def answer(self, samples: np.ndarray, language: int) -> object:
        """What (N,) float32 at 16 kHz says in ``language``. Any number may wait at once."""

    async def stop(self) -> None:
        """Give back threads."""

    @property
    def facts(self) -> dict[str, str | int | float]:
        """What it chose and counted, for the report."""
