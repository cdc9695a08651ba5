"""What a GPU is given again and again, recorded once: CUDA graphs for functions of tensors.

A step of a small batch is hundreds of kernels, each of which runs shorter than the host takes to launch it. A graph
launches them all at once, on the same addresses: what goes in is copied to buffers of the graph's own, and what comes
out lies where it was when recorded. Graphs share their memory, so outputs hold only until the next graph is replayed:
whoever needs them longer copies them, in the same stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
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
_REMEMBERED = 4_096


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


class Graphs:
    """Runs functions eagerly the first time, which warms their kernels up, and records them the second time that the
    same key comes with the same shapes. Implements :class:`Run`, for one thread.

    ``most``: graphs that are kept; what comes later runs eagerly. Where recording fails once, nothing is recorded any
    more, and the log says why.
    """

    def __init__(self, record: Record, *, most: int = _MOST) -> None:
        self._record, self._most = record, most
        self._graphs: dict[Hashable, _Graph] = {}
        self._seen: set[Hashable] = set()
        self._broken = False

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, key: Hashable, function: Function, given: Tensors) -> Tensors:
        key = (key, *((tensor.shape, tensor.dtype) for tensor in given))
        if key not in self._graphs and not self._try(key, function, given):
            return function(*given)
        graph = self._graphs[key]
        for kept, tensor in zip(graph.inputs, given, strict=True):
            kept.copy_(tensor, non_blocking=True)
        graph.replay()
        return graph.outputs

    def _try(self, key: Hashable, function: Function, given: Tensors) -> bool:
        """Record it, if it is time to; whether there is a graph now."""
        if self._broken or len(self._graphs) >= self._most:
            return False
        if key not in self._seen:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen.add(key)
            return False
        try:
            inputs = tuple(tensor.clone() for tensor in given)
            replay, outputs = self._record(function, inputs)
        except Exception:
            self._broken = True
            log.exception("a graph could not be recorded: this process goes on without, kernel by kernel")
            return False
        self._seen.discard(key)
        self._graphs[key] = _Graph(inputs, replay, outputs)
        return True


def cuda_recorder(device: torch.device) -> Record:
    """Records for a GPU, all graphs in one pool of memory."""
    pool = torch.cuda.graph_pool_handle()
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(function: Function, inputs: Tensors) -> tuple[Replay, Tensors]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: seats are being written and answers awaited meanwhile, by other threads
        before = torch.cuda.current_stream(device)
        with (
            torch.cuda.stream(before),  # a recording that fails leaves the thread in its stream
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            outputs = function(*inputs)
        return graph.replay, outputs

    return record
