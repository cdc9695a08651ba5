"""Training with the frozen layers computed once and kept, and with all of it computed at every step.

    python -m benchmarks.training --data MANIFEST [--models models/small] [--lang fr] [--steps 200] [--rounds 3]

The top third of the layers is adapted. Both ways see the same batches, in turn, in processes of their own; speeds are
of the steps alone, in seconds of audio a second, without the looks at the dev split. Writes bench-train.md into
``--out``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import torch

from adapters.backbone import read_config
from adapters.training.train import train
from adapters.training.train_config import TrainConfig
from benchmarks.server import ROOT

WAYS = ("kept", "computed")


@dataclass(frozen=True)
class Taken:
    """One run: ``speed`` of its steps, ``making_s`` until the first of them, CER in percent."""

    speed: float
    making_s: float
    cer: float


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    given = parse(argv)
    layers = max(1, read_config(given.models / "backbone").num_hidden_layers // 3)
    taken: dict[str, list[Taken]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            config = TrainConfig(size=64, layers=layers, steps=given.steps, lr=5e-4, seed=number)
            for way in WAYS if number % 2 else reversed(WAYS):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    run = Path(folder) / f"{way}-{number}"
                    one = process.submit(once, given.data, given.models, given.lang, run, config, way, given.device)
                    taken[way].append(one.result())
                print(f"round {number}, {way}: {taken[way][-1]}", flush=True)
    told = table(taken, given.lang, layers)
    print(told)
    (given.out / "bench-train.md").write_text(
        f"# Training with a trunk cache\n\nMade by `make bench-train`.\n\n{told}\n"
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the manifest.jsonl of a corpus")
    parser.add_argument("--models", type=Path, default=ROOT / "models/small")
    parser.add_argument("--lang", default="fr")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    return parser.parse_args(argv)


def once(data: Path, models: Path, lang: str, run: Path, config: TrainConfig, way: str, device: str) -> Taken:
    """One run on a model folder and a manifest of its own, so that nothing was kept before."""
    made, corpus = run / "models", run / "corpus"
    (made / "adapters").mkdir(parents=True)
    corpus.mkdir()
    (made / "backbone").symlink_to((models / "backbone").resolve(), target_is_directory=True)
    (corpus / "manifest.jsonl").symlink_to(data.resolve())
    for folder in data.resolve().parent.iterdir():
        if folder.is_dir() and folder.name != "cache":
            (corpus / folder.name).symlink_to(folder, target_is_directory=True)
    began = time.monotonic()
    keep = way == "kept"
    record = train(corpus / "manifest.jsonl", made, lang, run / "run", config, device=device, keep_trunk=keep)
    lines = [json.loads(line) for line in (run / "run/progress.jsonl").read_text().splitlines()]
    speeds = [line["x_real_time"] for line in lines if "x_real_time" in line]
    trunk = list((corpus / "cache").glob("trunk-*/layer-*.npz"))
    making_s = max((file.stat().st_mtime for file in trunk), default=0.0) - (time.time() - (time.monotonic() - began))
    return Taken(median(speeds), max(0.0, making_s), 100 * record.metrics["test"]["cer"])


def table(taken: dict[str, list[Taken]], language: str, layers: int) -> str:
    """Markdown."""
    ratios = [kept.speed / computed.speed for kept, computed in zip(taken["kept"], taken["computed"], strict=True)]
    lines = [
        f"Adapters of 64 in the top {layers} layers, {language}, {len(ratios)} rounds in turn. Steps with the trunk"
        f" kept are **{median(ratios):.2f} times** as fast as with all computed"
        f" ({min(ratios):.2f} to {max(ratios):.2f}).",
        "",
        "| | x real time | before the first step, s | test CER, % |",
        "|---|---|---|---|",
    ]
    for way, some in taken.items():
        cers = ", ".join(f"{one.cer:.1f}" for one in some)
        making = median(one.making_s for one in some)
        lines.append(f"| {way} | {median(one.speed for one in some):.1f} | {making:.0f} | {cers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
