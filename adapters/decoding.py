"""How a request wants its words made out of what was heard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adapters.ctc import BestPath, Transcript, Word, words
from adapters.errors import BadHotWord
from adapters.loaded import LoadedAdapter


@dataclass(frozen=True)
class Decoding:
    """Greedy, or a ``beam`` search, which ``hot_words`` can be given to."""

    beam: bool = False
    hot_words: tuple[str, ...] = ()

    def check(self, loaded: LoadedAdapter) -> None:
        """Raises :class:`~adapters.errors.DecodingUnavailable` where this adapter's words cannot be made so,
        :class:`~adapters.errors.BadHotWord` among them, and :class:`~adapters.errors.AdapterFormatError`. The first
        time for an adapter it takes as long as reading its language model."""
        if self.beam:
            try:
                loaded.beam_search.spelled(self.hot_words)
            except BadHotWord as error:
                raise BadHotWord(f"{error}: the adapter {loaded.record.name!r}, of {loaded.record.language}") from error

    def parts(
        self, path: BestPath, loaded: LoadedAdapter, *, frame_s: float, duration_s: float
    ) -> Iterator[Sequence[Word]]:
        """The words, those of one part of the recording after the other, each part when it is asked for. Raises what
        :meth:`check` does."""
        if not self.beam:
            yield words(path, loaded.vocab, frame_s=frame_s, duration_s=duration_s)
            return
        self.check(loaded)
        if path.emissions is not None:  # none where all was silence
            yield from loaded.beam_search.words(
                path.emissions, frame_s=frame_s, duration_s=duration_s, hot_words=self.hot_words
            )

    def __call__(self, path: BestPath, loaded: LoadedAdapter, *, frame_s: float, duration_s: float) -> Transcript:
        """All of them. Raises what :meth:`check` does."""
        found = self.parts(path, loaded, frame_s=frame_s, duration_s=duration_s)
        return Transcript.of([word for part in found for word in part], duration_s)


GREEDY = Decoding()
