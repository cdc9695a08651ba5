"""Tiers to test: a bank of small tensors, files that tests open and close, and what requests and lanes do with them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch

from adapters.bank import Bank
from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import AdapterCorrupt
from adapters.loaded import LoadedAdapter
from adapters.record import AdapterRecord, StoredFile
from adapters.registry import RegisteredAdapter
from adapters.shapes import expected_shapes
from adapters.store import AdapterStore
from adapters.vocab import Vocab
from app.engine.job import Worn
from app.engine.residency import Residency

CONFIG = AdapterConfig("bottleneck", 2, (1,), "adapted", 4)
SIZE = BackboneSize(hidden=8, layers=2, feed_forward=16)
BYTES = sum(4 * torch.Size(shape).numel() for shape in expected_shapes(CONFIG, SIZE).values())
NOWHERE = AdapterStore(Path("/nowhere"))


AFAR = AdapterStore.at("memory://nowhere")


def adapter(name: str, version: str = "1", *, store: AdapterStore = NOWHERE) -> RegisteredAdapter:
    """A registered adapter; ``version`` makes it another one under the same name."""
    file = StoredFile.of("weights", "safetensors", version.encode())
    return RegisteredAdapter(AdapterRecord(name, "es", CONFIG, file, file, "float32"), store)


@dataclass
class Files:
    """What would be read from disk, counted; ``gate`` keeps readers waiting, ``broken`` names fail, ``bugs`` are what
    others raise."""

    reads: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    bugs: dict[str, Exception] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def load(self, registered: RegisteredAdapter) -> LoadedAdapter:
        self.reads.append(registered.name)
        assert self.gate.wait(10)
        if registered.name in self.bugs:
            raise self.bugs[registered.name]
        if registered.name in self.broken:
            raise AdapterCorrupt(registered.name, "weights are missing")
        value = float(sum(registered.name.encode()))
        shapes = expected_shapes(CONFIG, SIZE)
        tensors = {name: torch.full(shape, value) for name, shape in shapes.items()}
        return LoadedAdapter(registered.record, tensors, Vocab(("<pad>", "|", "a", "b")))


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def residency(
    files: Files, *, seats: int = 2, host_bytes: int = 1 << 20, patience_s: float = 1.0, clock: Clock | None = None
) -> Residency:
    bank = Bank(SIZE, limit=seats)
    return Residency(
        bank,
        files.load,
        max_seats=seats,
        max_host_bytes=host_bytes,
        patience_s=patience_s,
        clock=clock or Clock(),
    )


async def bind(tiers: Residency, registered: RegisteredAdapter) -> LoadedAdapter:
    """What a request does that comes for this version."""
    worn = tiers.hold(registered)
    try:
        return await tiers.loaded(worn)
    except BaseException:
        tiers.let_go(worn)
        raise


async def take(tiers: Residency, worn: Worn, now: float = 0.0) -> bool:
    """What a lane does that has nothing else to do: ask, let others be seated, and ask again."""
    if not tiers.seatable((worn,), now):
        tiers.serve(now)
        await settled(tiers)
    return taken(tiers, worn, now)


def taken(tiers: Residency, worn: Worn, now: float) -> bool:
    """What a lane does that has other things to do, too."""
    if not tiers.seatable((worn,), now):
        tiers.serve(now, held=False)
        return False
    tiers.take((worn,))
    return True


async def settled(tiers: Residency) -> None:
    while tiers._seating:
        await asyncio.gather(*tiers._seating.values())
