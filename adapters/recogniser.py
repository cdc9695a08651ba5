"""Batches for a device, each in three parts: the host prepares it, the device is given it, the host collects.

On a GPU the next batch is prepared and given while one runs, and nothing that is given waits for the device. There all
shapes are of a few, and what the operations depend on lies on the device (:mod:`adapters.fixed`), so that graphs can be
recorded of them (:mod:`adapters.graphs`). On a CPU what is given has run when the call returns. Serving
and evaluation both come through here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.bank import Bank, Seat
from adapters.ctc import BestPath, best_tokens
from adapters.encoder import Encoder, Frames, Worn
from adapters.fixed import FixedAdapters
from adapters.frontend import PaddedAudio, few_rows, few_widths, indices, normalise_rows, pad
from adapters.graphs import Graphs, Run, cuda_graphs, eagerly
from adapters.language_head import LanguageHead
from adapters.streams import Event
from adapters.windows import Window

T = TypeVar("T", covariant=True)

fixed_widths = partial(few_widths, apart=2**0.25, least=16_000)
"""Of which there are few enough for a graph each; a second costs a GPU no more than a tenth of one."""

_HOP = 320  # samples a frame, of every published backbone: only for what a batch costs


def widths_upto(longest: int) -> list[int]:
    """The widths in samples that a GPU computes windows of up to ``longest`` samples in."""
    found = [fixed_widths(1)]
    while found[-1] < longest:
        found.append(fixed_widths(found[-1] + 1))
    return found


def computed_frames(rows: int, longest: int) -> int:
    """How many frames a GPU computes for so many rows, the longest of so many frames (of 20 ms)."""
    return few_rows(rows) * round(fixed_widths((longest + 1) * _HOP) / _HOP)


def shapes_upto(frames: int, rows: int, longest: int) -> list[tuple[int, int]]:
    """The shapes that a GPU computes batches in, each its rows and its width in samples, fewest rows first: of up to
    ``rows`` rows and ``frames`` computed frames, or of one row, of windows of up to ``longest`` samples."""
    return [
        (count, width)
        for count in sorted({few_rows(number) for number in range(1, rows + 1)})
        for width in widths_upto(longest)
        if count == 1 or count * round(width / _HOP) <= frames
    ]


@dataclass(frozen=True)
class Begun:
    """What the trunk makes of one window: its states, (1, T, D) on the device, and the log probability of each language
    of the head, (L,)."""

    frames: Frames
    log_probabilities: np.ndarray


@dataclass(frozen=True)
class Launched(Generic[T]):
    """What the device was given. ``read`` makes the result out of the host's memory, once ``done`` has passed."""

    read: Callable[[], T]
    began: Event
    half: Event
    done: Event

    def result(self) -> T:
        """Wait for the device. Raises what failed there."""
        self.done.synchronize()
        return self.read()

    @property
    def seconds(self) -> float:
        """The device's own time, without that in which it was busy with the batch before; after :meth:`result`."""
        return self.began.elapsed_time(self.done) / 1e3


