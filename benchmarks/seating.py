"""Adapters to the device, one after the other: how long each takes, and what memory a further one costs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.backbone import read_config
from adapters.bank import Bank
from adapters.config import AdapterConfig
from adapters.encoder import size_of
from adapters.shapes import parameter_count
from adapters.store import AdapterStore
from benchmarks.backbones import AdapterSize, random_tensors
from benchmarks.memory import resident_bytes

_REPLACED = 100

Weights = tuple[AdapterConfig, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Seating:
    """``parameter_bytes``: of all adapters seated up to the n-th, in the device's dtype. ``bank_bytes`` is what the
    bank says after the n-th, ``host_bytes`` what the process grew by. ``seconds``: of each seating, on
    free seats and then on seats taken back; between two the bank prepares for the next, as it does while serving.
    ``unprepared_s``: of as many on free seats of another bank, back to back."""

    what: str
    parameter_bytes: list[int]
    bank_bytes: list[int]
    host_bytes: list[int]
    seconds: list[float]
    unprepared_s: list[float]


def seat_random(what: str, backbone: Path, size: AdapterSize, count: int, device: str) -> Seating:
    """``count`` adapters of one size over a backbone's configuration, float16 in host memory."""
    config = read_config(backbone)
    shape = size.config(config.num_hidden_layers)
    made = [(shape, random_tensors(shape, config, seed=seed)) for seed in range(2)]
    return _seat(what, config, [made[number % 2] for number in range(count)], device)


def seat_published(what: str, model: Path, device: str) -> Seating:
    """All adapters of a model folder, as they come."""
    config = read_config(model / "backbone")
    return _seat(what, config, list(_published(model, config)), device)


def _published(model: Path, config: Any) -> Iterator[Weights]:
    store = AdapterStore(model / "adapters")
    for name in store.names():
        loaded = store.load(store.record(name), size=size_of(config))
        yield loaded.record.config, loaded.tensors


def _seat(what: str, config: Any, adapters: Sequence[Weights], device: str) -> Seating:
    dtype = torch.float32 if device == "cpu" else torch.float16
    size = size_of(config)
    bank = Bank(size, len(adapters), torch.device(device), dtype)
    found = Seating(what, [], [], [], [], [])
    before, taken, parameters = resident_bytes(), [], 0
    for shape, tensors in adapters:
        taken.append(_timed(bank, shape, tensors, found.seconds))
        bank.prepare()
        parameters += parameter_count(shape, size) * dtype.itemsize
        found.parameter_bytes.append(parameters)
        found.bank_bytes.append(bank.bytes)
        found.host_bytes.append(resident_bytes() - before)
    for number in range(_REPLACED):
        place = number % len(taken)
        bank.unseat(taken[place])
        taken[place] = _timed(bank, *adapters[place], found.seconds)
        bank.prepare()
    unprepared = Bank(size, len(adapters), torch.device(device), dtype)
    for shape, tensors in adapters:
        _timed(unprepared, shape, tensors, found.unprepared_s)
    return found


def _timed(bank: Bank, shape: AdapterConfig, tensors: Mapping[str, Tensor], seconds: list[float]) -> Any:
    began = time.perf_counter()
    seat = bank.seat(shape, tensors)
    if bank.device.type == "cuda":
        torch.cuda.synchronize()
    seconds.append(time.perf_counter() - began)
    return seat
