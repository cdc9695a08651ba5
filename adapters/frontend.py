"""From samples to the first hidden states: normalise, pad, convolve, project. Padding never leaks into a row.

Two leaks are closed here. Zero mean and unit variance are taken over each window, before it is padded or over its valid
samples alone, never over the padded batch; and the group norm of wav2vec 2.0 Base and HuBERT Base, whose statistics run
over time, runs over the valid frames alone. Every other operation of the front end is local to a frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE_RATE = 16_000
NORMALISE_EPS = 1e-7
_NARROWEST = 4_000
_ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)

Lengths = tuple[int, ...] | Tensor
"""The valid part of each row: on the host; or (B,) on the device, where shapes are fixed and nothing that the host does
may depend on a length."""


@dataclass(frozen=True)
class Geometry:
    """The lengths of the convolutions: kernel and stride of each, first to last."""

    kernels: tuple[int, ...]
    strides: tuple[int, ...]

    def frames(self, samples: int) -> int:
        """How many frames come out of ``samples`` samples; 0 where there are fewer than :attr:`receptive_field`."""
        return self.lengths(samples)[-1]

    def lengths(self, samples: int) -> list[int]:
        """The length after each convolution."""
        found, length = [], samples
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            length = (length - kernel) // stride + 1 if length >= kernel else 0
            found.append(length)
        return found

    def lengths_on_device(self, samples: Tensor) -> list[Tensor]:
        """The same for the rows of (B,) int64, where they lie."""
        found, length = [], samples
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            length = ((length - kernel) // stride + 1).clamp(min=0)
            found.append(length)
        return found

    @cached_property
    def hop(self) -> int:
        """Samples from one frame to the next (320 for every published wav2vec 2.0: 20 ms)."""
        return math.prod(self.strides)

    @cached_property
    def receptive_field(self) -> int:
        """Samples that one frame sees (400 for every published wav2vec 2.0: 25 ms)."""
        field, step = 1, 1
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            field += (kernel - 1) * step
            step *= stride
        return field

    def samples(self, frames: int) -> int:
        """The fewest samples that make ``frames`` frames."""
        return (frames - 1) * self.hop + self.receptive_field if frames else 0


@dataclass(frozen=True)
class PaddedAudio:
    """Windows of several rows in one tensor.

    ``samples``: (B, N) float32, zeros behind each row's end. ``lengths``: the valid samples of each row, on the host,
    so that no step has to ask the device. ``ends``: where they are given, (B,) int64 beside ``samples``, they count
    instead: every mask is then computed on the device, and each row must have at least one frame.
    """

    samples: Tensor
    lengths: tuple[int, ...]
    ends: Tensor | None = None

    def to(self, device: torch.device | str) -> PaddedAudio:
        """The same on another device; the copy does not block where the source is pinned."""
        ends = None if self.ends is None else self.ends.to(device, non_blocking=True)
        return PaddedAudio(self.samples.to(device, non_blocking=True), self.lengths, ends)


def normalise(samples: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Zero mean and unit variance over one window, (N,) -> (N,) float32, as the checkpoints were trained with; into
    ``out``, (N,) float32, if given.

    Computed before padding: over a padded batch a short row would be scaled by its neighbours' silence.
    """
    mean = np.float32(samples.mean(dtype=np.float64))
    scaled: np.ndarray = np.subtract(samples, mean, out=out, dtype=np.float32)
    scaled /= np.sqrt(np.square(scaled).mean() + np.float32(NORMALISE_EPS))
    return scaled


def normalise_rows(samples: Tensor, ends: Tensor) -> Tensor:
    """:func:`normalise` of each row where it lies, in operations that depend on no length.

    Semantics: samples (B, N) float32, each row's first ``ends`` (B,) of them -> (B, N) float32, zeros behind each row's
    end, whatever lay there.
    """
    valid = valid_mask(ends, samples.shape[1], samples.device)
    assert valid is not None
    count = ends[:, None]  # (B, 1)
    mean = torch.where(valid, samples, 0).sum(dim=1, keepdim=True, dtype=torch.float64) / count
    scaled = torch.where(valid, samples - mean.to(torch.float32), 0)
    power = torch.linalg.vector_norm(scaled, dim=1, keepdim=True).square() / count
    return scaled.div_(torch.sqrt(power + NORMALISE_EPS))


