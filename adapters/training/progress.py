"""How a long run is doing: a line on the terminal, and every figure in a JSONL file that survives it.

Where TensorBoard is installed, its curves lie beside the file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from adapters.durable import naming
from adapters.errors import DataError

_MOST_SKIPPED = 50


def _board(folder: Path, step: int) -> Any:
    """What writes curves into ``folder``, which forgets what an earlier run left there after ``step``."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


def step_seconds(path: Path) -> float:
    """How long all steps of the run took whose figures lie at ``path``, in whatever sittings, without what was
    :meth:`~Progress.paused`; steps that a kill made it take again count once."""
    taken: dict[tuple[str, int], float] = {}
    for text in path.read_bytes().splitlines():
        with suppress(ValueError):  # one that a full disk cut off
            line = json.loads(text)
            if isinstance(line, dict) and "seconds" in line:
                taken[line["stage"], line["step"]] = line["seconds"]
    return sum(taken.values())


class Progress:
    """Averages what ``update`` is told and reports it every ``every`` steps.

    ``audio_s`` is summed instead, for the speed in seconds of audio a second.
    """

    def __init__(self, path: Path, stage: str, steps: int, step: int, every: int = 50) -> None:
        self._path, self._stage, self._steps, self._every = path, stage, steps, every
        self._console = Console(stderr=True)
        self._sums: dict[str, float] = {}
        self._count = 0
        self._audio_s = 0.0
        self._skipped = 0
        self._too_short = 0
        self._start = step
        self._since = time.monotonic()
        self._began = (self._since, step)

    @cached_property
    def _board(self) -> Any:
        """Made with the first figure: of several processes one has any."""
        return _board(self._path.parent / "tensorboard", self._start)

    def update(self, step: int, *, audio_s: float, **figures: float) -> None:
        """After step ``step``: the audio that it took and its figures."""
        self._audio_s += audio_s
        self._count += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        if step % self._every and step != self._steps:
            return
        now = time.monotonic()
        means = {name: round(total / self._count, 4) for name, total in self._sums.items()}
        began, first = self._began
        left_s = (now - began) / max(1, step - first) * (self._steps - step)
        taken = now - self._since
        speed = self._audio_s / max(taken, 1e-9)
        if self._too_short:
            means["too_short"] = self._too_short
        self.note(step, **means, x_real_time=round(speed, 1), seconds=round(taken, 2), left_min=round(left_s / 60, 1))
        self._sums, self._count, self._audio_s, self._since = {}, 0, 0.0, now

    def skipped(self, yes: bool) -> None:
        """Whether this step's gradient was no number, so that nothing was learnt.

        Raises :class:`~adapters.errors.DataError` after so many in a row that nothing ever will be."""
        self._skipped = self._skipped + 1 if yes else 0
        if self._skipped >= _MOST_SKIPPED:
            raise DataError(
                f"{self._stage}: the gradients of {self._skipped} steps in a row are no numbers; try a lower --lr"
            )

    def too_short(self, rows: int) -> None:
        """So many rows of this step had fewer frames than their text needs, and nothing was learnt of them. All that
        were are told with the other figures, as ``too_short``."""
        self._too_short += rows

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in here is not training, and does not count for its speed."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def note(self, step: int, **figures: Any) -> None:
        """Record figures at once."""
        line = {"stage": self._stage, "step": step, "of": self._steps, **figures}
        with naming(self._path), self._path.open("a+b") as file:
            torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
            file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
        if self._board is not None:
            for name, value in figures.items():
                for part, number in value.items() if isinstance(value, dict) else [("", value)]:
                    self._board.add_scalar("/".join(filter(None, (self._stage, name, part))), number, step)
            self._board.flush()
        said = "  ".join(f"{name} {value}" for name, value in figures.items())
        self._console.print(f"{self._stage} {step}/{self._steps}  {said}", highlight=False)
