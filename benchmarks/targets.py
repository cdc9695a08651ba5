"""The targets by name: what is aimed at, what was measured, over which rounds, met or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.backbones import SHIPPED
from benchmarks.workload import percentile

Results = Mapping[str, Any]
"""What the run wrote as JSON."""

BASE = "wav2vec2-base"


@dataclass(frozen=True)
class Target:
    """``goal`` is a least value, or with ``most`` a largest. ``values``: one a round; empty where it was not measured.
    ``judged``: the value held against the goal, the median where it is left out."""

    name: str
    goal: float
    values: tuple[float, ...]
    most: bool = False
    unit: str = ""
    judged: float | None = None

    @property
    def measured(self) -> float | None:
        return self.judged if self.judged is not None else median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured <= self.goal if self.most else self.measured >= self.goal


def targets(results: Results) -> list[Target]:
    """Those of the device that ``results`` are from."""
    on_gpu = results["machine"]["device"] != "cpu"
    found = []
    for backbone in (BASE, SHIPPED):
        runs = _Runs(results, backbone)
        uniform = runs.of(popularity="uniform", adapters=64, concurrency=64, clips="1-15 s")
        short = runs.of(popularity="uniform", adapters=64, concurrency=64, clips="1-2 s")
        beyond = (("1-15 s", uniform, 10.0), ("1-2 s", short, 10.0)) if on_gpu else ()
        swapped = beyond or (("1-15 s", uniform, 1.0), ("1-2 s", short, 1.2))
        mixing = results["comparisons"].get(backbone, {}).get("mixing", [])
        mixed = tuple(one["mixed"]["rtfx"] / one["identical"]["rtfx"] for one in mixing)
        spoken = f"{mixing[0]['languages']} of them, {mixing[0]['concurrency']} clients" if mixing else "64 clients"
        found.append(Target(f"{backbone}: drawn from 64 languages ({spoken}), mixed / one", 0.95, mixed))
        if backbone == BASE:
            name = f"{backbone}, bottleneck 256 in all layers{uniform.clients}: engine / bare backbone"
            found.append(Target(name, 0.85, ratios(uniform("engine"), uniform("bare"))))
        for clips, select, goal in swapped:
            name = f"{backbone}, clips of {clips}{select.clients}: engine / load_adapter a request"
            found.append(Target(name, goal, ratios(select("engine"), select("load_adapter"))))
    return [*found, *_seatings(results, 5.0 if on_gpu else 20.0), *_served(results, 2.5 if on_gpu else 4.0)]


def ratios(above: Mapping[int, float], below: Mapping[int, float]) -> tuple[float, ...]:
    """Of the rounds that both have, by number."""
    return tuple(above[number] / below[number] for number in sorted(above.keys() & below.keys()))


class _Runs:
    """The speeds over one backbone."""

    def __init__(self, results: Results, backbone: str) -> None:
        self._runs: Sequence[Mapping[str, Any]] = results["comparisons"].get(backbone, {}).get("runs", [])

    def of(self, **cell: object) -> _Chosen:
        """Those in the cell that these values are of."""
        return _Chosen([run for run in self._runs if all(run["cell"][key] == value for key, value in cell.items())])


@dataclass(frozen=True)
class _Chosen:
    runs: Sequence[Mapping[str, Any]]

    def __call__(self, system: str) -> dict[int, float]:
        """Its RTFx by round."""
        return {run["round"]: run["timing"]["rtfx"] for run in self.runs if run["system"] == system}

    @property
    def clients(self) -> str:
        """How many there were at once."""
        if not self.runs:
            return ""
        cell = self.runs[0]["cell"]
        return f", {min(cell['concurrency'], cell['requests'])} clients"


def _seatings(results: Results, goal_ms: float) -> list[Target]:
    found = []
    for seating in results.get("seating") or []:
        pairs = list(zip(seating["bank_bytes"], seating["parameter_bytes"], strict=True))
        some = tuple(bank / parameters for bank, parameters in pairs[7:])
        name = f"{seating['what']}: bytes on the device / bytes of the parameters"
        found.append(Target(name, 1.1, some, most=True, judged=some[-1] if some else None))
        taken = tuple(1e3 * seconds for seconds in seating["seconds"])
        name = f"{seating['what']}: host -> device seat, p95"
        found.append(Target(name, goal_ms, taken, most=True, unit="ms", judged=percentile(taken, 95)))
    return found


def _served(results: Results, goal: float) -> list[Target]:
    http = results.get("http") or {}
    telling = tuple(one["known"]["rtfx"] / one["auto"]["rtfx"] for one in http.get("telling", []))
    rounds = http.get("beside", [])
    values = tuple(one["beside_p95_s"] / one["idle_p95_s"] for one in rounds)
    return [
        Target("shipped, over HTTP: cost of lang=auto / of a known language", 2.0, telling, most=True),
        Target("shipped, over HTTP: p95 of a 2 s clip beside a 1 h file / idle", goal, values, most=True),
    ]