def few_widths(samples: int, apart: float = 1.06, least: int = _NARROWEST) -> int:
    """The next of a series of widths that begins with ``least``, each ``apart`` times the one before.

    CPU kernels are compiled for every new shape, GPU graphs recorded for each: over clips as they come, that costs more
    than the padding (training a small backbone takes 1.7 times longer without).
    """
    step = math.ceil(math.log(max(samples, least) / least) / math.log(apart) - 1e-9)
    return max(samples, int(least * apart**step))


def few_rows(rows: int) -> int:
    """The next of a series of row counts, up to 128; more are as many as they are."""
    return next((count for count in _ROWS if count >= rows), rows)


def pad(
    windows: Sequence[np.ndarray],
    *,
    normalised: bool = True,
    width: Callable[[int], int] = int,
    rows: int | None = None,
    pinned: bool = False,
) -> PaddedAudio:
    """Rows of different length -> one :class:`PaddedAudio`.

    ``normalised``: bring each window to zero mean and unit variance first (a checkpoint's ``do_normalize``).
    ``width``: from the longest window's samples to the common width, :func:`few_widths` for instance. ``rows``: at
    least so many, the last ones zeros. ``pinned``: in memory that a GPU reads by itself.
    Raises ``ValueError`` for no windows or an empty one: rows without a frame never enter a batch.
    """
    if not windows or any(w.ndim != 1 or not w.size for w in windows):
        raise ValueError("a batch needs at least one window, each of shape (N,) with N > 0")
    shape = max(len(windows), rows or 0), width(max(w.size for w in windows))
    padded = torch.empty(shape, dtype=torch.float32, pin_memory=pinned)
    if normalised:
        samples = padded.numpy()
        samples[len(windows) :] = 0
        for row, window in enumerate(windows):
            normalise(window, out=samples[row, : window.size])
            samples[row, window.size :] = 0
    else:
        _fill(padded, windows)
    return PaddedAudio(padded, tuple(w.size for w in windows))


def _fill(padded: Tensor, windows: Sequence[np.ndarray]) -> None:
    """Rows (N,) float32 -> ``padded`` (B, W), zeros behind them and below: by one call, which lets go of Python's lock
    once, where two a row would wait for it twice a row."""
    rows, width = padded.shape
    zeros = torch.zeros(width)
    parts = [part for w in windows for part in (torch.from_numpy(w), zeros[: width - w.size])]
    torch.cat([*parts, *[zeros] * (rows - len(windows))], out=padded.view(-1))


def valid_mask(lengths: Lengths | Sequence[int], width: int, device: torch.device | str) -> Tensor | None:
    """(B, width) bool, True on valid positions; None where the host knows that every row is full, so that nothing needs
    a mask."""
    if isinstance(lengths, Tensor):
        return torch.arange(width, device=device)[None, :] < lengths[:, None]
    if all(length == width for length in lengths):
        return None
    return torch.arange(width, device=device)[None, :] < indices(lengths, device)[:, None]


def indices(values: Sequence[int], device: torch.device | str) -> Tensor:
    """(N,) int64 on ``device``, without the host waiting for the copy."""
    found = torch.tensor(values, dtype=torch.int64)
    if torch.device(device).type == "cuda":
        found = found.pin_memory()
    return found.to(device, non_blocking=True)


def masked_group_norm(
    x: Tensor, norm: nn.GroupNorm, lengths: Lengths | Sequence[int], *, spent: bool = False
) -> Tensor:
    """Group norm with one group a channel, over each row's valid frames only.

    Semantics: x (B, C, T), each row's valid frames -> (B, C, T); what lies behind a row's end comes out finite, and is
    never read. Statistics in float32, whatever the dtype of ``x``. ``spent``: nobody needs ``x`` any more, and no
    gradient flows, so that it may be overwritten.
    """
    if isinstance(lengths, Tensor):
        return group_norm_by_sums(x, norm, lengths, spent=spent)
    if all(length == x.shape[2] for length in lengths):
        return _group_norm(x, norm)
    return group_norm_by_sums(x, norm, lengths, spent=spent) if x.is_cuda else group_norm_by_rows(x, norm, lengths)


