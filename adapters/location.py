"""Where the files of adapters lie: a few under the name of each, one of which is the commit record that names the
others."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable
from contextlib import AbstractContextManager
from pathlib import PurePath
from typing import Protocol

RECORD = "adapter.json"

Signature = tuple[Hashable, ...]
#: the files of an adapter that stay, of those that lie under its name; None where nothing may be deleted
Kept = Callable[[str, Collection[str]], Collection[str] | None]

_OURS = re.compile(
    r"\.?(weights-[0-9a-f]+\.safetensors|vocab-[0-9a-f]+\.json|words-[0-9a-f]+\.arpa\.gz|adapter\.json)(\.[0-9a-f]{16})?"
)


class Location(Protocol):
    """Files by the name of the adapter that they belong to. Any number of processes may read and write at once.

    What is read of one that is ``remote`` comes over a network: any call may take long, and may raise
    :class:`~adapters.errors.StoreAway`.
    """

    @property
    def remote(self) -> bool: ...

    @property
    def pace_s(self) -> float:
        """Between two listings, at least."""

    def records(self) -> dict[str, Signature]:
        """Each adapter that has a record, and what changes whenever another one is put there. One listing, however
        many there are."""

    def read(self, name: str, file: str, max_bytes: int) -> bytes:
        """Raises ``FileNotFoundError``, another ``OSError`` for what is no file or larger than ``max_bytes``, and
        :class:`~adapters.errors.AdapterFormatError` for what lies elsewhere."""

    def prepare(self, name: str) -> None:
        """Files may be written under this name."""

    def write(self, name: str, file: str, content: bytes) -> None:
        """The file appears whole or not at all. Raises ``OSError`` or :class:`~adapters.errors.StoreError`."""

    def withdraw(self, name: str) -> None:
        """Delete the record and nothing else. Raises ``FileNotFoundError`` where there is none."""

    def sweep(self, kept: Kept, grace_s: float) -> tuple[PurePath, ...]:
        """Delete what writers left and ``kept`` does not name, where that is so for ``grace_s`` seconds or longer.
        Returns what was deleted."""

    def writing(self) -> AbstractContextManager[None]:
        """Held by a writer and by a sweep: else it could take files that a record is about to name."""


def left_by_a_writer(file: str) -> bool:
    """Whether a file bears a name that writers give; nothing else is ever deleted."""
    return bool(_OURS.fullmatch(file))
