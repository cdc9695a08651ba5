"""What a GPU is given again and again, recorded once: CUDA graphs for functions of tensors.

A step of a small batch is hundreds of kernels, each of which runs shorter than the host takes to launch it. A graph
launches them all at once, on the same addresses: what goes in is copied to buffers of the graph's own, and what comes
out lies where it was when recorded. Graphs share their memory, so outputs hold only until the next graph is replayed:
whoever needs them longer copies them, in the same stream.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger("tongues.engine")

Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]
Replay = Callable[[], None]
Record = Callable[[Function, Tensors], tuple[Replay, Tensors]]
"""A function and its inputs -> what runs it again on the same inputs, and where its outputs then are."""

_MOST = 512
_SHARE = 1 / 8  # of a GPU's memory, for what goes into graphs and comes out of them
_REMEMBERED = 4_096
_OFTEN = 8  # a shape comes before another's graph makes room for its own: recording takes as long as running twice
_PAUSE, _LONGEST_PAUSE = 256, 1 << 16  # calls


class Run(Protocol):
    """Runs ``function``, which depends on nothing but ``key`` and the tensors that it is given."""

    def __call__(self, key: Hashable, function: Function, given: Tensors) -> Tensors: ...


def eagerly(key: Hashable, function: Function, given: Tensors) -> Tensors:
    """Operation by operation: on a CPU, and wherever there is no graph."""
    return function(*given)


@dataclass(frozen=True)
class _Graph:
    inputs: Tensors
    replay: Replay
    outputs: Tensors

    @property
    def bytes(self) -> int:
        """What it keeps for itself; what is only between inputs and outputs shares its memory with all others."""
        return _bytes(self.inputs) + _bytes(self.outputs)


class Graphs:
    """Runs functions eagerly the first time, which warms their kernels up, and records them the second time that the
    same key comes with the same shapes. Implements :class:`Run`, for one thread.

    ``most``, ``most_bytes``: of the graphs that are kept, in number and in what goes in and comes out. Beyond that the
    one that was not used for the longest goes, for one of a shape that comes often. Where memory runs out half of them
    go, and recording rests for a while; after any other failure nothing is recorded any more. The log says so.
    """

    def __init__(self, record: Record, *, most: int = _MOST, most_bytes: int | None = None) -> None:
        self._record, self._most, self._most_bytes = record, most, most_bytes
        self._graphs: dict[Hashable, _Graph] = {}  # the longest unused first
        self._seen: dict[Hashable, int] = {}
        self._broken = False
        self._rest, self._pause = 0, _PAUSE  # calls until it records again, and how many they are the next time
        self.bytes = 0
        """Of what goes into the graphs and comes out of them."""

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, key: Hashable, function: Function, given: Tensors) -> Tensors:
        key = (key, *((tensor.shape, tensor.dtype) for tensor in given))
        graph = self._graphs.pop(key, None) or self._try(key, function, given)
        if graph is None:
            return self._eagerly(function, given)
        self._graphs[key] = graph
        for kept, tensor in zip(graph.inputs, given, strict=True):
            kept.copy_(tensor, non_blocking=True)
        graph.replay()
        return graph.outputs

    def forget(self, name: Hashable) -> None:
        """Drop the graphs whose key is ``name`` or speaks of it, however deep inside."""
        self._drop([key for key in self._graphs if _speaks_of(key, name)])

    def _try(self, key: Hashable, function: Function, given: Tensors) -> _Graph | None:
        """Record it, if it is time to."""
        if self._broken:
            return None
        if self._rest:
            self._rest -= 1
            return None
        full = not self._fits(1, _bytes(given))
        if self._seen.get(key, 0) < (_OFTEN if full else 1):
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[key] = self._seen.get(key, 0) + 1
            return None
        self._make_room(1, _bytes(given))
        try:
            inputs = tuple(tensor.clone() for tensor in given)
            replay, outputs = self._record(function, inputs)
        except Exception as error:
            if not _out_of_memory(error):
                self._broken = True
                log.exception("a graph could not be recorded: this process goes on without, kernel by kernel")
                return None
            self._drop(list(self._graphs)[: -(-len(self) // 2)])
            self._rest, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            log.warning("no memory for another graph: %d stay, the next is tried in %d calls", len(self), self._rest)
            return None
        graph = _Graph(inputs, replay, outputs)
        self._seen.pop(key)
        self._make_room(1, graph.bytes)
        self.bytes += graph.bytes
        self._pause = _PAUSE
        return graph

    def _eagerly(self, function: Function, given: Tensors) -> Tensors:
        """Where memory runs out, once more without any graphs."""
        try:
            return function(*given)
        except torch.OutOfMemoryError:
            if not self._graphs:
                raise
        log.warning("no memory for a batch: all %d graphs make room for it", len(self))
        self._drop(list(self._graphs))
        self._rest = self._pause
        return function(*given)

    def _fits(self, more: int, more_bytes: int) -> bool:
        few = len(self) + more <= self._most
        return few and (self._most_bytes is None or self.bytes + more_bytes <= self._most_bytes)

    def _make_room(self, more: int, more_bytes: int) -> None:
        while self._graphs and not self._fits(more, more_bytes):
            self._drop([next(iter(self._graphs))])

    def _drop(self, keys: Sequence[Hashable]) -> None:
        """The device may be running them: it frees a graph when that has ended, and whatever gets their memory comes
        later in the same stream."""
        for key in keys:
            self.bytes -= self._graphs.pop(key).bytes


def _bytes(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _speaks_of(key: Hashable, name: Hashable) -> bool:
    return key == name or (isinstance(key, tuple) and any(_speaks_of(part, name) for part in key))


def _out_of_memory(error: BaseException | None) -> bool:
    """Whether that was the reason, perhaps of another failure: of a recording that could not be ended any more."""
    return error is not None and (isinstance(error, torch.OutOfMemoryError) or _out_of_memory(error.__context__))


def cuda_graphs(device: torch.device) -> Graphs:
    """For a GPU, within a share of its memory."""
    whole = torch.cuda.get_device_properties(device).total_memory
    return Graphs(cuda_recorder(device), most_bytes=int(_SHARE * whole))


def cuda_recorder(device: torch.device) -> Record:
    """Records for a GPU, all graphs in one pool of memory, which lasts as long as any of them."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    alive: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
    pool = None

    def record(function: Function, inputs: Tensors) -> tuple[Replay, Tensors]:
        nonlocal pool
        if not alive:  # the pool of graphs that are gone cannot be used again
            pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # not by torch.cuda.graph: that empties the caches of the device's and of pinned memory first, and waits for the
        # device; every batch after it would have to ask for its memory again, which takes longer than the recording
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            # thread_local: seats are being written and answers awaited meanwhile, by other threads
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                outputs = function(*inputs)
            finally:
                graph.capture_end()
        alive.add(graph)
        return graph.replay, outputs

    return record