def group_norm_by_rows(x: Tensor, norm: nn.GroupNorm, lengths: Sequence[int]) -> Tensor:
    """:func:`masked_group_norm` with torch's kernel, a row at a time: on a CPU a quarter of the time of the other."""
    width = x.shape[2]
    rows = zip(torch.split(x, 1), lengths, strict=True)
    return torch.cat([F.pad(_group_norm(row[:, :, :end], norm), (0, width - end)) for row, end in rows])


def group_norm_by_sums(
    x: Tensor, norm: nn.GroupNorm, lengths: Lengths | Sequence[int], *, spent: bool = False
) -> Tensor:
    """:func:`masked_group_norm` in as many kernels for many rows as for one, for a GPU. The largest tensor of a forward
    goes through here: where it is ``spent``, one more of its size is made, in float32, and the result lies in ``x``."""
    ends = lengths if isinstance(lengths, Tensor) else indices(lengths, x.device)
    count = ends[:, None, None].to(torch.float32)  # (B, 1, 1)
    behind = (torch.arange(x.shape[2], device=x.device) >= ends[:, None])[:, None, :]  # (B, 1, T)
    x = x.masked_fill_(behind, 0) if spent else x.masked_fill(behind, 0)
    mean = x.sum(dim=2, keepdim=True, dtype=torch.float32) / count  # (B, C, 1)
    centred = (x - mean).masked_fill_(behind, 0)  # float32
    variance = torch.linalg.vector_norm(centred, dim=2, keepdim=True).square() / count
    scale = norm.weight.float()[None, :, None] * torch.rsqrt(variance + norm.eps)
    shift = norm.bias.float()[None, :, None]
    if spent:
        return torch.addcmul(shift, centred, scale, out=x)
    return torch.addcmul(shift, centred, scale).to(x.dtype)


def _group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    return F.group_norm(x.float(), norm.num_groups, norm.weight.float(), norm.bias.float(), norm.eps).to(x.dtype)


class FrontEnd(nn.Module):
    """The convolutions and the feature projection of a wav2vec 2.0 or HuBERT checkpoint, driven row by row safe.

    ``feature_extractor`` and ``feature_projection`` are transformers' own modules, so that weights keep their names;
    the forward is ours.
    """

    def __init__(self, feature_extractor: nn.Module, feature_projection: nn.Module, geometry: Geometry) -> None:
        super().__init__()
        self.feature_extractor = feature_extractor
        self.feature_projection = feature_projection
        self.geometry = geometry

    def forward(self, audio: PaddedAudio) -> tuple[Tensor, Lengths]:
        """audio (B, N) -> hidden states (B, T, D) and each row's valid frames. Raises ``ValueError`` for a row of
        fewer samples than one frame needs, where the host knows the lengths."""
        features, lengths = self.features(audio)
        return self.project(features), lengths

    def features(self, audio: PaddedAudio) -> tuple[Tensor, Lengths]:
        """What the convolutions make of audio (B, N), normed: (B, T, C), and each row's valid frames."""
        lengths = self._lengths(audio)
        x = audio.samples[:, None, :].to(self._dtype)  # (B, 1, N)
        for index, layer in enumerate(self.feature_extractor.conv_layers):  # type: ignore[arg-type]
            x = layer.conv(x)  # (B, C, T')
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm):
                x = masked_group_norm(x, norm, lengths[index], spent=not torch.is_grad_enabled())
            elif norm is not None:
                x = norm(x.transpose(1, 2)).transpose(1, 2)
            x = layer.activation(x)
        x = x.transpose(1, 2)  # (B, T, C)
        norm = getattr(self.feature_projection, "layer_norm", None)
        return x if norm is None else norm(x), lengths[-1]

    def project(self, features: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D)."""
        x = self.feature_projection.projection(features)  # type: ignore[operator]
        return self.feature_projection.dropout(x)  # type: ignore[operator, no-any-return]

    def _lengths(self, audio: PaddedAudio) -> Sequence[Lengths]:
        """Each row's valid part after each convolution."""
        if audio.ends is not None:
            return self.geometry.lengths_on_device(audio.ends)
        rows = [self.geometry.lengths(n) for n in audio.lengths]
        if min(row[-1] for row in rows) == 0:
            raise ValueError(f"a row has {min(audio.lengths)} samples; one frame needs {self.geometry.receptive_field}")
        return list(zip(*rows, strict=True))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.feature_extractor.parameters()).dtype
