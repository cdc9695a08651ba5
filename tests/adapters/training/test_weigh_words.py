"""A language model for an adapter: weighed on dev, published with it, and found by who serves it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.config import BackboneSize
from adapters.errors import DataError
from adapters.language_model import LanguageModel, estimate
from adapters.store import AdapterStore
from adapters.training import weigh_words
from adapters.training.manifest import read_manifest, write_manifest
from adapters.training.train import train
from adapters.training.weigh_words import ALPHAS, BETAS, add_language_model
from tests.adapters.training.test_methods import SHORT


@pytest.fixture
def spoken(tones, models, tmp_path):
    train(tones, models, "es", tmp_path / "run", SHORT)
    return models


def test_a_model_is_weighed_and_published(tones, spoken):
    store = AdapterStore(spoken / "adapters")
    before = store.record("es")
    texts = [clip.text for clip in read_manifest(tones) if clip.language == "es" and clip.split == "train"]
    tried: list[str] = []
    found = add_language_model(spoken, tones, "es", texts, announce=tried.append)
    assert len(tried) == len(ALPHAS) * len(BETAS)
    assert store.record("es") == found.record
    assert found.record.version != before.version
    loaded = store.load(found.record, size=BackboneSize(32, 2, 64))
    assert loaded.language_model == LanguageModel(estimate(texts), found.alpha, found.beta)
    assert found.record.metrics["test"] == before.metrics["test"]
    assert found.record.metrics["test, beam"]["wer"] == pytest.approx(found.rates["test"][1].wer, abs=1e-4)
    assert found.rates["test"][0].cer == pytest.approx(before.metrics["test"]["cer"], abs=1e-4)
    dev = [float(line.split("WER ")[1].split("%")[0]) for line in tried]
    assert 100 * found.rates["dev"][1].wer == pytest.approx(min(dev), abs=0.06)


def test_a_run_that_ended_leaves_the_model_where_it_is(tones, spoken, tmp_path):
    given = add_language_model(spoken, tones, "es", ["ae io"], licence="GPL-2.0-only").record
    again = train(tones, spoken, "es", tmp_path / "run", SHORT)
    assert again == given
    other = train(tones, spoken, "es", tmp_path / "other", replace(SHORT, steps=9))
    assert other.language_model is None, "another run's adapter is another"


def test_an_adapter_is_under_the_licence_of_its_words_too(tones, spoken, tmp_path):
    own = AdapterStore(spoken / "adapters").record("es").licence
    assert own is not None
    assert add_language_model(spoken, tones, "es", ["ae io"], licence=None).record.licence == own
    both = add_language_model(spoken, tones, "es", ["ae io"], licence=f"GPL-2.0-only AND {own}").record.licence
    assert both is not None
    assert both.split(" AND ") == sorted(["GPL-2.0-only", own])
    choice = add_language_model(spoken, tones, "es", ["ae io"], licence="GPL-3.0-only OR MIT").record.licence
    assert choice == "CC0-1.0 AND GPL-2.0-only AND (GPL-3.0-only OR MIT)"
    again = train(tones, spoken, "es", tmp_path / "run", SHORT)
    assert again.licence == choice, "a run that ended leaves what it was given since"
    with pytest.raises(DataError, match="a licence is named in SPDX's words"):
        add_language_model(spoken, tones, "es", ["ae io"], licence=" ")


def test_a_model_that_somebody_else_made(tones, spoken):
    arpa = estimate(["ae io"], 2)
    record = add_language_model(spoken, tones, "es", arpa).record
    assert record.files["language_model"].size_bytes == len(LanguageModel(arpa).packed)


@pytest.mark.parametrize("broken", [b"words", estimate(["ae io"]).replace(b"ngram 1=", b"ngram 1=9")])
def test_a_model_that_cannot_be_used_is_refused_before_anything_is_heard(tones, spoken, monkeypatch, broken):
    monkeypatch.setattr(weigh_words, "hear_paths", lambda *_, **__: pytest.fail("it hears the dev split"))
    with pytest.raises(DataError, match="ARPA"):
        add_language_model(spoken, tones, "es", broken)


def test_a_tag_with_a_region_has_the_clips_of_its_language(tones, models, tmp_path):
    train(tones, models, "es-MX", tmp_path / "run", SHORT, name="mexico")
    found = add_language_model(models, tones, "mexico", ["ae io"])
    assert found.record.language == "es-MX"
    assert found.rates["dev"][0].clips == sum(
        clip.language == "es" and clip.split == "dev" for clip in read_manifest(tones)
    )


def test_without_dev_clips_nothing_can_be_weighed(tones, spoken, tmp_path):
    clips = [clip for clip in read_manifest(tones) if clip.split == "test"]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    with pytest.raises(DataError, match="no dev clips of 'es'"):
        add_language_model(spoken, tmp_path / "manifest.jsonl", "es", ["a"])
