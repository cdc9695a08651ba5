"""Evaluation: pooled rates, each clip in its language's adapter, through the windows and the batches that serve."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adapters.backbone import fingerprint, load_backbone
from adapters.bank import Bank
from adapters.config import BackboneSize
from adapters.encoder import Encoder
from adapters.errors import DataError, UnknownAdapter, UnknownLanguage
from adapters.registry import Registry
from adapters.store import AdapterStore
from adapters.training.evaluate import Candidate, Said, error_rates, evaluate, hear
from adapters.training.manifest import Clip, read_manifest, write_manifest
from tests.adapters.training.tones import spoken, write_corpus

CLIP = Clip(Path("a.flac"), 2.0, "one two", "es", "made", "CC0-1.0", "test")


def candidates_of(models: Path) -> tuple[Encoder, Bank, dict[str, Candidate]]:
    encoder = load_backbone(models / "backbone")
    registry = Registry([AdapterStore(models / "adapters")], fingerprint(models / "backbone"), BackboneSize(32, 2, 64))
    bank = Bank(encoder.size, limit=4)
    found = {}
    for name, registered in registry.snapshot.adapters.items():
        loaded = registry.load(registered)
        found[name] = Candidate(bank.seat(loaded.record.config, loaded.tensors), loaded.vocab)
    return encoder, bank, found


def test_rates_are_pooled_over_the_clips():
    """One edit in a long text and all of a short one: edits over characters, not the mean of two rates."""
    said = [Said(CLIP, "one twa"), Said(replace(CLIP, text="ab", seconds=1.0), "")]
    rates = error_rates(said)
    assert rates.cer == pytest.approx(3 / 9)
    assert rates.wer == pytest.approx(2 / 3)
    assert (rates.clips, rates.seconds) == (2, 3.0)


def test_rates_of_what_was_heard_right_and_of_too_much():
    assert error_rates([Said(CLIP, "one two")]).cer == 0
    assert error_rates([Said(replace(CLIP, text="a"), "a b c")]).wer == 2


def test_each_clip_is_heard_as_it_is_alone(trained):
    """Languages and lengths mixed in one batch, against one clip after the other."""
    encoder, bank, found = candidates_of(trained.models)
    clips = [clip for clip in read_manifest(trained.manifest) if clip.split == "test"]
    mixed = [*itertools.chain(*zip(clips[:4], clips[4:], strict=True))]
    together = hear(mixed, found, encoder, bank)
    assert [said.clip for said in together] == mixed
    assert any(said.heard for said in together), "a silent model proves nothing"
    assert together == [hear([clip], found, encoder, bank)[0] for clip in mixed]


def test_the_wrong_adapter_would_show(trained):
    encoder, bank, found = candidates_of(trained.models)
    clips = [clip for clip in read_manifest(trained.manifest) if clip.split == "test"]
    right = error_rates(hear(clips, found, encoder, bank)).cer
    swapped = {"es": found["fr"], "fr": found["es"]}
    assert error_rates(hear(clips, swapped, encoder, bank)).cer > right + 0.3


def test_long_clips_go_through_windows_and_silence_says_nothing(trained, tmp_path):
    encoder, bank, found = candidates_of(trained.models)
    long = np.tile(spoken("aei oea", seed=1), 40)
    samples = {"long": long, "silent": np.zeros(32_000, np.float32), "tiny": np.zeros(300, np.float32)}
    clips = [replace(CLIP, path=Path(name), seconds=s.size / 16_000) for name, s in samples.items()]
    said = hear(clips, found, encoder, bank, samples=lambda clip: samples[clip.path.name])
    assert long.size > 3 * 16 * 16_000
    alone = hear([clips[0]], found, encoder, bank, samples=lambda clip: spoken("aei oea", seed=1))
    assert len(alone[0].heard) > 4
    assert said[0].heard.count(alone[0].heard) > 20, "it goes on hearing through every window"
    assert [one.heard for one in said[1:]] == ["", ""]


def test_no_candidate_for_a_language(trained):
    encoder, bank, found = candidates_of(trained.models)
    with pytest.raises(DataError, match="no adapter for cs; there are es, fr"):
        hear([replace(CLIP, language="cs")], found, encoder, bank)


def test_by_language_name_and_source(trained):
    every = evaluate(trained.models, trained.manifest)
    assert set(every) == {"es", "fr"}
    assert every["es"].clips == 4
    assert evaluate(trained.models, trained.manifest, languages=["spa"]) == {"es": every["es"]}
    assert evaluate(trained.models, trained.manifest, adapter="fr") == {"fr": every["fr"]}
    odd = evaluate(trained.models, trained.manifest, sources=["odd"])
    assert (odd["es"].clips, odd["fr"].clips) == (1, 1)
    assert evaluate(trained.models, trained.manifest, "train", languages=["es"])["es"].clips == 24


def test_a_telephone_line_is_another_measurement(trained, monkeypatch):
    heard = []

    def line(samples):
        heard.append(samples)
        return np.zeros_like(samples)

    monkeypatch.setattr("adapters.training.evaluate.through_telephone", line)
    assert evaluate(trained.models, trained.manifest, telephone=True)["es"].cer == 1.0, "a dead line says nothing"
    assert len(heard) == 8


@pytest.mark.parametrize(
    ("options", "error", "wrong"),
    [
        ({"split": "validation"}, DataError, "'validation' is not a split; there are train, dev, test"),
        ({"sources": ["radio"]}, DataError, "no test clips of a language that has an adapter"),
        ({"sources": ["radio"], "languages": ["es", "fr"]}, DataError, "no test clips of es, fr"),
        ({"languages": ["cs"]}, UnknownLanguage, "there are: es, fr"),
        ({"adapter": "cs"}, UnknownAdapter, "there are: es, fr"),
        ({"adapter": "es", "languages": ["fr"]}, UnknownAdapter, "is for 'es', not for the language 'fr'"),
    ],
)
def test_what_leaves_nothing_to_evaluate_is_refused(trained, options, error, wrong):
    with pytest.raises(error, match=wrong):
        evaluate(trained.models, trained.manifest, **options)


def test_a_language_that_was_asked_for_and_has_no_clips_is_refused(trained, tmp_path):
    clips = [clip for clip in read_manifest(trained.manifest) if (clip.language, clip.split) != ("fr", "test")]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    assert set(evaluate(trained.models, tmp_path / "manifest.jsonl")) == {"es"}
    with pytest.raises(DataError, match="no test clips of fr"):
        evaluate(trained.models, tmp_path / "manifest.jsonl", languages=["es", "fr"])


def test_clips_in_languages_without_an_adapter_are_left_out(trained, tmp_path):
    manifest = write_corpus(tmp_path, counts={"test": 2}, foreign="z")
    write_manifest(
        manifest, [replace(c, language="cs" if c.language == "fr" else "es") for c in read_manifest(manifest)]
    )
    assert set(evaluate(trained.models, manifest)) == {"es"}
