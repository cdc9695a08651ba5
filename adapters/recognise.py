"""Windows and what their rows wear -> the best path of each: the one forward that serving and evaluation share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder, Frames, Worn
from adapters.frontend import PaddedAudio, pad
from adapters.language_head import LanguageHead
from adapters.windows import Window


@dataclass(frozen=True)
class Begun:
    """What the trunk makes of one window: its states, (1, T, D) on the device, and the log probability of each language
    of the head, (L,)."""

    frames: Frames
    log_probabilities: np.ndarray


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


@torch.inference_mode()
def finish(
    encoder: Encoder, begun: Sequence[Frames], windows: Sequence[Window], worn: Worn, rows: Sequence[int]
) -> list[BestPath]:
    """The rest of what :func:`begin` began: ``begun[i]`` is of ``windows[i]``, and row r of ``worn`` hears the
    window ``rows[r]``. Raises ``ValueError`` where something is worn below."""
    return _paths(encoder, Frames.stack(begun), windows, worn, rows)


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
