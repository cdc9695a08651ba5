"""Adapters out of checkpoints that a backbone became by a known change: found at its rank.

Every change is large enough that the head alone, without it, would not be near enough.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters import extraction
from adapters.adapter import Adapter
from adapters.config import AdapterConfig
from adapters.difference import difference
from adapters.errors import AdapterMismatch
from adapters.extraction import extract, usual_rank_limit
from adapters.formats.checkpoint import read_checkpoint, read_plain
from adapters.frontend import pad
from adapters.shapes import parameter_count
from adapters.store import AdapterStore
from tests.adapters.formats.theirs import letters, logits, ours
from tests.adapters.tuned import (
    AUDIO,
    HUBERT,
    POST,
    PRE,
    Change,
    biases,
    checkpoint,
    extracted,
    final_norm,
    full_rank,
    low_rank,
    norms,
    options,
    rescaled,
)
from tests.builders import reference

ALL = (0, 1, 2, 3)
FOUND: dict[str, tuple[str, tuple[Change, ...], AdapterConfig]] = {
    "a head alone": (PRE, (), AdapterConfig("head", 0, (), "none", 24)),
    "head and final norm": (PRE, (final_norm,), AdapterConfig("head", 0, (), "none", 24)),
    "norms alone": (POST, (norms(1, 3),), AdapterConfig("head", 0, (), "all", 24)),
    "biases alone": (PRE, (biases,), AdapterConfig("lora", 1, ALL, "none", 24, options(bias=True))),
    "everything, pre-norm": (
        PRE,
        (low_rank(3), biases, norms(0, 2), final_norm),
        AdapterConfig("lora", 3, ALL, "adapted", 24, options(bias=True)),
    ),
    "everything, post-norm": (
        POST,
        (low_rank(2), biases, norms(3)),
        AdapterConfig("lora", 2, ALL, "adapted", 24, options(bias=True)),
    ),
    "HuBERT": (HUBERT, (low_rank(4), final_norm), AdapterConfig("lora", 4, ALL, "none", 24, options())),
    "queries and values above": (
        PRE,
        (low_rank(5, ("q_proj", "v_proj"), (2, 3)),),
        AdapterConfig("lora", 5, (2, 3), "none", 24),
    ),
    "norms below the changed layers": (
        PRE,
        (low_rank(1, ("output_dense",), (3,)), norms(0)),
        AdapterConfig("lora", 1, (3,), "all", 24, options(("output_dense",))),
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_a_known_change_is_found_at_its_rank(case, tmp_path):
    kind, changes, config = FOUND[case]
    model = checkpoint(tmp_path, kind, *changes)
    found = extracted(tmp_path)
    assert found.adapter.config == config
    assert (found.agreement.frames, found.adapter.vocab) == (1.0, letters(24))
    assert found.agreement.logit_error < 1e-4
    encoder = read_plain(tmp_path / "backbone")
    for samples in AUDIO[:2]:
        row = ours(encoder, [(config, found.adapter.tensors)], [samples])[0]
        torch.testing.assert_close(row, logits(model, samples), atol=1e-3, rtol=1e-3)


def test_without_its_change_the_checkpoint_would_say_something_else(tmp_path):
    """The test of the test: the head alone, on the backbone as it was, agrees with fewer frames than are asked for."""
    for case, (kind, changes, config) in FOUND.items():
        if config.method == "head" and config.norms == "none":
            continue
        model = checkpoint(tmp_path / case, kind, *changes)
        encoder = read_plain(tmp_path / case / "backbone")
        bare = Adapter(AdapterConfig("head", 0, (), "none", 24), encoder.size)
        bare.load({"head.weight": model.lm_head.weight, "head.bias": model.lm_head.bias})
        with torch.inference_mode():
            without = encoder(pad(AUDIO[:1]), bare)[0].argmax(dim=-1)
        agreeing = (without == logits(model, AUDIO[0]).argmax(dim=-1)).float().mean()
        assert agreeing < 0.97, f"{case}: {agreeing:.3f}"


def test_rounding_is_no_difference(tmp_path):
    """A checkpoint in half precision of a backbone in float32: what was not trained does not count."""
    checkpoint(tmp_path, PRE, low_rank(2, ("v_proj",), (3,)), dtype=torch.float16)
    found = extracted(tmp_path)
    assert found.adapter.config == AdapterConfig("lora", 2, (3,), "none", 24, options(("v_proj",)))
    assert found.agreement.logit_error < 0.01


def test_the_same_positions_by_another_weight_norm_are_no_difference(tmp_path):
    checkpoint(tmp_path, PRE, rescaled)
    assert extracted(tmp_path).adapter.config.method == "head"


def test_a_higher_rank_may_be_allowed(tmp_path):
    checkpoint(tmp_path, PRE, low_rank(9))
    with pytest.raises(AdapterMismatch, match="at rank 6"):
        extracted(tmp_path)
    assert extracted(tmp_path, rank_limit=20).adapter.config.size == 9
    assert extracted(tmp_path, rank_limit=1000).adapter.config.size == 9, "no rank is above the width"


def test_a_tenth_of_the_backbone_is_allowed_unless_said_otherwise(tmp_path):
    checkpoint(tmp_path, PRE, low_rank(9), biases)
    encoder, tuned = read_plain(tmp_path / "backbone"), read_checkpoint("de", tmp_path / "tuned").encoder
    found = difference(encoder, tuned, 2.0**-23)
    limit = usual_rank_limit(found, encoder, 24)
    total = sum(tensor.numel() for name, tensor in encoder.model.state_dict().items() if name != "masked_spec_embed")
    shares = [
        parameter_count(AdapterConfig("lora", rank, ALL, "none", 24, options(bias=True)), encoder.size) / total
        for rank in (limit, limit + 1)
    ]
    assert shares[0] <= 0.1 < shares[1]
    with pytest.raises(AdapterMismatch, match=f"at rank {limit}, "):
        extracted(tmp_path, rank_limit=None)


def test_a_backbone_that_could_wear_adapters_of_mms(tmp_path):
    """Its own adapters, which nothing here wears, are no difference."""
    checkpoint(tmp_path, PRE, low_rank(1, ("k_proj",), (0,)))
    reference(PRE, adapter_attn_dim=4).wav2vec2.save_pretrained(tmp_path / "mms")
    tuned, mms = read_checkpoint("de", tmp_path / "tuned"), read_plain(tmp_path / "mms")
    mms.model.load_state_dict(read_plain(tmp_path / "backbone").model.state_dict(), strict=False)
    found = extract("de", tuned, mms, AUDIO, normalised=True, rounding=2.0**-23)
    assert found.adapter.config == AdapterConfig("lora", 1, (0,), "none", 24, options(("k_proj",)))


def test_what_was_extracted_can_be_published(tmp_path):
    checkpoint(tmp_path, POST, low_rank(2), biases, norms(0))
    found, encoder = extracted(tmp_path).adapter, read_plain(tmp_path / "backbone")
    store = AdapterStore(tmp_path / "adapters")
    record = store.publish(
        "de", found.tensors, found.vocab, language="de", config=found.config, size=encoder.size, fingerprint="0" * 16
    )
    assert store.load(record, size=encoder.size).record.config == found.config


def test_what_no_adapter_changes_may_differ_by_less_than_is_heard(tmp_path):
    """Most recipes train the projection of features and the positions; how much that is, is measured."""

    def slightly(body: Any, model: Any) -> None:
        body.feature_projection.projection.weight *= 1.0002
        body.encoder.pos_conv_embed.conv.parametrizations.weight.original0.mul_(1.0002)

    checkpoint(tmp_path, PRE, slightly, low_rank(2))
    said: list[str] = []
    found = extracted(tmp_path, announce=said.append)
    assert found.adapter.config.size == 2
    assert "left as the backbone has them" in said[0]
    assert "feature_projection.projection.weight by 0.02%" in said[0]


def test_only_frames_count_in_which_something_is_said(tmp_path, monkeypatch):
    """A head that prefers the blank, as trained ones do: most frames would agree whatever the adapter is."""

    def quiet(body: Any, model: Any) -> None:
        model.lm_head.bias[3] += 15.0

    model = checkpoint(tmp_path, PRE, quiet, full_rank)
    for name, value in {"LEAST_FRAMES": 20, "FRAMES_AGREEING": 0.0, "LOGIT_ERROR": 10.0}.items():
        monkeypatch.setattr(extraction, name, value)
    found = extracted(tmp_path, rank_limit=1)
    encoder, config = read_plain(tmp_path / "backbone"), found.adapter.config
    mine = torch.cat([ours(encoder, [(config, found.adapter.tensors)], [samples])[0] for samples in AUDIO])
    theirs = torch.cat([logits(model, samples) for samples in AUDIO])
    same = mine.argmax(dim=-1) == theirs.argmax(dim=-1)
    heard = (mine.argmax(dim=-1) != 3) | (theirs.argmax(dim=-1) != 3)
    assert 20 < heard.sum() < 0.6 * len(heard)
    assert found.agreement.frames == pytest.approx(float(same[heard].float().mean()), abs=0.01)
    assert found.agreement.frames < float(same.float().mean()) - 0.05
