"""Runs that are killed in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

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
