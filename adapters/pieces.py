"""The front end a row at a time, for a CPU that serves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.frontend import FrontEnd, Lengths, PaddedAudio, few_widths


def front(frontend: FrontEnd, audio: PaddedAudio) -> tuple[Tensor, Lengths]:
    """``frontend(audio)``; on a CPU, where no gradient is asked for, row by row, and no wider than the longest row.

    The first convolutions' outputs are by far the largest tensors of a forward: of all rows at once they are tens to
    hundreds of megabytes, no two batches' of one size, whose freed memory no allocator puts together again. Rows gain
    nothing from each other there. The convolutions' widths are few, since kernels are compiled for each; the layers'
    products are not compiled, so that what was padded for the former need not be computed by the latter.
    """
    if audio.samples.is_cuda or torch.is_grad_enabled() or audio.ends is not None:
        return frontend(audio)  # type: ignore[no-any-return]
    lengths = tuple(map(frontend.geometry.frames, audio.lengths))
    hidden: Tensor | None = None
    for row, (samples, frames) in enumerate(zip(audio.lengths, lengths, strict=True)):
        padded = F.pad(audio.samples[row : row + 1, :samples], (0, few_widths(samples) - samples))
        part, _ = frontend(PaddedAudio(padded, (samples,)))
        if hidden is None:
            hidden = part.new_zeros(len(lengths), max(lengths), part.shape[2])
        hidden[row, :frames] = part[0, :frames]
    assert hidden is not None
    return hidden, lengths
