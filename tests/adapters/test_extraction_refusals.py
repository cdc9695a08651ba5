"""What cannot be an adapter is refused with the reason, and with what serves it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters.errors import AdapterMismatch, DataError
from adapters.extraction import extract
from adapters.formats.checkpoint import read_checkpoint, read_plain
from tests.adapters.formats.theirs import letters
from tests.adapters.tuned import (
    AUDIO,
    POST,
    PRE,
    Change,
    checkpoint,
    extracted,
    final_norm,
    front_end,
    full_rank,
    low_rank,
    positions,
)
from tests.builders import reference

REFUSED: dict[str, tuple[str, tuple[Change, ...], str]] = {
    "a change of full rank": (
        PRE,
        (full_rank,),
        r"at rank 6, the highest that is allowed, \d+\.\d\d% of frames agree and logits are off by \d+\.\d\d% "
        r"\(99% and 2% are wanted\): serve it as a model of its own .*: .*; or allow a higher rank$",
    ),
    "a changed front end": (
        PRE,
        (front_end, low_rank(1)),
        r"differs in feature_projection.projection.weight by 10.00%, feature_extractor.conv_layers.1.conv.weight by "
        r"1.00%, which no adapter changes .*; without that at rank 6, .*: serve it as a model of its own .*: .*de$",
    ),
    "changed positions": (PRE, (positions,), r"differs in encoder.pos_conv_embed.conv.weight by 20.00%, which no"),
    "the norm below post-norm layers": (
        POST,
        (final_norm,),
        r"differs in encoder.layer_norm.\w+ by \d+.\d\d%, encoder.layer_norm.\w+ by",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_adapter_is_refused_with_the_reason(case, tmp_path):
    kind, changes, said = REFUSED[case]
    checkpoint(tmp_path, kind, *changes)
    with pytest.raises(AdapterMismatch, match=said):
        extracted(tmp_path)


def test_many_changed_tensors_are_told_by_the_most(tmp_path):
    def every(body: Any, model: Any) -> None:
        for parameter in body.feature_extractor.parameters():
            parameter.add_(torch.randn_like(parameter))

    checkpoint(tmp_path, PRE, every)
    with pytest.raises(AdapterMismatch, match=r"and 25 more, which no adapter"):
        extracted(tmp_path)


def test_another_structure_is_refused(tmp_path):
    checkpoint(tmp_path, PRE)
    encoder, tuned = read_plain(tmp_path / "backbone"), read_checkpoint("de", tmp_path / "tuned")
    (tmp_path / "other").mkdir()
    checkpoint(tmp_path / "other", POST)
    other = read_plain(tmp_path / "other" / "backbone")
    step = 2.0**-23
    with pytest.raises(AdapterMismatch, match=r"do_stable_layer_norm of the checkpoint is True, .* is False"):
        extract("de", tuned, other, AUDIO, normalised=True, rounding=step)
    with pytest.raises(AdapterMismatch, match=r"at zero mean and unit variance, the backbone as they are \(do_norm"):
        extract("de", tuned, encoder, AUDIO, normalised=False, rounding=step)


def test_a_part_that_only_one_has_is_refused(tmp_path):
    model = reference("hubert-pre-norm-layer")
    model.hubert.save_pretrained(tmp_path / "backbone")
    other = reference("hubert-pre-norm-layer", feat_proj_layer_norm=False)
    other.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned" / "vocab.json").write_text(letters(24).to_json())
    with pytest.raises(AdapterMismatch, match="feat_proj_layer_norm of the checkpoint is False"):
        extracted(tmp_path)


def test_a_norm_that_hides_channels_cannot_be_undone(tmp_path):
    checkpoint(tmp_path, PRE, final_norm)
    encoder, tuned = read_plain(tmp_path / "backbone"), read_checkpoint("de", tmp_path / "tuned")
    encoder.model.encoder.layer_norm.weight[3] = 0.0
    with pytest.raises(AdapterMismatch, match=r"encoder.layer_norm differs, and the backbone's own has channels"):
        extract("de", tuned, encoder, AUDIO, normalised=True, rounding=2.0**-23)


def test_too_little_audio_measures_nothing(tmp_path):
    checkpoint(tmp_path, PRE)
    with pytest.raises(DataError, match=r"says something in \d+ frames of the audio; 400 are needed"):
        extracted(tmp_path, clips=AUDIO[:1])
