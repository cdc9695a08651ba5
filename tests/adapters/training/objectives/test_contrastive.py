"""wav2vec 2.0's objective: transformers' loss over our encoder's states is transformers' own loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from adapters.encoder import Encoder
from adapters.frontend import pad
from adapters.training.objectives import Batch
from adapters.training.objectives.contrastive import Contrastive, sample_negatives
from tests.adapters.training.tones import spoken

CONFIG = Wav2Vec2Config(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    conv_dim=(16,) * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2,
    do_stable_layer_norm=True,
    feat_extract_norm="layer",
    conv_bias=True,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    feat_proj_dropout=0.0,
    feat_quantizer_dropout=0.0,
    layerdrop=0.0,
    mask_time_prob=0.1,
    num_codevectors_per_group=8,
    codevector_dim=16,
    proj_codevector_dim=16,
    num_negatives=5,
)


@pytest.fixture
def batch() -> Batch:
    rng = np.random.default_rng(0)
    audio = pad([rng.standard_normal(8_000).astype(np.float32) for _ in range(2)])
    masked = torch.zeros(2, 24, dtype=torch.bool)
    masked[0, 3:13] = masked[1, 5:9] = True
    return Batch(audio, [24, 24], [0, 1], [None, None], masked, 0)


def test_its_loss_is_that_of_transformers(batch):
    torch.manual_seed(0)
    theirs = Wav2Vec2ForPreTraining(CONFIG).eval()
    objective = Contrastive(CONFIG, 2)
    objective.head.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("wav2vec2.")})
    objective.head.eval()
    found, figures = objective.loss(Encoder(theirs.wav2vec2).eval(), batch)
    places = np.flatnonzero(batch.masked)
    negatives = np.zeros((2 * 24, 5), np.int64)
    negatives[places] = places[sample_negatives(batch.masked.numpy(), 5, np.random.default_rng([0, 0, 1]))]
    theirs.config.apply_spec_augment = True
    wanted = theirs(
        batch.audio.samples,
        mask_time_indices=batch.masked,
        sampled_negative_indices=torch.from_numpy(negatives.reshape(2, 24, 5)),
    )
    assert float(found.detach()) == pytest.approx(float(wanted.loss.detach()) / 14, rel=1e-4)
    assert figures["contrastive"] == pytest.approx(float(wanted.contrastive_loss.detach()) / 14, rel=1e-4)


def test_nothing_of_the_encoder_trains_twice():
    objective = Contrastive(CONFIG, 2)
    encoder = Encoder(Wav2Vec2ForPreTraining(CONFIG).wav2vec2)
    objective._encoded.given = (encoder, pad([np.ones(800, np.float32)]), torch.ones(1, 2, dtype=torch.bool))
    names = [name for name, _ in objective.head.named_parameters()]
    assert names
    assert all(name.startswith(("quantizer.", "project_hid.", "project_q.")) for name in names)


def test_gradients_reach_the_encoder_and_the_codes(batch):
    torch.manual_seed(0)
    encoder = Encoder(Wav2Vec2ForPreTraining(CONFIG).wav2vec2).train()
    objective = Contrastive(CONFIG, 2)
    objective.head.train()
    loss, _ = objective.loss(encoder, batch)
    torch.autograd.backward(loss)
    named = {**dict(encoder.named_parameters()), **dict(objective.head.named_parameters())}
    for name in ("model.feature_extractor.conv_layers.0.conv.weight", "quantizer.codevectors"):
        gradient = named[name].grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_a_code_that_nothing_uses_leaves_numbers(batch):
    torch.manual_seed(0)
    encoder = Encoder(Wav2Vec2ForPreTraining(CONFIG).wav2vec2).train()
    objective = Contrastive(CONFIG, 2)
    objective.head.train()
    with torch.no_grad():
        objective.head.quantizer.weight_proj.bias[0] = -1_000.0  # a probability of 0, in float32
    torch.autograd.backward(objective.loss(encoder, batch)[0])
    for parameter in (*encoder.parameters(), *objective.head.parameters()):
        assert parameter.grad is None or torch.isfinite(parameter.grad).all()


def test_frames_behind_a_mask_are_told_from_others_after_some_updates():
    torch.manual_seed(0)
    encoder = Encoder(Wav2Vec2ForPreTraining(CONFIG).wav2vec2).train()
    objective = Contrastive(CONFIG, 2)
    objective.head.train()
    audio = pad([spoken("aeiobcd", seed) for seed in range(2)])
    width = encoder.geometry.frames(audio.lengths[0])
    masked = torch.zeros(2, width, dtype=torch.bool)
    masked[0, 3 : width - 10] = masked[1, 5 : width - 4] = True
    masked[:, ::3] = False
    batch = Batch(audio, [width, width], [0, 1], [None, None], masked, 0)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *objective.head.parameters()], lr=3e-3)
    for _ in range(80):
        loss, figures = objective.loss(encoder, batch)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    assert figures["contrastive"] < 0.5 * np.log(1 + 5), "half of what knowing nothing costs, among five others"
    assert figures["codes"] > 8, "and of sixteen codes as many as ever are in use"


def test_a_batch_without_a_masked_frame_asks_for_nothing(batch):
    torch.manual_seed(0)
    objective = Contrastive(CONFIG, 2)
    loss, figures = objective.loss(
        Encoder(Wav2Vec2ForPreTraining(CONFIG).wav2vec2), replace(batch, masked=torch.zeros(2, 24, dtype=torch.bool))
    )
    assert torch.isfinite(loss)
    assert figures["contrastive"] == 0


def test_negatives_are_other_masked_frames_of_the_row():
    masked = np.zeros((4, 9), bool)
    masked[0, [1, 4, 7]] = masked[2, 2] = masked[3, [0, 8]] = True
    found = sample_negatives(masked, 50, np.random.default_rng(0))
    wanted = [{1, 2}, {0, 2}, {0, 1}, {3}, {5}, {4}]  # the fourth is alone in its row
    assert [set(drawn.tolist()) for drawn in found] == wanted
