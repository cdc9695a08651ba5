"""What the packages say in a language, recorded or not: sentences for a synthesizer."""

from __future__ import annotations

import gettext
import gzip
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from adapters.training.corpus.sources import asterisk_texts, lua_dialogs, tuxpaint_texts
from adapters.training.corpus.text import UnusableText, normalise

PACKAGES = ("tuxpaint-stamps-default", "fillets-ng-data")
MORE_PACKAGES = ("wesnoth-1.16-data",)
_MOST_LETTERS = 160
_LEAST_WORDS = 2
_MARKUP = re.compile(r"<[^>]*>|\$\w+\|?|%\w|\\\w|\^")
_BETWEEN = re.compile(r"[.!?;:…\n()\[\]\"«»„“”]+|\s[-–—]+\s|[–—]+")


def sentences(root: Path, language: str) -> list[str]:
    """What is said with pictures, in dialogues and by prompts. Normalised, each once, sorted; those that cannot be
    normalised are left out."""
    return sorted(_normalised(_raw(root, language), language))


def more_sentences(root: Path, language: str) -> list[str]:
    """What a game's stories and menus say besides, in an order of no meaning."""
    found = {text for text in _normalised(_wesnoth(root, language), language) if len(text.split()) >= _LEAST_WORDS}
    return sorted(found, key=lambda text: sha256(text.encode()).digest())


def _normalised(texts: Iterator[str], language: str) -> set[str]:
    found = set()
    for text in texts:
        try:
            said = normalise(text, language)
        except UnusableText:
            continue
        if len(said) <= _MOST_LETTERS:
            found.add(said)
    return found


def _wesnoth(root: Path, language: str) -> Iterator[str]:
    """Its messages, cut where sentences and clauses end. English is what the others are translated from."""
    catalogues = "usr/share/games/wesnoth/*/locale"
    for path in sorted(root.glob(f"{catalogues}/{'de' if language == 'en' else language}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            messages: dict[str | tuple[str, int], str] = vars(gettext.GNUTranslations(file))["_catalog"]
        for original, translated in messages.items():
            text = original if language == "en" else translated
            if original and isinstance(text, str):
                text = text.rpartition("\4")[2]  # after the context
                yield from filter(None, map(str.strip, _BETWEEN.split(_MARKUP.sub(" ", text))))


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
