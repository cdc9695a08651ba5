"""Our loop over the layers against transformers' own models; a padded batch against each of its rows alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters.backbone import fold_weight_norm
from adapters.encoder import Encoder
from adapters.frontend import normalise, pad
from tests.builders import KINDS, clip, encoder_of, reference, served

CLIPS = [clip(0.3, 1), clip(1.0, 2, loudness=0.8), clip(3.0, 3), clip(7.0, 4)]
CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


class BareHead:
    """Rows that wear nothing but a head."""

    lowest_layer = 0

    def __init__(self, head: nn.Linear) -> None:
        self.linear = head

    def norm(self, layer, which, base, x):
        return base(x)

    def adapt(self, layer, place, y, x):
        return y

    def head(self, x):
        return self.linear(x)


def solo(model, samples) -> Tensor:
    """transformers' logits of one clip alone, (T, V)."""
    logits: Tensor = model(torch.from_numpy(normalise(samples))[None]).logits
    return logits[0]


@pytest.fixture(params=KINDS, scope="module")
def model(request):
    return reference(request.param)


@pytest.mark.parametrize("samples", CLIPS, ids=["0.3s", "1s", "3s", "7s"])
@torch.inference_mode()
def test_solo_equals_transformers(model, samples):
    ours = served(model)(pad([samples]), BareHead(model.lm_head))[0]
    theirs = solo(model, samples)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, **CLOSE)


@torch.inference_mode()
def test_every_row_of_a_padded_batch_equals_transformers_solo(model):
    encoder, worn = served(model), BareHead(model.lm_head)
    logits = encoder(pad(CLIPS), worn)
    for row, samples in enumerate(CLIPS):
        frames = encoder.geometry.frames(samples.size)
        torch.testing.assert_close(logits[row, :frames], solo(model, samples), **CLOSE)


@torch.inference_mode()
def test_what_lies_behind_a_row_does_not_matter(model):
    """Padding to different widths, and junk in the padding of a neighbour's making, change nothing."""
    encoder, worn = served(model), BareHead(model.lm_head)
    frames = encoder.geometry.frames(CLIPS[1].size)
    alone = encoder(pad([CLIPS[1]]), worn)[0]
    wide = encoder(pad([CLIPS[1]], width=lambda _: 80_000), worn)[0, :frames]
    torch.testing.assert_close(wide, alone, **CLOSE)


@torch.inference_mode()
def test_trunk_and_top_make_the_whole(model):
    encoder, worn = served(model), BareHead(model.lm_head)
    audio = pad(CLIPS)
    whole = encoder(audio, worn)
    for layers in range(encoder.layer_count + 1):
        head = BareHead(model.lm_head)
        head.lowest_layer = layers
        torch.testing.assert_close(encoder.top(encoder.trunk(audio, layers), head), whole, **CLOSE)


@torch.inference_mode()
def test_trunk_rows_may_be_multiplied(model):
    encoder = served(model)
    head = BareHead(model.lm_head)
    head.lowest_layer = 2
    frames = encoder.trunk(pad(CLIPS), 2)
    chosen = [3, 0, 0, 2]
    several = encoder.top(frames.rows(chosen), head)
    torch.testing.assert_close(several, encoder.top(frames, head)[chosen], **CLOSE)


def test_a_top_below_its_trunk_is_refused(model):
    encoder = served(model)
    with pytest.raises(ValueError, match="already ran 3 layers"):
        encoder.top(encoder.trunk(pad(CLIPS), 3), BareHead(model.lm_head))


@torch.inference_mode()
def test_folding_the_weight_norm_changes_nothing(model):
    kind = next(k for k, (_, cls, _o) in KINDS.items() if isinstance(model, cls))
    fresh = reference(kind)
    before = encoder_of(fresh)(pad(CLIPS), BareHead(fresh.lm_head))
    encoder: Encoder = encoder_of(fresh)
    fold_weight_norm(encoder)
    assert not hasattr(encoder.model.encoder.pos_conv_embed.conv, "parametrizations")
    torch.testing.assert_close(encoder(pad(CLIPS), BareHead(fresh.lm_head)), before, **CLOSE)


def test_a_row_without_a_frame_is_refused(model):
    with pytest.raises(ValueError, match="399 samples; one frame needs 400"):
        served(model)(pad([CLIPS[0], CLIPS[0][:399]]), BareHead(model.lm_head))
