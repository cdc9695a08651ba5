"""The tokens that a CTC head can say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from adapters.errors import DataError

BLANK = "<pad>"
DELIMITER = "|"
BLANKS = (BLANK, "[PAD]")
SIGMA = "Σ"
_SMALL_SIGMAS = str.maketrans(dict.fromkeys("σς", SIGMA))
_UNKNOWNS = ("<unk>", "[UNK]")
_SPECIAL = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")


def is_special(token: str) -> bool:
    """Whether a token adds nothing to a text, for it stands in angle or square brackets."""
    return _SPECIAL.fullmatch(token) is not None


def _is_text(token: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in token)


def _parted(texts: Iterable[str]) -> list[list[str]]:
    """As ``str.split(" ")`` parts a string of letters."""
    parts: list[list[str]] = [[]]
    for text in texts:
        if text == " ":
            parts.append([])
        else:
            parts[-1].append(text)
    return parts


@dataclass(frozen=True)
class Vocab:
    """Tokens by id, in the manner of Hugging Face's ``vocab.json``.

    One token is CTC's blank (``<pad>`` or ``[PAD]``, at any id), one may part words (``|``), and one may stand for the
    unknown (``<unk>``, ``[UNK]``). Whatever else stands in angle or square brackets is special too and has no text.
    A capital sigma where no other letter is one stands for both small ones: which it is, the word decides.
    """

    tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.tokens)) != len(self.tokens) or "" in self.tokens:
            raise DataError("a vocabulary holds every token once, and no empty one")
        if sum(token in BLANKS for token in self.tokens) != 1:
            raise DataError(f"a vocabulary needs one blank token, {BLANK!r}")
        if broken := next((token for token in self.tokens if not _is_text(token)), None):
            raise DataError(f"{broken[:40]!a} has half a surrogate pair in it; a token is text that UTF-8 can write")

    @property
    def size(self) -> int:
        """How many columns a head over this vocabulary has."""
        return len(self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def blank(self) -> int:
        """The id of CTC's blank; not always 0."""
        return next(i for i, token in enumerate(self.tokens) if token in BLANKS)

    @cached_property
    def delimiter(self) -> int | None:
        """The id of the token between words; a few published vocabularies have a plain space for it."""
        return self._ids.get(DELIMITER, self._ids.get(" "))

    @cached_property
    def unknown(self) -> int | None:
        """The id of the token for what the vocabulary lacks. Never a label: :meth:`encode` refuses instead."""
        return next((self._ids[token] for token in _UNKNOWNS if token in self._ids), None)

    def token_text(self, token_id: int) -> str:
        """What a token adds to a text: a space for the delimiter, nothing for special tokens."""
        return self._texts[token_id]

    @cached_property
    def says(self) -> np.ndarray:
        """(V,) bool: the tokens that add anything to a text, the space between words among them; not the blank."""
        texts = [text and number != self.blank for number, text in enumerate(self._texts)]
        return np.array(texts, dtype=bool)

    @cached_property
    def lowers(self) -> bool:
        """Whether words are told as ``str.lower`` has them: a sigma is the one letter that looks to its neighbours."""
        others = "".join(self._texts).replace(SIGMA, "")
        return others == others.lower() and any(SIGMA in text for text in self._texts)

    def told(self, word: str) -> str:
        """A word of which each token added its text, as a transcript has it."""
        return word.lower() if self.lowers else word

    def spelling(self, text: str) -> str:
        """A text, or a word, in the letters that are tokens: what :meth:`told` made of it undone."""
        return text.translate(_SMALL_SIGMAS) if self.lowers else text

    def spell(self, token_ids: np.ndarray) -> list[tuple[int, int, str]]:
        """The words of ``token_ids`` (N,), each with the place of its first token and the one behind its last. Every
        token is one that :attr:`says` something."""
        parts: Iterable[Sequence[str]]
        if self._letters is not None:
            parts = self._letters[token_ids].tobytes().decode("utf-32-le").split(" ")
        else:
            parts = _parted(self._texts[token_id] for token_id in token_ids.tolist())
        found, first = [], 0
        for part in parts:
            stop = first + len(part)
            if part:
                found.append((first, stop, self.told("".join(part))))
            first = stop + 1
        return found

    @cached_property
    def _letters(self) -> np.ndarray | None:
        """(V,) code points, where no token is more than one."""
        if any(len(text) > 1 for text in self._texts):
            return None
        return np.array([ord(text or " ") for text in self._texts], dtype="<u4")

    def encode(self, text: str) -> list[int]:
        """Label ids of ``text``, longest token first; runs of white space are one delimiter.

        Raises :class:`DataError` naming every character that no token spells.
        """
        ids: list[int] = []
        unknown: dict[str, None] = {}
        text = self.spelling(" ".join(text.split()))
        at = 0
        while at < len(text):
            for width in range(min(self._longest, len(text) - at), 0, -1):
                token_id = self._spelled.get(text[at : at + width])
                if token_id is not None:
                    ids.append(token_id)
                    break
            else:
                width = 1
                unknown[text[at]] = None
            at += width
        if unknown:
            raise DataError(f"no token for {', '.join(map(repr, unknown))} in {text[:80]!r}")
        return ids

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Vocab:
        """Blank, delimiter, and every character of ``texts`` in the order of code points."""
        characters = {character for text in texts for character in "".join(text.split())}
        if DELIMITER in characters:
            raise DataError(f"{DELIMITER!r} parts words in a vocabulary, so that no text may hold it")
        return cls((BLANK, DELIMITER, *sorted(characters)))

    @classmethod
    def from_json(cls, data: str | bytes) -> Vocab:
        """From ``{token: id}``. Raises :class:`DataError` where it is anything else, or ids do not count from 0."""
        try:
            ids = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"a vocabulary is JSON, {{token: id}}: {error}") from error
        return cls.from_ids(ids)

    @classmethod
    def from_ids(cls, ids: object) -> Vocab:
        """From ``{token: id}`` as :meth:`from_json`."""
        if not isinstance(ids, dict) or not all(type(token_id) is int for token_id in ids.values()):
            raise DataError("a vocabulary is one flat JSON object, {token: id}")
        if sorted(ids.values()) != list(range(len(ids))):
            raise DataError("the ids of a vocabulary count from 0 without gaps or repeats")
        return cls(tuple(sorted(ids, key=ids.__getitem__)))

    def to_json(self) -> str:
        """``{token: id}``, ascending: equal vocabularies give equal bytes."""
        return json.dumps(self._ids, ensure_ascii=False, indent=0)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(" " if t == DELIMITER else "" if is_special(t) else t for t in self.tokens)

    @cached_property
    def _spelled(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self._texts) if text}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._spelled), default=1)
