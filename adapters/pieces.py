"""The front end a row at a time, for a CPU that serves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.frontend import FrontEnd, Lengths, PaddedAudio, few_widths


def front(frontend: FrontEnd, audio: PaddedAudio) -> tuple[Tensor, Lengths]:
    """``frontend(audio)``; on a CPU, where no gradient is asked for, row by row.

    The first convolutions' outputs are by far the largest tensors of a forward: of all rows at once they are tens to
    hundreds of megabytes, no two batches' of one size, whose freed memory no allocator puts together again. Rows gain
    nothing from each other there. The widths are few, since kernels are compiled for each.
    """
    if audio.samples.is_cuda or torch.is_grad_enabled() or audio.ends is not None or len(audio.lengths) == 1:
        return frontend(audio)  # type: ignore[no-any-return]
    geometry = frontend.geometry
    hidden: Tensor | None = None
    lengths: list[int] = []
    for row, length in enumerate(audio.lengths):
        samples = F.pad(audio.samples[row : row + 1, :length], (0, few_widths(length) - length))
        part, _ = frontend(PaddedAudio(samples, (length,)))
        if hidden is None:
            hidden = part.new_zeros(len(audio.lengths), geometry.frames(audio.samples.shape[1]), part.shape[2])
        lengths.append(geometry.frames(length))
        hidden[row, : lengths[row]] = part[0, : lengths[row]]
    assert hidden is not None
    return hidden, tuple(lengths)
