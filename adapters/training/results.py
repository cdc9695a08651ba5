"""The paper's experiment on our data: every trial of the grid trained, each in a process of its own, and written down.

Resumable: what a trial came to is a line in trials.jsonl, and a trial that has its line is not run again; one that was
cut off goes on from its checkpoint. Lines say which backbone and data they are of; others' lines do not count.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from adapters.backbone import fingerprint, read_config
from adapters.training.bootstrap import Edits
from adapters.training.manifest import clips_key, read_json_lines, read_manifest, write_json_lines
from adapters.training.processes import apart, side_by_side
from adapters.training.progress import step_seconds
from adapters.training.results_grid import Trial, trials, tuning
from adapters.training.train import train
from adapters.training.train_config import TrainConfig


@dataclass(frozen=True)
class Outcome:
    """What one trial came to, ``on`` a backbone beside the main one, if it says so. ``data``: which clips there were
    (:func:`~adapters.training.manifest.clips_key`). ``seconds``: of its steps alone; ``peak_bytes``: of its process.
    ``edits``: of each test clip, characters, their number, words, their number."""

    trial: str
    language: str
    config: dict[str, Any]
    backbone: str
    data: str
    parameters: int
    percent: float
    dev_cer: float
    seconds: float
    peak_bytes: int
    edits: list[tuple[int, int, int, int]]
    on: str = ""

    @property
    def cer(self) -> float:
        """Of the test clips, pooled, as a fraction."""
        return self.characters.rate

    @property
    def wer(self) -> float:
        return self.words.rate

    @property
    def characters(self) -> Edits:
        return self._columns(0, 1)

    @property
    def words(self) -> Edits:
        return self._columns(2, 3)

    def _columns(self, edits: int, lengths: int) -> Edits:
        columns = np.array(self.edits, dtype=float)
        return Edits(columns[:, edits], columns[:, lengths])


class Notebook:
    """The outcomes in ``path``, of the backbones with these fingerprints, by what each is called (the main one ""), and
    of the clips of this key."""

    def __init__(self, path: Path, backbones: Mapping[str, str], data: str) -> None:
        self._path = path
        lines = read_json_lines(path) if path.exists() else []
        self._all = [Outcome(**line) for _, line in lines if isinstance(line, dict)]
        self._backbones, self._data = dict(backbones), data
        self._writing = Lock()

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """By the trial's name."""
        mine = (one for one in self._all if (self._backbones.get(one.on), self._data) == (one.backbone, one.data))
        return {outcome.trial: outcome for outcome in mine}

    def add(self, outcome: Outcome) -> None:
        """Write ``outcome`` down; from any thread."""
        with self._writing:
            self._all.append(outcome)
            write_json_lines(self._path, (asdict(one) for one in self._all))


def run_trials(
    manifest: Path,
    models: Path,
    folder: Path,
    notebook: Notebook,
    usual: TrainConfig,
    *,
    languages: Iterable[str] = (),
    others: Mapping[str, Path] | None = None,
    at_once: int = 1,
    device: str = "cpu",
    announce: Callable[[str], None] = lambda line: None,
    on_outcome: Callable[[], None] = lambda: None,
) -> dict[str, Outcome]:
    """Run what is missing of the grid, runs in ``folder``, and return all outcomes of it by name.

    ``languages``: those that are tried once with each of the three main methods; all of the manifest, if left out.
    ``others``: further model folders, for adapters in all layers, by what they are called. ``at_once``: trials side by
    side, which share the cores.
    """
    layers = read_config(models / "backbone").num_hidden_layers
    folders = {"": models, **(others or {})}
    spoken = tuple(languages) or tuple(sorted({clip.language for clip in read_manifest(manifest)}))

    threads = max(1, torch.get_num_threads() // at_once)

    def carry_out(wanted: list[Trial]) -> dict[str, Outcome]:
        def attempt(number: int, trial: Trial) -> None:
            announce(f"{number}/{len(wanted)} {trial.name}")
            notebook.add(apart(run_trial, trial, manifest, folders[trial.on], folder, device, threads))

        done = notebook.outcomes
        missing = [(number, trial) for number, trial in enumerate(wanted, start=1) if trial.name not in done]
        for _ in side_by_side(attempt, missing, at_once):
            on_outcome()
        return {trial.name: notebook.outcomes[trial.name] for trial in wanted}

    tried = carry_out(tuning(usual, layers))
    rates: dict[str, float] = {}
    for outcome in sorted(tried.values(), key=lambda one: one.dev_cer):
        rates.setdefault(outcome.config["method"], outcome.config["lr"])
    return {**tried, **carry_out(trials(usual, layers, rates, spoken, others or ()))}


def run_trial(
    trial: Trial, manifest: Path, models: Path, folder: Path, device: str, threads: int | None = None
) -> Outcome:
    """Train one adapter or model, on a copy of the model folder's backbone that nobody serves.

    ``threads``: of a CPU, torch's choice if left out.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    run, made = folder / trial.name, folder / trial.name / "models"
    (made / "adapters").mkdir(parents=True, exist_ok=True)
    (made / "backbone").unlink(
        missing_ok=True
    )  # where another stood there, its run is known by it and refuses this one
    (made / "backbone").symlink_to((models / "backbone").resolve(), target_is_directory=True)
    out = run / "out" if trial.config.method == "full" else None
    record = train(manifest, made, trial.language, run, trial.config, out=out, device=device)
    heard = [line for _, line in read_json_lines(run / "test.jsonl") if isinstance(line, dict)]
    texts, said = [line["text"] for line in heard], [line["heard"] for line in heard]
    characters, words = Edits.of_characters(texts, said), Edits.of_words(texts, said)
    told = record.training or {}
    columns = zip(characters.edits, characters.lengths, words.edits, words.lengths, strict=True)
    outcome = Outcome(
        trial=trial.name,
        language=trial.language,
        config=json.loads(json.dumps(asdict(trial.config))),
        backbone=fingerprint(models / "backbone"),
        data=clips_key(read_manifest(manifest)),
        parameters=int(told["parameters"]),
        percent=float(told["percent"]),
        dev_cer=record.metrics["dev"]["cer"],
        seconds=round(step_seconds(run / "progress.jsonl"), 1),
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        on=trial.on,
        edits=[(int(a), int(b), int(c), int(d)) for a, b, c, d in columns],
    )
    shutil.rmtree(run / "out", ignore_errors=True)
    (run / "checkpoint.pt").unlink(missing_ok=True)
    return outcome
