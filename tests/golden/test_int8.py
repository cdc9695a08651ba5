"""Rows of a mixed padded batch in int8 against the same row alone.

A linear in int8 gives a frame the same to the bit whatever else is in the batch (tests/adapters/test_quantised.py).
Between the linears float32 kernels differ in the last bit from one batch shape to the next, which tips a value on the
edge between two of the 255 steps now and then; from there on a row differs by what int8 rounding makes, and by no
more. So many rows agree to 1e-5, and all of them to what is stated here.
"""

from __future__ import annotations

import pytest
import torch

from adapters.bank import Bank
from adapters.encoder import Encoder
from adapters.frontend import pad
from adapters.fused import fuse_attention
from adapters.quantised import quantise_linears
from tests.builders import encoder_of, perturbed_adapter, reference
from tests.golden.test_bank import CLIPS, CONFIGS

MEAN = 0.03  # of logits whose standard deviation is 1 to 1.7; rounding to int8 itself moves them by 0.005 to 0.05
UNDECIDED = 0.1  # two best tokens nearer than this may change places
LOUD = [samples * (8 if row % 2 else 1) for row, samples in enumerate(CLIPS)]


@pytest.fixture(scope="module", params=["wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group"])
def encoders(request) -> tuple[Encoder, Encoder]:
    """In int8, and the same in float32."""
    quantised, plain = (encoder_of(reference(request.param)) for _ in range(2))
    fuse_attention(quantised)
    quantise_linears(quantised)
    return quantised, plain


@pytest.mark.parametrize("normalised", [True, False], ids=["normalised", "every other row 8 times louder"])
@torch.inference_mode()
def test_every_row_equals_its_solo_run_but_for_steps_of_rounding(encoders, normalised):
    encoder, plain = encoders
    adapters = [perturbed_adapter(config, plain, seed) for seed, config in enumerate(CONFIGS)]
    bank = Bank(encoder.size, limit=16)
    seats = [bank.seat(adapter.config, adapter.tensors()) for adapter in adapters]
    logits = encoder(pad(LOUD, normalised=normalised), bank.dress(seats[: len(LOUD)]))
    exact = 0
    for row, samples in enumerate(LOUD):
        frames, size = encoder.geometry.frames(samples.size), CONFIGS[row].vocab_size
        alone = encoder(pad([samples], normalised=normalised), bank.dress([seats[row]]))[0, :, :size]
        found = logits[row, :frames, :size]
        assert (found - alone).abs().mean() < MEAN
        best = alone.topk(2).values
        decided = best[:, 0] - best[:, 1] > UNDECIDED
        assert decided.float().mean() > 0.7
        assert torch.equal(found.argmax(-1)[decided], alone.argmax(-1)[decided])
        exact += int(torch.allclose(found, alone, atol=1e-4, rtol=1e-4))
    assert exact >= 2, "rounding tips a few rows, not all"


@torch.inference_mode()
def test_int8_is_near_float32_and_not_the_same(encoders):
    encoder, plain = encoders
    audio = pad(CLIPS[:1])
    found, wanted = (one.hidden(one.trunk(audio, 0), one.bare) for one in (encoder, plain))
    assert 1e-4 < (found - wanted).norm() / wanted.norm() < 0.05
