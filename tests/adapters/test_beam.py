"""A beam search over emissions: what is clear is what greedy decoding says, what is not the words decide."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from adapters import pauses
from adapters.beam import BeamSearch
from adapters.ctc import BestPath, transcript
from adapters.errors import BadHotWord, DataError, DecodingUnavailable
from adapters.language_model import LanguageModel, estimate
from adapters.vocab import Vocab
from tests.builders import miscounted

VOCAB = Vocab(("<s>", "a", "b", "c", "t", "o", "<pad>", "|", "<unk>"))
BLANK, DELIMITER = VOCAB.blank, VOCAB.delimiter
TIMES: dict[str, Any] = {"frame_s": 0.02, "duration_s": 9.0}


def emissions(*frames: dict[str, float]) -> np.ndarray:
    """(T, V): what is left of a frame's probability is spread over the others; "_" is the blank."""
    ids = {**{token: i for i, token in enumerate(VOCAB.tokens)}, "_": BLANK, " ": DELIMITER}
    found = np.full((len(frames), VOCAB.size), 1e-6)
    for row, frame in zip(found, frames, strict=True):
        for text, probability in frame.items():
            row[ids[text]] = probability
    told: np.ndarray = np.log(found / found.sum(axis=1, keepdims=True)).astype(np.float32)
    return told


def spelled(text: str) -> list[dict[str, float]]:
    """Each letter for two frames, a blank after it."""
    return [{letter: 0.98} if part < 2 else {"_": 0.98} for letter in text for part in range(3)]


def test_what_is_clear_is_what_greedy_decoding_says():
    found = emissions({"_": 0.9}, *spelled("cat boat"))
    path = BestPath(found.argmax(axis=1).astype(np.int32), np.exp(found.max(axis=1)))
    greedy = transcript(path, VOCAB, **TIMES)
    heard = BeamSearch(VOCAB).transcript(found, **TIMES)
    assert heard.text == greedy.text == "cat boat"
    for ours, theirs in zip(heard.words, greedy.words, strict=True):
        assert ours.start_s == pytest.approx(theirs.start_s, abs=0.021)
        assert ours.end_s == pytest.approx(theirs.end_s, abs=0.041)
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-3)
    assert heard.confidence == pytest.approx(greedy.confidence, abs=1e-3)


UNCLEAR = emissions(*spelled("a "), *spelled("c"), *[{"a": 0.49, "o": 0.51}] * 2, {"_": 0.98}, *spelled("t"))


def test_a_language_model_decides_between_words():
    model = LanguageModel(estimate(["a cat", "the cat", "a boat"]), alpha=0.7, beta=1.0)
    assert BeamSearch(VOCAB).transcript(UNCLEAR, **TIMES).text == "a cot"
    assert BeamSearch(VOCAB, model).transcript(UNCLEAR, **TIMES).text == "a cat"


def test_hot_words_are_listened_for():
    search = BeamSearch(VOCAB)
    assert search.transcript(UNCLEAR, **TIMES, hot_words=["cat"]).text == "a cat"
    assert search.transcript(UNCLEAR, **TIMES, hot_words=["CAT"]).text == "a cat", "in small letters, as it speaks"
    assert search.transcript(UNCLEAR, **TIMES).text == "a cot", "and the next request has none"


def test_a_hot_word_that_cannot_be_said_is_refused():
    with pytest.raises(BadHotWord, match="'cäsar' has 'ä'"):
        BeamSearch(VOCAB).transcript(UNCLEAR, **TIMES, hot_words=["cäsar"])


def test_silence_says_nothing():
    heard = BeamSearch(VOCAB).transcript(emissions(*[{"_": 0.99}] * 5), **TIMES)
    assert (heard.text, heard.words, heard.confidence) == ("", (), None)


def test_frames_that_nobody_heard_are_blank():
    loud = emissions(*spelled("cat"))
    path = BestPath(loud.argmax(axis=1).astype(np.int32), np.exp(loud.max(axis=1)), loud)
    joined = BestPath.join([BestPath.blanks(4, BLANK), path, BestPath.blanks(2, BLANK)])
    assert joined.emissions is not None
    assert joined.emissions.shape == (len(loud) + 6, VOCAB.size)
    heard = BeamSearch(VOCAB).transcript(joined.emissions, **TIMES)
    assert (heard.text, heard.words[0].start_s) == ("cat", 0.08)
    np.testing.assert_array_equal(joined.emissions[4 : 4 + len(loud)], loud)
    cut = joined.slice(4, 4 + len(loud)).emissions
    assert cut is not None
    np.testing.assert_array_equal(cut, loud)


