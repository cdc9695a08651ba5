"""Checkpoints that a backbone became by a known change, and what is extracted from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adapters.extraction import Extracted, extract
from adapters.formats.checkpoint import read_checkpoint, read_plain, rounding
from adapters.methods.lora import TARGETS
from tests.adapters.formats.theirs import letters
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
