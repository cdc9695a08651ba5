"""Greedy decoding against a slow plain reference, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapters.ctc import BestPath, Transcript, best_tokens, transcript
from adapters.vocab import Vocab

BLANK_FIRST = Vocab(("<pad>", "|", "a", "b", "c"))
BLANK_LAST = Vocab(("a", "b", "<unk>", "c", "|", "[PAD]"))
SPACED = Vocab(("<s>", "<pad>", " ", "a", "b", "c"))
UNPARTED = Vocab(("a", "<pad>", "b", "c"))
PIECES = Vocab(("<pad>", "|", "a", "ch", "h"))
VOCABS = [BLANK_FIRST, BLANK_LAST, SPACED, UNPARTED]

vocabs = st.sampled_from(VOCABS)


@st.composite
def spoken(draw) -> tuple[Vocab, BestPath]:
    vocab = draw(st.sampled_from([*VOCABS, PIECES]))
    frames = draw(st.lists(st.tuples(st.integers(0, vocab.size - 1), st.integers(1, 100)), max_size=40))
    ids = np.array([token for token, _ in frames], dtype=np.int32)
    return vocab, BestPath(ids, np.array([percent / 100 for _, percent in frames], dtype=np.float32))


def path(vocab: Vocab, tokens: str, probabilities: list[float] | None = None) -> BestPath:
    """``_`` is the blank, ``?`` the unknown; every other character is its own token."""
    of = {"_": vocab.blank, "?": vocab.unknown} | {token: i for i, token in enumerate(vocab.tokens)}
    ids = np.array([of[token] for token in tokens], dtype=np.int32)
    return BestPath(ids, np.array(probabilities or [1.0] * ids.size, dtype=np.float32))


def decoded(
    vocab: Vocab, tokens: str, probabilities: list[float] | None = None, duration_s: float = 10.0
) -> Transcript:
    return transcript(path(vocab, tokens, probabilities), vocab, frame_s=0.02, duration_s=duration_s)


def slow(found: BestPath, vocab: Vocab) -> list[tuple[str, int, int, float]]:
    """Graves' collapse, word by word: text, first frame, last frame, confidence."""
    words: list[list] = []
    letters: list = []
    frame = 0
    for token, run in itertools.groupby(found.ids.tolist()):
        width = len(list(run))
        best = max(found.probabilities[frame : frame + width].tolist())
        text = vocab.tokens[token]
        if text in ("|", " "):
            words.append(letters)
            letters = []
        elif text not in ("<pad>", "[PAD]", "<unk>", "<s>"):
            letters.append((text, frame, frame + width - 1, best))
        frame += width
    return [
        ("".join(x[0] for x in w), w[0][1], w[-1][2], sum(x[3] for x in w) / len(w)) for w in [*words, letters] if w
    ]


@given(spoken())
def test_equals_the_slow_reference(case):
    vocab, found = case
    told = transcript(found, vocab, frame_s=0.02, duration_s=len(found) * 0.02)
    expected = slow(found, vocab)
    assert told.text == " ".join(word for word, *_ in expected)
    assert [word.text for word in told.words] == [word for word, *_ in expected]
    for word, (_, first, last, confidence) in zip(told.words, expected, strict=True):
        assert word.start_s == pytest.approx(first * 0.02, abs=1e-3)
        assert word.end_s == pytest.approx((last + 1) * 0.02, abs=1e-3)
        assert word.confidence == pytest.approx(confidence, abs=1e-4)
    letters = sum(len(word) for word, *_ in expected)
    mean = sum(len(word) * confidence for word, _, _, confidence in expected) / letters if letters else None
    assert told.confidence == (None if mean is None else pytest.approx(mean, abs=2e-4))


@given(spoken(), st.lists(st.integers(0, 40), max_size=6))
def test_windows_joined_say_what_the_whole_says(case, cuts):
    vocab, found = case
    edges = [0, *sorted(min(cut, len(found)) for cut in cuts), len(found)]
    joined = BestPath.join(found.slice(begin, end) for begin, end in itertools.pairwise(edges))
    assert transcript(joined, vocab, frame_s=0.02, duration_s=9) == transcript(found, vocab, frame_s=0.02, duration_s=9)


