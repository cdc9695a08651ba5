"""What trains, counted as `tongues parameters` counts it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import Wav2Vec2Config, Wav2Vec2Model

from adapters.architectures import count_parameters
from adapters.training.train_config import TrainConfig
from adapters.training.trainee import Trainee
from tests.builders import KINDS, reference

CONFIG = TrainConfig(size=12, layers=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "config",
    [
        *(replace(CONFIG, norms=norms) for norms in ("none", "adapted", "all")),
        replace(CONFIG, method="lora", norms="adapted"),
        replace(CONFIG, method="head", norms="all"),
    ],
    ids=lambda config: f"{config.method}-{config.norms}",
)
def test_trained_norms_are_counted_once(tmp_path, kind, config):
    model = reference(kind)
    base = getattr(model, model.base_model_prefix)
    base.save_pretrained(tmp_path)
    trainee = Trainee(tmp_path, config, vocab_size=24, device="cpu")
    counts = count_parameters(base.config, trainee.adapter.config)
    assert trainee.counts == {"parameters": counts.trainable, "percent": round(counts.percent, 3)}


def test_the_papers_published_figure_is_recorded(tmp_path):
    Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(tmp_path)
    trainee = Trainee(tmp_path, TrainConfig(size=256, layers=12, norms="all"), vocab_size=32, device="cpu")
    assert trainee.counts == {"parameters": 9_560_096, "percent": 9.202}


@pytest.mark.parametrize("layers", [1, 4])
def test_full_fine_tuning_is_of_the_whole_model_too(tmp_path, layers):
    base = reference("wav2vec2-pre-norm-layer").wav2vec2
    base.save_pretrained(tmp_path)
    config = replace(CONFIG, method="full", norms="none", layers=layers)
    counts = Trainee(tmp_path, config, vocab_size=24, device="cpu").counts
    head = 24 * (base.config.hidden_size + 1)
    whole = sum(parameter.numel() for parameter in base.parameters()) + head
    assert counts["percent"] == round(100 * counts["parameters"] / whole, 3)
