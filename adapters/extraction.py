"""An adapter out of a whole fine-tuned checkpoint: what differs from the backbone, as far as an adapter can hold it.

Head and layer norms are kept as they are; what was added to a linear's weight W is cut to its ``r`` largest singular
values (Eckart and Young 1936), one ``r`` for all, and becomes LoRA. Whether that is enough is measured on audio against
the checkpoint's own logits, and the smallest rank that is enough is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.adapter import Adapter
from adapters.backbone import structure
from adapters.config import AdapterConfig, Norms, Projection
from adapters.difference import Difference, difference, told, weights_of
from adapters.encoder import Encoder, Frames
from adapters.errors import AdapterMismatch, DataError
from adapters.formats import Imported
from adapters.formats.checkpoint import Checkpoint
from adapters.frontend import pad
from adapters.methods.lora import USUAL
from adapters.shapes import NORMS, parameter_count

FRAMES_AGREEING = 0.99
LOGIT_ERROR = 0.02
LEAST_FRAMES = 400
LARGEST_SHARE = 0.1
_LEAST_SCALE = 1e-5


@dataclass(frozen=True)
class Agreement:
    """Of an adapter with the checkpoint that it came from: the share of ``frames`` whose best token is the same, and
    the mean |difference| of logits over the mean |logit|. Only frames count in which either says something: the best
    token of most others is the blank, whatever the adapter is."""

    frames: float
    logit_error: float

    @property
    def enough(self) -> bool:
        """At least 99 % of the frames, and at most 2 % of the logits."""
        return self.frames >= FRAMES_AGREEING and self.logit_error <= LOGIT_ERROR


@dataclass(frozen=True)
class Extracted:
    """An adapter, and how near it comes to the checkpoint."""

    adapter: Imported
    agreement: Agreement


def usual_rank_limit(found: Difference, encoder: Encoder, vocab_size: int) -> int:
    """The highest rank with which an adapter, norms and head included, has a tenth of the backbone's parameters."""
    one, two = (parameter_count(_config(found, rank, vocab_size), encoder.size) for rank in (1, 2))
    room = LARGEST_SHARE * sum(tensor.numel() for tensor in weights_of(encoder).values()) - one
    return max(1, 1 + int(room / (two - one)))


