"""Pretraining on tones: it learns, a killed run ends like any other, and only the train split is learnt from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from adapters.backbone import load_backbone, read_normalised
from adapters.errors import BackboneError, DataError
from adapters.training import backbone_folder
from adapters.training import pretrain as module
from adapters.training.augmentation import Augmentation
from adapters.training.manifest import read_manifest, write_manifest
from adapters.training.pretrain import pretrain
from adapters.training.pretrain_config import STAGE, PretrainConfig, Stage, StageConfig
from adapters.vocab import Vocab
from tests.adapters.training.killed import assert_close, assert_same_model, counted_steps, killed_at
from tests.adapters.training.tones import SHAPE, write_corpus

VARIED = Augmentation(speed=0.1, noise=0.3)
SHORT = PretrainConfig(
    shape=SHAPE,
    units=8,
    stages={
        "units": StageConfig(7, 8.0, 3e-3, 0.08, VARIED),
        "ctc": StageConfig(7, 8.0, 3e-3, 0.02, VARIED),
    },
)


def made(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def through(tones, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run makes that nobody kills."""
    folder = tmp_path_factory.mktemp("through")
    pretrain(tones, folder / "run", folder / "backbone", SHORT)
    return folder / "backbone"


@pytest.mark.parametrize(
    "kills",
    [
        [("units", 2)],
        [("units", 5)],
        [("units", 7)],
        [("ctc", 1)],
        [("ctc", 7)],
        [("units", 4), ("ctc", 4), ("ctc", 5)],
    ],
    ids=str,
)
def test_a_killed_run_started_again_makes_the_same_backbone(tones, tmp_path, monkeypatch, through, kills):
    monkeypatch.setattr(module, "_SAVE_EVERY", 3)
    monkeypatch.setattr(module, "_SAVE_APART_S", 0)
    for stage, step in kills:
        with killed_at(stage, step):
            pretrain(tones, tmp_path / "run", tmp_path / "backbone", SHORT)
    with counted_steps() as taken:
        pretrain(tones, tmp_path / "run", tmp_path / "backbone", SHORT)
    assert len(taken()) < 14 or kills == [("units", 2)], "it went on from a checkpoint"
    assert_same_model(tmp_path / "backbone", through)


def test_a_run_killed_after_its_last_checkpoint_keeps_the_averaged_weights(tones, tmp_path, monkeypatch, through):
    monkeypatch.setattr(module, "wait_for_processes", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pretrain(tones, tmp_path / "run", tmp_path / "backbone", SHORT)
    monkeypatch.undo()
    with counted_steps() as taken:
        pretrain(tones, tmp_path / "run", tmp_path / "backbone", SHORT)
    assert taken() == []
    assert_same_model(tmp_path / "backbone", through)


def test_no_checkpoint_ever_holds_a_finished_stage_before_its_average(tones, tmp_path, monkeypatch):
    """A kill between the two would leave the trained weights for good."""
    found: list[bool] = []

    def looked_at(path, state):
        if state["step"] == 7:
            names = [name for name, _ in run.encoder.named_parameters()]
            weights = [state["modules"][f"0.{name}"] for name in names]
            found.append(all(torch.equal(w, a) for w, a in zip(weights, state["average"], strict=False)))

    monkeypatch.setattr(module, "save_checkpoint", looked_at)
    run = module._Run(tones, tmp_path, SHORT, "cpu")
    run.train("units")
    assert found == [True]


def test_another_configuration_in_the_same_folder_is_refused(tones, tmp_path):
    with killed_at("units", 1):
        pretrain(tones, tmp_path / "run", tmp_path / "backbone", SHORT)
    with pytest.raises(DataError, match="differs in seed"):
        pretrain(tones, tmp_path / "run", tmp_path / "backbone", replace(SHORT, seed=1))


def test_it_learns(trained):
    notes = [json.loads(line) for line in (trained.runs / "backbone" / "progress.jsonl").read_text().splitlines()]
    losses = [note["ctc"] for note in notes if "ctc" in note]
    assert losses[-1] < losses[0] / 2
    (cer,) = [note["dev_cer"] for note in notes if "dev_cer" in note]
    assert set(cer) == {"mean", "es", "fr"}
    assert cer["mean"] < 0.6, "a model that hears nothing says nothing right"


def test_what_it_writes_is_a_backbone_in_hugging_face_layout(trained):
    folder = trained.models / "backbone"
    encoder = load_backbone(folder)
    assert (encoder.hidden_size, encoder.layer_count) == (32, 2)
    assert read_normalised(folder)
    stored = safetensors.torch.load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    head = safetensors.torch.load_file(folder / "head.safetensors")
    vocab = Vocab.from_json((folder / "vocab.json").read_bytes())
    assert vocab.tokens == ("<pad>", "|", *"abcdeio")
    assert head["weight"].shape == (vocab.size, 32)
    record = json.loads((folder / "pretraining.json").read_text())
    assert record["languages"] == ["es", "fr"]
    assert record["config"]["stages"]["ctc"]["steps"] == 300
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in folder.iterdir())


