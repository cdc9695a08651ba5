"""Systems in processes of their own: what they measure comes back, and one that fails is a reason, not an end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.comparison import _run_in, compare
from benchmarks.grid import ALL, FEW_SEATS, TARGETED, Comparison, Plan, default_plans, full_plans, gpu_plans
from benchmarks.systems import SystemUnable
from benchmarks.worker import Worker
from benchmarks.workload import Cell, Timing, languages
from tests.benchmarks.conftest import SIZE

CELL = Cell("1-2 s", 3, "uniform", 2, 4)


def test_systems_take_turns_and_one_that_cannot_is_noted(spec):
    beyond = replace(CELL, adapters=9)  # languages that nobody published
    plan = Plan("small", SIZE, (Comparison(CELL, ("engine", "bare")), Comparison(beyond, ("engine",))), rounds=2)
    plan = replace(plan, mixing=replace(CELL, requests=2), pairs=4)
    told: list[int] = []
    found = compare(plan, spec, on_round=lambda found: told.append(len(found.runs)))
    assert [(run.system, run.round) for run in found.runs] == [("engine", 0), ("bare", 0), ("bare", 1), ("engine", 1)]
    assert told == [2, 2, 4, 4] + [4] * 4
    assert len(found.mixing) == 4
    assert {(one.concurrency, one.requests, one.languages) for one in found.mixing} == {
        (2, 2, len({*languages("uniform", 3, 2)}))
    }
    assert all(one.mixed.rtfx > 0 and one.identical.rtfx > 0 for one in found.mixing)
    assert all(run.timing.rtfx > 0 and 0 < run.timing.p50_s <= run.timing.p95_s for run in found.runs)
    (where,) = found.unable
    assert where == "engine: 9 uniform, concurrency 2, 1-2 s"
    assert "IndexError" in found.unable[where]
    assert found.footprints["engine"].host_peak >= 10 << 20
    assert found.facts["bare"]["chose"]


def test_cells_are_run_in_by_whoever_is_there():
    """On a GPU all, on a CPU some of the first; what a system cannot is left for the rounds to tell."""
    ran: list[tuple[str, Cell]] = []

    class Recorded(Worker):
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, cell: Cell) -> Timing:
            ran.append((self.name, cell))
            raise SystemUnable("out of memory")

    other = replace(CELL, popularity="identical")
    plan = Plan("small", SIZE, (Comparison(CELL, ("engine", "bare", "peft")), Comparison(other, ("bare",))), rounds=3)
    plan = replace(plan, mixing=CELL)
    workers: dict[str, Worker] = {name: Recorded(name) for name in ("engine", "bare")}
    _run_in(workers, plan, on_cpu=False)
    assert ran == [("engine", CELL), ("bare", CELL), ("bare", other), ("engine", other), ("engine", CELL)]
    ran.clear()
    many = replace(CELL, requests=100)
    each = {name: Recorded(name) for name in ("bare", "load_adapter")}
    _run_in({**each}, Plan("small", SIZE, (Comparison(many, ("bare", "load_adapter")),)), on_cpu=False)
    assert ran == [("bare", many), ("load_adapter", replace(CELL, requests=64))]
    ran.clear()
    _run_in(workers, replace(plan, comparisons=(Comparison(replace(CELL, requests=40), ("bare",)),)), on_cpu=True)
    assert ran == [("bare", replace(CELL, requests=5))]


def test_a_slow_machine_repeats_only_what_targets_are_judged_by(spec):
    other = replace(CELL, popularity="identical")
    plan = Plan("small", SIZE, (Comparison(CELL, ("engine", "bare"), targeted=True), Comparison(other, ("bare",))))
    plan = replace(plan, rounds=2, unhurried_s=0)
    ran = [(run.system, run.cell.popularity, run.round) for run in compare(plan, spec).runs]
    assert ran == [
        ("engine", "uniform", 0), ("bare", "uniform", 0), ("bare", "identical", 0), ("bare", "uniform", 1),
        ("engine", "uniform", 1),
    ]  # fmt: skip
    hurried = default_plans()[0].comparisons[0].narrowed()
    assert set(hurried) == set(TARGETED)


def test_a_model_that_is_not_there_is_a_reason(spec, tmp_path):
    found = compare(Plan("none", SIZE, (Comparison(CELL, ("bare",)),)), replace(spec, model=tmp_path))
    assert not found.runs
    assert "transformers does not load the backbone" in found.unable["bare"]


def test_a_process_that_is_killed_is_a_reason(spec):
    worker = Worker("bare", spec)
    worker.start()
    worker._process.kill()
    with pytest.raises(SystemUnable, match="killed"):
        worker.run(CELL)
    worker.close()


def test_the_default_grid_has_every_target_and_every_axis():
    shipped, base, large = default_plans()
    assert set(base.systems) == set(TARGETED)
    assert set(large.systems) < set(TARGETED)
    assert set(shipped.systems) == {*ALL, FEW_SEATS}
    cells = [comparison.cell for comparison in shipped.comparisons]
    assert {cell.adapters for cell in cells} == {1, 8, 64, 512}
    assert {cell.popularity for cell in cells} == {"identical", "uniform", "zipf", "distinct"}
    assert {cell.concurrency for cell in cells} == {1, 8, 64}
    assert {cell.clips for cell in cells} == {"1-15 s", "1-2 s"}
    assert all(plan.mixing and plan.mixing.adapters == 64 for plan in (shipped, base))
    assert (base.size.bottleneck, base.size.layers, base.adapters) == (256, None, 64)


def test_the_grid_of_a_gpu_has_the_same_targets_over_more_requests():
    targeted = [
        [[one.cell for one in plan.comparisons if one.targeted] for plan in plans[:2]]
        for plans in (gpu_plans(), default_plans())
    ]
    for gpu, cpu in zip(*targeted, strict=True):
        assert [replace(cell, requests=1) for cell in gpu] == [replace(cell, requests=1) for cell in cpu]
        assert all(more.requests >= 16 * less.requests for more, less in zip(gpu, cpu, strict=True))
    assert all(plan.mixing and plan.mixing.concurrency == 64 for plan in gpu_plans()[:2])


def test_the_full_grid_has_every_axis_with_every_other():
    plans = full_plans()
    assert len(plans) == 3
    for plan in plans:
        cells = [comparison.cell for comparison in plan.comparisons]
        assert len(set(cells)) == len(cells) == 2 * 3 * (1 + 3 * 4)


def test_a_plan_is_narrowed():
    plan = default_plans()[0].narrowed(("engine", "bare"), 64, 1)
    assert (plan.adapters, plan.rounds, plan.systems) == (64, 1, ("engine", "bare"))
    assert all(comparison.systems for comparison in plan.comparisons)
    few = default_plans()[0].narrowed(ALL, 512, None, targeted=True)
    assert [one.cell.clips for one in few.comparisons] == ["1-15 s", "1-2 s"]
    assert set(few.systems) == set(TARGETED)
    assert (few.adapters, few.mixing) == (64, default_plans()[0].mixing)
    with pytest.raises(ValueError, match="no cell has at most 0 languages"):
        default_plans()[0].narrowed(ALL, 0, None)
