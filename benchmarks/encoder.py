"""The encoder alone on one thread of a CPU: three projections, one fused, those packed, int8; the same clips in turn.

    python -m benchmarks.encoder [--rounds 15] [--rows 1,8]

Of models/small and of random weights of the size of wav2vec 2.0 Base. RTFx is seconds of audio a second of the
thread's CPU time, so that who else is on the machine counts for less; ratios are of the same round, with quartiles.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from statistics import median, quantiles

import numpy as np
import torch

from adapters.architectures import ARCHITECTURES
from adapters.backbone import fold_weight_norm, load_model
from adapters.encoder import Encoder
from adapters.frontend import SAMPLE_RATE, PaddedAudio, pad
from adapters.fused import fuse_attention
from adapters.heap import keep_freed_memory
from adapters.packed import pack_linears
from adapters.quantised import quantise_linears
from benchmarks.server import ROOT

BACKBONES = ("small", "wav2vec2-base")
VARIANTS = ("float32", "fused", "packed", "int8")


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=4.0, help="of the longest row")
    parser.add_argument("--rows", default="1,8", help="of a batch, separated by commas")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    ratios = " | ".join(f"{variant} / float32" for variant in VARIANTS[1:])
    print(f"| backbone | rows | float32 RTFx | {ratios} |\n|---|---|---|{'---|' * len(VARIANTS[1:])}")
    for name in BACKBONES:
        encoders = variants(name)
        for rows in map(int, arguments.rows.split(",")):
            audio = batch(rows, arguments.seconds)
            seconds = sum(audio.lengths) / SAMPLE_RATE
            runs = {variant: run(encoder, audio) for variant, encoder in encoders.items()}
            times = race(runs, arguments.rounds)
            told = " | ".join(spread(times["float32"], times[variant]) for variant in VARIANTS[1:])
            print(f"| {name} | {rows} | {seconds / median(times['float32']):.1f} | {told} |", flush=True)


def variants(name: str) -> dict[str, Encoder]:
    """The same weights in each of :data:`VARIANTS`."""
    from transformers import Wav2Vec2Model

    model = load_model(ROOT / "models/small/backbone") if name == "small" else Wav2Vec2Model(ARCHITECTURES[name])  # type: ignore[arg-type]
    plain = Encoder(model).requires_grad_(False).eval()
    fold_weight_norm(plain)
    fused = copy.deepcopy(plain)
    fuse_attention(fused)
    int8 = copy.deepcopy(fused)
    quantise_linears(int8)
    packed = copy.deepcopy(fused)
    pack_linears(packed)
    return dict(zip(VARIANTS, (plain, fused, packed, int8), strict=True))


def batch(rows: int, longest_s: float) -> PaddedAudio:
    """Noise."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(1.0, 0.75, rows) * longest_s * SAMPLE_RATE
    return pad([rng.standard_normal(int(length)).astype(np.float32) for length in lengths])


def run(encoder: Encoder, audio: PaddedAudio) -> Callable[[], None]:
    """One forward without a head."""

    def forward() -> None:
        with torch.inference_mode():
            encoder.hidden(encoder.trunk(audio, 0), encoder.bare)

    return forward


def race(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each in each round; the first round, in which kernels are compiled, does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, forward in runs.items():
            began = time.thread_time()
            forward()
            times[name].append(time.thread_time() - began)
    return {name: taken[1:] for name, taken in times.items()}


def spread(base: list[float], other: list[float]) -> str:
    """How many times as fast: the median over the rounds and the quartiles."""
    ratios = [a / b for a, b in zip(base, other, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return f"{median(ratios):.2f} ({low:.2f}-{high:.2f})"


if __name__ == "__main__":
    main()
