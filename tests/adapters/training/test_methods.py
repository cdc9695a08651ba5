"""Methods side by side on tones, and the trunk that runs share."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch

from adapters.backbone import fingerprint, load_model
from adapters.config import BackboneSize
from adapters.encoder import Encoder
from adapters.errors import DataError
from adapters.store import AdapterStore
from adapters.training import train as module
from adapters.training.augmentation import Augmentation
from adapters.training.data import AudioCache
from adapters.training.evaluate import evaluate
from adapters.training.manifest import read_manifest
from adapters.training.processes import run_processes
from adapters.training.run_folder import load_checkpoint
from adapters.training.train import train
from adapters.training.train_config import TrainConfig
from adapters.training.trunk import Computed, TrunkCache, Variations
from tests.adapters.training.killed import assert_close, assert_same_model, counted_steps, killed_at

SHORT = TrainConfig(
    size=4, steps=8, lr=3e-3, batch_s=8.0, variations=2, augmentation=Augmentation(speed=0.1, noise=0.5)
)
FULL = replace(SHORT, method="full", lr=3e-3, steps=30, norms="none")


@pytest.fixture
def models(trained, tmp_path):
    """The tiny backbone without adapters, and without the head that says everything right from the start."""
    (tmp_path / "models").mkdir()
    shutil.copytree(trained.models / "backbone", tmp_path / "models/backbone")
    (tmp_path / "models/backbone/head.safetensors").unlink()
    return tmp_path / "models"


def test_lora_learns_and_is_served(tones, models, tmp_path):
    config = replace(SHORT, method="lora", norms="none", steps=40, lr=1e-2)
    record = train(tones, models, "es", tmp_path / "run", config)
    assert (record.config.method, record.config.size, record.config.layers) == ("lora", 4, (1,))
    assert record.training["parameters"] == 2 * 2 * 4 * 32 + record.config.vocab_size * 33
    stored = AdapterStore(models / "adapters").load(record, size=BackboneSize(32, 2, 64)).tensors
    assert stored["layers.1.v_proj.lora_B.weight"].abs().max() > 0
    assert evaluate(models, tones, "test")["es"].cer == pytest.approx(record.metrics["test"]["cer"], abs=1e-4)


@pytest.mark.parametrize("layers", [None, 1])
def test_full_fine_tuning_makes_a_model_of_its_own(tones, models, tmp_path, layers):
    out, config = tmp_path / "out", replace(FULL, layers=layers, steps=200)
    before = fingerprint(models / "backbone")
    record = train(tones, models, "es", tmp_path / "run", config, out=out)
    assert fingerprint(models / "backbone") == before
    assert not (models / "adapters").exists()
    assert record.fingerprint == fingerprint(out / "backbone") != before
    assert (record.config.method, record.metrics["test"]["cer"] < 0.5) == ("head", True)
    assert evaluate(out, tones, "test")["es"].cer == pytest.approx(record.metrics["test"]["cer"], abs=1e-4)
    then, now = (dict(load_model(folder / "backbone").named_parameters()) for folder in (models, out))
    moved = {name for name in then if not torch.equal(then[name], now[name])}
    assert any(name.startswith("encoder.layers.1.") for name in moved)
    assert any(name.startswith("encoder.layers.0.") for name in moved) is (layers is None)
    assert any(name.startswith("feature_projection.") for name in moved) is (layers is None)
    assert not any(name.startswith("feature_extractor.") for name in moved)
    trained = sum(then[name].numel() for name in moved) + record.config.vocab_size * 33
    assert record.training["parameters"] == pytest.approx(trained, rel=0.01)
    assert 10 < record.training["percent"] < 100


def test_full_fine_tuning_goes_on_after_a_kill(tones, models, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_EVERY", 3)
    config = replace(FULL, steps=6)
    through = train(tones, models, "es", tmp_path / "a", config, out=tmp_path / "through")
    with killed_at("es", 5):
        train(tones, models, "es", tmp_path / "b", config, out=tmp_path / "killed")
    with counted_steps() as taken:
        resumed = train(tones, models, "es", tmp_path / "b", config, out=tmp_path / "killed")
    assert len(taken()) == 3
    assert_same_model(tmp_path / "killed/backbone", tmp_path / "through/backbone")
    assert resumed.metrics == through.metrics


@pytest.fixture
def dropping(models, tmp_path):
    """The tiny backbone, with dropout."""
    shutil.copytree(models, tmp_path / "dropping")
    config = tmp_path / "dropping/backbone/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_dropout": 0.3, "activation_dropout": 0.3}))
    return tmp_path / "dropping"


def test_dropout_is_the_same_after_a_kill(tones, dropping, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_EVERY", 3)
    config = replace(FULL, steps=6, lr=1e-2)
    train(tones, dropping, "es", tmp_path / "a", config, out=tmp_path / "through")
    with killed_at("es", 5):
        train(tones, dropping, "es", tmp_path / "b", config, out=tmp_path / "killed")
    train(tones, dropping, "es", tmp_path / "b", config, out=tmp_path / "killed")
    last = [load_checkpoint(tmp_path / run / "checkpoint.pt", "cpu") for run in ("a", "b")]
    assert_close(last[1], last[0])


def test_frozen_layers_drop_nothing_whether_kept_or_not(tones, dropping, tmp_path):
    config = replace(FULL, layers=1, steps=4, lr=1e-5)
    losses = []
    for keep in (True, False):
        run, out = tmp_path / f"kept-{keep}", tmp_path / f"out-{keep}"
        train(tones, dropping, "es", run, config, out=out, keep_trunk=keep)
        lines = map(json.loads, (run / "progress.jsonl").read_text().splitlines())
        losses += [line["ctc"] for line in lines if "ctc" in line]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_backbone_that_adapters_stand_on_is_not_tuned_in_its_place(tones, models, tmp_path):
    before = fingerprint(models / "backbone")
    config = replace(FULL, steps=2)
    with pytest.raises(DataError, match="there is a backbone already; full fine-tuning makes one of its own"):
        train(tones, models, "es", tmp_path / "run", config, out=models)
    assert fingerprint(models / "backbone") == before
    train(tones, models, "es", tmp_path / "es", config, out=tmp_path / "out")
    train(tones, models, "es", tmp_path / "es", config, out=tmp_path / "out")
    with pytest.raises(DataError, match="there is a backbone already"):
        train(tones, models, "fr", tmp_path / "fr", config, out=tmp_path / "out")


@pytest.mark.parametrize("full", [False, True])
def test_processes_train_together(tones, models, tmp_path, full):
    config = replace(FULL if full else SHORT, steps=20, lr=3e-3)
    out = tmp_path / "out" if full else None
    work = partial(train, out=out)
    run_processes(work, (tones, models, "es", tmp_path / "run", config), 2)
    record = AdapterStore((out or models) / "adapters").record("es")
    alone = train(tones, models, "es", tmp_path / "alone", config, name="alone", out=tmp_path / "o" if full else None)
    assert record.metrics["dev"]["cer"] == pytest.approx(alone.metrics["dev"]["cer"], abs=0.25)
    assert json.loads((tmp_path / "run/run.json").read_text())["processes"] == 2
    before = (tmp_path / "run/checkpoint.pt").read_bytes()
    run_processes(work, (tones, models, "es", tmp_path / "run", config), 2)
    assert AdapterStore((out or models) / "adapters").record("es") == record, "there was nothing left to do"
    assert (tmp_path / "run/checkpoint.pt").read_bytes() == before


def test_a_device_that_is_not_there_is_refused(tones, models, tmp_path):
    with pytest.raises(DataError, match="no GPU here for --device cuda"):
        train(tones, models, "es", tmp_path / "run", SHORT, device="cuda")


@pytest.mark.parametrize(
    ("config", "out", "wrong"),
    [
        (FULL, None, "give it with --out"),
        (SHORT, "out", "give it with --out"),
        (replace(FULL, layers=0), "out", "one layer at least"),
        (replace(FULL, layers=3), "out", "the backbone has 2"),
    ],
)
def test_what_full_fine_tuning_cannot_do_is_refused(tones, models, tmp_path, config, out, wrong):
    with pytest.raises(DataError, match=wrong):
        train(tones, models, "es", tmp_path / "run", config, out=tmp_path / out if out else None)


def test_patience_ends_a_run(tones, models, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_EVERY", 2)
    monkeypatch.setattr(module._Run, "_cer", lambda run: 0.5)
    for _ in range(2):  # it stays ended
        with counted_steps() as taken:
            train(tones, models, "es", tmp_path / "run", replace(SHORT, patience=2))
    assert taken() == []
    with counted_steps() as taken:
        train(tones, models, "es", tmp_path / "other", replace(SHORT, patience=2))
    assert len(taken()) == 4


def test_a_second_run_starts_where_the_first_left_the_trunk(tones, models, tmp_path, monkeypatch):
    train(tones, models, "es", tmp_path / "first", replace(SHORT, layers=2), name="first")
    heard: list[int] = []
    trunk = Encoder.trunk

    def hears(self, audio, upto):
        heard.append(upto)
        return trunk(self, audio, upto)

    monkeypatch.setattr(Encoder, "trunk", hears)
    kept = train(tones, models, "es", tmp_path / "kept", replace(SHORT, layers=1, steps=1, lr=1e-9), name="kept")
    trained = len(heard)
    assert trained, "dev and test clips are heard as they will be served"
    again = train(tones, models, "es", tmp_path / "again", replace(SHORT, layers=1, steps=1, lr=1e-9), name="again")
    assert len(heard) == 2 * trained, "and no train clip is, in either"
    assert replace(again, name="kept").to_json() == kept.to_json()
    monkeypatch.setattr(module, "_EVERY", 2)
    train(tones, models, "es", tmp_path / "more", replace(SHORT, layers=1), name="more")
    assert len(heard) == 3 * trained, "nor does a look at the dev split run it again"


@pytest.fixture
def variations(tones, tmp_path):
    clips = [clip for clip in read_manifest(tones) if (clip.language, clip.split) == ("es", "train")]
    return Variations(AudioCache(clips, tmp_path / "cache"), 2, Augmentation(speed=0.2, noise=0.5), seed=3)


@torch.inference_mode()
def test_what_is_kept_is_what_would_be_computed(variations, trained, tmp_path):
    encoder = Encoder(load_model(trained.models / "backbone")).requires_grad_(False).eval()
    cache = TrunkCache(tmp_path, variations, encoder, "f", normalised=True, bfloat16=False)
    for layer in (1, 2, 0):  # the second out of the first, the third below both
        rows = [5, 30, 0, 47]
        kept, computed = cache.below(layer, rows), Computed(variations, encoder, layer, normalised=True)
        assert set(kept.states) == set(rows)
        found, wanted = kept.batch(rows), computed.batch(rows)
        assert (found.lengths, found.layer) == (wanted.lengths, layer)
        for row, length in enumerate(found.lengths):
            torch.testing.assert_close(found.hidden[row, :length], wanted.hidden[row, :length], atol=2e-2, rtol=1e-2)


def test_only_rows_that_nobody_kept_are_computed(variations, trained, tmp_path, monkeypatch):
    encoder = Encoder(load_model(trained.models / "backbone")).requires_grad_(False).eval()
    cache = TrunkCache(tmp_path, variations, encoder, "f", normalised=True, bfloat16=False)
    made: list[int] = []
    batch = Computed.batch

    def counted(start, rows):
        made.extend(rows)
        return batch(start, rows)

    monkeypatch.setattr(Computed, "batch", counted)
    cache.below(1, [3, 4])
    cache.below(1, [4, 29, 29])
    assert sorted(made) == [3, 4, 29]
    cache.below(2, [4, 29, 40])
    assert sorted(made) == [3, 4, 29, 40], "the others go on from the layers below"
    kept, wanted = cache.below(2, [40, 4]), batch(Computed(variations, encoder, 2, normalised=True), [40, 4])
    for row, length in enumerate(wanted.lengths):
        found = kept.batch([40, 4]).hidden[row, :length]
        torch.testing.assert_close(found, wanted.hidden[row, :length], atol=2e-2, rtol=1e-2)


def test_another_backbone_or_other_data_have_another_trunk(variations, trained, tmp_path):
    encoder = Encoder(load_model(trained.models / "backbone")).eval()

    def folder(fingerprint="f", **changed):
        varied = replace(variations, **changed)
        return TrunkCache(tmp_path, varied, encoder, fingerprint, normalised=True, bfloat16=False).folder

    others = [folder("g"), folder(seed=4), folder(count=3), folder(augmentation=Augmentation())]
    assert len({folder(), *others}) == 5
    assert folder(count=1, seed=4) == folder(count=1), "of the clips themselves nothing is random"


def test_a_trunk_that_was_cut_off_is_made_again(variations, trained, tmp_path, monkeypatch):
    encoder = Encoder(load_model(trained.models / "backbone")).requires_grad_(False).eval()
    cache = TrunkCache(tmp_path, variations, encoder, "f", normalised=True, bfloat16=False)
    trunk = Encoder.trunk
    calls = iter(range(9))

    def dies(self, audio, upto):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return trunk(self, audio, upto)

    monkeypatch.setattr("adapters.training.trunk._BATCH_S", 8)
    monkeypatch.setattr(Encoder, "trunk", dies)
    with pytest.raises(KeyboardInterrupt):
        cache.below(1, range(len(variations)))
    assert list(cache.folder.iterdir()) == []
    monkeypatch.setattr(Encoder, "trunk", trunk)
    assert len(cache.below(1, range(len(variations))).states) == len(variations)


def test_an_epoch_draws_a_clip_as_often_as_its_weight_says(variations):
    clips = len(variations.cache)
    weighed = replace(variations, weights=[0.5 if number % 2 else 2.0 for number in range(clips)])
    rows = itertools.chain.from_iterable(itertools.islice(weighed.batches(4.0), 400))
    drawn = Counter(row % clips for row in rows)
    rarely, often = (sum(drawn[number] for number in range(first, clips, 2)) for first in (1, 0))
    assert often / rarely == pytest.approx(4, rel=0.25)
