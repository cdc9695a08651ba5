"""Packed linears: the same numbers for every number of frames, no frame in another, what was packed given up."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from adapters import packed
from adapters.backbone import load_backbone
from adapters.frontend import pad
from adapters.packed import PackedLinear, pack_linears
from tests.builders import clip, encoder_of, reference

KIND = "wav2vec2-pre-norm-layer"


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frames", [1, 2, 31, 150, 301])
@torch.inference_mode()
def test_gives_what_the_linear_gives(frames, bias):
    plain = linear(96, 40, bias=bias)
    x = torch.randn(3, frames, 96)
    torch.testing.assert_close(PackedLinear(plain)(x), plain(x), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_takes_views_that_lie_across():
    plain = linear(96, 40)
    x = torch.randn(3, 96, 50).transpose(1, 2)
    torch.testing.assert_close(PackedLinear(plain)(x), plain(x), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_frame_does_not_know_its_neighbours():
    packed_linear = PackedLinear(linear(64, 32))
    x = torch.randn(1, 40, 64)
    alone = packed_linear(x)
    for other in (torch.randn(2, 40, 64) * 1e6, torch.full((2, 40, 64), float("nan"))):
        torch.testing.assert_close(packed_linear(torch.cat([other, x]))[2:], alone, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_packing_changes_nothing_and_keeps_no_second_copy():
    encoder = encoder_of(reference(KIND)).requires_grad_(False)
    audio = pad([clip(1.0), clip(0.4, seed=1)])
    before = encoder.hidden(encoder.trunk(audio, 0), encoder.bare)
    weights = [weakref.ref(module.weight) for module in encoder.modules() if isinstance(module, nn.Linear)]
    pack_linears(encoder)
    torch.testing.assert_close(encoder.hidden(encoder.trunk(audio, 0), encoder.bare), before, atol=1e-4, rtol=1e-4)
    gc.collect()
    assert len(weights) == 6 * encoder.layer_count + 1
    assert not any(weight() is not None for weight in weights)


@pytest.mark.parametrize(
    ("options", "packs"), [({}, True), ({"dtype": torch.bfloat16}, False), ({"serving": False}, False)], ids=str
)
def test_only_float32_on_a_cpu_that_serves_is_loaded_so(tmp_path, options, packs):
    reference(KIND).wav2vec2.save_pretrained(tmp_path)
    encoder = load_backbone(tmp_path, **options)
    kinds = {type(module) for module in encoder.modules()}
    assert ((PackedLinear in kinds) and (nn.Linear not in kinds)) is (packs and packed.packs())


@torch.inference_mode()
def test_where_torch_cannot_pack_the_linears_stay(tmp_path, monkeypatch):
    reference(KIND).wav2vec2.save_pretrained(tmp_path)
    audio = pad([clip(0.5)])
    wanted = load_backbone(tmp_path).trunk(audio, 2).hidden
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    encoder = load_backbone(tmp_path)
    assert any(isinstance(module, nn.Linear) for module in encoder.modules())
    torch.testing.assert_close(encoder.trunk(audio, 2).hidden, wanted, atol=1e-4, rtol=1e-4)
