"""What training minimises: CTC a character, and the units behind a mask."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_NOWHERE = -100
_FORBIDDEN = -1e4


def needed_frames(labels: Sequence[int]) -> int:
    """What CTC needs for ``labels``: a frame for each, and one between two of a kind."""
    return len(labels) + sum(one == other for one, other in pairwise(labels))


def too_short(frames: Sequence[int], labels: Sequence[Sequence[int]]) -> int:
    """How many rows have fewer valid frames than their labels need: sped up, say. :func:`ctc_loss` passes over them."""
    return sum(needed_frames(row) > count for count, row in zip(frames, labels, strict=True))


def ctc_loss(
    logits: Tensor,
    frames: Sequence[int],
    labels: Sequence[Sequence[int]],
    *,
    blank: int,
    allowed: Tensor | None = None,
) -> Tensor:
    """CTC (Graves et al. 2006) in float32, summed over the rows and divided by their labels.

    Semantics: logits (B, T, V), each row's valid frames and label ids -> scalar. ``allowed`` (B, V) bool: the tokens
    that a row's language has, where one head serves many. A row that is :func:`too_short` counts for nothing.
    """
    loss = F.ctc_loss(
        _log_probabilities(logits, allowed).transpose(0, 1),
        torch.tensor([label for row in labels for label in row], dtype=torch.long).to(logits.device),
        torch.tensor(list(frames)),
        torch.tensor([len(row) for row in labels]),
        blank=blank,
        reduction="sum",
        zero_infinity=True,
    )
    counted = [len(row) for count, row in zip(frames, labels, strict=True) if needed_frames(row) <= count]
    return loss / max(1, sum(counted))


def consistency_loss(logits: Tensor, frames: Sequence[int], *, allowed: Tensor | None = None) -> Tensor:
    """How far apart what is said of the same rows behind two masks lies: the divergence of each from the other, which
    is held fast (CR-CTC, Yao et al. 2025, equation 4), summed over valid frames and both.

    Semantics: logits (2B, T, V), row i and row B + i of the same clip, their valid frames -> scalar. ``allowed`` as for
    :func:`ctc_loss`.
    """
    log = _log_probabilities(logits, allowed)
    other = log.detach().roll(len(log) // 2, dims=0)
    each = (other.exp() * (other - log)).sum(dim=2)  # (2B, T)
    valid = torch.arange(each.shape[1])[None, :] < torch.tensor(list(frames))[:, None]
    return each.masked_fill(~valid.to(each.device), 0.0).sum()


def _log_probabilities(logits: Tensor, allowed: Tensor | None) -> Tensor:
    wide = logits.float()
    if allowed is not None:
        wide = wide.masked_fill(~allowed[:, None, :], _FORBIDDEN)
    return F.log_softmax(wide, dim=2)


def unit_losses(logits: Tensor, units: Sequence[np.ndarray], masked: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each frame's unit (HuBERT, Hsu et al. 2021, section 2.2), over masked and over seen frames.

    Semantics: logits (B, T, U), units B times (T_i,), masked (B, T) bool -> two scalars, 0 where there is no frame.
    """
    target = torch.full(logits.shape[:2], _NOWHERE)
    for row, found in enumerate(units):
        width = min(len(found), logits.shape[1])
        target[row, :width] = torch.from_numpy(found[:width].astype(np.int64))
    target = target.to(logits.device)
    each = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), reduction="none", ignore_index=_NOWHERE)
    each, valid = each.view(target.shape), target >= 0
    return _mean(each[masked & valid]), _mean(each[~masked & valid])


def _mean(losses: Tensor) -> Tensor:
    return losses.sum() / max(1, losses.numel())


def span_mask(
    frames: Sequence[int], width: int, probability: float, rng: np.random.Generator, *, span: int = 10
) -> Tensor:
    """(B, width) bool: spans of ``span`` frames, each valid frame the start of one with ``probability``."""
    starts = rng.random((len(frames), width)) < probability
    masked = np.zeros_like(starts)
    for shift in range(min(span, width)):
        masked[:, shift:] |= starts[:, : width - shift]
    masked &= np.arange(width)[None, :] < np.asarray(frames)[:, None]
    return torch.from_numpy(masked)
