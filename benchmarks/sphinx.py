"""English next to CMU Sphinx's packaged model, on the same clips: WER and CER, normalised alike.

    python -m benchmarks.sphinx --data MANIFEST [--models models/small]

PocketSphinx hears each clip by itself, at its defaults; the adapter as the service hears it, greedily and, where it
brings a language model, with a beam search.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from adapters.training.clip_samples import read_clip
from adapters.training.corpus.text import UnusableText, normalise
from adapters.training.evaluate import evaluate
from adapters.training.manifest import Clip, read_manifest
from benchmarks.server import ROOT


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the manifest.jsonl of a corpus")
    parser.add_argument("--models", type=Path, default=ROOT / "models/small")
    given = parser.parse_args(argv)
    clips = [clip for clip in read_manifest(given.data) if (clip.language, clip.split) == ("en", "test")]
    print("| English, test split | CER | WER |\n|---|---|---|")
    print(_line("CMU Sphinx, packaged model", *sphinx_rates(clips)))
    ours = evaluate(given.models, given.data, languages=["en"])["en"]
    print(_line(given.models.name, ours.cer, ours.wer))


def sphinx_rates(clips: Sequence[Clip]) -> tuple[float, float]:
    """CER and WER of PocketSphinx."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16_000, loglevel="FATAL")
    heard = [_normalised(_said(decoder, read_clip(clip.path))) for clip in clips]
    truth = [clip.text for clip in clips]
    return float(jiwer.cer(truth, heard)), float(jiwer.wer(truth, heard))


def _said(decoder: object, samples: np.ndarray) -> str:
    d: Any = decoder
    d.start_utt()
    d.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
    d.end_utt()
    found = d.hyp()
    return found.hypstr if found is not None else ""


def _normalised(text: str) -> str:
    try:
        return normalise(text, "en")
    except UnusableText:
        return ""


def _line(name: str, cer: float, wer: float) -> str:
    return f"| {name} | {100 * cer:.1f} | {100 * wer:.1f} |"


if __name__ == "__main__":
    main()
