"""``vocab.json`` as tokenizers keep it: flat, or nested by language, with tokens that were added beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.errors import AdapterFormatError, DataError
from adapters.formats.files import read_json
from adapters.language import language_key
from adapters.vocab import Vocab

ADDED, TOKENIZER = "added_tokens.json", "tokenizer_config.json"


def read_vocabulary(name: str, path: Path, rows: int, language: str | None = None) -> Vocab:
    """What a head of so many ``rows`` says: ``{token: id}``, or of ``{LANG: {token: id}}`` the part of ``language``.

    Where the file has fewer tokens than the head has rows, those that the tokenizer adds (``added_tokens.json`` or
    ``tokenizer_config.json`` beside it) fill it up. Raises :class:`~adapters.errors.AdapterFormatError`.
    """
    tokens: Mapping[str, Any] = part_of(name, read_json(name, path), language)
    if len(tokens) < rows:
        missing = set(range(rows)) - set(tokens.values())
        tokens = {**tokens, **{token: i for token, i in _added(name, path.parent).items() if i in missing}}
    try:
        vocab = Vocab.from_ids(dict(tokens))
    except DataError as error:
        raise AdapterFormatError(name, f"{path}: {error}") from error
    if vocab.size != rows:
        raise AdapterFormatError(name, f"{path} has {vocab.size} tokens, and the head has {rows}: it is another's")
    return vocab


def part_of(name: str, found: Mapping[str, Any], language: str | None) -> Mapping[str, Any]:
    """Of a vocabulary that is nested, the part of ``language``, by its very name or by any other name of it; a flat one
    is all of it. Raises :class:`~adapters.errors.AdapterFormatError` naming what there is."""
    if not found or not all(isinstance(part, dict) for part in found.values()):
        return found
    if language is None:
        meant = list(found)
    elif language in found:
        meant = [language]
    else:
        key = language_key(language)
        meant = [code for code in found if key is not None and language_key(code) == key]
    if len(meant) != 1:
        some = ", ".join(sorted(meant or found)[:10])
        said = f"several languages, and {language!r} names no single one" if language else "several languages"
        raise AdapterFormatError(name, f"its vocab.json has {said}: {some}")
    part: Mapping[str, Any] = found[meant[0]]
    return part


def _added(name: str, folder: Path) -> dict[str, int]:
    """Tokens beyond ``vocab.json``, by the two ways in which tokenizers of this kind keep them."""
    if (folder / ADDED).exists():
        return {token: i for token, i in read_json(name, folder / ADDED).items() if type(i) is int}
    if not (folder / TOKENIZER).exists():
        return {}
    kept = read_json(name, folder / TOKENIZER).get("added_tokens_decoder")
    found = kept.items() if isinstance(kept, dict) else ()
    return {
        one["content"]: int(i)
        for i, one in found
        if i.isdecimal() and isinstance(one, dict) and isinstance(one.get("content"), str)
    }
