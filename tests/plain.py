"""The forward in one call and its simplest form: the reference of :mod:`adapters.recogniser`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder, Frames, Worn
from adapters.frontend import PaddedAudio, pad
from adapters.language_head import LanguageHead
from adapters.recogniser import Begun
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
    frames = encoder.trunk(_audio(encoder, windows, normalised), worn.lowest_layer)
    return _paths(encoder, frames, windows, worn, rows)


@torch.inference_mode()
def begin(encoder: Encoder, windows: Sequence[Window], head: LanguageHead, *, normalised: bool = True) -> list[Begun]:
    """The layers below the language head, and what it says of each window."""
    frames = encoder.trunk(_audio(encoder, windows, normalised), head.layer)
    told = head(frames).cpu().numpy()
    return [Begun(frames.row(row), told[row]) for row in range(len(windows))]


def _audio(encoder: Encoder, windows: Sequence[Window], normalised: bool) -> PaddedAudio:
    audio = pad([window.samples for window in windows], normalised=normalised)
    return audio.to(next(encoder.parameters()).device)


def _paths(
    encoder: Encoder, frames: Frames, windows: Sequence[Window], worn: Worn, rows: Sequence[int] | None
) -> list[BestPath]:
    each = list(range(len(windows)))
    which = each if rows is None else list(rows)
    if which != each:
        frames = frames.rows(which)
    ids, probabilities = best_tokens(encoder.top(frames, worn))
    host_ids, host_probabilities = ids.cpu().numpy(), probabilities.cpu().numpy()
    return [
        BestPath(host_ids[row], host_probabilities[row]).slice(
            windows[index].skip, windows[index].skip + windows[index].keep
        )
        for row, index in enumerate(which)
    ]
