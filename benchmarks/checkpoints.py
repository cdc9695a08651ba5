"""Checkpoints of the sizes that people serve, with random weights: what starting with one takes, and mixing languages.

    python -m benchmarks.checkpoints [--sizes wav2vec2-xls-r-300m mms-1b] [--languages 64] [--rounds 5] [--rows 4]

Each size runs in a process of its own. Memory is what is private to the process: pages of the checkpoint's file, which
the kernel may drop at any time, are counted apart. The mixed batch holds a row of each of several languages, the other
as many rows of one; both in turn, several rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

from adapters.architectures import find_architecture
from adapters.backbone import fingerprint, load_backbone
from adapters.bank import Bank
from adapters.formats.mms import mms_config
from adapters.frontend import pad
from adapters.shapes import expected_shapes
from benchmarks.clips import repeated
from benchmarks.memory import status_bytes
from benchmarks.workload import percentile

_WIDTH, _TOKENS = 16, 154


@dataclass(frozen=True)
class Figures:
    """``peak_over_weights``: most private memory while loading, over the weights in the dtype that serves."""

    size: str
    parameters: int
    load_s: float
    fingerprint_s: float
    peak_over_weights: float
    seat_ms_p50: float
    seat_ms_p95: float
    mixed_over_one: tuple[float, ...]
    rtfx: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["wav2vec2-xls-r-300m", "mms-1b"])
    parser.add_argument("--languages", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each row")
    given = parser.parse_args()
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            _write_random(Path(folder), size)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(json.dumps(asdict(pool.apply(measure, (size, Path(folder), given)))))


def measure(size: str, folder: Path, given: argparse.Namespace) -> Figures:
    """All figures of the checkpoint in ``folder``."""
    began = time.perf_counter()
    fingerprint(folder)
    told_s = time.perf_counter() - began
    with _peak() as peak:
        began = time.perf_counter()
        encoder = load_backbone(folder)
        load_s = time.perf_counter() - began
    parameters = sum(math.prod(shape) for shape in _shapes(size).values())
    config = mms_config(_WIDTH, _TOKENS, encoder.size)
    bank, seats, seconds = Bank(encoder.size, given.languages), [], []
    tensors = {name: torch.randn(shape) * 0.02 for name, shape in expected_shapes(config, encoder.size).items()}
    for _ in range(given.languages):
        began = time.perf_counter()
        seats.append(bank.seat(config, tensors))
        seconds.append(1e3 * (time.perf_counter() - began))
        bank.prepare()
    audio = pad([repeated(given.seconds)] * given.rows)
    ratios, one_s = [], []
    with torch.inference_mode():
        for number in range(given.rounds + 1):
            times = {}
            for kind in ("one", "mixed") if number % 2 else ("mixed", "one"):
                worn = bank.dress([seats[row if kind == "mixed" else 0] for row in range(given.rows)])
                began = time.perf_counter()
                encoder(audio, worn)
                times[kind] = time.perf_counter() - began
            if number:  # the first chooses kernels
                ratios.append(round(times["one"] / times["mixed"], 3))
                one_s.append(times["one"])
    return Figures(
        size=size,
        parameters=parameters,
        load_s=round(load_s, 2),
        fingerprint_s=round(told_s, 2),
        peak_over_weights=round(peak[0] / (parameters * torch.float32.itemsize), 3),
        seat_ms_p50=round(percentile(seconds, 50), 2),
        seat_ms_p95=round(percentile(seconds, 95), 2),
        mixed_over_one=tuple(ratios),
        rtfx=round(given.rows * given.seconds / median(one_s), 2),
    )


@contextmanager
def _peak() -> Iterator[list[int]]:
    """The most by which private memory grew within the block."""
    before, most, done = status_bytes("RssAnon"), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], status_bytes("RssAnon") - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield most
    done.set()
    watcher.join()


def _write_random(folder: Path, size: str) -> None:
    find_architecture(size).save_pretrained(folder)
    save_file({name: torch.randn(shape) * 0.02 for name, shape in _shapes(size).items()}, folder / "model.safetensors")


def _shapes(size: str) -> dict[str, torch.Size]:
    from transformers import Wav2Vec2Model

    with torch.device("meta"):
        state = Wav2Vec2Model(find_architecture(size)).state_dict()  # type: ignore[arg-type]
    return {name: tensor.shape for name, tensor in state.items()}


if __name__ == "__main__":
    main()