def test_letters_and_languages_of_dev_and_test_are_not_learnt(tmp_path):
    manifest = write_corpus(tmp_path / "corpus", foreign="z")
    moved = ("fr", "dev")
    clips = read_manifest(manifest)
    write_manifest(manifest, [replace(c, language="cs") if (c.language, c.split) == moved else c for c in clips])
    pretrain(manifest, tmp_path / "run", tmp_path / "backbone", SHORT)
    learnt = made(tmp_path / "backbone")
    assert "z" not in Vocab.from_json(learnt["vocab.json"]).tokens
    assert b'"cs"' not in learnt["pretraining.json"]


def test_changed_dev_and_test_speech_changes_nothing(tones, tmp_path, through):
    clips = read_manifest(tones)
    trains = [clip for clip in clips if clip.split == "train"]
    swapped = [replace(clip, split="test" if clip.split == "dev" else "dev") for clip in clips if clip not in trains]
    write_manifest(tmp_path / "manifest.jsonl", [*trains, *swapped])
    pretrain(tmp_path / "manifest.jsonl", tmp_path / "run", tmp_path / "backbone", SHORT)
    assert_close(*(safetensors.torch.load_file(f / "model.safetensors") for f in (tmp_path / "backbone", through)))


def test_a_corpus_without_dev_clips_will_do(tmp_path):
    manifest = write_corpus(tmp_path / "corpus", counts={"train": 6})
    pretrain(manifest, tmp_path / "run", tmp_path / "backbone", SHORT)
    assert load_backbone(tmp_path / "backbone").layer_count == 2


def test_too_little_speech_for_its_units_is_refused(tmp_path):
    manifest = write_corpus(tmp_path / "corpus", counts={"train": 1})
    with pytest.raises(DataError, match="frames of train clips cannot have 500 kinds"):
        pretrain(manifest, tmp_path / "run", tmp_path / "backbone", replace(SHORT, units=500))


def test_a_corpus_without_train_clips_is_refused(tmp_path):
    manifest = write_corpus(tmp_path / "corpus", counts={"dev": 2})
    with pytest.raises(DataError, match="no train clips"):
        pretrain(manifest, tmp_path / "run", tmp_path / "backbone", SHORT)


