"""The mean of backbones: of every weight, of every letter's row by those that know it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from adapters.backbone import fingerprint, load_backbone
from adapters.encoder import Encoder
from adapters.errors import BackboneError
from adapters.training.averaging import average
from adapters.training.backbone_folder import BackboneShape, read_head, write_backbone
from adapters.vocab import Vocab
from tests.adapters.training.tones import SHAPE


def made(folder: Path, letters: str, *, seed: int, shape: BackboneShape = SHAPE) -> Path:
    torch.manual_seed(seed)
    vocab = Vocab(("<pad>", "|", *letters))
    head = nn.Linear(shape.hidden_size, vocab.size)
    write_backbone(folder, Encoder(shape.model()), (head, vocab), {"seed": seed}, dtype=torch.float32)
    return folder


def test_every_weight_is_the_mean(tmp_path):
    folders = [made(tmp_path / str(seed), "ab", seed=seed) for seed in (1, 2, 3)]
    average(folders, tmp_path / "mean")
    found, *each = (load_backbone(folder).model.state_dict() for folder in (tmp_path / "mean", *folders))
    for name, tensor in found.items():
        wanted = torch.stack([state[name] for state in each]).mean(dim=0)
        torch.testing.assert_close(tensor, wanted, rtol=2e-3, atol=1e-4)  # stored in float16
    assert not torch.equal(*(state["feature_projection.projection.weight"] for state in each[:2]))


def test_a_letter_that_one_head_knows_keeps_its_row(tmp_path):
    one, other = made(tmp_path / "one", "ab", seed=1), made(tmp_path / "other", "bc", seed=2)
    average([one, other], tmp_path / "mean")
    head, vocab = read_head(tmp_path / "mean")
    assert vocab.tokens == ("<pad>", "|", "a", "b", "c")
    rows = {token: head["weight"][row].float() for row, token in enumerate(vocab.tokens)}
    first, second = (read_head(folder)[0]["weight"] for folder in (one, other))
    for token, wanted in {"a": first[2], "b": (first[3] + second[2]) / 2, "c": second[3]}.items():
        torch.testing.assert_close(rows[token], wanted, rtol=2e-3, atol=1e-4)


def test_it_says_what_it_is_the_mean_of(tmp_path):
    folders = [made(tmp_path / str(seed), "ab", seed=seed) for seed in (1, 2)]
    average(folders, tmp_path / "mean")
    record = json.loads((tmp_path / "mean" / "pretraining.json").read_text())
    assert record == {"mean_of": [{"seed": seed, "fingerprint": fingerprint(tmp_path / str(seed))} for seed in (1, 2)]}


def test_backbones_of_another_shape_are_refused(tmp_path):
    other = BackboneShape(32, layers=1, heads=2, feed_forward=64, conv_channels=(16,) * 7, position_kernel=16)
    folders = made(tmp_path / "one", "ab", seed=1), made(tmp_path / "other", "ab", seed=2, shape=other)
    with pytest.raises(BackboneError, match="other: not of the shape of"):
        average(folders, tmp_path / "mean")
    with pytest.raises(BackboneError, match="give two folders"):
        average(folders[:1], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
