"""Where the stores of the tests lie, what lies there, and how it fails."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from adapters.errors import StoreAway
from adapters.location import Location
from adapters.remote import RemoteLocation
from adapters.store import AdapterStore
from tests.adapters.published import files


def in_memory() -> str:
    """The address of an empty place in fsspec's memory."""
    return f"memory://{uuid.uuid4().hex}"


def remote_of(store: AdapterStore) -> RemoteLocation:
    """Where a remote store lies."""
    assert isinstance(store.location, RemoteLocation)
    return store.location


def lying(store: AdapterStore, name: str = "de") -> set[str]:
    """What lies under an adapter's name."""
    if isinstance(store.location, RemoteLocation):
        return set(store.location._listed().get(name, {}))
    return files(store, name) if (store.folder / name).exists() else set()


def put(store: AdapterStore, name: str, file: str, content: bytes) -> None:
    """Put an object that no publisher would."""
    with store.location.writing():
        store.location.prepare(name)
        store.location.write(name, file, content)


@dataclass
class Faulty:
    """A location that is away from its ``step``-th call on, or answers that one call no more although it was ``done``.
    Counts what is asked of it."""

    location: Location
    step: int = -1
    done: bool = False
    calls: list[str] = field(default_factory=list)
    away: bool = False

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.location, name)
        if name not in ("records", "read", "write", "withdraw", "sweep"):
            return found

        def call(*args: Any) -> Any:
            self.calls.append(name)
            fails = self.away or (0 <= self.step < len(self.calls))
            if fails and not (self.done and len(self.calls) == self.step + 1):
                raise StoreAway("it is gone")
            result = found(*args)
            if fails:
                raise StoreAway("no answer")
            return result

        return call

    def __str__(self) -> str:
        return f"faulty {self.location}"

    def steps(self) -> Iterator[int]:
        """Of what was done since it was made."""
        return iter(range(len(self.calls)))
