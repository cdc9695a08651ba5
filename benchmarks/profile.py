"""Where one step of the engine goes on this device, by torch's profiler.

    python -m benchmarks.profile [--model FOLDER] [--device cpu] [--seconds 5]

A step is what a lane runs: rows of one batch, each wearing another adapter, from samples to best tokens. Shares are of
the time that operations take themselves, one by one, without graphs; of what is left, Python and the profiler, none is
told.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from adapters.backbone import load_backbone, read_normalised
from adapters.bank import Bank
from adapters.encoder import Encoder
from adapters.graphs import eagerly
from adapters.recogniser import Recogniser
from adapters.store import AdapterStore
from adapters.windows import Window
from benchmarks.clips import repeated

_TIMES = 3
_POSITIONAL_KERNEL = 16

_PARTS = (
    ("attention", ("attention", "scaled_dot_product", "softmax", "_fused_sdp")),
    ("activations", ("gelu",)),
    ("norms", ("layer_norm", "group_norm", "rsqrt", "batch_norm")),
    ("gather of adapters", ("index_select", "index_copy", "index", "gather")),
    ("positional convolution", ("fft_",)),
    ("best tokens", ("argmax", "aten::max", "logsumexp", "exp")),
)
_PRODUCTS = ("addmm", "mm", "bmm", "baddbmm", "linear")
_NAMESPACES = ("aten::", "mkldnn::")


@dataclass(frozen=True)
class Step:
    """One step of ``rows`` rows of ``seconds`` seconds: ``wall_s`` without the profiler, and the share of each part."""

    backbone: str
    rows: int
    seconds: float
    wall_s: float
    shares: dict[str, float]


def profile_steps(backbone: str, model: Path, device: str, rows: Sequence[int], seconds: float) -> list[Step]:
    """A step of each number of ``rows``, whose adapters are those of the model folder, in turn."""
    encoder = load_backbone(model / "backbone", device=device, dtype=_dtype(device))
    bank = Bank(encoder.size, max(rows), torch.device(device), _dtype(device))
    store = AdapterStore(model / "adapters")
    names = store.names()[: max(rows)]
    loaded = [store.load(store.record(name), size=encoder.size) for name in names]
    seats = [bank.seat(one.record.config, one.tensors) for one in loaded]
    narrow = {one.record.config.size for one in loaded}
    if device == "cpu":
        torch.set_num_threads(1)  # what a lane has
    steps = []
    for count in rows:
        windows = [_window(encoder, seconds, number) for number in range(count)]
        worn = [seats[number % len(seats)] for number in range(count)]
        normalised = read_normalised(model / "backbone")
        serving = Recogniser(encoder, bank, normalised=normalised)
        plain = Recogniser(encoder, bank, normalised=normalised, run=eagerly)  # a graph's kernels are nobody's

        def step(recogniser: Recogniser, windows: Any = windows, worn: Any = worn) -> None:
            recogniser.whole(recogniser.prepare(windows), windows, range(len(windows)), worn).result()

        wall_s, shares = _wall_s(partial(step, serving)), _shares(partial(step, plain), device, narrow)
        steps.append(Step(backbone, count, seconds, wall_s, shares))
    return steps


def part_of(name: str, shapes: Sequence[Sequence[int]], narrow: set[int]) -> str:
    """Which part of a step an operation belongs to; ``narrow``: the widths that adapters' bottlenecks have."""
    bare = name.partition("::")[2].removeprefix("mkldnn_").removeprefix("_")
    if bare == "linear_pointwise":  # packed
        return "linears of the layers"
    if "conv" in bare:
        kernel = shapes[1][-1] if len(shapes) > 1 and len(shapes[1]) >= 3 else 0
        return "positional convolution" if kernel >= _POSITIONAL_KERNEL else "front end"
    for part, stems in _PARTS:
        if any(stem in name if len(stem) > 5 else bare.startswith(stem) for stem in stems):
            return part
    if bare in _PRODUCTS:
        if bare == "bmm" and shapes[1][-1] == shapes[1][-2]:  # of spectra, within a group
            return "positional convolution"
        widths = {shape[-1] for shape in shapes if len(shape) > 1} | {shape[-2] for shape in shapes if len(shape) > 1}
        return "adapters" if bare in ("baddbmm", "bmm") or widths & narrow else "linears of the layers"
    return "copies, sums and the rest"


def table(steps: Sequence[Step]) -> str:
    """Markdown: a row for each part, a column for each step."""
    parts = sorted({p for s in steps for p in s.shares}, key=lambda p: -sum(s.shares.get(p, 0) for s in steps))
    heads = [f"{s.backbone}, {s.rows} x {s.seconds:g} s" for s in steps]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(steps) + 1) + "|"]
    lines += [f"| {p} | " + " | ".join(f"{100 * s.shares.get(p, 0):.1f} %" for s in steps) + " |" for p in parts]
    walls = " | ".join(f"{1e3 * s.wall_s:.1f} ms" for s in steps)
    return "\n".join([*lines, f"| one step | {walls} |"])


def _shares(step: Any, device: str, narrow: set[int]) -> dict[str, float]:
    on_cpu = device == "cpu"
    activities = [ProfilerActivity.CPU] + ([] if on_cpu else [ProfilerActivity.CUDA])
    step()
    with profile(activities=activities, record_shapes=True) as found:
        for _ in range(_TIMES):
            step()
    spent: defaultdict[str, float] = defaultdict(float)
    for event in found.key_averages(group_by_input_shape=True):
        own = event.self_cpu_time_total if on_cpu else event.self_device_time_total
        if event.key.startswith(_NAMESPACES) and own:
            spent[part_of(event.key, event.input_shapes, narrow)] += own
    return {part: time_ / sum(spent.values()) for part, time_ in spent.items()}


def _wall_s(step: Any) -> float:
    step()
    taken = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        step()  # ends with the tokens on the host
        taken.append(time.perf_counter() - began)
    return min(taken)


def _window(encoder: Encoder, seconds: float, number: int) -> Window:
    samples = repeated(seconds * (number + 1))[-int(seconds * 16_000) :]
    return Window(0, samples, 0, encoder.geometry.frames(samples.size))


def _dtype(device: str) -> torch.dtype:
    return torch.float32 if device == "cpu" else torch.float16


def main() -> None:
    """Print the table for one model folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/small"), help="folder with backbone/ and adapters/")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each row")
    given = parser.parse_args()
    print(table(profile_steps(given.model.name, given.model, given.device, (1, 8), given.seconds)))


if __name__ == "__main__":
    main()