def test_a_long_recording_is_searched_in_parts_and_says_the_same(monkeypatch):
    pause = [{"_": 0.9999}] * 30
    said = emissions(*([*spelled("a cat boat"), {"a": 0.5, "o": 0.49}, *spelled("t "), *pause] * 40))
    search = BeamSearch(VOCAB)
    parts = list(search.words(said, **TIMES, hot_words=["cab"]))
    assert len(said) / pauses.MOST < len(parts) < 6
    assert all(parts)
    found = search.transcript(said, **TIMES, hot_words=["cab"])
    assert list(found.words) == [word for part in parts for word in part]
    monkeypatch.setattr(pauses, "MOST", len(said))
    assert found == search.transcript(said, **TIMES, hot_words=["cab"])
    assert found.text.split().count("a") == 40


def test_many_threads_may_search_at_once():
    search = BeamSearch(VOCAB, LanguageModel(estimate(["a cat", "a boat"])))
    with ThreadPoolExecutor(8) as pool:
        texts = {t.text for t in pool.map(lambda _: search.transcript(UNCLEAR, **TIMES), range(200))}
    assert texts == {"a cat"}


def test_tokens_of_several_letters_are_refused():
    with pytest.raises(DecodingUnavailable, match="'sch' is a token"):
        BeamSearch(Vocab(("<pad>", "|", "a", "sch")))


def test_without_the_library_the_reader_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctc_beam_decoder", None)
    with pytest.raises(DecodingUnavailable, match=r"pip install 'tongues\[beam\]'"):
        BeamSearch(VOCAB)


ARPA = estimate(["a cat", "a boat"])


@pytest.mark.parametrize(
    ("arpa", "told"),
    [
        (miscounted(ARPA), r"Could not parse .*2-grams.*; it takes ARPA text"),
        (ARPA.replace(b"\\end\\", b""), "KenLM reads: End of file"),
        (ARPA.replace(b"ngram 2=", b"ngram 2=1"), "2-gram"),
        (estimate(["a cat"], order=1), "at least a bigram.*two orders or more"),
    ],
    ids=["counts", "no end", "fewer", "words alone"],
)
def test_a_model_that_kenlm_refuses_is_refused_with_what_is_wrong(arpa, told):
    with pytest.raises(DataError, match=told):
        BeamSearch(VOCAB, LanguageModel(arpa))


@pytest.mark.parametrize("error", [RuntimeError("no language model support"), OSError("wrong GLIBC")])
def test_a_library_that_cannot_be_used_is_not_the_readers_fault(monkeypatch, error):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ctc_beam_decoder.BeamSearchDecoder", broken)
    with pytest.raises(DecodingUnavailable, match=f"of no use here: {error}"):
        BeamSearch(VOCAB, LanguageModel(ARPA))


def test_a_model_that_is_none_is_refused():
    with pytest.raises(DataError, match="ARPA"):
        BeamSearch(VOCAB, LanguageModel(b"no model"))


def test_a_sigma_is_searched_as_one_letter_and_told_as_the_word_has_it():
    """Where a language model, and hot words, spell it in two ways."""
    vocab = Vocab(("<pad>", "|", "α", "ο", "Σ"))
    ids = [4, 0, 2, 0, 4, 1, 4, 0, 3, 0, 4]
    found = np.full((len(ids), vocab.size), 1e-6)
    found[np.arange(len(ids)), ids] = 1.0
    found[8] = [0.0, 0.0, 0.51, 0.49, 0.0]
    unclear = np.log(np.maximum(found, 1e-6)).astype(np.float32)
    assert BeamSearch(vocab).transcript(unclear, **TIMES).text == "σας σας"
    assert BeamSearch(vocab).transcript(unclear, **TIMES, hot_words=["σος"]).text == "σας σος"
    model = LanguageModel(estimate(["σας σος", "σος"]), alpha=0.7, beta=1.0)
    assert BeamSearch(vocab, model).transcript(unclear, **TIMES).text == "σας σος"
