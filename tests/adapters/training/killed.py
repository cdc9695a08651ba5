"""Runs that are killed in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from adapters.record import AdapterRecord
from adapters.training.progress import Progress


class Killed(BaseException):
    """As good as SIGKILL for what lies on disk: nobody catches it."""


@contextmanager
def killed_at(stage: str, step: int) -> Iterator[None]:
    """The run dies in the ``step``-th step of ``stage``, before what that step would save."""
    update = Progress.update

    def dies(self: Progress, now: int, *, audio_s: float, **figures: float) -> None:
        if self._stage == stage and now == step:
            raise Killed
        update(self, now, audio_s=audio_s, **figures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "update", dies)
        with pytest.raises(Killed):
            yield


@contextmanager
def counted_steps() -> Iterator[Callable[[], list[tuple[str, int]]]]:
    """Every (stage, step) that is taken inside."""
    taken: list[tuple[str, int]] = []
    update = Progress.update

    def counts(self: Progress, now: int, *, audio_s: float, **figures: float) -> None:
        taken.append((self._stage, now))
        update(self, now, audio_s=audio_s, **figures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "update", counts)
        yield lambda: taken


def assert_close(one: object, other: object) -> None:
    """Nested tensors that are the same numbers, but for rounding.

    What a sum of float32 rounds to may depend on where in memory its terms lie, so that two runs of one process need
    not agree in the last bit, and training carries that on. A run that lost its place, its moments or its average is
    much further off: a resumed run without its moments, 20 times and more.
    """
    torch.testing.assert_close(one, other, rtol=2e-3, atol=5e-5)


def assert_same_model(one: Path, other: Path) -> None:
    """The folders' records are the same bytes and their weights the same numbers, but for rounding."""
    names = {file.name for file in one.iterdir()}
    assert names == {file.name for file in other.iterdir()}
    for name in names:
        if not name.endswith(".safetensors"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
            continue
        assert_close(*(safetensors.torch.load_file(folder / name) for folder in (one, other)))


def assert_same_adapter(one: AdapterRecord, other: AdapterRecord, models: Path) -> None:
    """Two records that tell the same but their names, of weights that are the same numbers, but for rounding."""
    assert replace(one, name="same", weights=other.weights).to_json() == replace(other, name="same").to_json()
    files = [models / "adapters" / record.name / record.weights.name for record in (one, other)]
    assert_close(*(safetensors.torch.load_file(file) for file in files))