class Recogniser:
    """An encoder and a bank of one device. :meth:`prepare` from any thread; what gives work to a GPU from one.

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
            run = cuda_graphs(bank.device) if self._on_gpu else eagerly
        self._run = run

    @property
    def settled(self) -> int:
        """The first call of a shape that takes as long as all later ones: kernels are compiled and memory touched in
        call 1, graphs recorded in call 2."""
        return 2 if self._run is eagerly else 3

    def prepare(self, windows: Sequence[Window]) -> PaddedAudio:
        """The host's part of what begins with audio; where shapes are fixed the samples stay as they are until
        they are on the device. Every window must have at least one frame."""
        samples = [window.samples for window in windows]
        if not self._fixed:
            return pad(samples, normalised=self._normalised)
        count = few_rows(len(windows))  # normalised later, on the device: on the host that takes longer than a step
        audio = pad(samples, normalised=False, width=fixed_widths, rows=count, pinned=self._on_gpu)
        one_frame = self._encoder.geometry.receptive_field  # rows of zeros, but never rows of nothing
        ends = torch.tensor([*audio.lengths, *[one_frame] * (count - len(windows))])
        return replace(audio, ends=ends.pin_memory() if self._on_gpu else ends)

    @torch.inference_mode()
    def whole(
        self,
        audio: PaddedAudio,
        windows: Sequence[Window],
        rows: Sequence[int],
        seats: Sequence[Seat],
        emissions: Sequence[int] = (),
    ) -> Launched[list[BestPath]]:
        """All of a batch; row i is ``windows[rows[i]]`` and wears ``seats[i]``. ``emissions``: the rows whose
        probabilities of all tokens are wanted."""
        began = self._now()
        with self._bank.reading(seats):
            worn = self._dress(seats)
            frames = self._trunk(audio.to(self._bank.device), worn.lowest_layer)
            return self._rest(frames, windows, rows, seats, worn, began, emissions)

    @torch.inference_mode()
    def bare(self, audio: PaddedAudio) -> Launched[None]:
        """All layers, without anything worn and without a head: how long that takes, from call :attr:`settled` on."""
        began = self._now()
        self._trunk(audio.to(self._bank.device), self._encoder.layer_count)
        done = self._now()
        return Launched(lambda: None, began, done, done)

    @torch.inference_mode()
    def begin(self, audio: PaddedAudio, head: LanguageHead) -> Launched[list[Begun]]:
        """The layers below the language head, and what it says of each window."""
        began = self._now()
        frames = self._trunk(audio.to(self._bank.device), head.layer)
        half = self._now()
        told = self._to_host(head(frames))
        known = replace(frames, lengths=tuple(map(self._encoder.geometry.frames, audio.lengths)))
        rows = [known.row(row) for row in range(len(audio.lengths))]
        return Launched(partial(_begun, rows, told), began, half, self._now())

    @torch.inference_mode()
    def finish(
        self,
        begun: Sequence[Frames],
        windows: Sequence[Window],
        rows: Sequence[int],
        seats: Sequence[Seat],
        emissions: Sequence[int] = (),
    ) -> Launched[list[BestPath]]:
        """The rest of what :meth:`begin` began: ``begun[i]`` is of ``windows[i]``; else as :meth:`whole`. Raises
        ``ValueError`` where something is worn below."""
        began = self._now()
        with self._bank.reading(seats):
            return self._rest(self._stack(begun), windows, rows, seats, self._dress(seats), began, emissions)

    def _rest(
        self,
        frames: Frames,
        windows: Sequence[Window],
        rows: Sequence[int],
        seats: Sequence[Seat],
        worn: Worn,
        began: Event,
        emissions: Sequence[int],
    ) -> Launched[list[BestPath]]:
        half = self._now()
        if list(rows) != list(range(len(windows))):
            frames = frames.rows(self._index(rows))
        ids, probabilities, logits = self._top(frames, worn)
        # of its own tokens: logits are as wide as the widest head that is worn beside it
        mine = {row: logits[row, :, : seats[row].config.vocab_size] for row in emissions}
        told = {row: self._to_host(one.float().log_softmax(dim=1)) for row, one in mine.items()}
        own = [slice(windows[row].skip, windows[row].skip + windows[row].keep) for row in rows]
        read = partial(_paths, self._to_host(ids), self._to_host(probabilities), own, told)
        return Launched(read, began, half, self._now())

    def _trunk(self, audio: PaddedAudio, layers: int) -> Frames:
        if audio.ends is None:
            return self._encoder.trunk(audio, layers)

        def trunk(samples: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
            if self._normalised:
                samples = normalise_rows(samples, ends)
            frames = self._encoder.trunk(PaddedAudio(samples, (), ends), layers)
            assert isinstance(frames.lengths, Tensor)
            return frames.hidden, frames.lengths

        hidden, lengths = self._run(("trunk", layers), trunk, (audio.samples, audio.ends))
        return Frames(hidden, lengths, layers)

    def _top(self, frames: Frames, worn: Worn) -> tuple[Tensor, ...]:
        if not isinstance(worn, FixedAdapters):
            logits = self._encoder.top(frames, worn)
            return (*best_tokens(logits), logits)

        def top(hidden: Tensor, lengths: Tensor, slots: Tensor) -> tuple[Tensor, ...]:
            given = Frames(hidden, lengths, frames.layer)
            logits = self._encoder.top(given, replace(worn, slots=slots))
            return (*best_tokens(logits), logits)

        assert isinstance(frames.lengths, Tensor)
        return self._run(("top", frames.layer, worn.kind), top, (frames.hidden, frames.lengths, worn.slots))

    def _stack(self, begun: Sequence[Frames]) -> Frames:
        frames = Frames.stack(begun)
        if not self._fixed:
            return frames
        assert isinstance(frames.lengths, tuple)
        geometry, (count, longest) = self._encoder.geometry, frames.hidden.shape[:2]
        rows, width = few_rows(count), geometry.frames(fixed_widths(geometry.samples(longest)))
        lengths = indices([*frames.lengths, *[1] * (rows - count)], self._bank.device)
        return Frames(F.pad(frames.hidden, (0, 0, 0, width - longest, 0, rows - count)), lengths, frames.layer)

    def _dress(self, seats: Sequence[Seat]) -> Worn:
        if isinstance(self._run, Graphs):
            for pool in self._bank.dropped():
                self._run.forget(pool)
        return self._bank.dress_fixed(seats, few_rows(len(seats))) if self._fixed else self._bank.dress(seats)

    def _index(self, rows: Sequence[int]) -> Sequence[int] | Tensor:
        if not self._fixed:
            return rows
        return indices([*rows, *[0] * (few_rows(len(rows)) - len(rows))], self._bank.device)

    def _now(self) -> Event:
        return self._bank.turns.compute.record()

    def _to_host(self, tensor: Tensor) -> Tensor:
        if not self._on_gpu:
            return tensor
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def _paths(ids: Tensor, probabilities: Tensor, own: Sequence[slice], told: Mapping[int, Tensor]) -> list[BestPath]:
    """(R', T) each, R' at least as many as there are rows, and (T, V) of some -> each row's own frames, in memory of
    their own."""
    every = {row: log_probabilities.numpy()[own[row]].copy() for row, log_probabilities in told.items()}
    found = zip(ids.numpy(), probabilities.numpy(), own, strict=False)
    return [
        BestPath(best[kept].copy(), sure[kept].copy(), every.get(row)) for row, (best, sure, kept) in enumerate(found)
    ]


def _begun(rows: Sequence[Frames], told: Tensor) -> list[Begun]:
    log_probabilities: np.ndarray = told.numpy()
    return [Begun(frames, log_probabilities[row].copy()) for row, frames in enumerate(rows)]
