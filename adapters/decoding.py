"""How a request wants its words made out of what was heard."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.ctc import BestPath, Transcript, transcript
from adapters.loaded import LoadedAdapter


@dataclass(frozen=True)
class Decoding:
    """Greedy, or a ``beam`` search, which ``hot_words`` can be given to."""

    beam: bool = False
    hot_words: tuple[str, ...] = ()

    def __call__(self, path: BestPath, loaded: LoadedAdapter, *, frame_s: float, duration_s: float) -> Transcript:
        """Raises :class:`~adapters.errors.DecodingUnavailable` where a beam search cannot be."""
        if not self.beam or path.emissions is None:  # none where all was silence
            return transcript(path, loaded.vocab, frame_s=frame_s, duration_s=duration_s)
        search = loaded.beam_search
        return search.transcript(path.emissions, frame_s=frame_s, duration_s=duration_s, hot_words=self.hot_words)


GREEDY = Decoding()