@given(vocabs, st.lists(st.sampled_from("abc"), max_size=12), st.data())
def test_any_way_of_speaking_a_text_is_heard_as_that_text(vocab, letters, data):
    """Each letter held for some frames, blanks in between where the letter repeats, and now and then elsewhere."""
    spoken, before = "", ""
    for letter in letters:
        gap = data.draw(st.integers(1 if letter == before else 0, 3))
        spoken += "_" * gap + letter * data.draw(st.integers(1, 4))
        before = letter
    assert decoded(vocab, spoken).text == "".join(letters)


@pytest.mark.parametrize("vocab", VOCABS, ids=["blank first", "blank last", "space", "no delimiter"])
@pytest.mark.parametrize(
    ("tokens", "text"),
    [("", ""), ("___", ""), ("aab", "ab"), ("a_a", "aa"), ("aa__ab_", "aab"), ("_abc", "abc"), ("a___b", "ab")],
)
def test_collapse(vocab, tokens, text):
    assert decoded(vocab, tokens).text == text


def test_delimiters_part_words_wherever_they_stand():
    assert decoded(BLANK_FIRST, "|a_||_b|").text == "a b"
    assert decoded(BLANK_FIRST, "||__||").words == ()
    assert decoded(SPACED, " ab _ c ").text == "ab c"
    assert decoded(UNPARTED, "ab__c").text == "abc"


def test_unknown_has_no_text_and_parts_no_word():
    assert decoded(BLANK_LAST, "a?b|?|c").text == "ab c"


def test_letters_on_both_sides_of_an_unknown_do_not_collapse():
    assert decoded(BLANK_LAST, "a?a").text == "aa"


def test_times_are_those_of_the_letters_and_end_with_the_audio():
    said = decoded(BLANK_FIRST, "__aab_|_c__", duration_s=0.19)
    assert [(word.text, word.start_s, word.end_s) for word in said.words] == [("ab", 0.04, 0.1), ("c", 0.16, 0.18)]
    late = decoded(BLANK_FIRST, "__aab_|__cc", duration_s=0.205)
    assert late.words[-1].end_s == 0.205
    assert late.duration_s == 0.205


def test_confidence_is_the_mean_of_each_letters_best_frame():
    said = decoded(BLANK_FIRST, "aab|_c", [0.2, 0.6, 1.0, 0.1, 0.1, 0.5])
    assert [word.confidence for word in said.words] == [0.8, 0.5]
    assert said.confidence == pytest.approx((2 * 0.8 + 0.5) / 3)
    assert decoded(BLANK_FIRST, "_|_").confidence is None


def test_blanks_say_nothing_and_no_parts_make_an_empty_path():
    silent = BestPath.blanks(3, BLANK_LAST.blank)
    assert len(silent) == 3
    assert transcript(silent, BLANK_LAST, frame_s=0.02, duration_s=0.06) == Transcript("", (), 0.06, None)
    assert len(BestPath.join([])) == 0


def test_the_softmax_is_over_a_rows_own_vocabulary():
    """A row with a small vocabulary beside one with a large one: its probabilities are those that it has alone."""
    torch.manual_seed(0)
    small, large = torch.randn(1, 7, 5), torch.randn(1, 7, 9)
    batch = torch.full((2, 7, 9), -torch.inf)
    batch[0, :, :5], batch[1] = small[0], large[0]
    ids, probabilities = best_tokens(batch)
    for row, alone in enumerate((small, large)):
        expected = alone[0].softmax(dim=1).max(dim=1)
        torch.testing.assert_close(probabilities[row], expected.values)
        assert ids[row].tolist() == expected.indices.tolist()
    assert ids.dtype == torch.int32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_softmax_is_taken_in_float32(dtype):
    """In half precision a sum of 500 small probabilities would be lost beside the best."""
    logits = torch.zeros(1, 1, 501, dtype=dtype)
    logits[0, 0, 7] = 10
    ids, probabilities = best_tokens(logits)
    assert ids.item() == 7
    assert probabilities.dtype == torch.float32
    assert probabilities.item() == pytest.approx(np.exp(10) / (np.exp(10) + 500), rel=1e-5)
