"""Which adapters may answer where the language is not known, or is one of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from adapters.errors import ChoiceError, LanguageRequired
from adapters.language import language_name
from adapters.language_head import MOST_CANDIDATES, LanguageHead
from adapters.registry import RegisteredAdapter, Registry


@dataclass(frozen=True)
class Telling:
    """A language head, and the adapters that may answer by the number of their language in it.

    ``named``: they were asked for by name, so all are heard; otherwise the head chooses at most ``most`` of them.
    ``missing``: why no adapter may answer for other languages of the head.
    """

    head: LanguageHead
    adapters: Mapping[int, RegisteredAdapter]
    named: bool
    most: int = MOST_CANDIDATES
    missing: Mapping[int, ChoiceError] = field(default_factory=dict)

    def shortlist(self, log_probabilities: np.ndarray) -> list[int]:
        """Numbers of the languages to be heard, from what the head says of a window, (L,)."""
        if self.named:
            return list(self.adapters)
        return self.head.shortlist(log_probabilities, self.adapters)[: self.most]

    def likeliest(self, log_probabilities: np.ndarray) -> int:
        """The number of the language that the head takes a window for, whoever may answer. Raises the error of one that
        is missing: an adapter of another language would make letters of it, too."""
        number = int(log_probabilities.argmax())
        if (error := self.missing.get(number)) is not None:
            name = language_name(self.head.languages[number])
            raise type(error)(f"this seems to be {name}: {error}; or name a language") from error
        return number

    @property
    def unheard(self) -> np.ndarray:
        """What the head says of nothing: all languages alike, (L,)."""
        count = len(self.head.languages)
        return np.full(count, -np.log(count))


def any_language(head: LanguageHead, registry: Registry, *, most: int) -> Telling:
    """Every language of the head that has an adapter now may answer. Raises
    :class:`~adapters.errors.LanguageRequired` where none has."""
    found: dict[int, RegisteredAdapter] = {}
    missing: dict[int, ChoiceError] = {}
    for number, language in enumerate(head.languages):
        try:
            adapter = registry.resolve(language=language)
        except ChoiceError as error:  # no adapter, or several and no default
            missing[number] = error
            continue
        if adapter not in found.values():
            found[number] = adapter
    if not found:
        raise LanguageRequired(f"no adapter for any of {', '.join(head.languages)}, which can be told from another")
    return Telling(head, found, named=False, most=min(most, MOST_CANDIDATES), missing=missing)


def among_named(head: LanguageHead | None, adapters: Sequence[RegisteredAdapter]) -> Telling | None:
    """One of ``adapters`` answers; None where the head does not know each of their languages apart."""
    if head is None or len(adapters) < 2:
        return None
    numbers = [head.index(adapter.record.language) for adapter in adapters]
    known = {number: adapter for number, adapter in zip(numbers, adapters, strict=True) if number is not None}
    return Telling(head, known, named=True) if len(known) == len(adapters) else None
