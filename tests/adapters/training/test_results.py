"""The grid of the paper's experiment: what is in it, that it goes on where it stopped, and what its page says."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest

from adapters.backbone import fingerprint
from adapters.errors import DataError
from adapters.training import results as module
from adapters.training.augmentation import Augmentation
from adapters.training.manifest import clips_key, read_manifest
from adapters.training.processes import apart
from adapters.training.results import Notebook, Outcome, run_trial, run_trials
from adapters.training.results_grid import RATES, REQUIRED, SEEDS, Trial, trials, tuning
from adapters.training.results_page import claims, comparable, draw, page
from adapters.training.train_config import Method, TrainConfig

USUAL = TrainConfig(size=4, steps=6, batch_s=8.0, variations=1, augmentation=Augmentation())
LRS = {"bottleneck": 1e-3, "lora": 1e-3, "head": 1e-3, "full": 1e-4}


def test_the_grid_has_what_the_paper_claims():
    found = trials(replace(USUAL, size=64), 8, LRS, ["cs", "fr", "it"], ["hubert"])
    assert {(t.language, t.config.method, t.config.layers) for t in found if t.on} == {
        (language, "bottleneck", 8) for language in REQUIRED
    }
    found = [trial for trial in found if not trial.on]
    names = [trial.name for trial in found]
    assert len(set(names)) == len(names)
    for language in REQUIRED:
        for seed in SEEDS:
            mine = [t.config for t in found if t.language == language and t.config.seed == seed]
            by = {(c.method, c.layers) for c in mine if c.minutes is None and c.norms != "all"}
            assert by >= {("full", None), ("head", 0), *(("bottleneck", n) for n in (1, 2, 4, 8))}
            assert by >= {("full", n) for n in (1, 2, 4)}
            trained = [8 if c.layers is None else c.layers for c in mine if seed and c.minutes is None]
            assert trained == sorted(trained, reverse=True)
        once = [t.config for t in found if t.language == language]
        assert {c.size for c in once if c.method == "bottleneck"} == {16, 64, 256}
        assert {c.method for c in once} == set(RATES)
        assert {c.minutes for c in once} == {None, 10.0, 30.0}
        assert {c.norms for c in once if c.method == "bottleneck"} == {"adapted", "all"}
    assert {t.config.method for t in found if t.language == "it"} == {"full", "bottleneck", "head"}
    assert {trial.config.lr for trial in tuning(USUAL, 8) if trial.config.method == "full"} == set(RATES["full"])


@pytest.fixture
def few(monkeypatch):
    """A grid of two trials after two of tuning, in this process."""
    head = replace(USUAL, method="head", layers=0, norms="none")
    monkeypatch.setattr(
        module, "tuning", lambda usual, layers: [Trial("es", replace(head, lr=lr)) for lr in (1e-3, 1e-2)]
    )
    monkeypatch.setattr(
        module,
        "trials",
        lambda usual, layers, rates, languages, others: [
            Trial("es", replace(USUAL, method="full", layers=1, norms="none", lr=rates["head"])),
            Trial("fr", replace(USUAL, layers=1)),
        ],
    )
    monkeypatch.setattr(module, "apart", lambda function, *given: function(*given))


def test_what_was_tried_is_not_tried_again(few, tones, trained, tmp_path, monkeypatch):
    known_by = fingerprint(trained.models / "backbone")
    data = clips_key(read_manifest(tones))
    notebook = Notebook(tmp_path / "trials.jsonl", {"": known_by}, data)
    told: list[str] = []

    def stops(line):
        told.append(line)
        if len(told) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(tones, trained.models, tmp_path / "runs", notebook, USUAL, announce=stops)
    again = Notebook(tmp_path / "trials.jsonl", {"": known_by}, data)
    assert len(again.outcomes) == 3
    told.clear()
    found = run_trials(tones, trained.models, tmp_path / "runs", again, USUAL, announce=told.append)
    assert [line.split()[-1] for line in told] == ["fr-bottleneck-4-top1-norms-adapted-6x8s-lr0.002-seed0"]
    assert len(found) == 4
    assert fingerprint(trained.models / "backbone") == known_by
    assert Notebook(tmp_path / "trials.jsonl", {"": "another"}, data).outcomes == {}
    assert Notebook(tmp_path / "trials.jsonl", {"": known_by}, "other clips").outcomes == {}
    beside = Notebook(tmp_path / "trials.jsonl", {"": "another", "old": known_by}, data)
    assert beside.outcomes == {}, "what it was the main one for says nothing of another that is"
    full = next(one for one in found.values() if one.config["method"] == "full")
    assert (
        full.config["lr"]
        == min((one for one in found.values() if one.config["method"] == "head"), key=lambda one: one.dev_cer).config[
            "lr"
        ]
    )
    for one in found.values():
        assert one.cer <= one.wer
        assert one.peak_bytes > 50 << 20
        assert 0 < one.percent < 100


def test_trials_run_side_by_side(few, tones, trained, tmp_path, monkeypatch):
    """Each pair waits for the other within its trials: alone neither would end."""
    together = threading.Barrier(2, timeout=60)

    def meets(function, trial, *rest):
        together.wait()
        return outcome(trial.config.method, trial.config.layers, 1, lr=trial.config.lr, of=trial)

    monkeypatch.setattr(module, "apart", meets)
    notebook = Notebook(tmp_path / "trials.jsonl", {"": "f"}, "d")
    found = run_trials(tones, trained.models, tmp_path / "runs", notebook, USUAL, at_once=2)
    assert len(found) == len(Notebook(tmp_path / "trials.jsonl", {"": "f"}, "d").outcomes) == 4


def test_a_trial_beside_one_that_fails_is_written_down(few, tones, trained, tmp_path, monkeypatch):
    """It ends after the other has failed."""
    begun, failed = threading.Event(), threading.Event()

    def fails(function, trial, *rest):
        if trial.config.lr == 1e-3:
            assert begun.wait(60)
            failed.set()
            raise RuntimeError("no memory")
        begun.set()
        assert failed.wait(60)
        time.sleep(0.2)  # for who waits for the first that fails
        return outcome(trial.config.method, trial.config.layers, 1, lr=trial.config.lr, of=trial)

    monkeypatch.setattr(module, "apart", fails)
    notebook = Notebook(tmp_path / "trials.jsonl", {"": "f"}, "d")
    with pytest.raises(RuntimeError, match="no memory"):
        run_trials(tones, trained.models, tmp_path / "runs", notebook, USUAL, at_once=2)
    assert len(Notebook(tmp_path / "trials.jsonl", {"": "f"}, "d").outcomes) == 1


def test_a_run_of_another_backbone_is_not_taken_for_this_one(tones, trained, tmp_path):
    trial = Trial("es", replace(USUAL, method="head", layers=0, norms="none", steps=1))
    first = run_trial(trial, tones, trained.models, tmp_path / "runs", "cpu")
    other = tmp_path / "other"
    shutil.copytree(trained.models / "backbone", other / "backbone")
    config = json.loads((other / "backbone/config.json").read_text())
    (other / "backbone/config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    with pytest.raises(DataError, match="holds a run that differs in backbone"):
        run_trial(trial, tones, other, tmp_path / "runs", "cpu")
    assert run_trial(trial, tones, trained.models, tmp_path / "runs", "cpu").edits == first.edits


def test_a_trial_that_fails_leaves_what_the_others_found(few, tones, trained, tmp_path, monkeypatch):
    ran = []

    def fails_second(function, trial, *rest):
        ran.append(trial)
        if len(ran) == 2:
            raise RuntimeError("no memory")
        return outcome(trial.config.method, trial.config.layers, 1, lr=trial.config.lr, of=trial)

    monkeypatch.setattr(module, "apart", fails_second)
    notebook = Notebook(tmp_path / "trials.jsonl", {"": "f"}, "d")
    with pytest.raises(RuntimeError, match="no memory"):
        run_trials(tones, trained.models, tmp_path / "runs", notebook, USUAL)
    assert len(Notebook(tmp_path / "trials.jsonl", {"": "f"}, "d").outcomes) == 1


def test_a_trial_has_a_process_of_its_own(tones, trained, tmp_path):
    trial = Trial("es", replace(USUAL, method="head", layers=0, norms="none", steps=1))
    outcome = apart(run_trial, trial, tones, trained.models, tmp_path, "cpu")
    assert outcome.trial == trial.name == "es-head-norms-none-1x8s-lr0.002-seed0"
    assert len(outcome.edits) == 4, "one for each test clip"


def outcome(
    method: Method,
    layers: int | None,
    wrong: int,
    *,
    percent: float = 5.0,
    seed: int = 0,
    of: Trial | None = None,
    **changed,
) -> Outcome:
    """40 clips of 20 characters, ``wrong`` of them wrong in each and two more in every other clip."""
    config = replace(USUAL, method=method, layers=layers, seed=seed, **changed)
    edits = [(wrong + 2 * (n % 2), 20, 1, 4) for n in range(40)]
    cer = (wrong + 1) / 20
    name = (of or Trial("cs", config)).name
    return Outcome(name, "cs", asdict(config), "f", "d", 1000, percent, cer, 60.0, 1 << 30, edits)


def test_claims_hold_or_not():
    found = [outcome("bottleneck", 8, 2, seed=seed) for seed in range(3)]
    found += [outcome("full", None, 2, percent=95.0, seed=seed, norms="none") for seed in range(3)]
    found += [outcome("bottleneck", 4, 2), outcome("bottleneck", 1, 6), outcome("full", 1, 3, norms="none")]
    parameters, degradation, top, one = claims(found, 8)
    assert "holds. adapters of 4, all layers" not in parameters
    assert parameters.startswith("Under 10 % of the parameters: holds")
    assert ": holds. Adapters less full: +0.00" in degradation
    assert "within 0.5 of all: holds" in top
    assert "top 1: +20.00" in top
    assert "does not hold" in one
    assert claims(found[:1], 8) == [parameters]
    elsewhere = [outcome("full", None, 2, seed=7, norms="none"), outcome("bottleneck", 4, 2, seed=7)]
    assert claims([*found[:1], *elsewhere], 8) == [parameters], "no seed has both sides yet"


def test_the_number_of_layers_is_chosen_on_dev():
    """Top 4 is best on test, top 1 on dev."""
    found = [outcome("bottleneck", 8, 2), outcome("bottleneck", 4, 2), outcome("bottleneck", 1, 6)]
    found[2] = replace(found[2], dev_cer=0.01)
    told = claims(found, 8)[-1]
    assert "within 0.5 of all: does not hold, at N = 1, the best on dev" in told
    assert "top 4: +0.00 (+0.00 to +0.00), 1 pairs" in told


def test_points_are_of_the_same_clips():
    """However many seeds a method has in a language, and whatever other languages it was tried in."""

    def everywhere(method, layers, wrong, **changed):
        cs = [outcome(method, layers, wrong, seed=seed, **changed) for seed in range(3)]
        fr = replace(cs[0], language="fr", edits=[(0, 20, 1, 4)] * 40)
        elsewhere = replace(cs[0], language="it", edits=[(20, 20, 1, 4)] * 40)
        return [*cs, fr, elsewhere]

    full = everywhere("full", None, 3, percent=95.0, norms="none")
    one = [*everywhere("bottleneck", 8, 3)[2:4], outcome("bottleneck", 4, 1)]
    points = {kind.method: rate for kind, rate in comparable([*full, *one]).items()}
    assert points == {"full": pytest.approx(10.0), "bottleneck": pytest.approx(10.0)}


def test_the_page_has_a_line_for_each_kind(tmp_path):
    found = [outcome("bottleneck", n, 2, seed=seed) for n in (1, 8) for seed in range(2)]
    found += [outcome("full", None, 3, percent=95.0, seed=seed, norms="none") for seed in range(2)]
    worse = replace(outcome("bottleneck", 8, 9, lr=1.0), dev_cer=0.9)
    figures = draw([*found, worse], 8, tmp_path)
    told = page([*found, worse], 8, figures)
    rows = [line for line in told.splitlines() if line.startswith("| ") and "| cs |" in line]
    assert len(rows) == 3
    assert rows[0].startswith("| full fine-tuning, all layers | cs | 2 | 1,000 | 95.00 | 20.0 (")
    assert "| adapters of 4, top 8 | cs | 2 |" in told, "and the learning rate that was not taken does not count"
    for figure in figures:
        assert f"![]({figure})" in told
        ElementTree.parse(tmp_path / figure)
