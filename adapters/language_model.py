"""An n-gram model of a language's words, as ARPA text: what a beam search weighs words by.

Any tool's model will do (KenLM's ``lmplz``, SRILM); :func:`estimate` makes one of sentences, by interpolated
Kneser-Ney smoothing with one discount an order (Chen and Goodman 1999, section 4.1.6).
"""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from adapters.errors import DataError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
_FIRST = b"\\data\\"
_COUNT = re.compile(rb"ngram +[0-9]{1,2} *= *([0-9]{1,12})")
_NEVER = -99.0
_MOST_BYTES = 1 << 28
"""Of the text of a model that was packed: what a small file may become in memory."""

Gram = tuple[str, ...]


@dataclass(frozen=True)
class LanguageModel:
    """``arpa``: the text of the model. ``alpha``: its weight against the emissions; ``beta``: added for each word."""

    arpa: bytes
    alpha: float = 0.5
    beta: float = 1.0

    @property
    def packed(self) -> bytes:
        """The text, by gzip; the same bytes for the same text."""
        return gzip.compress(self.arpa, mtime=0)

    def words(self) -> list[str]:
        """Those that it knows, each decoded as it is read, and nothing after them. Raises
        :class:`~adapters.errors.DataError` where it is not ARPA text."""
        found: list[str] = []
        begun = headed = inside = False
        most = self.arpa.count(b"\n") + 1
        try:
            for line in io.BytesIO(self.arpa):
                if not begun:
                    begun = line.strip() == _FIRST
                    if not begun and line.strip():
                        said = f"it begins with {line[:40]!r}, not with {_FIRST.decode()}"
                        raise DataError(f"not a language model in ARPA format: {said}")
                elif line.startswith(b"\\"):
                    if inside:
                        return found
                    headed, inside = True, line.strip() == b"\\1-grams:"
                elif not headed and line.strip():
                    told = _COUNT.fullmatch(line.strip())
                    if told is None or int(told[1]) > most:  # KenLM would crash, or ask for memory for them all
                        said = f"its head has {line.strip()[:40]!r}, not 'ngram N=M' with as many lines as there are"
                        raise DataError(f"not a language model in ARPA format: {said}")
                elif inside and line.strip():
                    found.append(line.rstrip(b"\r\n").split(b"\t")[1].decode())
                    if found[-1] in (BEGIN, END, UNKNOWN):
                        found.pop()
        except (UnicodeDecodeError, IndexError) as error:
            raise DataError(f"not a language model in ARPA format: {error}") from error
        raise DataError("not a language model in ARPA format: it has no section \\1-grams: that ends")


def unpacked(content: bytes) -> bytes:
    """The text of :attr:`LanguageModel.packed`. Raises :class:`~adapters.errors.DataError` where it is none."""
    try:
        arpa = gzip.GzipFile(fileobj=io.BytesIO(content)).read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"not a gzip file: {error}") from error
    if len(arpa) > _MOST_BYTES:
        raise DataError(f"a language model of more than {_MOST_BYTES >> 20} MiB; prune it")
    return arpa


def unmarked(sentence: str) -> str:
    """Without the marks of begin and end around it. Raises :class:`~adapters.errors.DataError` for one anywhere else:
    models have it for their own."""
    words = sentence.split()
    words = words[words[:1] == [BEGIN] :]
    words = words[: len(words) - (words[-1:] == [END])]
    if marks := [word for word in words if word in (BEGIN, END, UNKNOWN)]:
        raise DataError(f"{marks[0]!r} is no word, but a mark of language models: {sentence[:80]!r}")
    return " ".join(words)


def estimate(sentences: Iterable[str], order: int = 3) -> bytes:
    """Normalised sentences -> ARPA text. Raises :class:`~adapters.errors.DataError` where there are none, and as
    :func:`unmarked` does."""
    texts = [unmarked(text).split() for text in sentences]
    if not any(texts):
        raise DataError("a language model needs sentences to be made of, and there are none")
    counts = [Counter[Gram]() for _ in range(order)]
    for words in texts:
        said = (BEGIN, *words, END)
        for size in range(1, order + 1):
            counts[size - 1].update(said[i : i + size] for i in range(len(said) - size + 1))
    counts[0].pop((BEGIN,))
    for size in range(order - 1, 0, -1):  # below the highest order, in how many contexts a gram was seen
        follows = Counter(gram[1:] for gram in counts[size])
        counts[size - 1] = Counter({g: follows.get(g, c) if g[0] != BEGIN else c for g, c in counts[size - 1].items()})
    return _arpa(_smoothed(counts))


def _smoothed(counts: list[Counter[Gram]]) -> list[dict[Gram, tuple[float, float]]]:
    """For each order, every gram's probability, and the weight of shorter ones after it as a context."""
    vocabulary = len(counts[0]) + 1  # the unknown word besides
    grams: list[dict[Gram, tuple[float, float]]] = []
    lower: dict[Gram, float] = {}
    backoffs: list[dict[Gram, float]] = []
    for found in counts:
        discount = _discount(found)
        totals, kinds = Counter[Gram](), Counter[Gram]()
        for gram, count in found.items():
            totals[gram[:-1]] += count
            kinds[gram[:-1]] += 1
        backoff = {context: discount * kinds[context] / totals[context] for context in totals}
        probabilities: dict[Gram, float] = {}
        for gram, count in found.items():
            context = gram[:-1]
            shorter = lower[gram[1:]] if context else 1 / vocabulary
            probabilities[gram] = max(count - discount, 0) / totals[context] + backoff[context] * shorter
        if not lower:
            probabilities[(UNKNOWN,)] = backoff[()] / vocabulary
        grams.append({gram: (probability, 1.0) for gram, probability in probabilities.items()})
        backoffs.append(backoff)
        lower = probabilities
    for size in range(1, len(grams)):
        for context, weight in backoffs[size].items():
            probability, _ = grams[size - 1].get(context, (0.0, 1.0))  # a sentence's begin is never said
            grams[size - 1][context] = (probability, weight)
    return grams


def _discount(counts: Counter[Gram]) -> float:
    once, twice = (sum(count == n for count in counts.values()) for n in (1, 2))
    return once / (once + 2 * twice) if once and twice else 0.5


def _arpa(grams: list[dict[Gram, tuple[float, float]]]) -> bytes:
    lines = ["\\data\\", *(f"ngram {size}={len(found)}" for size, found in enumerate(grams, start=1)), ""]
    for size, found in enumerate(grams, start=1):
        lines.append(f"\\{size}-grams:")
        for gram, (probability, backoff) in sorted(found.items()):
            told = f"{_log(probability):.5f}\t{' '.join(gram)}"
            lines.append(told if size == len(grams) else f"{told}\t{_log(backoff):.5f}")
        lines.append("")
    return ("\n".join([*lines, "\\end\\"]) + "\n").encode()


def _log(value: float) -> float:
    return math.log10(value) if value > 0 else _NEVER