@pytest.fixture(scope="module")
def sung(tones, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the same clips as if a synthesizer had made them: every letter is a phone, in even steps."""
    clips = [clip for clip in read_manifest(tones) if clip.split == "train"]
    told = [
        replace(c, synthetic=True, phones=tuple((letter, 0.1 + 0.18 * n) for n, letter in enumerate(c.text)))
        for c in clips
    ]
    path = tmp_path_factory.mktemp("sung") / "manifest.jsonl"
    write_manifest(path, told)
    return path


def only(route: Stage, steps: int) -> PretrainConfig:
    """That route alone, without letters; the contrastive one, whose negatives take long, of fewer clips an update."""
    batch_s = 2.0 if route == "contrastive" else 8.0
    stages: dict[Stage, StageConfig] = {route: StageConfig(steps, batch_s, 3e-3, 0.08, VARIED)}
    return replace(SHORT, stages={**stages, "ctc": StageConfig(0, 8.0, 3e-3, 0.02, VARIED)})


@pytest.mark.parametrize("route", ["units", "phones"])
def test_units_and_phones_are_learnt(tones, sung, tmp_path, route):
    also = [sung] if route == "phones" else []
    pretrain(tones, tmp_path / "run", tmp_path / "backbone", only(route, 110), also=also)
    notes = [json.loads(line) for line in (tmp_path / "run/progress.jsonl").read_text().splitlines()]
    losses = [note["masked"] for note in notes if "masked" in note]
    assert losses[-1] < losses[0]
    assert "head.safetensors" not in made(tmp_path / "backbone"), "nobody has taught it letters"
    assert load_backbone(tmp_path / "backbone").layer_count == 2


@pytest.mark.parametrize("route", ["units", "contrastive", "phones"])
def test_every_route_goes_on_after_a_kill(tones, sung, tmp_path, monkeypatch, route):
    monkeypatch.setattr(module, "_SAVE_EVERY", 3)
    monkeypatch.setattr(module, "_SAVE_APART_S", 0)
    also = [sung] if route == "phones" else []
    pretrain(tones, tmp_path / "run", tmp_path / "through", only(route, 10), also=also)
    with killed_at(route, 7):
        pretrain(tones, tmp_path / "again", tmp_path / "killed", only(route, 10), also=also)
    with counted_steps() as taken:
        pretrain(tones, tmp_path / "again", tmp_path / "killed", only(route, 10), also=also)
    assert 0 < len(taken()) < 10, "it went on from a checkpoint"
    assert_same_model(tmp_path / "killed", tmp_path / "through")


def test_convolutions_learn_as_fast_as_their_stage_says(tones, tmp_path):
    """In the contrastive stage a tenth, or its targets collapse; here not at all."""
    assert STAGE["contrastive"].conv_lr == 0.1
    config = only("contrastive", 3)
    stages: dict[Stage, StageConfig] = {"contrastive": replace(config.stages["contrastive"], conv_lr=0.0)}
    run = module._Run(tones, tmp_path / "run", replace(config, stages=stages), "cpu")
    before = {name: p.detach().clone() for name, p in run.encoder.named_parameters()}
    run.train("contrastive")
    moved = {name for name, p in run.encoder.named_parameters() if (p != before[name]).any()}
    assert moved
    assert not any("feature_extractor" in name for name in moved)


def test_a_head_of_other_weights_does_not_stay(tones, tmp_path, through):
    shutil.copytree(through, tmp_path / "backbone")
    assert (tmp_path / "backbone/head.safetensors").exists()
    pretrain(tones, tmp_path / "run", tmp_path / "backbone", only("units", 1))
    assert not {"head.safetensors", "vocab.json"} & {path.name for path in (tmp_path / "backbone").iterdir()}


def test_sounds_half_way_up_are_learnt_beside_the_letters(tones, tmp_path, through):
    pretrain(tones, tmp_path / "run", tmp_path / "backbone", replace(SHORT, halfway="sounds"))
    made_so, otherwise = (
        safetensors.torch.load_file(folder / "head.safetensors") for folder in (tmp_path / "backbone", through)
    )
    assert {name: one.shape for name, one in made_so.items()} == {name: one.shape for name, one in otherwise.items()}
    assert any((made_so[name] != otherwise[name]).any() for name in made_so)
    pretraining = json.loads((tmp_path / "backbone/pretraining.json").read_text())
    assert pretraining["config"]["halfway"] == "sounds"


def test_phones_need_speech_that_has_some(tones, tmp_path):
    config = replace(SHORT, stages={"phones": SHORT.stages["units"]})
    with pytest.raises(DataError, match="no train clip has phones"):
        pretrain(tones, tmp_path / "run", tmp_path / "backbone", config)


def test_what_is_trained_on_besides_has_its_share(tones, sung, tmp_path):
    run = module._Run(tones, tmp_path / "run", replace(SHORT, also_share=0.25), "cpu", [sung])
    drawn = [0.0, 0.0]
    order = run._batches("ctc").order(0)
    for _ in range(600):
        for clip in next(order)[1]:
            drawn[clip >= run.recorded] += run.clips.clips[clip].seconds
    assert drawn[1] / sum(drawn) == pytest.approx(0.25, abs=0.02)


def test_a_run_may_start_from_a_backbone(tones, tmp_path, through):
    """No step of learning: what comes out is what it started from, head and all."""
    still = StageConfig(1, 8.0, 0.0, 0.02, Augmentation())
    config = replace(SHORT, stages={"ctc": still}, start=str(through))
    pretrain(tones, tmp_path / "run", tmp_path / "backbone", config)
    for file in ("model.safetensors", "head.safetensors"):
        before, after = (safetensors.torch.load_file(folder / file) for folder in (through, tmp_path / "backbone"))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before), file  # -0.0 may have become 0.0


def test_a_run_of_no_steps_is_what_it_starts_from(tones, tmp_path, through):
    config = replace(SHORT, stages={"ctc": replace(SHORT.stages["ctc"], steps=0)}, start=str(through))
    pretrain(tones, tmp_path / "run", tmp_path / "backbone", config)
    before, after = (safetensors.torch.load_file(f / "model.safetensors") for f in (through, tmp_path / "backbone"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_may_write_over_what_it_started_from(tones, tmp_path, monkeypatch, through, killed):
    """Whole, or killed while it does: the same call again makes the same."""
    config = replace(SHORT, stages={"ctc": StageConfig(3, 8.0, 3e-3, 0.02, VARIED)})
    pretrain(tones, tmp_path / "run", tmp_path / "apart", replace(config, start=str(through)))
    place = shutil.copytree(through, tmp_path / "backbone")
    config = replace(config, start=str(place))
    if killed:
        with monkeypatch.context() as patched:
            patched.setattr(backbone_folder, "save_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                pretrain(tones, tmp_path / "over", place, config)
    for _ in range(2):
        pretrain(tones, tmp_path / "over", place, config)
        for file in ("model.safetensors", "head.safetensors"):
            assert (place / file).read_bytes() == (tmp_path / "apart" / file).read_bytes()


def test_a_backbone_of_another_shape_is_no_start(tones, tmp_path, through):
    config = replace(SHORT, shape=replace(SHAPE, feed_forward=SHAPE.feed_forward * 2), start=str(through))
    with pytest.raises(BackboneError, match="not of the shape"):
        pretrain(tones, tmp_path / "run", tmp_path / "backbone", config)
