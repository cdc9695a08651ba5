"""How rows get at their own adapters: weights gathered by slot for bmm, or rows sorted by slot for grouped_mm.

    python -m benchmarks.gather [--device cuda] [--dtype float16] [--rows 8 32 128] [--frames 100 400] [--json OUT]

One bottleneck adapter at one place of one layer, out of a pool as the bank has it. Ways: *one* adapter for all rows
(what it costs where nobody mixes), *bmm* as :mod:`adapters.methods.bottleneck` does it, *grouped*: both products by
grouped_mm over the pool itself, without copying weights, for rows that were sorted by slot before. Ways take turns in
every round; figures are medians, in milliseconds, and each way's ratio to *one* with its spread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.config import AdapterConfig, BackboneSize
from adapters.methods import bottleneck
from adapters.pool import Pool

_CALLS = 20


@dataclass(frozen=True)
class Case:
    """A batch: ``rows`` of ``frames`` frames, wearing ``distinct`` of ``slots`` adapters."""

    rows: int
    frames: int
    size: int
    distinct: int


@dataclass(frozen=True)
class Figure:
    """Milliseconds a call of one way in each round."""

    case: Case
    way: str
    rounds_ms: tuple[float, ...]


def main() -> None:
    """Measure every case, print a table, and write JSON where asked."""
    arguments = parse()
    torch.manual_seed(0)
    figures = []
    for rows in arguments.rows:
        for frames in arguments.frames:
            for size in arguments.sizes:
                for distinct in sorted({1, min(rows, arguments.slots) // 2 or 1, min(rows, arguments.slots)}):
                    figures += measure(Case(rows, frames, size, distinct), arguments)
    print(table(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=None, help="float16 on a GPU, float32 on a CPU, if left out")
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--frames", type=int, nargs="+", default=[50, 400])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256], help="of the bottleneck")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every round here")
    return parser.parse_args()


@torch.inference_mode()
def measure(case: Case, arguments: argparse.Namespace) -> list[Figure]:
    """All ways of one case, after a call of each that does not count and is compared with the others."""
    device = torch.device(arguments.device)
    dtype = getattr(torch, arguments.dtype or ("float32" if device.type == "cpu" else "float16"))
    config = AdapterConfig("bottleneck", case.size, (0,), "none", 1)
    size = BackboneSize(arguments.hidden, 1, 4 * arguments.hidden)
    pool = Pool(bottleneck.shapes(config, "attention", size), arguments.slots, device, dtype)
    for view in pool.views.values():
        view.normal_(std=0.02)
    chosen = sorted(1 + row * case.distinct // case.rows for row in range(case.rows))
    slots = torch.tensor(chosen, device=device)
    ends = torch.tensor([sum(slot <= limit for slot in chosen) for limit in range(arguments.slots + 1)])
    offsets = (ends * case.frames).to(device, torch.int32)
    x = torch.randn(case.rows, case.frames, arguments.hidden, device=device, dtype=dtype)
    first = {name: view[chosen[0]] for name, view in pool.views.items()}
    ways: dict[str, Callable[[], Tensor]] = {
        "one": lambda: bottleneck.one(x, x, first),
        "bmm": lambda: bottleneck.many(x, x, {name: view.index_select(0, slots) for name, view in pool.views.items()}),
        "grouped": lambda: grouped(x, pool.views, slots, offsets),
    }
    torch.testing.assert_close(ways["grouped"](), ways["bmm"](), atol=1e-2, rtol=1e-2)
    ways["one"]()
    rounds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way, call in ways.items():
            rounds[way].append(milliseconds(call, device))
    return [Figure(case, way, tuple(found)) for way, found in rounds.items()]


def grouped(x: Tensor, pool: Mapping[str, Tensor], slots: Tensor, offsets: Tensor) -> Tensor:
    """:func:`adapters.methods.bottleneck.many` for rows in the order of their ``slots`` (B,): ``pool`` is stacked by
    slot, and ``offsets`` (S,) int32 says behind which of the frames of all rows each slot's end."""

    def product(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        flat = F.grouped_mm(y.flatten(0, 1), weight.transpose(1, 2), offs=offsets)
        return flat.view(*y.shape[:2], -1) + bias.index_select(0, slots)[:, None]

    y = F.layer_norm(x, x.shape[-1:], None, None, bottleneck.NORM_EPS)
    scale, shift = (pool[f"norm.{part}"].index_select(0, slots)[:, None] for part in ("weight", "bias"))
    y = F.gelu(product(torch.addcmul(shift, y, scale), pool["down.weight"], pool["down.bias"]))
    return x + product(y, pool["up.weight"], pool["up.bias"])


def milliseconds(call: Callable[[], Tensor], device: torch.device) -> float:
    """Of one call, over several in a row."""
    wait(device)
    began = time.perf_counter()
    for _ in range(_CALLS):
        call()
    wait(device)
    return (time.perf_counter() - began) / _CALLS * 1e3


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def table(figures: list[Figure]) -> str:
    """Markdown: a line a case."""
    by_case: dict[Case, dict[str, tuple[float, ...]]] = {}
    for figure in figures:
        by_case.setdefault(figure.case, {})[figure.way] = figure.rounds_ms
    lines = [
        "| rows | frames | bottleneck | adapters | one, ms | bmm, ms | grouped, ms | bmm / one | grouped / one |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, found in by_case.items():
        cells = [str(number) for number in (case.rows, case.frames, case.size, case.distinct)]
        cells += [f"{median(found[way]):.3f}" for way in ("one", "bmm", "grouped")]
        for way in ("bmm", "grouped"):
            ratios = sorted(a / b for a, b in zip(found[way], found["one"], strict=True))
            cells.append(f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
