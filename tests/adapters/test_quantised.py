"""Int8 linears: right integers on every CPU, each frame by itself, close to what they replace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapters.backbone import load_backbone
from adapters.errors import BackboneError
from adapters.quantised import Int8Linear, quantised_weight
from tests.builders import reference


def linear(inputs: int, outputs: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs).requires_grad_(False)


@pytest.mark.parametrize("sign", [1, -1])
def test_no_sum_is_cut_off_where_every_product_is_the_largest(sign):
    """Two products in 16 bits is what a CPU without VNNI has room for; with weights of 8 bits this comes out as 2."""
    largest = linear(256, 8)
    largest.weight.fill_(sign)
    largest.bias.zero_()
    torch.testing.assert_close(Int8Linear(largest)(torch.ones(3, 256)), torch.full((3, 8), 256.0 * sign))


@torch.inference_mode()
def test_equals_the_plain_arithmetic():
    plain = linear(48, 20)
    x = torch.randn(2, 7, 48) * torch.logspace(-3, 3, 7)[:, None]
    integers, scales = quantised_weight(plain.weight)
    assert integers.abs().max() == 63
    loudest = x.abs().amax(-1, keepdim=True)
    steps = (x / loudest * 127).round()
    wanted = steps.double() @ integers.double().T * scales * loudest.double() / 127 + plain.bias.double()
    torch.testing.assert_close(Int8Linear(plain)(x).double(), wanted, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_is_near_to_what_it_replaces():
    plain = linear(256, 256)
    x = torch.randn(4, 50, 256)
    error = Int8Linear(plain)(x) - plain(x)
    assert 0 < error.norm() / plain(x).norm() < 0.02


@torch.inference_mode()
def test_a_frame_does_not_know_its_neighbours():
    """To the bit, whatever they are: loud, silent, many, no numbers."""
    quantised = Int8Linear(linear(64, 32))
    x = torch.randn(40, 64)
    alone = torch.cat([quantised(row[None]) for row in x])
    torch.testing.assert_close(quantised(x), alone, atol=0, rtol=0)
    for other in (torch.randn(40, 64) * 1e4, torch.zeros(40, 64), torch.full((40, 64), float("nan"))):
        torch.testing.assert_close(quantised(torch.cat([other, x]))[40:], alone, atol=0, rtol=0)


@torch.inference_mode()
def test_silence_gives_the_bias_and_no_number_stays_none():
    plain = linear(64, 32)
    torch.testing.assert_close(Int8Linear(plain)(torch.zeros(2, 64)), plain.bias.expand(2, 32))
    assert Int8Linear(plain)(torch.full((2, 64), float("nan"))).isnan().all()


def test_all_linears_of_the_layers_and_nothing_else(tmp_path):
    reference("wav2vec2-pre-norm-layer").wav2vec2.save_pretrained(tmp_path)
    encoder = load_backbone(tmp_path, quantise="int8")
    layers = encoder.model.encoder.layers
    assert not any(isinstance(module, nn.Linear) for module in layers.modules())
    assert sum(isinstance(module, Int8Linear) for module in encoder.modules()) == 4 * len(layers)
    assert not isinstance(encoder.model.feature_projection.projection, Int8Linear)


@pytest.mark.parametrize(("device", "dtype"), [("cuda", torch.float32), ("cpu", torch.bfloat16)])
def test_elsewhere_than_on_a_cpu_in_float32_it_is_refused(tmp_path, device, dtype):
    with pytest.raises(BackboneError, match="int8 is for a CPU in float32"):
        load_backbone(tmp_path, device=device, dtype=dtype, quantise="int8")
