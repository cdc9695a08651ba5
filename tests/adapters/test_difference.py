"""What differs beyond rounding, and where."""

from __future__ import annotations

import copy

import pytest
import torch

from adapters.backbone import fold_weight_norm
from adapters.difference import difference, told
from adapters.encoder import Encoder
from tests.builders import encoder_of, reference


@pytest.fixture
def base() -> Encoder:
    encoder = encoder_of(reference("wav2vec2-pre-norm-layer"))
    fold_weight_norm(encoder)
    return encoder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_difference_and_three_steps_are(base, dtype):
    tuned = copy.deepcopy(base)
    tuned.model.to(dtype).float()
    step = torch.finfo(dtype).eps
    same = difference(base, tuned, step)
    assert (same.fixed, same.norms, same.sites, same.final_norm) == ({}, (), frozenset(), False)
    weight = tuned.model.encoder.layers[2].feed_forward.output_dense.weight
    weight[0, 0] = 1.0 + max(3 * step, 1e-6)
    base.model.encoder.layers[2].feed_forward.output_dense.weight[0, 0] = 1.0
    assert difference(base, tuned, step).sites == {(2, "output_dense")}


def test_everything_is_in_its_place(base):
    tuned = copy.deepcopy(base)
    layers = tuned.model.encoder.layers
    layers[1].attention.q_proj.weight += 1.0
    layers[3].attention.out_proj.bias += 2.0
    layers[0].final_layer_norm.bias += 1.0
    tuned.model.encoder.layer_norm.weight += 1.0
    tuned.model.feature_projection.projection.weight *= 1.5
    tuned.model.masked_spec_embed.data += 1.0
    found = difference(base, tuned, 2.0**-23)
    assert (found.layers, found.targets, found.norms, found.final_norm) == ((1, 3), ("q_proj", "out_proj"), (0,), True)
    torch.testing.assert_close(found.weights[1, "q_proj"], torch.ones(48, 48))
    torch.testing.assert_close(found.biases[3, "out_proj"], torch.full((48,), 2.0))
    assert found.fixed == {"feature_projection.projection.weight": pytest.approx(0.5)}


def test_the_most_is_told_first():
    assert told({"a": 0.01, "b": 2.0}) == "b by 200.00%, a by 1.00%"
    assert (
        told({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.5}) == "e by 50.00%, d by 40.00%, c by 30.00% and 2 more"
    )
