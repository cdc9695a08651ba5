"""Windows and what their rows wear -> the best path of each: the one forward that serving and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder, Worn
from adapters.frontend import pad
from adapters.windows import Window


@torch.inference_mode()
def recognise(encoder: Encoder, windows: Sequence[Window], worn: Worn, *, normalised: bool = True) -> list[BestPath]:
    """One batch: row i is ``windows[i]``. The paths hold each window's own frames, without its context.

    ``normalised``: the checkpoint's ``do_normalize``. Every window must have at least one frame.
    """
    audio = pad([window.samples for window in windows], normalised=normalised)
    device = next(encoder.parameters()).device
    ids, probabilities = best_tokens(encoder(audio.to(device), worn))
    host_ids, host_probabilities = ids.cpu().numpy(), probabilities.cpu().numpy()
    return [
        BestPath(host_ids[row], host_probabilities[row]).slice(window.skip, window.skip + window.keep)
        for row, window in enumerate(windows)
    ]
