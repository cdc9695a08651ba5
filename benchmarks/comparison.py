"""One backbone's plan, run: every system in a process of its own, one of them at work at a time, in turn."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.clips import CLIPS
from benchmarks.grid import FEW_SEATS, Plan
from benchmarks.systems import SystemSpec, SystemUnable
from benchmarks.worker import Footprint, Worker
from benchmarks.workload import Cell, Mixing, Timing, languages, together

log = logging.getLogger("benchmarks")


@dataclass(frozen=True)
class Run:
    """One system, one cell, one round."""

    backbone: str
    system: str
    cell: Cell
    round: int
    timing: Timing


@dataclass
class Found:
    """What came of one plan. ``unable``: the reason of a system, or of a system in one cell."""

    backbone: str
    runs: list[Run] = field(default_factory=list)
    mixing: list[Mixing] = field(default_factory=list)
    footprints: dict[str, Footprint] = field(default_factory=dict)
    facts: dict[str, dict[str, str | int | float]] = field(default_factory=dict)
    unable: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def compare(plan: Plan, spec: SystemSpec, *, on_round: Callable[[Found], None] = lambda found: None) -> Found:
    """Run ``plan`` on the model of ``spec``. What a system cannot do is noted, and the others go on.

    ``on_round`` is told of what there is after every round of a cell.
    """
    found = Found(plan.backbone)
    with contextlib.ExitStack() as stack:
        workers = dict(_started(plan, spec, found, stack))
        _run_in(workers, plan, on_cpu=spec.on_cpu)
        began = time.monotonic()
        for number in range(plan.rounds):  # of all cells: those that are compared with each other lie close in time
            hurried = number > 0 and time.monotonic() - began > plan.unhurried_s
            if hurried:
                log.info("%s: round %d has only what targets are judged by", plan.backbone, number)
            for comparison in plan.comparisons:
                for name in _turned(comparison.narrowed() if hurried else comparison.systems, number):
                    if name in workers:
                        _run(workers[name], comparison.cell, number, found)
                on_round(found)
        if plan.mixing is not None and "engine" in workers:
            _mix(workers["engine"], plan.mixing, plan.pairs, found, on_round)
        for name, worker in workers.items():
            with contextlib.suppress(SystemUnable):
                found.footprints[name], found.facts[name] = worker.footprint(), worker.facts()
    return found


def _run_in(workers: dict[str, Worker], plan: Plan, *, on_cpu: bool) -> None:
    """On a GPU every cell once, not counted: there the first calls of a shape choose its kernels and record its graph.
    Who takes one clip at a time has met all shapes when it has heard every clip. On a CPU an eighth of the first, by
    everyone: whoever comes first is no colder than the others."""
    cells = [(comparison.cell, comparison.systems) for comparison in plan.comparisons]
    if on_cpu:
        cells = [(replace(cells[0][0], requests=max(1, cells[0][0].requests // 8)), plan.systems)]
    elif plan.mixing is not None:
        cells += [(_same(plan.mixing), ("engine",)), (plan.mixing, ("engine",))]
    for cell, systems in cells:
        for name in systems:
            if name in workers:
                some = replace(cell, requests=min(cell.requests, CLIPS)) if name == "load_adapter" else cell
                log.info("%s: running in %s, %s", plan.backbone, name, some)
                with contextlib.suppress(SystemUnable):  # it will be told when it counts
                    workers[name].run(some)


def _same(mixed: Cell) -> Cell:
    """In one language."""
    return replace(mixed, popularity="identical")


def _mix(engine: Worker, mixed: Cell, rounds: int, found: Found, on_round: Callable[[Found], None]) -> None:
    same, count = _same(mixed), mixed.requests
    spoken = len({*languages(mixed.popularity, mixed.adapters, count)})
    for number in range(rounds):
        try:
            outer, inner = (same, mixed) if number % 2 else (mixed, same)
            first, *between, last = [engine.run(cell) for cell in (outer, inner, inner, outer)]
            timings = {outer: together(first, last), inner: together(*between)}
        except SystemUnable as error:
            log.warning("%s: mixing: %s", found.backbone, error)
            found.unable["engine: mixing"] = str(error)
            return
        log.info("%s: mixed %.1f, one %.1f", found.backbone, timings[mixed].rtfx, timings[same].rtfx)
        clients = min(mixed.concurrency, count)
        found.mixing.append(Mixing(clients, count, spoken, timings[same], timings[mixed]))
        on_round(found)


def _started(plan: Plan, spec: SystemSpec, found: Found, stack: contextlib.ExitStack) -> Iterator[tuple[str, Worker]]:
    workers = []
    for name in plan.systems:
        own = replace(spec, seats=64) if name == FEW_SEATS else spec
        worker = Worker("engine" if name == FEW_SEATS else name, own)
        worker.name = name
        stack.callback(worker.close)
        workers.append(worker)
    for worker in workers:
        log.info("%s: starting %s", plan.backbone, worker.name)
        try:
            worker.start()
        except SystemUnable as error:
            log.warning("%s: %s cannot: %s", plan.backbone, worker.name, error)
            found.unable[worker.name] = str(error)
            worker.close()
        else:
            yield worker.name, worker


def _turned(systems: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Another goes first in every round: a machine that slows down slows all."""
    first = number % max(1, len(systems))
    return systems[first:] + systems[:first]


def _run(worker: Worker, cell: Cell, number: int, found: Found) -> None:
    where = f"{worker.name}: {cell.adapters} {cell.popularity}, concurrency {cell.concurrency}, {cell.clips}"
    if where in found.unable:
        return
    try:
        timing = worker.run(cell)
    except SystemUnable as error:
        log.warning("%s: %s cannot: %s", found.backbone, where, error)
        found.unable[where] = str(error)
        return
    log.info("%s: %s, round %d: RTFx %.1f, p95 %.3f s", found.backbone, where, number, timing.rtfx, timing.p95_s)
    found.runs.append(Run(found.backbone, worker.name, cell, number, timing))
