"""What the model makes of voices that it has never heard: telephone prompts of other speakers than it learnt from.

    python -m benchmarks.strangers --data data/corpus/manifest.jsonl [--models models/small] [--out data/strangers]

Debian has the prompts of Asterisk by further speakers: one of Bogotá, one from France and one of Italy, at 8 kHz, the
first two through GSM. Their texts are those of the prompts that the corpus has, found by their names; some were worded
otherwise, which counts as errors. Nothing is trained on them. Apart are those whose sentence is in no train split.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from adapters.training.corpus.build import Reject, distinct, with_usable_audio
from adapters.training.corpus.packages import unpacked_tree
from adapters.training.corpus.sources import Recording, asterisk_texts
from adapters.training.corpus.text import UnusableText, normalise
from adapters.training.evaluate import Rates, evaluate
from adapters.training.manifest import Clip, read_manifest, write_manifest
from benchmarks.server import ROOT

SPEAKERS = {
    "es": ("asterisk-prompt-es-co", "es", "GPL-2.0-only"),
    "fr": ("asterisk-prompt-fr-armelle", "fr", "GPL-2.0-only"),
    "it": ("asterisk-prompt-it-menardi-wav", "it_IT_f_Menardi", "CC-BY-SA-3.0"),
}
"""By language: package, its folder of sounds, licence."""
_FORMATS = (".gsm", ".wav")
_LEAST_LETTERS = 8  # of less, CER says nothing


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="the manifest.jsonl of the corpus that was learnt from"
    )
    parser.add_argument("--models", type=Path, default=ROOT / "models/small")
    parser.add_argument("--out", type=Path, default=Path("data/strangers"), help="folder for their clips")
    parser.add_argument("--packages", type=Path, help="folder with the .deb files, or with an unpacked usr/")
    given = parser.parse_args(argv)
    packages = [package for package, *_ in SPEAKERS.values()] + [f"asterisk-core-sounds-{tag}" for tag in SPEAKERS]
    root = unpacked_tree(packages, given.out / ".packages", given.packages)
    learnt = {clip.text for clip in read_manifest(given.data) if clip.split == "train"}
    clips = strangers(root, given.out)
    print("| language | clips | CER | WER | clips of new sentences | CER | WER |\n|---|---|---|---|---|---|---|")
    every = _rates(given.models, clips, given.out / "manifest.jsonl")
    new = _rates(given.models, [clip for clip in clips if clip.text not in learnt], given.out / "new.jsonl")
    for language in every:
        cells = [_cells(rates[language]) if language in rates else "0 | |" for rates in (every, new)]
        print(f"| {language} | {' | '.join(cells)} |")


def strangers(root: Path, out: Path) -> list[Clip]:
    """The prompts under ``root`` as clips of a test split, their audio in ``out``; how many are left out is printed."""
    console, clips = Console(stderr=True), []
    for language in SPEAKERS:
        rejects: list[Reject] = []
        found = list(_prompts(root, language))
        usable = with_usable_audio(distinct(found, rejects), out, 1, console, rejects)
        console.print(f"{language}: {len(usable)} clips of {len(found)} prompts whose text is known")
        clips += [replace(clip, split="test") for clip in usable]
    return clips


def _prompts(root: Path, language: str) -> Iterator[Recording]:
    package, folder, licence = SPEAKERS[language]
    listed = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    texts = asterisk_texts(gzip.decompress(listed.read_bytes()))
    sounds = root / "usr/share/asterisk/sounds" / folder
    for path in sorted(path for path in sounds.rglob("*") if path.suffix in _FORMATS):
        name = path.relative_to(sounds).with_suffix("").as_posix()
        try:
            text = normalise(texts.get(name, ""), language)
        except UnusableText:
            continue
        if len(text) >= _LEAST_LETTERS:
            yield Recording(path, name.replace("/", "--"), text, language, package, licence, where=str(path))


def _rates(models: Path, clips: Sequence[Clip], manifest: Path) -> dict[str, Rates]:
    write_manifest(manifest, clips)
    return evaluate(models, manifest) if clips else {}


def _cells(rates: Rates) -> str:
    return f"{rates.clips} | {100 * rates.cer:.1f} | {100 * rates.wer:.1f}"


if __name__ == "__main__":
    main()
