"""The positional convolution by its spectrum: the same frames, whatever the width, and no row in another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from adapters.backbone import load_backbone
from adapters.frontend import pad
from adapters.positions import SpectralConvolution
from adapters.training.train_config import TrainConfig
from adapters.training.trainee import Trainee
from tests.builders import clip, reference

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def convolution(channels: int, kernel: int, groups: int) -> nn.Conv1d:
    torch.manual_seed(0)
    return nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=groups)


@pytest.mark.parametrize(
    ("channels", "kernel", "groups"), [(96, 128, 16), (32, 16, 2), (24, 9, 1), (16, 1, 16)], ids=str
)
@pytest.mark.parametrize("width", [1, 2, 15, 16, 17, 128, 129, 130, 400])
@torch.inference_mode()
def test_every_width_gives_what_the_convolution_gives(channels, kernel, groups, width):
    plain = convolution(channels, kernel, groups)
    x = torch.randn(3, channels, width)
    wanted = plain(x)[:, :, :width]  # an even kernel leaves one frame too many
    found = SpectralConvolution(plain)(x)
    torch.testing.assert_close(found, wanted, **CLOSE)


@torch.inference_mode()
def test_a_loud_row_leaves_its_neighbours_alone():
    spectral = SpectralConvolution(convolution(32, 16, 2))
    x = torch.randn(2, 32, 100)
    alone = spectral(x[:1])
    x[1] *= 1e6
    torch.testing.assert_close(spectral(x)[:1], alone, **CLOSE)


@torch.inference_mode()
def test_frames_far_away_do_not_come_in():
    """A block's spectrum goes round in a circle; what comes round is cut off."""
    spectral = SpectralConvolution(convolution(32, 16, 2))
    x = torch.randn(1, 32, 300)
    before = spectral(x)
    x[:, :, 150:] = 50.0
    torch.testing.assert_close(spectral(x)[:, :, :142], before[:, :, :142], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, SpectralConvolution), ({"dtype": torch.bfloat16}, nn.Conv1d), ({"serving": False}, nn.Conv1d)],
    ids=str,
)
def test_only_float32_on_a_cpu_that_serves_is_loaded_so(tmp_path, options, kind):
    reference("wav2vec2-pre-norm-layer").wav2vec2.save_pretrained(tmp_path)
    assert type(load_backbone(tmp_path, **options).model.encoder.pos_conv_embed.conv) is kind


def test_what_trains_runs_under_autocast(tmp_path):
    """As on a GPU, and on a CPU with AMX; no spectrum is in bfloat16."""
    reference("wav2vec2-pre-norm-layer").wav2vec2.save_pretrained(tmp_path)
    trainee = Trainee(tmp_path, TrainConfig(size=4), vocab_size=5, device="cpu")
    with torch.autocast("cpu", torch.bfloat16):
        frames = trainee.encoder.trunk(pad([clip(0.5)]), trainee.layer)
        assert torch.isfinite(trainee(frames)).all()


@torch.inference_mode()
def test_in_half_the_bits_it_is_as_near_as_they_go():
    plain = convolution(32, 16, 2).to(torch.bfloat16)
    x = torch.randn(2, 32, 100, dtype=torch.bfloat16)
    found = SpectralConvolution(plain)(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain(x)[:, :, :100], atol=2e-2, rtol=2e-2)
