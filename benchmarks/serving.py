"""Every system on the same clips, in turn, several rounds: what one service for all languages costs, next to what
people use today.

    python -m benchmarks.serving [--full] [--device cpu] [--parts shipped http ...] [--out docs]

Writes benchmarks.json, benchmarks.md and benchmarks.svg into ``--out``, again after every part, so a run that breaks
off leaves what it had. With ``--parts`` those parts alone are measured, and others kept as the JSON has them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.backbones import SHIPPED, SIZES, AdapterSize, make_model
from benchmarks.comparison import Found, compare
from benchmarks.grid import ALL, FEW_SEATS, default_plans, full_plans, gpu_plans
from benchmarks.memory import available_bytes, machine_bytes
from benchmarks.over_http import Load, Served, measure
from benchmarks.plot import draw
from benchmarks.profile import profile_steps
from benchmarks.report import page, target_table
from benchmarks.seating import seat_published, seat_random
from benchmarks.server import ROOT
from benchmarks.systems import SystemSpec
from benchmarks.targets import targets

log = logging.getLogger("benchmarks")

PARTS = (SHIPPED, *SIZES, "seating", "http", "profile")
_SHARE_OF_MEMORY = 0.5
_PROFILED_S = 5.0


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write, and print the targets."""
    given = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    measured = Results(given)
    for part in given.parts:
        measured.run(part)
    print(target_table(targets(measured.results)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT / "models/small", help="the model folder that is shipped")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--full", action="store_true", help="every axis with every other: for a GPU")
    parser.add_argument(
        "--targeted", action="store_true", help="only what targets are judged by: some minutes of a GPU"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=" ".join(PARTS))
    names = (*ALL, FEW_SEATS)
    parser.add_argument("--systems", nargs="+", choices=names, default=names, metavar="SYSTEM", help=", ".join(names))
    parser.add_argument("--adapters", type=int, default=512, help="leave out cells of more languages")
    parser.add_argument("--rounds", type=int, help="of every cell")
    parser.add_argument("--requests", type=int, help="of the usual cell; others follow from it")
    parser.add_argument("--long-s", type=float, default=3_600.0, help="the long recording that short clips run beside")
    parser.add_argument("--memory-gib", type=float, help="what full models may take; half of what is free if left out")
    parser.add_argument("--note", default="", help="about the machine, for the report")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    return parser.parse_args(argv)


class Results:
    """What was measured, part by part, and on disk after each."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._path = given.out / "benchmarks.json"
        earlier = json.loads(self._path.read_text()) if self._path.exists() and set(given.parts) != set(PARTS) else {}
        self.results: dict[str, Any] = {"comparisons": {}, "failed": {}, "sizes": {}, **earlier}
        here = machine(given.device, given.note)
        there = earlier.get("machine", here)
        if other := [what for what in ("cpu", "cores", "device") if there[what] != here[what]]:
            raise SystemExit(
                f"{self._path} is of another machine ({', '.join(str(there[what]) for what in other)}): measure all"
                " parts, or give another --out"
            )
        self.results["machine"] = here
        plans = full_plans if given.full else default_plans if given.device == "cpu" else gpu_plans
        made = plans(given.requests) if given.requests else plans()
        self._plans = {plan.backbone: plan for plan in made}

    def run(self, part: str) -> None:
        """Measure one part; where that fails its reason is kept, and what there was of it before goes."""
        log.info("measuring: %s", part)
        measures: dict[str, Callable[[], None]] = {
            "seating": self._seating,
            "http": self._http,
            "profile": self._profile,
        }
        self.results["failed"].pop(part, None)
        self.results["comparisons"].pop(part, None)
        self.results.pop(part, None)
        try:
            measures.get(part, lambda: self._compare(part))()
        except Exception as error:
            log.exception("%s could not be measured", part)
            self.results["failed"][part] = f"{type(error).__name__}: {error}"
        self._write()

    def _compare(self, backbone: str) -> None:
        given = self._given
        chosen = (given.systems, given.adapters, given.rounds)
        plan = self._plans[backbone].narrowed(*chosen, targeted=given.targeted)
        size = plan.size
        layers = "all layers" if size.layers is None else f"the top {size.layers} layers"
        self.results["sizes"][plan.backbone] = f"bottlenecks of {size.bottleneck} in {layers}"

        def keep(found: Found) -> None:
            self.results["comparisons"][plan.backbone] = found.to_dict()
            self._write()

        with tempfile.TemporaryDirectory() as folder:
            log.info("%s: publishing %d adapters", plan.backbone, plan.adapters)
            model = make_model(Path(folder), plan.backbone, given.models, size, plan.adapters)
            memory = given.memory_gib * 2**30 if given.memory_gib else _SHARE_OF_MEMORY * _free_bytes(given.device)
            cores = len(os.sched_getaffinity(0))
            spec = SystemSpec(model, plan.adapters, given.device, cores, int(memory))
            keep(compare(plan, spec, on_round=keep))

    def _seating(self) -> None:
        given = self._given
        small, large = AdapterSize(64, 4), AdapterSize(256)
        self.results["seating"] = []

        def keep(found: Any) -> None:
            self.results["seating"].append(asdict(found))
            self._write()

        keep(_apart(seat_published, "shipped, its own adapters", given.models, given.device))
        for count in (64, 512):
            what = f"shipped, {count} of one size"
            keep(_apart(seat_random, what, given.models / "backbone", small, count, given.device))
        with tempfile.TemporaryDirectory() as folder:
            base = make_model(Path(folder), "wav2vec2-base", given.models, large, 0)
            what = "wav2vec2-base, 64 of bottleneck 256"
            keep(_apart(seat_random, what, base / "backbone", large, 64, given.device))

    def _http(self) -> None:
        given = self._given
        usual = Load()
        load = replace(
            usual,
            rounds=given.rounds or usual.rounds,
            requests=given.requests or usual.requests,
            long_s=given.long_s,
            window_s=min(usual.window_s, given.long_s),
        )

        def keep(served: Served) -> None:
            self.results["http"] = asdict(served)
            self._write()

        measure(given.models, given.device, load, keep)

    def _profile(self) -> None:
        given = self._given
        rows = (1, 8) if given.device == "cpu" else (8, 64)
        steps = _apart(profile_steps, SHIPPED, given.models, given.device, rows, _PROFILED_S)
        with tempfile.TemporaryDirectory() as folder:
            base = make_model(Path(folder), "wav2vec2-base", given.models, AdapterSize(256), 8)
            steps += _apart(profile_steps, "wav2vec2-base", base, given.device, rows[:1], _PROFILED_S)
        self.results["profile"] = [asdict(step) for step in steps]

    def _write(self) -> None:
        out = self._given.out
        out.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self.results, indent=1) + "\n")
        (out / "benchmarks.svg").write_text(draw(self.results["comparisons"]))
        (out / "benchmarks.md").write_text(page(self.results, "benchmarks.svg"))


def machine(device: str, note: str) -> dict[str, Any]:
    """What absolute figures hold for."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": machine_bytes(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "note": note,
    }


def cpu_name() -> str:
    """The processor as Linux names it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown processor"


def _apart(function: Callable[..., Any], *given: Any) -> Any:
    """``function`` in a process of its own, whose memory and threads nothing else has touched."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *given).result()


def _free_bytes(device: str) -> int:
    return available_bytes() if device == "cpu" else int(torch.cuda.mem_get_info()[0])


if __name__ == "__main__":
    main()
