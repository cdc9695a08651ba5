"""What the model makes of voices that it has never heard: telephone prompts of other speakers than it learnt from.

    python -m benchmarks.strangers [--models models/small] [--out data/strangers]

Debian has the prompts of Asterisk by further speakers: one of Bogotá, one from France and one of Italy, at 8 kHz, the
first two through GSM. Nobody wrote down what they say, and much is worded otherwise than where it is written; numbers,
days and months are not, and those are taken: single words, to which no sentence helps. Nothing is trained on them.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from adapters.training.corpus.build import Reject, distinct, with_usable_audio
from adapters.training.corpus.packages import unpacked_tree
from adapters.training.corpus.sources import Recording, asterisk_texts
from adapters.training.corpus.text import UnusableText, normalise
from adapters.training.evaluate import evaluate
from adapters.training.manifest import Clip, write_manifest
from benchmarks.server import ROOT

SPEAKERS = {
    "es": ("asterisk-prompt-es-co", "es", "GPL-2.0-only"),
    "fr": ("asterisk-prompt-fr-armelle", "fr", "GPL-2.0-only"),
    "it": ("asterisk-prompt-it-menardi-wav", "it_IT_f_Menardi", "CC-BY-SA-3.0"),
}
"""By language: package, its folder of sounds, licence."""
_FORMATS = (".gsm", ".wav")
_SAME_WORDING = re.compile(r"digits/(\d+|day-\d+|mon-\d+)")


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=ROOT / "models/small")
    parser.add_argument("--out", type=Path, default=Path("data/strangers"), help="folder for their clips")
    parser.add_argument("--packages", type=Path, help="folder with the .deb files, or with an unpacked usr/")
    given = parser.parse_args(argv)
    packages = [package for package, *_ in SPEAKERS.values()] + [f"asterisk-core-sounds-{tag}" for tag in SPEAKERS]
    root = unpacked_tree(packages, given.out / ".packages", given.packages)
    manifest = given.out / "manifest.jsonl"
    write_manifest(manifest, strangers(root, given.out))
    rates = evaluate(given.models, manifest)
    print("| language | clips | CER | WER |\n|---|---|---|---|")
    for language, one in rates.items():
        print(f"| {language} | {one.clips} | {100 * one.cer:.1f} | {100 * one.wer:.1f} |")
    cer, wer = (100 * sum(getattr(one, name) for one in rates.values()) / len(rates) for name in ("cer", "wer"))
    print(f"| mean | | {cer:.1f} | {wer:.1f} |")


def strangers(root: Path, out: Path) -> list[Clip]:
    """The prompts under ``root`` as clips of a test split, their audio in ``out``; how many are left out is printed."""
    console, clips = Console(stderr=True), []
    for language in SPEAKERS:
        rejects: list[Reject] = []
        found = list(_prompts(root, language))
        usable = with_usable_audio(distinct(found, rejects), out, 1, console, rejects)
        console.print(f"{language}: {len(usable)} clips of {len(found)} numbers, days and months")
        clips += [replace(clip, split="test") for clip in usable]
    return clips


def _prompts(root: Path, language: str) -> Iterator[Recording]:
    package, folder, licence = SPEAKERS[language]
    listed = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    texts = asterisk_texts(gzip.decompress(listed.read_bytes()))
    sounds = root / "usr/share/asterisk/sounds" / folder
    for path in sorted(path for path in sounds.rglob("*") if path.suffix in _FORMATS):
        name = path.relative_to(sounds).with_suffix("").as_posix()
        if not _SAME_WORDING.fullmatch(name):
            continue
        try:
            text = normalise(texts.get(name, ""), language)
        except UnusableText:  # a number in digits
            continue
        yield Recording(path, name.replace("/", "--"), text, language, package, licence, where=str(path))


if __name__ == "__main__":
    main()
