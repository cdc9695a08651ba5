"""The mean of backbones: of every weight, of every letter's row by those that know it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapters.backbone import fingerprint, load_model
from adapters.encoder import Encoder
from adapters.errors import BackboneError
from adapters.training.averaging import average
from adapters.training.backbone_folder import BackboneShape, read_head, write_backbone
from adapters.vocab import Vocab
from tests.adapters.training.tones import SHAPE


def made(folder: Path, letters: str, *, seed: int, shape: BackboneShape = SHAPE, start: str = "a start") -> Path:
    torch.manual_seed(seed)
    vocab = Vocab(("<pad>", "|", *letters))
    head = nn.Linear(shape.hidden_size, vocab.size)
    write_backbone(folder, Encoder(shape.model()), (head, vocab), record(seed, start), dtype=torch.float32)
    return folder


def record(seed: int, start: str = "a start") -> dict[str, Any]:
    return {"seed": seed, "started_from": {"fingerprint": start}}


def test_every_weight_is_the_mean(tmp_path):
    folders = [made(tmp_path / str(seed), "ab", seed=seed) for seed in (1, 2, 3)]
    average(folders, tmp_path / "mean")
    found, *each = (load_model(folder).state_dict() for folder in (tmp_path / "mean", *folders))
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
    told = json.loads((tmp_path / "mean" / "pretraining.json").read_text())
    assert told == {"mean_of": [{**record(seed), "fingerprint": fingerprint(tmp_path / str(seed))} for seed in (1, 2)]}


def test_strangers_have_no_mean(tmp_path):
    one, other = made(tmp_path / "one", "ab", seed=1), made(tmp_path / "other", "ab", seed=2, start="another")
    with pytest.raises(BackboneError, match="no backbone that all of them started from"):
        average([one, other], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_start_and_a_mean_are_no_strangers_to_what_came_of_them(tmp_path):
    start = made(tmp_path / "start", "ab", seed=1)
    runs = [made(tmp_path / str(seed), "ab", seed=seed, start=fingerprint(start)) for seed in (2, 3)]
    average(runs, tmp_path / "mean")
    average([tmp_path / "mean", start], tmp_path / "further")
    assert read_head(tmp_path / "further")[1].tokens == ("<pad>", "|", "a", "b")


def test_backbones_of_another_shape_are_refused(tmp_path):
    other = BackboneShape(32, layers=1, heads=2, feed_forward=64, conv_channels=(16,) * 7, position_kernel=16)
    folders = made(tmp_path / "one", "ab", seed=1), made(tmp_path / "other", "ab", seed=2, shape=other)
    with pytest.raises(BackboneError, match="other: not of the shape of"):
        average(folders, tmp_path / "mean")
    with pytest.raises(BackboneError, match="give two folders"):
        average(folders[:1], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_what_lies_beside_stays_as_closed_as_it_was(tmp_path):
    folders = [made(tmp_path / str(seed), "ab", seed=seed) for seed in (1, 2)]
    (tmp_path / "mean/adapters").mkdir(parents=True)
    (tmp_path / "mean/secret").touch(mode=0o600)
    modes = {path: path.stat().st_mode for path in (tmp_path / "mean").iterdir()}
    average(folders, tmp_path / "mean")
    assert {path: path.stat().st_mode for path in modes} == modes
