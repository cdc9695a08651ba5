"""Ways to a small backbone, at equal compute: what adapters make of each.

A route is what comes before the letters (:mod:`adapters.training.objectives`), or nothing; each is tried with its own
learning rates, with a CTC stage after it and, as in the paper, without, for as many updates in all; masked units also
with sounds half way up the CTC stage, in place of letters. Then adapters in all layers are trained on it, as everywhere
else. Resumable, as :mod:`adapters.training.results`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from adapters.training.data import text_key
from adapters.training.manifest import clips_key, read_json_lines, read_manifest, write_json_lines
from adapters.training.pretrain import pretrain
from adapters.training.pretrain_config import STAGE, Halfway, PretrainConfig, Stage, StageConfig
from adapters.training.processes import apart, run_processes, side_by_side
from adapters.training.progress import step_seconds
from adapters.training.results import run_trial
from adapters.training.results_grid import Trial
from adapters.training.train_config import TrainConfig

ROUTES: tuple[Stage | None, ...] = ("units", "contrastive", "phones", None)
RATES = (1e-3, 2e-3)
_NAMES = {
    "units": "masked units (HuBERT)",
    "contrastive": "contrastive (wav2vec 2.0)",
    "phones": "phones of a synthesizer",
}


@dataclass(frozen=True)
class Way:
    """One backbone to make: ``updates`` of the route, then of CTC, which spells ``halfway`` half way up. ``batch_s``:
    seconds of audio an update."""

    route: Stage | None
    updates: tuple[int, int]
    batch_s: float
    lr: float
    seed: int = 0
    halfway: Halfway = "letters"

    @property
    def name(self) -> str:
        """Its folder's, and says all that sets it apart."""
        first, ctc = self.updates
        sounds = "-sounds" if self.halfway == "sounds" else ""
        return f"{self.route or 'nothing'}-{first}-ctc{ctc}{sounds}-{self.batch_s:g}s-lr{self.lr:g}-seed{self.seed}"

    def config(self, usual: PretrainConfig) -> PretrainConfig:
        first, ctc = self.updates
        stages: dict[Stage, StageConfig] = {}
        if self.route is not None:
            stages[self.route] = replace(STAGE[self.route], steps=first, batch_s=self.batch_s, lr=self.lr)
        stages["ctc"] = replace(STAGE["ctc"], steps=ctc, batch_s=self.batch_s, lr=self.lr)
        return replace(usual, stages=stages, seed=self.seed, also_share=0.0, halfway=self.halfway)


@dataclass(frozen=True)
class Made:
    """What came of a way, of the clips of the key ``data`` and, for phones, texts of the key ``beside``: ``seconds`` of
    pretraining, and CER on dev and test of adapters for each language, trained for ``adapter_updates``."""

    way: str
    route: str | None
    updates: tuple[int, int]
    lr: float
    seed: int
    data: str
    adapter_updates: int
    audio_s: float
    seconds: float
    dev_cer: dict[str, float]
    cer: dict[str, float]
    halfway: str = "letters"
    beside: str = ""


def ways(
    first: int,
    ctc: int,
    batch_s: float,
    routes: Iterable[Stage | None] = ROUTES,
    *,
    rates: Sequence[float] = RATES,
    sounds: bool = True,
) -> list[Way]:
    """Every route, before CTC and, but for nothing, alone; ``sounds``: masked units besides, before CTC with sounds
    half way up. All of them at the first learning rate, then at the next."""
    found = list[Way]()
    for lr in rates:
        for route in routes:
            splits = [(0, first + ctc)] if route is None else [(first, ctc), (first + ctc, 0)]
            found += [Way(route, updates, batch_s, lr) for updates in splits]
        found += [Way("units", (first, ctc), batch_s, lr, halfway="sounds")] if sounds else []
    return found