def extract(
    name: str,
    checkpoint: Checkpoint,
    encoder: Encoder,
    clips: Sequence[np.ndarray],
    *,
    normalised: bool,
    rounding: float,
    rank_limit: int | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> Extracted:
    """What ``checkpoint`` has beyond the backbone of ``encoder`` (plain, as
    :func:`~adapters.formats.checkpoint.read_plain` reads it), measured on ``clips``, (N,) at 16 kHz each.

    ``normalised`` and ``rounding`` are the backbone's, as :class:`~adapters.formats.checkpoint.Checkpoint` has its own.
    ``announce`` is told of each rank that was tried.
    Raises :class:`~adapters.errors.AdapterMismatch` where it cannot be an adapter, saying what is in the way, and
    :class:`~adapters.errors.DataError` for too little audio to measure on.
    """
    _check_structure(name, checkpoint, encoder, normalised)
    found = difference(encoder, checkpoint.encoder, max(rounding, checkpoint.rounding))
    if found.fixed:
        announce(f"left as the backbone has them, since no adapter changes them: {told(found.fixed)}")
    head = _head(name, checkpoint, encoder, found)
    measure = _Measure(checkpoint, encoder, clips, _lowest(found, encoder))
    if not found.sites:
        adapter = _adapter(checkpoint, found, 0, {}, head)
        agreement = measure(adapter)
        if not agreement.enough:
            raise AdapterMismatch(name, f"{_without(found)}{_said(agreement)}: {checkpoint.own_model(name)}")
        return Extracted(adapter, agreement)
    limit = rank_limit or usual_rank_limit(found, encoder, checkpoint.vocab.size)
    limit = min(limit, encoder.hidden_size, encoder.size.feed_forward)
    announce(f"{len(found.weights)} linears differ: singular values of each")
    factors = {site: _factors(weight, limit) for site, weight in found.weights.items()}

    def at(rank: int) -> Extracted:
        adapter = _adapter(checkpoint, found, rank, _lora(found, encoder, factors, rank), head)
        tried = Extracted(adapter, measure(adapter))
        announce(f"rank {rank}: {_said(tried.agreement)}")
        return tried

    best = at(limit)
    if not best.agreement.enough:
        right = checkpoint.own_model(name) + ("" if found.fixed else "; or allow a higher rank")
        tried = f"{_without(found)}at rank {limit}, the highest that is allowed, {_said(best.agreement)}"
        raise AdapterMismatch(name, f"{tried}: {right}")
    return _smallest(at, best, limit)


def _smallest(at: Callable[[int], Extracted], best: Extracted, limit: int) -> Extracted:
    """By halving, since more rank comes nearer."""
    too_small = 0
    while limit - too_small > 1:
        tried = at((too_small + limit) // 2)
        if tried.agreement.enough:
            best, limit = tried, tried.adapter.config.size
        else:
            too_small = (too_small + limit) // 2
    return best


def _check_structure(name: str, checkpoint: Checkpoint, encoder: Encoder, normalised: bool) -> None:
    ours, theirs = structure(encoder.config), structure(checkpoint.encoder.config)
    for key, value in ours.items():
        if _plain(value) != _plain(theirs[key]):
            raise AdapterMismatch(name, f"{key} of the checkpoint is {theirs[key]!r}, and the backbone's is {value!r}")
    assert weights_of(encoder).keys() == weights_of(checkpoint.encoder).keys()
    if checkpoint.normalised != normalised:
        wants = ("as they are", "at zero mean and unit variance")
        said = f"the checkpoint wants its samples {wants[checkpoint.normalised]}, the backbone {wants[normalised]}"
        raise AdapterMismatch(name, f"{said} (do_normalize): {checkpoint.own_model(name)}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _head(name: str, checkpoint: Checkpoint, encoder: Encoder, found: Difference) -> tuple[Tensor, Tensor]:
    """The checkpoint's head for what the backbone's own final norm puts out: y of scale s and shift b. The
    checkpoint's, of scale t and shift c, puts out t/s (y - b) + c, and that is folded into the head."""
    if not found.final_norm:
        return checkpoint.weight, checkpoint.bias
    ours, theirs = encoder.model.encoder.layer_norm, checkpoint.encoder.model.encoder.layer_norm
    scale, shift = ours.weight.double(), ours.bias.double()
    if bool((scale.abs() < _LEAST_SCALE * scale.abs().max()).any()):
        which = "encoder.layer_norm differs, and the backbone's own has channels that are next to nothing"
        raise AdapterMismatch(name, f"{which}, which no head can bring back: {checkpoint.own_model(name)}")
    weight = checkpoint.weight.double()
    ratio = theirs.weight.double() / scale
    bias = checkpoint.bias.double() + weight @ (theirs.bias.double() - shift * ratio)
    return (weight * ratio).float(), bias.float()


def _factors(weight: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """(out, in) -> (out, limit) and (limit, in), whose first r columns and rows are the nearest product of rank r."""
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    root = s[:limit].sqrt()
    return u[:, :limit] * root, root[:, None] * v[:limit]


def _lora(
    found: Difference,
    encoder: Encoder,
    factors: Mapping[tuple[int, Projection], tuple[Tensor, Tensor]],
    rank: int,
) -> dict[str, Tensor]:
    state = encoder.model.state_dict()
    tensors: dict[str, Tensor] = {}
    for layer in found.layers:
        for target in found.targets:
            within = "feed_forward" if target.endswith("_dense") else "attention"
            out, into = state[f"encoder.layers.{layer}.{within}.{target}.weight"].shape
            b, a = factors.get((layer, target), (torch.zeros(out, rank), torch.zeros(rank, into)))
            at = f"layers.{layer}.{target}.lora_"
            tensors |= {f"{at}A.weight": a[:rank].contiguous(), f"{at}B.weight": b[:, :rank].contiguous()}
            if found.biases:
                tensors[f"{at}B.bias"] = found.biases.get((layer, target), torch.zeros(out))
    return tensors


def _norms(found: Difference) -> Norms:
    if not found.norms:
        return "none"
    return "adapted" if set(found.norms) <= set(found.layers) else "all"


def _lowest(found: Difference, encoder: Encoder) -> int:
    """The lowest layer that differs in anything."""
    return _config(found, 1, 1).lowest_layer(encoder.layer_count)


def _config(found: Difference, rank: int, vocab_size: int) -> AdapterConfig:
    norms = _norms(found)
    if not found.sites:
        return AdapterConfig("head", 0, (), norms, vocab_size)
    options: dict[str, Any] = {} if found.targets == USUAL else {"targets": found.targets}
    if found.biases:
        options["bias"] = True
    return AdapterConfig("lora", rank, found.layers, norms, vocab_size, options)


def _adapter(
    checkpoint: Checkpoint, found: Difference, rank: int, lora: Mapping[str, Tensor], head: tuple[Tensor, Tensor]
) -> Imported:
    config = _config(found, rank, checkpoint.vocab.size)
    state = checkpoint.encoder.model.state_dict()
    norms = {
        f"layers.{layer}.{norm}.{part}": state[f"encoder.layers.{layer}.{norm}.{part}"]
        for layer in config.norm_layers(checkpoint.encoder.layer_count)
        for norm in NORMS
        for part in ("weight", "bias")
    }
    tensors = {**lora, **norms, "head.weight": head[0], "head.bias": head[1]}
    return Imported(config, tensors, checkpoint.vocab)


class _Measure:
    """How near an adapter comes. The layers below ``lowest``, which no candidate changes, run once."""

    def __init__(self, checkpoint: Checkpoint, encoder: Encoder, clips: Sequence[np.ndarray], lowest: int) -> None:
        self._encoder = encoder
        self._blank = checkpoint.vocab.blank
        self._trunks: list[Frames] = []
        self._theirs: list[Tensor] = []
        tuned = checkpoint.encoder
        with torch.inference_mode():
            for samples in clips:
                audio = pad([samples], normalised=checkpoint.normalised)
                self._trunks.append(encoder.trunk(audio, lowest))
                hidden = tuned.hidden(tuned.trunk(audio, tuned.layer_count), tuned.bare)
                self._theirs.append(F.linear(hidden, checkpoint.weight, checkpoint.bias))
        if (frames := sum(int((one.argmax(dim=-1) != self._blank).sum()) for one in self._theirs)) < LEAST_FRAMES:
            told = f"the checkpoint says something in {frames} frames of the audio"
            raise DataError(f"{told}; {LEAST_FRAMES} are needed to measure on (8 s of dense speech), so give more")

    @torch.inference_mode()
    def __call__(self, given: Imported) -> Agreement:
        adapter = Adapter(given.config, self._encoder.size)
        adapter.load(given.tensors)
        same, frames, off, size = 0, 0, 0.0, 0.0
        for trunk, theirs in zip(self._trunks, self._theirs, strict=True):
            ours = self._encoder.top(trunk, adapter)
            ours_best, theirs_best = ours.argmax(dim=-1), theirs.argmax(dim=-1)  # (1, T)
            said = (ours_best != self._blank) | (theirs_best != self._blank)
            same += int((ours_best == theirs_best)[said].sum())
            frames += int(said.sum())
            off += float((ours - theirs)[said].abs().sum())
            size += float(theirs[said].abs().sum())
        return Agreement(same / frames, off / size if size else float(off > 0))


def _without(found: Difference) -> str:
    """What an adapter of this difference leaves as it is."""
    if not found.fixed:
        return "with all that differs " if not found.sites else ""
    which = "which no adapter changes (front end, positions, the norm below the layers)"
    return f"the checkpoint differs in {told(found.fixed)}, {which}; without that "


def _said(agreement: Agreement) -> str:
    wanted = f"({FRAMES_AGREEING:.0%} and {LOGIT_ERROR:.0%} are wanted)"
    return f"{agreement.frames:.2%} of frames agree and logits are off by {agreement.logit_error:.2%} {wanted}"
