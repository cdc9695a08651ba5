"""What is measured: for each backbone its adapters, and cells with the systems that take part in each."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from benchmarks.backbones import SHIPPED, AdapterSize
from benchmarks.workload import Cell, Popularity

ALL = ("engine", "load_adapter", "full models", "peft", "bare")
ENGINE = ("engine",)
TARGETED = ("engine", "load_adapter", "bare")
"""Those that targets are about."""

FEW_SEATS = "engine, 64 seats"
"""The engine with more languages than there are seats on the device."""


@dataclass(frozen=True)
class Comparison:
    """Systems side by side: ``cell`` once for each of them in every round. ``targeted``: a target is judged by it."""

    cell: Cell
    systems: tuple[str, ...]
    targeted: bool = False

    def narrowed(self) -> tuple[str, ...]:
        """The systems of a round for which there is little time: those that a target is judged by."""
        return tuple(name for name in self.systems if self.targeted and name in TARGETED)


@dataclass(frozen=True)
class Plan:
    """All that is compared over one backbone. ``unhurried_s``: rounds after the first that begin later than this have
    only what targets are judged by, so that a slow machine ends in time too. ``mixing``: a cell that the engine runs
    ``pairs`` times next to the same cell in one language."""

    backbone: str
    size: AdapterSize
    comparisons: tuple[Comparison, ...]
    rounds: int = 3
    unhurried_s: float = math.inf
    mixing: Cell | None = None
    pairs: int = 2

    @property
    def adapters(self) -> int:
        """As many as the cell with the most speaks."""
        return max(comparison.cell.adapters for comparison in self.comparisons)

    @property
    def systems(self) -> tuple[str, ...]:
        """Those that take part in any cell, in order of their first."""
        return tuple(dict.fromkeys(name for one in self.comparisons for name in one.systems))

    def narrowed(self, systems: Collection[str], adapters: int, rounds: int | None, *, targeted: bool = False) -> Plan:
        """With these systems alone, cells of at most so many languages, and so many rounds, None for as many as it has.
        ``targeted``: only what targets are judged by, of cells and of systems.

        Raises ``ValueError`` where nothing is left."""
        kept = [
            replace(one, systems=tuple(name for name in has if name in systems))
            for one in self.comparisons
            for has in (one.narrowed() if targeted else one.systems,)
            if one.cell.adapters <= adapters
        ]
        comparisons = tuple(one for one in kept if one.systems)
        if not comparisons:
            raise ValueError(
                f"{self.backbone}: no cell has at most {adapters} languages and any of {', '.join(systems)}"
            )
        mixing = self.mixing if "engine" in systems and self.mixing and self.mixing.adapters <= adapters else None
        return replace(self, comparisons=comparisons, rounds=rounds or self.rounds, mixing=mixing)


def default_plans(requests: int = 64) -> tuple[Plan, ...]:
    """Within 20 minutes on two cores: each axis by itself, from 64 languages spoken alike by 64 clients."""
    return (_shipped(requests), _base(requests * 5 // 16), _large(requests // 8))


def gpu_plans(requests: int = 1_024) -> tuple[Plan, ...]:
    """The same cells for a GPU, which gets through more in a moment than a CPU does in minutes. What the engine does
    alone is given more, so that a moment of the host's counts for little."""
    large = Cell("1-15 s", 64, "uniform", 64, requests // 4)
    mixing = replace(large, requests=requests * 4)
    return (
        replace(_shipped(requests), mixing=mixing, pairs=5),
        replace(_base(requests // 2), mixing=replace(mixing, requests=requests * 3 // 2), pairs=5),
        Plan("xls-r-300m", AdapterSize(256), (Comparison(large, TARGETED),), rounds=2),
    )


def full_plans(requests: int = 1_024) -> tuple[Plan, ...]:
    """Every axis with every other, over every backbone: hours, for a GPU."""
    sizes = {SHIPPED: AdapterSize(64, 4), "wav2vec2-base": AdapterSize(256), "xls-r-300m": AdapterSize(64)}
    popularities: tuple[Popularity, ...] = ("identical", "uniform", "zipf", "distinct")
    cells = [
        _compared(Cell(clips, adapters, popularity, concurrency, requests), ALL)
        for clips in ("1-15 s", "1-2 s")
        for adapters in (1, 8, 64, 512)
        for popularity in popularities
        if adapters > 1 or popularity == "identical"
        for concurrency in (1, 8, 64)
    ]
    mixing = Cell("1-15 s", 64, "uniform", 64, requests)
    return tuple(
        Plan(backbone, size, tuple(cells), rounds=5, mixing=mixing, pairs=10) for backbone, size in sizes.items()
    )


def _shipped(requests: int) -> Plan:
    usual = Cell("1-15 s", 64, "uniform", 64, requests)
    return Plan(
        SHIPPED,
        AdapterSize(64, 4),
        (
            Comparison(usual, ALL, targeted=True),
            Comparison(replace(usual, popularity="identical"), TARGETED[:2]),
            Comparison(replace(usual, popularity="zipf"), ("engine", "peft")),
            Comparison(replace(usual, popularity="distinct"), ENGINE),
            Comparison(replace(usual, concurrency=1, requests=requests // 3), TARGETED),
            Comparison(replace(usual, concurrency=8, requests=requests * 2 // 3), TARGETED),
            Comparison(replace(usual, adapters=1, popularity="identical"), ENGINE),
            Comparison(replace(usual, adapters=8), ENGINE),
            Comparison(replace(usual, adapters=512), ("engine", FEW_SEATS, "full models")),
            Comparison(replace(usual, clips="1-2 s", requests=requests * 3 // 2), ALL, targeted=True),
        ),
        rounds=2,
        unhurried_s=120,
        mixing=usual,
        pairs=4,
    )


def _base(requests: int) -> Plan:
    usual = Cell("1-15 s", 64, "uniform", 64, requests)
    short = Cell("1-2 s", 64, "uniform", 64, requests * 2)
    return Plan(
        "wav2vec2-base",
        AdapterSize(256),
        (
            Comparison(usual, TARGETED, targeted=True),
            Comparison(short, TARGETED, targeted=True),
        ),
        rounds=2,
        mixing=replace(short, requests=requests),
    )


def _large(requests: int) -> Plan:
    cell = Cell("1-2 s", 8, "uniform", 8, requests)
    return Plan("xls-r-300m", AdapterSize(256), (Comparison(cell, TARGETED[:2]),), rounds=1)


def _compared(cell: Cell, systems: tuple[str, ...]) -> Comparison:
    """With 512 languages the engine is seen with fewer seats as well."""
    return Comparison(cell, (*systems, FEW_SEATS) if cell.adapters > 64 else systems)
