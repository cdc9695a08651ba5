"""Beam search over CTC emissions, with a language model and hot words (Hannun et al. 2014; by ctc-beam-decoder, which
does what pyctcdecode does).

Greedy decoding (:mod:`adapters.ctc`) is what serves unless a request asks for this: it needs the probabilities of all
tokens, and a hundred times the time on the host.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from adapters.ctc import Transcript, Word
from adapters.errors import BadHotWord, DataError, DecodingUnavailable
from adapters.language_model import LanguageModel
from adapters.pauses import parts
from adapters.vocab import Vocab

if TYPE_CHECKING:
    from ctc_beam_decoder import BeamSearchDecoder

WIDTH = 100
HOT_WORD_WEIGHT = 8.0


class BeamSearch:
    """Decodes what one adapter says. Of use in any number of threads at once."""

    def __init__(self, vocab: Vocab, model: LanguageModel | None = None) -> None:
        """Raises :class:`~adapters.errors.DecodingUnavailable` without the library, or for tokens of several letters,
        and :class:`~adapters.errors.DataError` for a model that is none, or that KenLM refuses."""
        texts = [vocab.token_text(token) for token in range(vocab.size)]
        said = [token for token, text in enumerate(texts) if text]
        if long := [texts[token] for token in said if len(texts[token]) > 1]:
            raise DecodingUnavailable(f"a beam search is over letters, and {long[0]!r} is a token")
        self._vocab = vocab
        if model is not None and vocab.lowers:
            letters = vocab.spelling(model.arpa.decode(errors="surrogateescape"))
            model = replace(model, arpa=letters.encode(errors="surrogateescape"))
        self._columns = np.array([vocab.blank, *said])
        self._ids = {texts[token]: column for column, token in enumerate(said, start=1)}
        self._decoder = _decoder(["", *(texts[token] for token in said)], model)

    def transcript(
        self, emissions: np.ndarray, *, frame_s: float, duration_s: float, hot_words: Sequence[str] = ()
    ) -> Transcript:
        """What :meth:`words` finds, all of it."""
        found = self.words(emissions, frame_s=frame_s, duration_s=duration_s, hot_words=hot_words)
        return Transcript.of([word for part in found for word in part], duration_s)

    def words(
        self, emissions: np.ndarray, *, frame_s: float, duration_s: float, hot_words: Sequence[str] = ()
    ) -> Iterator[list[Word]]:
        """The likeliest words of (T, V) log probabilities, those of one part (:mod:`adapters.pauses`) after the other,
        each searched when it is asked for. ``hot_words``: more likely than they otherwise would be.

        A word's confidence is the mean over its letters of each letter's best frame. Raises
        :class:`~adapters.errors.BadHotWord` for one with a letter that is no token.
        """
        hot_words = self.spelled(hot_words)
        mine = emissions[:, self._columns]
        for begin, end in parts(mine, self._ids.get(" ")):
            beams = self._decoder.decode_beams(
                mine[begin:end],
                beam_width=WIDTH,
                prune_history=True,
                hotwords=hot_words,
                hotword_weight=HOT_WORD_WEIGHT,
            )
            words = []
            for text, (first, last) in beams[0][2] if beams else []:
                frames = (begin + first, begin + last)
                confidence = self._confidence(text, mine[frames[0] : max(frames[1], frames[0] + 1)])
                words.append(
                    Word.at(self._vocab.told(text), frames, confidence, frame_s=frame_s, duration_s=duration_s)
                )
            yield words

    def spelled(self, hot_words: Sequence[str]) -> list[str]:
        """In small letters, where only those are tokens. Raises :class:`~adapters.errors.BadHotWord`."""
        return [self._spelled(word) for word in hot_words]

    def _spelled(self, word: str) -> str:
        for spelled in (word, word.lower(), self._vocab.spelling(word.lower())):
            if self._ids.keys() >= set(spelled):
                return spelled
        missing = next(letter for letter in word.lower() if letter not in self._ids)
        raise BadHotWord(f"the hot word {word[:40]!r} has {missing!r}, which this adapter never says")

    def _confidence(self, text: str, emissions: np.ndarray) -> float:
        best = np.exp(emissions.max(axis=0))
        return float(np.mean([best[self._ids[letter]] for letter in text]))


def _decoder(labels: list[str], model: LanguageModel | None) -> BeamSearchDecoder:
    try:
        from ctc_beam_decoder import BeamSearchDecoder
    except (ImportError, OSError) as error:
        raise DecodingUnavailable(
            f"a beam search needs ctc-beam-decoder (pip install 'tongues[beam]'): {error}"
        ) from error
    try:
        if model is None:
            return BeamSearchDecoder(labels)
        words = model.words()
        with tempfile.NamedTemporaryFile(suffix=".arpa") as file:  # the library wants a path, and reads it once
            file.write(model.arpa)
            file.flush()
            return BeamSearchDecoder(
                labels, kenlm_model_path=file.name, unigrams=words, alpha=model.alpha, beta=model.beta
            )
    except ValueError as error:
        told = str(error).splitlines()[-1].split(".arpa: ")[-1]
        if model is None:
            raise DecodingUnavailable(f"a beam search cannot be over this adapter's tokens: {told}") from error
        raise DataError(
            f"not a language model that KenLM reads: {told}; it takes ARPA text of two orders or more, with as many "
            "lines of each as its head says"
        ) from error
    except (OSError, RuntimeError) as error:  # one for another system, say, or without language models
        raise DecodingUnavailable(f"this ctc-beam-decoder is of no use here: {error}") from error