def run_ways(
    wanted: Sequence[Way],
    manifest: Path,
    also: Path | None,
    folder: Path,
    notebook: Path,
    adapters: TrainConfig,
    *,
    usual: PretrainConfig | None = None,
    languages: Sequence[str] = ("cs", "fr"),
    processes: int = 1,
    at_once: int = 1,
    device: str = "cpu",
    announce: Callable[[str], None] = lambda line: None,
    on_made: Callable[[list[Made]], None] = lambda made: None,
) -> list[Made]:
    """Run what ``notebook`` has no line of, runs in ``folder``; all lines of ``wanted``.

    ``also``: a manifest of synthetic speech, which the route of phones learns from. ``adapters``: how they are trained.
    ``processes``: of each pretraining; ``at_once``: ways side by side, which share the cores. Raises what pretraining
    and training raise.
    """
    lines = [line for _, line in read_json_lines(notebook)] if notebook.exists() else []
    made = [Made(**{**line, "updates": tuple(line["updates"])}) for line in lines if isinstance(line, dict)]
    data = clips_key(read_manifest(manifest))
    beside = text_key(read_manifest(also)) if also is not None else ""  # no voice speaks twice in quite the same way
    threads = max(1, torch.get_num_threads() // at_once)
    writing = Lock()

    def outcome_of(way: Way) -> Made | None:
        told = (way.name, data, beside if way.route == "phones" else "", adapters.steps, set(languages))
        return next(
            (o for o in made if (o.way, o.data, o.beside, o.adapter_updates, set(o.dev_cer)) == told),
            None,
        )

    def attempt(number: int, way: Way) -> None:
        announce(f"{number}/{len(wanted)} {way.name}")
        run = folder / way.name
        config = way.config(usual or PretrainConfig())
        source = [also] if also is not None and way.route == "phones" else []
        given = (manifest, run / "run", run / "model/backbone", config, device, source)
        if at_once > 1 and processes == 1:
            apart(_pretrain, threads, given)
        else:
            run_processes(pretrain, given, processes)
        dev_cer, cer = {}, {}
        for language in languages:
            share = threads if at_once > 1 else None
            trial = Trial(language, adapters)
            outcome = apart(run_trial, trial, manifest, run / "model", run / "trials", device, share)
            dev_cer[language], cer[language] = outcome.dev_cer, outcome.cer
        found = Made(
            way=way.name,
            route=way.route,
            updates=way.updates,
            lr=way.lr,
            seed=way.seed,
            data=data,
            adapter_updates=adapters.steps,
            audio_s=sum(way.updates) * way.batch_s,
            seconds=round(step_seconds(run / "run/progress.jsonl"), 1),
            dev_cer=dev_cer,
            cer=cer,
            halfway=way.halfway,
            beside=beside if source else "",
        )
        with writing:
            made.append(found)
            write_json_lines(notebook, (asdict(one) for one in made))
        shutil.rmtree(run, ignore_errors=True)

    missing = [(number, way) for number, way in enumerate(wanted, start=1) if outcome_of(way) is None]
    for _ in side_by_side(attempt, missing, at_once):
        on_made([one for one in map(outcome_of, wanted) if one is not None])
    return [one for one in map(outcome_of, wanted) if one is not None]


def _pretrain(threads: int, given: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    pretrain(*given)


def table(made: Iterable[Made]) -> str:
    """Markdown: each route at its better learning rate."""
    best: dict[tuple[str | None, int, str], Made] = {}
    for one in sorted(made, key=lambda one: _mean(one.dev_cer)):
        best.setdefault((one.route, one.updates[0], one.halfway), one)
    lines = [
        "| what comes before the letters | updates, then of CTC | learning rate | hours of audio, at most | minutes |"
        " dev CER after adapters | test CER |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in best.values():
        first, ctc = one.updates
        name = "nothing" if one.route is None else _NAMES[one.route]
        name += ", sounds half way up" if one.halfway == "sounds" else ""
        lines.append(
            f"| {name} | {first}, {ctc} | {one.lr:g} | {one.audio_s / 3600:.1f} | {one.seconds / 60:.0f} |"
            f" {_told(one.dev_cer)} | {_told(one.cer)} |"
        )
    return "\n".join(lines)


def _mean(rates: dict[str, float]) -> float:
    return sum(rates.values()) / len(rates)


def _told(rates: dict[str, float]) -> str:
    each = ", ".join(f"{language} {100 * rate:.1f}" for language, rate in rates.items())
    return f"{100 * _mean(rates):.1f} ({each})"
