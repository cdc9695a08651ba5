"""Adapters out of checkpoints that a backbone became by a known change: found at its rank, or refused with the reason.

Every change is large enough that the head alone, without it, would not be near enough.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.adapter import Adapter
from adapters.config import AdapterConfig
from adapters.difference import difference
from adapters.errors import AdapterMismatch, DataError
from adapters.extraction import Extracted, extract, usual_rank_limit
from adapters.formats.checkpoint import read_checkpoint, read_plain, rounding
from adapters.frontend import pad
from adapters.methods.lora import TARGETS
from adapters.shapes import parameter_count
from adapters.store import AdapterStore
from tests.adapters.formats.theirs import letters, logits, ours
from tests.builders import clip, reference

PRE, POST, HUBERT = "wav2vec2-pre-norm-layer", "wav2vec2-post-norm-group", "hubert-pre-norm-layer"
AUDIO = [clip(seconds, seed=80 + i) for i, seconds in enumerate((3.0, 2.2, 2.8, 1.7))]
Change = Callable[[Any, torch.nn.Module], None]


def low_rank(rank: int, targets: tuple[str, ...] = TARGETS, layers: tuple[int, ...] = (0, 1, 2, 3)) -> Change:
    """``rank`` directions of equal strength in each of the linears."""

    def change(body: Any, model: Any) -> None:
        for layer in layers:
            for target in targets:
                linear = linear_of(body, layer, target)
                out, into = linear.weight.shape
                u, v = (torch.linalg.qr(torch.randn(n, rank))[0] for n in (out, into))
                linear.weight += 1.5 * u @ v.T

    return change


def linear_of(body: Any, layer: int, target: str) -> Any:
    parts = body.encoder.layers[layer]
    return getattr(parts.feed_forward if target.endswith("_dense") else parts.attention, target)


def biases(body: Any, model: Any) -> None:
    for layer in range(4):
        for target in TARGETS:
            linear_of(body, layer, target).bias += 0.3 * torch.randn_like(linear_of(body, layer, target).bias)


def norms(*layers: int) -> Change:
    def change(body: Any, model: Any) -> None:
        for layer in layers:
            for norm in (body.encoder.layers[layer].layer_norm, body.encoder.layers[layer].final_layer_norm):
                norm.weight *= 1 + 0.5 * torch.rand_like(norm.weight)
                norm.bias += 0.3 * torch.randn_like(norm.bias)

    return change


def final_norm(body: Any, model: Any) -> None:
    body.encoder.layer_norm.weight *= 1 + torch.rand_like(body.encoder.layer_norm.weight)
    body.encoder.layer_norm.bias += torch.randn_like(body.encoder.layer_norm.bias)


def head(body: Any, model: Any) -> None:
    model.lm_head.weight += torch.randn_like(model.lm_head.weight)
    model.lm_head.bias += torch.randn_like(model.lm_head.bias)


def checkpoint(folder: Path, kind: str, *changes: Change, dtype: torch.dtype = torch.float32) -> Any:
    """The backbone in ``folder``/backbone, and what ``changes`` made of it in ``folder``/tuned."""
    model = reference(kind)
    body = getattr(model, model.base_model_prefix)
    body.save_pretrained(folder / "backbone")
    torch.manual_seed(9)
    with torch.no_grad():
        for change in (head, *changes):
            change(body, model)
    model.to(dtype).save_pretrained(folder / "tuned")
    (folder / "tuned" / "vocab.json").write_text(letters(24).to_json())
    return model.float()


def extracted(folder: Path, **options: Any) -> Extracted:
    encoder, tuned = read_plain(folder / "backbone"), read_checkpoint("de", folder / "tuned")
    given: dict[str, Any] = {"normalised": True, "rounding": rounding(folder / "backbone"), "rank_limit": 6, **options}
    return extract("de", tuned, encoder, given.pop("clips", AUDIO), **given)


def options(targets: tuple[str, ...] = TARGETS, bias: bool = False) -> dict[str, Any]:
    return {"targets": targets, **({"bias": True} if bias else {})}


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


def full_rank(body: Any, model: Any) -> None:
    for layer in range(4):
        weight = linear_of(body, layer, "v_proj").weight
        weight += 0.3 * torch.randn_like(weight)


def front_end(body: Any, model: Any) -> None:
    body.feature_projection.projection.weight *= 1.1
    body.feature_extractor.conv_layers[1].conv.weight *= 1.01


def positions(body: Any, model: Any) -> None:
    body.encoder.pos_conv_embed.conv.parametrizations.weight.original0.mul_(1.2)


def rescaled(body: Any, model: Any) -> None:
    """Another direction vector of the weight norm, and the same weight."""
    body.encoder.pos_conv_embed.conv.parametrizations.weight.original1.mul_(1.7)


REFUSED: dict[str, tuple[str, tuple[Change, ...], str]] = {
    "a change of full rank": (
        PRE,
        (full_rank,),
        r"at rank 6, the highest that is allowed, \d+\.\d\d% of frames agree and logits are off by \d+\.\d\d% "
        r"\(99% and 2% are wanted\): serve it as a model of its own, or allow a higher rank",
    ),
    "a changed front end": (
        PRE,
        (front_end, low_rank(1)),
        r"differs in feature_projection.projection.weight by 10.00%, feature_extractor.conv_layers.1.conv.weight by "
        r"1.00%, and no adapter changes the front end, .*: serve it as a model of its own",
    ),
    "changed positions": (PRE, (positions,), r"differs in encoder.pos_conv_embed.conv.weight by 20.00%, and"),
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
    with pytest.raises(AdapterMismatch, match=r"and 25 more, and no adapter"):
        extracted(tmp_path)


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


def test_a_backbone_that_could_wear_adapters_of_mms(tmp_path):
    """Its own adapters, which nothing here wears, are no difference."""
    checkpoint(tmp_path, PRE, low_rank(1, ("k_proj",), (0,)))
    reference(PRE, adapter_attn_dim=4).wav2vec2.save_pretrained(tmp_path / "mms")
    tuned, mms = read_checkpoint("de", tmp_path / "tuned"), read_plain(tmp_path / "mms")
    mms.model.load_state_dict(read_plain(tmp_path / "backbone").model.state_dict(), strict=False)
    found = extract("de", tuned, mms, AUDIO, normalised=True, rounding=2.0**-23)
    assert found.adapter.config == AdapterConfig("lora", 1, (0,), "none", 24, options(("k_proj",)))


def test_a_part_that_only_one_has_is_refused(tmp_path):
    model = reference("hubert-pre-norm-layer")
    model.hubert.save_pretrained(tmp_path / "backbone")
    other = reference("hubert-pre-norm-layer", feat_proj_layer_norm=False)
    other.save_pretrained(tmp_path / "tuned")
    (tmp_path / "tuned" / "vocab.json").write_text(letters(24).to_json())
    with pytest.raises(AdapterMismatch, match=r"only one of .* has feature_projection.layer_norm.bias"):
        extracted(tmp_path)


def test_a_norm_that_hides_channels_cannot_be_undone(tmp_path):
    checkpoint(tmp_path, PRE, final_norm)
    encoder, tuned = read_plain(tmp_path / "backbone"), read_checkpoint("de", tmp_path / "tuned")
    encoder.model.encoder.layer_norm.weight[3] = 0.0
    with pytest.raises(AdapterMismatch, match=r"encoder.layer_norm differs, and the backbone's own has channels"):
        extract("de", tuned, encoder, AUDIO, normalised=True, rounding=2.0**-23)


def test_too_little_audio_measures_nothing(tmp_path):
    checkpoint(tmp_path, PRE)
    with pytest.raises(DataError, match=r"149 frames of audio to measure on; at least 400"):
        extracted(tmp_path, clips=AUDIO[:1])


def test_what_was_extracted_can_be_published(tmp_path):
    checkpoint(tmp_path, POST, low_rank(2), biases, norms(0))
    found, encoder = extracted(tmp_path).adapter, read_plain(tmp_path / "backbone")
    store = AdapterStore(tmp_path / "adapters")
    record = store.publish(
        "de", found.tensors, found.vocab, language="de", config=found.config, size=encoder.size, fingerprint="0" * 16
    )
    assert store.load(record, size=encoder.size).record.config == found.config
