"""Windows and what their rows wear -> the best path of each: the one forward that serving and evaluation share.

A batch takes three parts: the host prepares it, the device is given it, and the host collects what comes out. On a GPU
the next batch is prepared and given while one runs, and nothing that is given waits for the device. There all shapes
are of a few, and what the operations depend on lies on the device (:mod:`adapters.fixed`), so that graphs can be
recorded of them (:mod:`adapters.graphs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adapters.bank import Bank, Seat
from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder, Frames, Worn
from adapters.fixed import FixedAdapters
from adapters.frontend import PaddedAudio, few_rows, few_widths, indices, pad
from adapters.graphs import Graphs, Run, cuda_recorder, eagerly
from adapters.streams import Event
from adapters.windows import Window


@dataclass(frozen=True)
class Prepared:
    """A batch on the host: ``audio``, the window that each row of the top is of, and its own frames."""

    audio: PaddedAudio
    rows: tuple[int, ...]
    own: tuple[slice, ...]

    @property
    def plain(self) -> bool:
        """Whether row i is window i."""
        return self.rows == tuple(range(len(self.audio.lengths)))

    def paths(self, ids: Tensor, probabilities: Tensor) -> list[BestPath]:
        """(R', T) each, on the host, rows beyond the last dropped -> each row's own frames, in memory of their own."""
        found = zip(ids.numpy(), probabilities.numpy(), self.own, strict=False)
        return [BestPath(row[own].copy(), sure[own].copy()) for row, sure, own in found]


@dataclass(frozen=True)
class Launched:
    """A batch that the device was given; ``ids`` and ``probabilities`` (R', T) hold what came out after ``done``."""

    prepared: Prepared
    ids: Tensor
    probabilities: Tensor
    began: Event
    half: Event
    done: Event

    def paths(self) -> list[BestPath]:
        """Wait for the device. Raises what failed there."""
        self.done.synchronize()
        return self.prepared.paths(self.ids, self.probabilities)

    @property
    def seconds(self) -> float:
        """The device's own time, without that in which it was busy with the batch before; after :meth:`paths`."""
        return self.began.elapsed_time(self.done) / 1e3


class Recogniser:
    """An encoder and a bank of one device. :meth:`prepare` and :meth:`Launched.paths` from any thread; on a GPU
    :meth:`launch` from one.

    ``normalised``: the checkpoint's ``do_normalize``. ``fixed``: few shapes and no operation that depends on the batch,
    as on a GPU. ``run``: how those are run, there by graphs.
    """

    def __init__(
        self,
        encoder: Encoder,
        bank: Bank,
        *,
        normalised: bool = True,
        fixed: bool | None = None,
        run: Run | None = None,
    ) -> None:
        self._encoder, self._bank, self._normalised = encoder, bank, normalised
        self._on_gpu = bank.device.type == "cuda"
        self._fixed = self._on_gpu if fixed is None else fixed
        if run is None:
            run = Graphs(cuda_recorder(bank.device)) if self._on_gpu else eagerly
        self._run = run

    def prepare(self, windows: Sequence[Window], rows: Sequence[int]) -> Prepared:
        """Row i is to be window ``rows[i]``. Every window must have at least one frame."""
        own = _own(windows, rows)
        samples = [window.samples for window in windows]
        if not self._fixed:
            return Prepared(pad(samples, normalised=self._normalised), tuple(rows), own)
        count = few_rows(len(windows))
        audio = pad(samples, normalised=self._normalised, width=few_widths, rows=count, pinned=self._on_gpu)
        one_frame = self._encoder.geometry.receptive_field  # rows of zeros, but never rows of nothing
        ends = torch.tensor([*audio.lengths, *[one_frame] * (count - len(windows))])
        return Prepared(replace(audio, ends=ends.pin_memory() if self._on_gpu else ends), tuple(rows), own)

    @torch.inference_mode()
    def launch(self, prepared: Prepared, seats: Sequence[Seat]) -> Launched:
        """Give the device a batch whose row i wears ``seats[i]``."""
        compute = self._bank.turns.compute
        began = compute.record()
        with self._bank.reading(seats):
            worn: Worn = (
                self._bank.dress(seats) if not self._fixed else self._bank.dress_fixed(seats, few_rows(len(seats)))
            )
            frames = self._trunk(prepared.audio.to(self._bank.device), worn.lowest_layer)
            half = compute.record()
            if not prepared.plain:
                frames = frames.rows(self._index(prepared.rows))
            found = self._top(frames, worn)
            ids, probabilities = (self._to_host(tensor) for tensor in found)
        return Launched(prepared, ids, probabilities, began, half, compute.record())

    def _trunk(self, audio: PaddedAudio, layers: int) -> Frames:
        if audio.ends is None:
            return self._encoder.trunk(audio, layers)

        def trunk(samples: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
            frames = self._encoder.trunk(PaddedAudio(samples, (), ends), layers)
            assert isinstance(frames.lengths, Tensor)
            return frames.hidden, frames.lengths

        hidden, lengths = self._run(("trunk", layers), trunk, (audio.samples, audio.ends))
        return Frames(hidden, lengths, layers)

    def _top(self, frames: Frames, worn: Worn) -> tuple[Tensor, ...]:
        if not isinstance(worn, FixedAdapters):
            return best_tokens(self._encoder.top(frames, worn))

        def top(hidden: Tensor, lengths: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
            given = Frames(hidden, lengths, frames.layer)
            return best_tokens(self._encoder.top(given, replace(worn, slots=slots)))

        assert isinstance(frames.lengths, Tensor)
        return self._run(("top", frames.layer, worn.kind), top, (frames.hidden, frames.lengths, worn.slots))

    def _index(self, rows: Sequence[int]) -> Sequence[int] | Tensor:
        if not self._fixed:
            return rows
        return indices([*rows, *[0] * (few_rows(len(rows)) - len(rows))], self._bank.device)

    def _to_host(self, tensor: Tensor) -> Tensor:
        if not self._on_gpu:
            return tensor
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


@torch.inference_mode()
def recognise(
    encoder: Encoder,
    windows: Sequence[Window],
    worn: Worn,
    *,
    normalised: bool = True,
    rows: Sequence[int] | None = None,
) -> list[BestPath]:
    """One batch, and the host waits for it; the paths hold each window's own frames, without its context.

    ``rows``: the window that each row of ``worn`` is of, where a window is heard in several adapters: the trunk then
    runs once for each window, and only the top for each row. Without it row i is ``windows[i]``.
    ``normalised``: the checkpoint's ``do_normalize``. Every window must have at least one frame.
    """
    which = tuple(range(len(windows)) if rows is None else rows)
    audio = pad([window.samples for window in windows], normalised=normalised)
    prepared = Prepared(audio, which, _own(windows, which))
    frames = encoder.trunk(audio.to(next(encoder.parameters()).device), worn.lowest_layer)
    if not prepared.plain:
        frames = frames.rows(which)
    ids, probabilities = best_tokens(encoder.top(frames, worn))
    return prepared.paths(ids.cpu(), probabilities.cpu())


def _own(windows: Sequence[Window], rows: Sequence[int]) -> tuple[slice, ...]:
    chosen = [windows[row] for row in rows]
    return tuple(slice(window.skip, window.skip + window.keep) for window in chosen)
