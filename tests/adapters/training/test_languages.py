"""Telling tones of one language from those of another: fitted, weighed, reported, and read back by what serves."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from adapters.backbone import fingerprint, load_backbone
from adapters.config import BackboneSize
from adapters.errors import DataError
from adapters.frontend import pad
from adapters.language_head import LanguageHead, load_language_head
from adapters.training import languages
from adapters.training.languages import train_language_head
from adapters.training.listener import Heard
from adapters.training.manifest import read_manifest, write_manifest
from app.cli import app


@pytest.fixture(scope="module")
def head(trained) -> LanguageHead:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(languages, "_LEAST_S", 1.0)
        return train_language_head(trained.models, trained.manifest)


@torch.inference_mode()
def test_it_tells_them_apart(head, trained):
    encoder = load_backbone(trained.models / "backbone")
    right = 0
    clips = [clip for clip in read_manifest(trained.manifest) if clip.split == "test"]
    for clip in clips:
        samples, _ = soundfile.read(clip.path, dtype="float32")
        told = head(encoder.trunk(pad([samples]), head.layer))[0]
        right += head.languages[int(told.argmax())] == clip.language
    assert right >= 0.75 * len(clips)
    assert head.report["all"]["head"] == pytest.approx(right / len(clips), abs=1e-4)
    assert head.report["clips"] == len(clips)
    assert set(head.report["all"]) == {"head", "score", "both"}


def test_it_reads_where_no_adapter_of_the_model_changes_anything(head, trained):
    layers = [record.config.lowest_layer(2) for record in trained.records.values()]
    assert head.layer == min(layers) > 0


def test_the_score_of_the_candidates_counts_where_the_head_is_of_two_minds(head):
    even = np.log([0.5, 0.5])
    surer, doubtful = head.probabilities(even, [0, 1], [-0.1, -0.9]), head.probabilities(even, [0, 1], [-0.5, -0.5])
    assert head.calibration.score > 0, "a better path speaks for its language"
    assert surer[0] > doubtful[0]


def test_few_clips_that_are_easily_told_leave_weights_that_mean_something(head, monkeypatch):
    """Nothing but the prior bounds them, and where the score errs, it counts for little and never against itself."""
    truth = np.array([0, 1, 0, 1])
    sure = np.log(np.where(truth[:, None] == [0, 1], 0.8, 0.2)).astype(np.float32)
    monkeypatch.setattr(languages, "_told", lambda head, heard: sure)
    for scores in (sure, sure[::-1].copy()):
        heard = Heard([], np.zeros((4, 1), np.float32), scores, truth)
        found = languages._calibrate(head, heard, [0, 1], shortlisted=True)
        assert 0 < found.head < 50
        assert 0 < found.score < 100


def test_each_source_is_told_of_by_a_head_that_never_heard_it(head, trained):
    clips = [clip for clip in read_manifest(trained.manifest) if clip.split != "train"]
    assert head.report["held_out"].keys() == {"es/even", "es/odd", "fr/even", "fr/odd"}
    for pair, report in head.report["held_out"].items():
        language, source = pair.split("/")
        assert report["clips"] == sum((clip.language, clip.source) == (language, source) for clip in clips)


def test_one_language_cannot_be_told_from_another(trained, tmp_path):
    clips = [clip for clip in read_manifest(trained.manifest) if clip.language == "es"]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    with pytest.raises(DataError, match="at least two of es are needed"):
        train_language_head(trained.models, tmp_path / "manifest.jsonl")


def test_further_clips_count_for_languages_that_have_no_others(head, trained, tmp_path):
    clips = read_manifest(trained.manifest)
    write_manifest(tmp_path / "manifest.jsonl", [clip for clip in clips if clip.language == "es"])
    write_manifest(tmp_path / "also.jsonl", clips)  # the Spanish ones once more
    found = train_language_head(trained.models, tmp_path / "manifest.jsonl", also=[tmp_path / "also.jsonl"])
    assert found.languages == head.languages
    assert found.report["clips"] == head.report["clips"]


def test_the_command_writes_what_the_service_loads_and_a_report(trained, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    for part in ("backbone", "adapters"):
        (models / part).symlink_to(trained.models / part)
    arguments = ["languages", "--models", str(models), "--data", str(trained.manifest)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "head alone" in result.stdout
    found = load_language_head(
        models / "languages", fingerprint=fingerprint(models / "backbone"), size=BackboneSize(32, 2, 64)
    )
    assert found.languages == ("es", "fr")
