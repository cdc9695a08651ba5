"""An adapter for tones: it learns, comes out the same after a kill, and is measured on the test split as served."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from adapters.backbone import fingerprint
from adapters.config import BackboneSize
from adapters.errors import BackboneError, DataError
from adapters.registry import Registry
from adapters.store import AdapterStore
from adapters.training import train as module
from adapters.training.augmentation import Augmentation
from adapters.training.evaluate import evaluate
from adapters.training.manifest import Clip, Split, read_manifest, write_manifest
from adapters.training.run_folder import load_checkpoint
from adapters.training.train import train
from adapters.training.train_config import TrainConfig
from adapters.vocab import Vocab
from tests.adapters.training.killed import assert_close, assert_same_adapter, counted_steps, killed_at
from tests.adapters.training.tones import write_corpus

SHORT = TrainConfig(
    size=4, steps=8, lr=3e-3, batch_s=8.0, variations=2, augmentation=Augmentation(speed=0.1, noise=0.5, filter=0.5)
)


def test_it_learns(trained):
    for record in trained.records.values():
        assert record.metrics["test"]["cer"] < 0.5
        assert record.metrics["dev"]["cer"] < 0.5


@pytest.mark.parametrize("kills", [[2], [4], [8], [4, 7]], ids=str)
def test_a_killed_run_started_again_publishes_the_same_version(tones, models, tmp_path, monkeypatch, kills):
    monkeypatch.setattr(module, "_EVERY", 3)
    through = train(tones, models, "es", tmp_path / "through", SHORT, name="one")
    for step in kills:
        with killed_at("es", step):
            train(tones, models, "es", tmp_path / "killed", SHORT, name="other")
    with counted_steps() as taken:
        resumed = train(tones, models, "es", tmp_path / "killed", SHORT, name="other")
    assert len(taken()) == {2: 8, 4: 5, 8: 2, 7: 2}[kills[-1]], "it went on from the last checkpoint"
    assert_same_adapter(resumed, through, models)
    last = [load_checkpoint(tmp_path / run / "checkpoint.pt", "cpu") for run in ("through", "killed")]
    assert_close(last[1], last[0])  # the last step, whichever was the best


def test_a_run_that_ended_publishes_again_without_a_step(tones, models, tmp_path):
    first = train(tones, models, "es", tmp_path / "run", SHORT)
    with counted_steps() as taken:
        again = train(tones, models, "es", tmp_path / "run", SHORT)
    assert taken() == []
    assert again.version == first.version


@pytest.mark.parametrize(
    ("language", "config", "differs"),
    [
        ("es", replace(SHORT, size=8), "size"),
        ("es", replace(SHORT, steps=9), "steps"),
        ("fr", SHORT, "data, dev, dev_texts, language"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tones, models, tmp_path, language, config, differs):
    with killed_at("es", 1):
        train(tones, models, "es", tmp_path / "run", SHORT)
    with pytest.raises(DataError, match=f"differs in {differs}"):
        train(tones, models, language, tmp_path / "run", config)


def test_a_dev_split_that_changed_meanwhile_is_refused(models, tmp_path):
    """What was best on the old one cannot be held against what is heard in the new one."""
    manifest = write_corpus(tmp_path / "corpus")
    with killed_at("es", 5):
        train(manifest, models, "es", tmp_path / "run", SHORT)
    clips = read_manifest(manifest)
    write_manifest(manifest, [replace(clip, text="io") if clip.split == "dev" else clip for clip in clips])
    with pytest.raises(DataError, match="differs in dev_texts"):
        train(manifest, models, "es", tmp_path / "run", SHORT)
    write_manifest(manifest, [clip for clip in clips if not clip.path.name.startswith("dev-0")])
    with pytest.raises(DataError, match="differs in dev, dev_texts"):
        train(manifest, models, "es", tmp_path / "run", SHORT)


def test_rows_too_short_for_their_text_are_counted(models, tmp_path):
    """Sped up, a clip may have fewer frames than it has letters."""
    manifest = write_corpus(tmp_path / "corpus")
    every = read_manifest(manifest)
    write_manifest(manifest, [replace(c, text=("ae" * 99)[: int(50 * c.seconds) - 3]) for c in every])
    train(manifest, models, "es", tmp_path / "run", replace(SHORT, variations=8, augmentation=Augmentation(speed=0.5)))
    lines = [json.loads(line) for line in (tmp_path / "run/progress.jsonl").read_text().splitlines()]
    assert 0 < max(line.get("too_short", 0) for line in lines) < 8 * 24


def test_the_published_adapter_loads_and_has_the_rates_of_its_record(trained):
    for split in ("dev", "test"):
        rates = evaluate(trained.models, trained.manifest, split)
        for language, record in trained.records.items():
            assert round(rates[language].cer, 4) == record.metrics[split]["cer"]
            assert round(rates[language].wer, 4) == record.metrics[split]["wer"]


def test_what_is_measured_is_what_is_stored(tones, models, tmp_path, monkeypatch):
    """Rounding to half precision comes before the rates, not after."""
    measured = []
    hear = module._Run._hear

    def watched(run, clips):
        measured.append({name: tensor.detach().clone() for name, tensor in run.trainee.adapter.tensors().items()})
        return hear(run, clips)

    monkeypatch.setattr(module._Run, "_hear", watched)
    record = train(tones, models, "es", tmp_path / "run", SHORT)
    stored = AdapterStore(models / "adapters").load(record, size=BackboneSize(32, 2, 64)).tensors
    for name, tensor in measured[-1].items():
        assert torch.equal(tensor, stored[name].float()), name


def test_the_record_says_what_it_was_made_from(trained):
    record = trained.records["es"]
    assert (record.language, record.default, record.licence) == ("es", True, "CC0-1.0")
    assert record.fingerprint == fingerprint(trained.models / "backbone")
    assert record.training["data"]["clips"] == 24
    assert record.training["sources"] == ["even", "odd"]
    assert record.training["config"]["steps"] == 60
    assert record.config.layers == (1,), "the top half"
    assert record.dtype == "float16"


def test_test_clips_decide_the_test_rates_and_nothing_else(tones, models, tmp_path):
    before = train(tones, models, "es", tmp_path / "before", SHORT, name="before")
    clips = [replace(c, text="oooo") if c.split == "test" else c for c in read_manifest(tones)]
    manifest = tmp_path / "other-test.jsonl"
    write_manifest(manifest, clips)
    after = train(manifest, models, "es", tmp_path / "after", SHORT, name="after")
    weights = [models / "adapters" / record.name / record.weights.name for record in (after, before)]
    assert_close(*(load_file(file) for file in weights))
    assert after.vocab == before.vocab
    assert after.metrics["dev"] == before.metrics["dev"]
    assert after.metrics["test"] != before.metrics["test"]


def test_characters_that_train_lacks_are_errors_to_count_not_to_raise(trained, models, tmp_path, caplog):
    manifest = write_corpus(tmp_path / "corpus", foreign="z")
    record = train(manifest, models, "es", tmp_path / "run", SHORT)
    assert "4 of 4 dev clips have letters that no train clip has ('z')" in caplog.text
    registered = Registry(
        [AdapterStore(models / "adapters")], fingerprint(models / "backbone"), BackboneSize(32, 2, 64)
    )
    loaded = registered.load(registered.resolve(language="es"))
    assert loaded.vocab.tokens == ("<pad>", "|", *"aeio"), "the vocabulary is the train split's"
    assert record.metrics["test"]["wer"] >= 0.5, "the word with the letter is wrong in every clip"
    assert evaluate(models, manifest, "test")["es"].wer == pytest.approx(record.metrics["test"]["wer"], abs=1e-4)


def test_what_changed_in_the_record_is_published_again(models, tmp_path):
    """A run that ended trains no further; test texts and the licence may have been mended since."""
    manifest = write_corpus(tmp_path / "corpus")
    train(manifest, models, "es", tmp_path / "run", SHORT)
    clips = [replace(clip, licence="MIT") for clip in read_manifest(manifest)]
    write_manifest(manifest, clips)
    with counted_steps() as taken:
        assert train(manifest, models, "es", tmp_path / "run", SHORT).licence == "MIT"
        write_manifest(manifest, [replace(clip, text="oooo") if clip.split == "test" else clip for clip in clips])
        rates = train(manifest, models, "es", tmp_path / "run", SHORT).metrics["test"]
    assert taken() == []
    assert evaluate(models, manifest, "test", languages=["es"])["es"].metrics() == rates


def test_a_language_is_the_same_however_it_is_spelled(models, tmp_path):
    manifest = write_corpus(tmp_path / "corpus")
    clips = [
        replace(clip, language="spa") if n % 3 == 0 and clip.language == "es" else clip
        for n, clip in enumerate(read_manifest(manifest))
    ]
    write_manifest(manifest, clips)
    record = train(manifest, models, "es", tmp_path / "run", SHORT)
    assert (record.language, record.training["data"]["clips"]) == ("es", 24)


def test_one_source_alone(tones, models, tmp_path):
    config = replace(SHORT, sources=("odd",))
    record = train(tones, models, "es", tmp_path / "run", config, name="es-odd")
    assert record.training["sources"] == ["odd"]
    assert record.training["data"]["clips"] == 6
    assert not record.default, "named for something else, it does not push itself before the language's own"


def test_clips_beside_the_corpus_are_learnt_from_and_never_measured(tones, models, tmp_path):
    others = write_corpus(tmp_path / "beside")
    clips = [replace(clip, source="others", synthetic=True) for clip in read_manifest(others)]
    write_manifest(others, [clip for clip in clips if clip.language == "es"])
    record = train(tones, models, "es", tmp_path / "run", SHORT, also=[others])
    count = {split: sum(clip.language == "es" and clip.split == split for clip in clips) for split in ("train", "test")}
    assert record.training["data"]["clips"] == 2 * count["train"]
    assert "others" in record.training["sources"]
    assert len((tmp_path / "run/test.jsonl").read_text().splitlines()) == count["test"]
    assert not record.synthetic, "where recordings are among them"
    alone = train(others, models, "es", tmp_path / "alone", SHORT, also=[others])
    assert alone.synthetic
    with pytest.raises(DataError, match=r"manifest.jsonl: no train clips of 'fr'; train it without --also"):
        train(tones, models, "fr", tmp_path / "none", SHORT, also=[others])
    with pytest.raises(DataError, match="differs in data, texts"):
        train(tones, models, "es", tmp_path / "run", SHORT)


def test_a_head_alone_and_all_norms(tones, models, tmp_path):
    head = train(tones, models, "es", tmp_path / "head", replace(SHORT, method="head", norms="none"), name="head")
    assert head.config.layers == ()
    norms = train(tones, models, "es", tmp_path / "norms", replace(SHORT, norms="all", layers=1), name="norms")
    assert norms.training["parameters"] > head.training["parameters"]


@pytest.mark.parametrize("best", [0, 2])
def test_the_best_on_dev_is_kept_not_the_last(tones, models, tmp_path, monkeypatch, best):
    """Dev rates that are made up: the start is the best, or a look on the way."""
    monkeypatch.setattr(module, "_EVERY", 2)
    looks = iter([0.1 if look == best else 0.5 - 0.05 * look for look in range(5)])
    seen = []

    def made_up(run):
        seen.append(run.trainee.adapter.tensors()["head.weight"].detach().clone())
        return next(looks)

    monkeypatch.setattr(module._Run, "_cer", made_up)
    record = train(tones, models, "es", tmp_path / "run", SHORT)
    stored = AdapterStore(models / "adapters").load(record, size=BackboneSize(32, 2, 64)).tensors["head.weight"]
    assert torch.equal(stored, seen[best].half())
    assert not torch.equal(stored, seen[-1].half())


def test_the_head_starts_as_the_backbones_for_the_letters_that_it_knows(tones, models, tmp_path):
    record = train(tones, models, "es", tmp_path / "run", replace(SHORT, steps=1, lr=1e-9))
    loaded = AdapterStore(models / "adapters").load(record, size=BackboneSize(32, 2, 64))
    union = Vocab.from_json((models / "backbone" / "vocab.json").read_bytes())
    head = load_file(models / "backbone" / "head.safetensors")
    for row, token in enumerate(loaded.vocab.tokens):
        torch.testing.assert_close(loaded.tensors["head.weight"][row], head["weight"][union.tokens.index(token)])


@pytest.mark.parametrize(
    ("language", "config", "wrong"),
    [
        ("cs", SHORT, r"no clips of 'cs'; there are es, fr"),
        ("es", replace(SHORT, sources=("radio",)), r"no train clips of 'es' from radio"),
    ],
)
def test_corpora_without_usable_clips_are_refused(tones, models, tmp_path, language, config, wrong):
    with pytest.raises(DataError, match=wrong):
        train(tones, models, language, tmp_path / "run", config)


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        ("gone", r"manifest\.jsonl:2: .*a\.flac: listed in the manifest, but there is no such file"),
        ("rate", r"manifest\.jsonl:2: .*a\.flac: 8000 Hz, 1 channels; a corpus is 16000 Hz"),
        ("long text", r"manifest\.jsonl:2: .*: a text that needs 400 frames, in a clip of 49 \(and 1 more"),
        ("delimiter", r"manifest\.jsonl:2: '\|' parts words in a vocabulary"),
        ("test", r"manifest\.jsonl:5: .*t\.flac: 8000 Hz, 1 channels; a corpus is 16000 Hz"),
        ("single", r"no dev clips of 'es'; train, dev and test each need some"),
    ],
)
def test_a_bad_clip_is_refused_by_its_line(models, tmp_path, damage, wrong):
    def clip(name: str, text: str = "ae io", split: Split = "train") -> Clip:
        samples = np.random.default_rng(0).standard_normal(16_000) * 0.1
        slow = (damage, name) in (("rate", "a.flac"), ("test", "t.flac"))
        soundfile.write(tmp_path / name, samples, 8_000 if slow else 16_000)
        return Clip(tmp_path / name, 1.0, text, "es", "odd", "CC0-1.0", split)

    text = {"long text": "ae " * 133 + "i", "delimiter": "a|e"}.get(damage, "ae io")
    clips = [clip("good.flac"), clip("a.flac", text), clip("b.flac", text)]
    if damage != "single":
        clips += [clip("d.flac", split="dev"), clip("t.flac", split="test")]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    if damage == "gone":
        (tmp_path / "a.flac").unlink()
    with counted_steps() as taken, pytest.raises(DataError, match=wrong):
        train(tmp_path / "manifest.jsonl", models, "es", tmp_path / "run", SHORT)
    assert taken() == []


def test_two_minutes_of_a_language_will_do(tones, models, tmp_path):
    record = train(tones, models, "es", tmp_path / "run", replace(SHORT, minutes=0.2))
    assert record.training["data"]["seconds"] <= 12


def test_a_folder_without_a_backbone_is_refused(tones, tmp_path):
    with pytest.raises(BackboneError, match=r"no config\.json"):
        train(tones, tmp_path, "es", tmp_path / "run", SHORT)


def test_an_adapter_of_another_language_is_not_replaced(tones, models, tmp_path):
    first = train(tones, models, "es", tmp_path / "es", replace(SHORT, steps=1), name="mine")
    with pytest.raises(DataError, match="an adapter 'mine' already, of the language 'es': one of 'fr' would replace"):
        train(tones, models, "fr", tmp_path / "fr", replace(SHORT, steps=1), name="mine")
    assert AdapterStore(models / "adapters").record("mine") == first
    assert not (tmp_path / "fr").exists()
    again = train(tones, models, "es-MX", tmp_path / "mx", replace(SHORT, steps=1), name="mine")
    assert again.language == "es-MX", "another region's is of the same language"
