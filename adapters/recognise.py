"""Windows and what their rows wear -> the best path of each: the one forward that serving and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder, Worn
from adapters.frontend import pad
from adapters.windows import Window


@torch.inference_mode()
def recognise(
    encoder: Encoder,
    windows: Sequence[Window],
    worn: Worn,
    *,
    normalised: bool = True,
    rows: Sequence[int] | None = None,
) -> list[BestPath]:
    """One batch; the paths hold each window's own frames, without its context.

    ``rows``: the window that each row of ``worn`` is of, where a window is heard in several adapters: the trunk then
    runs once for each window, and only the top for each row. Without it row i is ``windows[i]``.
    ``normalised``: the checkpoint's ``do_normalize``. Every window must have at least one frame.
    """
    audio = pad([window.samples for window in windows], normalised=normalised)
    device = next(encoder.parameters()).device
    frames = encoder.trunk(audio.to(device), worn.lowest_layer)
    which = list(range(len(windows))) if rows is None else list(rows)
    if which != list(range(len(windows))):
        frames = frames.rows(which)
    ids, probabilities = best_tokens(encoder.top(frames, worn))
    host_ids, host_probabilities = ids.cpu().numpy(), probabilities.cpu().numpy()
    return [
        BestPath(host_ids[row], host_probabilities[row]).slice(
            windows[index].skip, windows[index].skip + windows[index].keep
        )
        for row, index in enumerate(which)
    ]
