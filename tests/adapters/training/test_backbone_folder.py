"""What a backbone's folder is, once it is written, or where it cannot be."""

from __future__ import annotations

import resource

import pytest

from adapters.encoder import Encoder
from adapters.errors import BackboneError
from adapters.training.backbone_folder import BackboneShape, write_backbone

SHAPE = BackboneShape(hidden_size=32, layers=1, heads=2, feed_forward=64, conv_channels=(8,) * 7, position_kernel=4)


def test_what_does_not_fit_is_told(tmp_path):
    encoder = Encoder(SHAPE.model())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises((BackboneError, OSError), match=str(tmp_path)):
            write_backbone(tmp_path, encoder, None, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    write_backbone(tmp_path, encoder, None, {})
    assert (tmp_path / "pretraining.json").exists()
