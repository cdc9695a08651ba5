"""What the packages say in a language, recorded or not: sentences for a synthesizer."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

from adapters.training.corpus.sources import asterisk_texts, lua_dialogs, tuxpaint_texts
from adapters.training.corpus.text import UnusableText, normalise

PACKAGES = ("tuxpaint-stamps-default", "fillets-ng-data")
_MOST_LETTERS = 160


def sentences(root: Path, language: str) -> list[str]:
    """Normalised, each once, sorted; those that cannot be normalised are left out."""
    found = set()
    for text in _raw(root, language):
        try:
            said = normalise(text, language)
        except UnusableText:
            continue
        if len(said) <= _MOST_LETTERS:
            found.add(said)
    return sorted(found)


def _raw(root: Path, language: str) -> Iterator[str]:
    for path in sorted((root / "usr/share/tuxpaint/stamps").rglob("*.txt")):
        text = tuxpaint_texts(path.read_bytes()).get(language)
        if text:
            yield text
    for path in sorted((root / "usr/share/games/fillets-ng/script").glob(f"*/dialogs_{language}.lua")):
        for _, text in lua_dialogs(path.read_text(encoding="utf-8", errors="replace")).values():
            yield text
    prompts = root / f"usr/share/doc/asterisk-core-sounds-{language}/core-sounds-{language}.txt.gz"
    if prompts.is_file():
        yield from asterisk_texts(gzip.decompress(prompts.read_bytes())).values()
