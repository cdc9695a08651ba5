"""Batches prepared ahead of the steps that take them, in the order in which they are taken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

Number = TypeVar("Number")
Prepared = TypeVar("Prepared")

_AHEAD = 2
_MOST_WORKERS = 16


def workers_for(device: str) -> int:
    """Processes that keep ``device`` fed: on a CPU none, since the cores compute; for a GPU most cores."""
    return 0 if device == "cpu" else max(1, min(_MOST_WORKERS, len(os.sched_getaffinity(0)) - 2))


def prepared_ahead(prepare: Callable[[Number], Prepared], order: Iterator[Number], workers: int) -> Iterator[Prepared]:
    """``prepare`` of one after the other of ``order``, by so many forked processes, or with 0 by a thread. Nothing
    random may come from a generator that the processes share."""
    if workers:
        yield from DataLoader(
            _OnDemand(prepare),
            batch_size=None,
            sampler=order,
            num_workers=workers,
            prefetch_factor=_AHEAD,
            collate_fn=_as_it_is,
            multiprocessing_context="fork",
        )
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(prepare, number) for number in islice(order, _AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(prepare, number) for number in islice(order, 1)]


class _OnDemand(Dataset[Any]):
    """A data set whose items are made when they are asked for."""

    def __init__(self, prepare: Callable[[Any], Any]) -> None:
        self._prepare = prepare

    def __getitem__(self, number: Any) -> Any:
        return self._prepare(number)


def _as_it_is(prepared: Prepared) -> Prepared:
    return prepared
