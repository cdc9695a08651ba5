"""One projection instead of three: the same numbers, the three gone, the fingerprint untouched."""

from __future__ import annotations

import torch

from adapters.backbone import fingerprint, load_backbone
from adapters.frontend import pad
from adapters.fused import fuse_attention, project
from tests.builders import clip, encoder_of, reference

KIND = "wav2vec2-pre-norm-layer"


@torch.inference_mode()
def test_fusing_changes_nothing_and_drops_the_three():
    encoder = encoder_of(reference(KIND))
    audio = pad([clip(1.0), clip(0.4, seed=1)])
    before = encoder.hidden(encoder.trunk(audio, 0), encoder.bare)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    fuse_attention(encoder)
    torch.testing.assert_close(encoder.hidden(encoder.trunk(audio, 0), encoder.bare), before, atol=1e-4, rtol=1e-4)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == weights
    assert not any(name in key for key in encoder.state_dict() for name in (".q_proj", ".k_proj", ".v_proj"))


def test_q_k_and_v_are_slices_in_that_order():
    """Where LoRA will add to them."""
    plain, fused = encoder_of(reference(KIND)), encoder_of(reference(KIND))
    fuse_attention(fused)
    x = torch.randn(2, 5, plain.hidden_size)
    three = [encoder.model.encoder.layers[1].attention for encoder in (plain, fused)]
    for mine, theirs in zip(project(three[0], x), project(three[1], x), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_a_loaded_backbone_is_fused_and_keeps_its_fingerprint(tmp_path):
    reference(KIND).wav2vec2.save_pretrained(tmp_path)
    before = fingerprint(tmp_path)
    encoder = load_backbone(tmp_path, serving=False)
    assert "model.encoder.layers.0.attention.qkv_proj.weight" in encoder.state_dict()
    assert fingerprint(tmp_path) == before
