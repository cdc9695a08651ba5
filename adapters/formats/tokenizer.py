"""What a tokenizer of transformers says of its vocabulary besides the ids: blank, delimiter, case, tokens beyond it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.errors import AdapterFormatError, DataError
from adapters.formats.files import read_json
from adapters.vocab import BLANK, BLANKS, DELIMITER, SIGMA, Vocab, is_special

TOKENIZER, ADDED, SPECIAL = "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"
_CONFIG = "config.json"
_KINDS = ("Wav2Vec2CTCTokenizer", "Wav2Vec2Tokenizer")
_SILENT_DELIMITER = "<|>"
_MOST_DIGITS = 10


@dataclass(frozen=True)
class Tokenizer:
    """``pad``: the token that it takes for CTC's blank, where it says so; ``blank_id``: the one that the model was
    trained with (``pad_token_id`` of its configuration). ``delimiter`` parts words, and is ``between`` in a text.
    ``lower``: texts come in small letters. ``added``: tokens beyond ``vocab.json``."""

    pad: str | None = None
    blank_id: int | None = None
    delimiter: str = DELIMITER
    between: str = " "
    lower: bool = False
    added: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, folder: Path) -> Tokenizer:
        """Of the files in ``folder``; where there are none, as transformers' own begins.

        Raises :class:`~adapters.errors.AdapterFormatError` for a tokenizer that makes texts in another way, by name.
        """
        told, config, special = (
            read_json(name, folder / file) if (folder / file).exists() else {} for file in (TOKENIZER, _CONFIG, SPECIAL)
        )
        kind = told.get("tokenizer_class") or config.get("tokenizer_class")
        if kind is not None and kind not in _KINDS:
            right = f"those of {_KINDS[0]} can be worn"
            raise AdapterFormatError(name, f"the tokenizer in {folder} is a {kind}, which makes other texts; {right}")
        blank_id = config.get("pad_token_id", 0) if config else None
        between = told.get("replace_word_delimiter_char", " ")
        return cls(
            pad=_content(told.get("pad_token")) or _content(special.get("pad_token")),
            blank_id=blank_id if type(blank_id) is int else None,
            delimiter=_content(told.get("word_delimiter_token")) or DELIMITER,
            between=between if isinstance(between, str) else " ",
            lower=bool(told.get("do_lower_case", False)),
            added=_added(name, folder, told),
        )

    def named(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """``tokens`` by id under the names that they have in a :class:`~adapters.vocab.Vocab`, which then makes the
        text that this tokenizer makes. Raises :class:`~adapters.errors.DataError` where it cannot."""
        blank = self._blank(tokens)
        found = [self._named(token, number, number == blank) for number, token in enumerate(tokens)]
        if twice := {name for name, count in Counter(found).items() if count > 1}:
            both = " and ".join(repr(token) for token, name in zip(tokens, found, strict=True) if name in twice)
            raise DataError(f"{both} make the same text by tokenizer_config.json (do_lower_case, delimiters)")
        if not self.lower and Vocab(tuple(found)).lowers:
            raise DataError(f"{SIGMA!r} among small letters stands for small ones here, and for itself there")
        return tuple(found)

    def _blank(self, tokens: Sequence[str]) -> int | None:
        known = [number for number, token in enumerate(tokens) if token in BLANKS]
        if len(known) > 1 and self.blank_id in known:
            return self.blank_id
        if self.pad in tokens:
            return tokens.index(self.pad)
        if len(known) > 1:
            both = " and ".join(tokens[number] for number in known)
            right = "pad_token in tokenizer_config.json beside it says which"
            raise DataError(f"both {both} are in it, one of which is the blank: {right}")
        return next(iter(known), None)

    def _named(self, token: str, number: int, blank: bool) -> str:
        if blank:
            return token if token in BLANKS else BLANK
        if token in BLANKS:
            return unused(number)
        if token == self.delimiter:
            if self.between == " ":
                return token if token == " " else DELIMITER
            token = self.between or _SILENT_DELIMITER
        if token == DELIMITER:
            raise DataError(f"{DELIMITER!r} is a letter of it, and parts words here; {self.delimiter!r} does so there")
        return _lowered(token) if self.lower and not is_special(token) else token


def _lowered(token: str) -> str:
    """But for a sigma, whose small form the rest of the word decides (:attr:`~adapters.vocab.Vocab.lowers`)."""
    return SIGMA.join(part.lower() for part in token.split(SIGMA))


def unused(number: int) -> str:
    """A special token for an id that says nothing."""
    return f"<unused-{number}>"


def _content(token: Any) -> str | None:
    """Of a token as tokenizers keep it: a string, or an object with more about it."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) and found else None


def _added(name: str, folder: Path, told: Mapping[str, Any]) -> dict[str, int]:
    """Tokens beyond ``vocab.json``, by the two ways in which tokenizers of this kind keep them."""
    if (folder / ADDED).exists():
        return {token: i for token, i in read_json(name, folder / ADDED).items() if type(i) is int}
    kept = told.get("added_tokens_decoder")
    found = kept.items() if isinstance(kept, dict) else ()
    return {
        one["content"]: int(i)
        for i, one in found
        if i.isdecimal() and len(i) < _MOST_DIGITS and isinstance(one, dict) and isinstance(one.get("content"), str)
    }
