"""An adapter in host memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from adapters.beam import BeamSearch
from adapters.errors import AdapterFormatError, DataError
from adapters.language_model import LanguageModel, unpacked
from adapters.record import AdapterRecord
from adapters.vocab import Vocab


@dataclass(frozen=True)
class LoadedAdapter:
    """One version of an adapter in host memory, checked: its tensors by name, as stored, what its head can say, and the
    language model that it brings, if it does."""

    record: AdapterRecord
    tensors: dict[str, Tensor]
    vocab: Vocab
    language_model: LanguageModel | None = None

    @cached_property
    def bytes(self) -> int:
        """Bytes of its tensors, and of its language model."""
        model = len(self.language_model.arpa) if self.language_model is not None else 0
        return model + sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())

    @cached_property
    def beam_search(self) -> BeamSearch:
        """Made when it is first asked for. Raises :class:`~adapters.errors.DecodingUnavailable`, and
        :class:`~adapters.errors.AdapterFormatError` for a language model that cannot be used."""
        try:
            return BeamSearch(self.vocab, self.language_model)
        except DataError as error:
            raise AdapterFormatError(self.record.name, str(error)) from error


def read_language_model(record: AdapterRecord, packed: bytes) -> LanguageModel:
    """The language model that ``record`` speaks of, whose file is ``packed``.

    Raises :class:`~adapters.errors.AdapterFormatError` where it is none.
    """
    stored = record.language_model
    assert stored is not None
    try:
        model = LanguageModel(unpacked(packed), stored.alpha, stored.beta)
        model.words()
    except DataError as error:
        raise AdapterFormatError(record.name, f"{stored.file.name}: {error}") from error
    return model
