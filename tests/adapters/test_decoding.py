"""How words are made: what a request asked for, and what its adapter cannot do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapters.ctc import BestPath
from adapters.decoding import GREEDY, Decoding
from adapters.errors import AdapterFormatError, BadHotWord
from adapters.language_model import LanguageModel, estimate
from adapters.loaded import LoadedAdapter
from tests.adapters.test_beam import BLANK, TIMES, UNCLEAR, VOCAB
from tests.app.engine.tiers import adapter
from tests.builders import miscounted

LOADED = LoadedAdapter(adapter("a").record, {}, VOCAB)


def test_words_come_as_asked_for():
    path = BestPath(UNCLEAR.argmax(axis=1).astype(np.int32), np.exp(UNCLEAR.max(axis=1)), UNCLEAR)
    assert GREEDY(path, LOADED, **TIMES).text == "a cot"
    assert Decoding(True)(path, LOADED, **TIMES).text == "a cot"
    assert Decoding(True, ("CAT",))(path, LOADED, **TIMES).text == "a cat"


def test_a_hot_word_that_cannot_be_said_is_refused_whatever_was_heard():
    bad = Decoding(True, ("x1",))
    with pytest.raises(BadHotWord, match="'x1' has 'x'"):
        bad.check(LOADED)
    with pytest.raises(BadHotWord, match="'x1' has 'x'"):
        bad(BestPath.blanks(9, BLANK), LOADED, **TIMES)
    GREEDY.check(LOADED)
    Decoding(True, ("cat",)).check(LOADED)
    assert Decoding(True, ("cat",))(BestPath.blanks(9, BLANK), LOADED, **TIMES).words == ()


def test_a_language_model_that_cannot_be_used_is_its_adapters_fault():
    broken = LanguageModel(miscounted(estimate(["a cat"])))
    with pytest.raises(
        AdapterFormatError, match=r"adapter 'a': not a language model that KenLM reads: Could not parse"
    ):
        Decoding(beam=True).check(replace(LOADED, language_model=broken))
