"""What a device makes of the same clips in each precision, held against float32 on a CPU, and what its batches change.

    python -m benchmarks.exactness [--models models/small] [--device cuda] [--dtypes float32 float16 bfloat16]

64 clips of 1-15 s, the adapters of the model folder by turns. Each clip is heard alone and in batches of mixed
languages and lengths, each batch three times, so that on a GPU what is compared came out of graphs. For every precision
a line: how many texts are as on a CPU and the CER between the two, and how many clips say the same alone as in their
batch, in their text, and in all else too: their words' times and confidences.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch

from adapters.backbone import load_backbone, read_normalised
from adapters.bank import Bank
from adapters.ctc import Transcript, transcript
from adapters.frontend import SAMPLE_RATE
from adapters.recogniser import Recogniser
from adapters.store import AdapterStore
from adapters.windows import Window
from benchmarks.clips import cut
from benchmarks.server import ROOT

_ROWS = 16


@dataclass(frozen=True)
class Heard:
    """The transcript of every clip, alone and in a batch of others."""

    alone: list[Transcript]
    mixed: list[Transcript]


@dataclass(frozen=True)
class Exactness:
    """Of ``clips`` clips in one precision; ``cer`` between the texts of the device and those of a CPU, a fraction."""

    dtype: str
    clips: int
    as_on_a_cpu: int
    cer: float
    text_alone: int
    all_alone: int


def main() -> None:
    """Print a Markdown table, a line for each precision."""
    given = parse()
    clips = cut("1-15 s")[: given.clips]
    expected = hear(given.models, "cpu", "float32", clips)
    found = [judge(dtype, hear(given.models, given.device, dtype, clips), expected) for dtype in given.dtypes]
    print(table(found))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT / "models/small", help="a model folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "bfloat16"], metavar="DTYPE")
    parser.add_argument("--clips", type=int, default=64, help="at most 64")
    return parser.parse_args()


def hear(models: Path, device: str, dtype: str, clips: Sequence[np.ndarray]) -> Heard:
    """Clips (N,) float32 at 16 kHz, clip i in adapter i of the model folder and over again."""
    kind = getattr(torch, dtype)
    encoder = load_backbone(models / "backbone", device=device, dtype=kind)
    store = AdapterStore(models / "adapters")
    names = store.names()
    bank = Bank(encoder.size, len(names), torch.device(device), kind)
    loaded = [store.load(store.record(name), size=encoder.size) for name in names]
    seats = [bank.seat(one.record.config, one.tensors) for one in loaded]
    recogniser = Recogniser(encoder, bank, normalised=read_normalised(models / "backbone"))
    frame_s = encoder.geometry.hop / SAMPLE_RATE

    def batch(numbers: Sequence[int]) -> dict[int, Transcript]:
        windows = [Window(0, clips[n], 0, encoder.geometry.frames(clips[n].size)) for n in numbers]
        worn = [seats[number % len(seats)] for number in numbers]
        for _ in range(recogniser.settled):
            paths = recogniser.whole(recogniser.prepare(windows), windows, range(len(windows)), worn).result()
        return {
            number: transcript(
                path,
                loaded[number % len(loaded)].vocab,
                frame_s=frame_s,
                duration_s=clips[number].size / SAMPLE_RATE,
            )
            for number, path in zip(numbers, paths, strict=True)
        }

    every = range(len(clips))
    by_length = sorted(every, key=lambda number: clips[number].size)
    mixed: dict[int, Transcript] = {}
    for first in range(0, len(by_length), _ROWS):
        mixed |= batch(by_length[first : first + _ROWS])
    return Heard([batch([number])[number] for number in every], [mixed[number] for number in every])


def judge(dtype: str, heard: Heard, expected: Heard) -> Exactness:
    """What ``heard`` has of what was ``expected``, which is of float32 on a CPU."""
    pairs = list(zip(heard.mixed, expected.alone, strict=True))
    both = list(zip(heard.alone, heard.mixed, strict=True))
    said = [(one.text, other.text) for one, other in pairs if other.text]
    return Exactness(
        dtype,
        len(pairs),
        sum(one.text == other.text for one, other in pairs),
        float(jiwer.cer([other for _, other in said], [one for one, _ in said])),
        sum(one.text == other.text for one, other in both),
        sum(one.words == other.words for one, other in both),
    )


def table(found: Sequence[Exactness]) -> str:
    """Markdown: a line for each precision."""
    lines = [
        "| | texts as on a CPU | CER between the two | texts alone as in a batch | all else too |",
        "|---" * 5 + "|",
    ]
    for one in found:
        same = f"{one.as_on_a_cpu} of {one.clips} | {100 * one.cer:.2f} %"
        lines.append(f"| {one.dtype} | {same} | {one.text_alone} | {one.all_alone} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
