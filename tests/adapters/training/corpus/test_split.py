from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.training.corpus.split import DEV_SHARE, TEST_SECONDS, TEST_SHARE, split_language, split_texts, text_hash

SECONDS = st.dictionaries(st.text("abc ", min_size=1, max_size=6), st.floats(0.3, 40), max_size=60)
CLIPS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("stuvwxyz"), st.floats(0.3, 60)), max_size=80)


@settings(deadline=None)
@given(SECONDS)
def test_each_split_has_what_it_should_and_little_more(seconds: dict[str, float]) -> None:
    splits = split_language(seconds)
    assert splits.keys() == seconds.keys()
    total = sum(seconds.values())
    for split, wanted in (("test", max(TEST_SHARE * total, TEST_SECONDS)), ("dev", DEV_SHARE * total)):
        texts = sorted((text for text, its in splits.items() if its == split), key=text_hash)
        taken = sum(seconds[text] for text in texts)
        if any(its == "train" for its in splits.values()):
            assert taken == pytest.approx(max(taken, wanted))
        if texts:
            assert taken - seconds[texts[-1]] < wanted


@settings(deadline=None)
@given(SECONDS)
def test_a_split_follows_from_the_texts_and_not_from_their_order(seconds: dict[str, float]) -> None:
    backwards = dict(reversed(seconds.items()))
    # Sums of the same lengths in another order may differ in the last bit, so compare with whole seconds.
    whole = {text: float(round(length)) for text, length in seconds.items()}
    assert split_language(whole) == split_language({text: whole[text] for text in backwards})


@settings(deadline=None)
@given(CLIPS)
def test_no_text_is_in_two_splits_whatever_the_language(clips: list[tuple[str, str, float]]) -> None:
    splits = split_texts(clips)
    assert splits.keys() == {(language, text) for language, text, _ in clips}
    by_text = defaultdict(set)
    for (_, text), split in splits.items():
        if split is not None:
            by_text[text].add(split)
    assert all(len(found) == 1 for found in by_text.values())
    assert by_text.keys() == {text for _, text, _ in clips}, "the strictest use of a text is kept"


def test_a_text_that_another_language_tests_with_is_not_learnt() -> None:
    texts = sorted((f"text {number}" for number in range(100)), key=text_hash)
    last = texts[-1]  # train in a large language, test in one that has nothing else
    splits = split_texts([("large", text, 30.0) for text in texts] + [("small", last, 5.0)])
    assert splits["small", last] == "test"
    assert splits["large", last] is None
    assert splits["large", texts[-2]] == "train"


def test_hashes_are_stable() -> None:
    assert text_hash("no").startswith("9390298f3fb0c5b1")
