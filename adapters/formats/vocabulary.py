"""``vocab.json`` as tokenizers keep it: flat, or nested by language, with tokens that were added beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.errors import AdapterFormatError, DataError
from adapters.formats.files import read_json
from adapters.formats.tokenizer import Tokenizer, unused
from adapters.language import language_key
from adapters.vocab import Vocab, is_special

_MOST_TOKENS = 1 << 16
_MOST_ROWS_A_TOKEN = 2


def read_vocabulary(name: str, path: Path, rows: int, language: str | None = None) -> Vocab:
    """What a head of so many ``rows`` says: ``{token: id}``, or of ``{LANG: {token: id}}`` the part of ``language``, as
    the tokenizer whose files lie beside it makes texts of them.

    Where the file has fewer tokens than the head has rows, those that the tokenizer adds (``added_tokens.json`` or
    ``tokenizer_config.json``) fill it up; special ones that the head has no row for are left out. Rows beyond all of
    them say nothing (:func:`vocab_of`).
    Raises :class:`~adapters.errors.AdapterFormatError`.
    """
    if rows > _MOST_TOKENS:
        raise AdapterFormatError(name, f"the head has {rows} rows; {_MOST_TOKENS} are the most")
    tokenizer = Tokenizer.read(name, path.parent)
    kept = fitted(name, part_of(name, read_json(name, path), language), tokenizer, rows)
    vocab = vocab_of(name, kept, tokenizer, str(path), rows)
    if vocab.size != rows:
        told = f"{path} has {len(kept)} tokens, the last with the id {max(kept.values())}"
        raise AdapterFormatError(name, f"{told}, and the head has {rows} rows: it is another's")
    return vocab


def fitted(
    name: str, ids: Mapping[str, Any], tokenizer: Tokenizer, rows: int | None, source: str = "its vocab.json"
) -> dict[str, int]:
    """``{token: id}`` for a head of so many ``rows``: with the tokens that ``tokenizer`` adds where it has rows that no
    token has, without special ones that it has no row for. Where ``rows`` are not known, those added count whose ids
    follow without a gap. Raises :class:`~adapters.errors.AdapterFormatError`."""
    tokens = _checked(name, ids, source)
    taken = set(tokens.values())
    if rows is None:
        following = {i for token, i in tokenizer.added.items() if token not in tokens}
        rows = max(taken, default=-1) + 1
        while rows in following:
            rows += 1
    free = {token: i for token, i in tokenizer.added.items() if 0 <= i < rows and i not in taken}
    special = tokenizer.added.keys() | {token for token in tokens if is_special(token)}
    return {token: i for token, i in (free | tokens).items() if i < rows or token not in special}


def vocab_of(name: str, ids: Mapping[str, Any], tokenizer: Tokenizer, source: str, rows: int | None = None) -> Vocab:
    """The tokens of ``{token: id}`` as ``tokenizer`` makes texts of them. An id without a token, which transformers
    takes for ``<unk>``, says nothing: within, and beyond the last up to the head's ``rows``, where these are no more
    than twice as many. Models are made with 32 rows when nobody says how many (``vocab_size``), and some round theirs
    up; where most rows have no token, the vocabulary is taken for another head's, and no row is added.
    Raises :class:`~adapters.errors.AdapterFormatError`, telling the ``source``."""
    tokens = _checked(name, ids, source)
    last = max(tokens.values(), default=-1)
    if last >= _MOST_TOKENS:
        raise AdapterFormatError(name, f"{source} has the id {last}; {_MOST_TOKENS} tokens are the most")
    ids_taken = set(tokens.values())
    if len(ids_taken) != len(tokens):
        raise AdapterFormatError(name, f"{source} has one id for several tokens")
    size = last + 1
    if rows is not None and size < rows <= min(size * _MOST_ROWS_A_TOKEN, _MOST_TOKENS):
        size = rows
    all_ids = tokens | {unused(i): i for i in range(size) if i not in ids_taken}
    try:
        return Vocab(tokenizer.named(sorted(all_ids, key=all_ids.__getitem__)))
    except DataError as error:
        raise AdapterFormatError(name, f"{source}: {error}") from error


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


def _checked(name: str, ids: Mapping[str, Any], source: str = "its vocab.json") -> dict[str, int]:
    for token, i in ids.items():
        if type(i) is not int or i < 0:
            raise AdapterFormatError(name, f"{source} has {str(i)[:40]!r} for {token!r}, which is no id of a token")
    return dict(ids)
