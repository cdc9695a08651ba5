"""n-gram models of words: probabilities that are some, in a form that the decoder reads."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc

import pytest

from adapters.errors import DataError
from adapters.language_model import LanguageModel, estimate, unpacked

SENTENCES = ["the big house", "the small house", "a big boat", "the big boat", "a boat", "the old old tree"]


def read(arpa: bytes) -> dict[tuple[str, ...], tuple[float, float]]:
    """Log10 probability and backoff weight of each gram."""
    found = {}
    for line in arpa.decode().splitlines():
        parts = line.split("\t")
        if len(parts) > 1:
            found[tuple(parts[1].split())] = (float(parts[0]), float(parts[2]) if len(parts) > 2 else 0.0)
    return found


def probability(grams: dict[tuple[str, ...], tuple[float, float]], word: str, context: tuple[str, ...]) -> float:
    """As any reader of ARPA files computes it."""
    backoff = 0.0
    while (*context, word) not in grams:
        if not context:
            word = "<unk>"
            continue
        backoff += grams.get(context, (0.0, 0.0))[1]
        context = context[1:]
    return 10 ** (grams[*context, word][0] + backoff)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_are_those_of_something_that_follows(order):
    grams = read(estimate(SENTENCES, order))
    words = {gram[0] for gram in grams if len(gram) == 1} - {"<s>"}
    contexts = [("<s>",), ("the",), ("old", "old"), ("<s>", "a"), ("boat",), ("never", "heard"), ("big", "never")]
    for context in contexts:
        total = sum(probability(grams, word, context[-(order - 1) :]) for word in words)
        assert total == pytest.approx(1.0, abs=1e-3), context


def test_what_was_seen_is_likelier():
    grams = read(estimate(SENTENCES))
    assert probability(grams, "house", ("the", "big")) > probability(grams, "tree", ("the", "big"))
    assert probability(grams, "the", ("<s>",)) > probability(grams, "house", ("<s>",))
    assert probability(grams, "boat", ("a",)) > probability(grams, "boat", ("old",)) > 0
    assert probability(grams, "boat", ()) > probability(grams, "unheard", ()) > 0


def test_its_words_are_told():
    model = LanguageModel(estimate(SENTENCES))
    assert sorted(model.words()) == sorted({*itertools.chain(*(text.split() for text in SENTENCES))})


@pytest.mark.parametrize(
    "arpa", [b"", b"hello", b"\\data\\\n\n\\1-grams:\n-1 word\n\\end\\\n", b"\\1-grams:\n\xff", b"\\1-grams:\n"]
)
def test_what_is_no_model_is_refused(arpa):
    with pytest.raises(DataError, match="ARPA"):
        LanguageModel(arpa).words()


@pytest.mark.parametrize("count", [b"-5", b"999", b"5 6", b"0x3", b"", b"1e3", b"9" * 30])
@pytest.mark.parametrize("order", [b"1", b"3"])
def test_counts_that_would_crash_kenlm_are_refused(order, count):
    arpa = estimate(SENTENCES)
    line = next(one for one in arpa.split(b"\n") if one.startswith(b"ngram " + order))
    with pytest.raises(DataError, match=r"ARPA format: its head has b'ngram"):
        LanguageModel(arpa.replace(line, b"ngram " + order + b"=" + count)).words()


def peak_bytes(model: LanguageModel) -> int:
    """Of memory that reading its words takes."""
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            model.words()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("before", [b"", b"\\data\\\n", b"hello\n", estimate(SENTENCES)])
def test_no_text_is_taken_apart_beyond_the_words(before):
    assert peak_bytes(LanguageModel(before + b"\n" * (1 << 20))) < 1 << 17


def test_only_what_kenlm_would_read_is_read():
    arpa = estimate(SENTENCES)
    words = LanguageModel(arpa).words()
    assert LanguageModel(b"\n \n" + arpa.replace(b"\n", b"\r\n")).words() == words
    with pytest.raises(DataError, match=r"ARPA format: it begins with b'hello.n', not with .data.$"):
        LanguageModel(b"hello\n" + arpa).words()


def test_a_line_ends_where_kenlm_ends_it():
    arpa = "\\data\\\nngram 1=2\n\n\\1-grams:\n-1\ta\u2028b\n-1\tc\x0cd\n\n\\end\\\n"
    assert LanguageModel(arpa.encode()).words() == ["a\u2028b", "c\x0cd"]


def test_a_model_of_nothing_is_refused():
    with pytest.raises(DataError, match="there are none"):
        estimate(["", " "])


def test_sentences_may_come_in_their_marks():
    assert estimate([f"<s> {text} </s>" for text in SENTENCES]) == estimate(SENTENCES)
    with pytest.raises(DataError, match="'</s>' is no word"):
        estimate(["the big </s> house"])


def test_it_is_packed_and_found_again():
    model = LanguageModel(estimate(SENTENCES))
    assert unpacked(model.packed) == model.arpa
    assert model.packed == LanguageModel(model.arpa).packed


@pytest.mark.parametrize(
    "content", [b"", b"\\data\\\n", LanguageModel(b"x" * 1000).packed[:-9]], ids=["", "text", "cut"]
)
def test_what_is_not_packed_is_refused(content):
    with pytest.raises(DataError, match=r"gzip|ARPA"):
        LanguageModel(unpacked(content)).words()


def test_a_small_file_does_not_become_a_large_one(monkeypatch):
    monkeypatch.setattr("adapters.language_model._MOST_BYTES", 1 << 20)
    with pytest.raises(DataError, match="of more than 1 MiB"):
        unpacked(LanguageModel(b"x" * ((1 << 20) + 1)).packed)
