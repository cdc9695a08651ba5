"""Which adapter does a request mean, and which version of it?

Registered is not resident: a scan reads commit records and nothing else, so that thousands are cheap. What a scan finds
is one immutable snapshot, swapped in whole; a request holds on to what it was given, whatever is published meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from adapters.config import BackboneSize
from adapters.errors import AmbiguousLanguage, LanguageRequired, UnknownAdapter, UnknownLanguage
from adapters.language import language_key, language_name, language_tag, names_script
from adapters.loaded import LoadedAdapter
from adapters.shelf import RefusedAdapter, RegisteredAdapter, RemoteShelf, Shelf, Store

__all__ = ["RefusedAdapter", "RegisteredAdapter", "Registry", "Snapshot", "Store"]

FIRST_LOOK_S = 10.0
_MOST_NAMED = 200


@dataclass(frozen=True)
class Snapshot:
    """What was found at one time: adapters by name, those of each language key, and what was refused."""

    adapters: Mapping[str, RegisteredAdapter]
    languages: Mapping[str, tuple[RegisteredAdapter, ...]]
    refused: tuple[RefusedAdapter, ...]

    @classmethod
    def of(cls, adapters: Iterable[RegisteredAdapter], refused: Iterable[RefusedAdapter]) -> Snapshot:
        """Adapters of different names, in any order."""
        by_name = {adapter.name: adapter for adapter in sorted(adapters, key=lambda adapter: adapter.name)}
        languages: defaultdict[str, list[RegisteredAdapter]] = defaultdict(list)
        for adapter in by_name.values():
            languages[_key(adapter)].append(adapter)
        return cls(
            adapters=MappingProxyType(by_name),
            languages=MappingProxyType({key: tuple(languages[key]) for key in sorted(languages)}),
            refused=tuple(refused),
        )


class Registry:
    """The adapters of several stores for one backbone. Of two with one name the earlier store's is meant.

    ``fingerprint`` and ``size`` are the backbone's. Safe to use from any thread.
    """

    def __init__(self, stores: Sequence[Store], fingerprint: str, size: BackboneSize) -> None:
        self.stores = tuple(stores)
        self.fingerprint = fingerprint
        self.size = size
        self._shelves = tuple((RemoteShelf if store.remote else Shelf)(store, fingerprint, size) for store in stores)
        self._looking = threading.Lock()
        self._found = Snapshot.of([], [])
        self._first_look()
        self.snapshot = self.look()

    def look(self) -> Snapshot:
        """What the stores hold now; the same object as before where nothing changed. Records that did not change are
        not read again. One bad adapter hides no good one, nor does it when their names are the same.

        Of a remote store it is what was seen there last, so that nobody waits for it: :meth:`refresh`."""
        with self._looking:
            adapters: dict[str, RegisteredAdapter] = {}
            refused: list[RefusedAdapter] = []
            for shelf in self._shelves:
                for name, known in shelf.found().items():
                    if name in adapters:
                        continue
                    if isinstance(known, RefusedAdapter):
                        refused.append(known)
                    else:
                        adapters[name] = known
            if adapters != self._found.adapters or _reasons(refused) != _reasons(self._found.refused):
                self._found = Snapshot.of(adapters.values(), refused)
            return self._found

    def refresh(self, store: Store) -> None:
        """The next look finds what this store holds now. Raises :class:`~adapters.errors.StoreAway`."""
        for shelf in self._shelves:
            if shelf.store is store:
                shelf.refresh()

    @property
    def away(self) -> dict[str, str]:
        """Why stores cannot be looked at for now, by where they are; what was seen there last stands."""
        return {str(shelf.store): shelf.away for shelf in self._shelves if shelf.away is not None}

    def adopt(self, snapshot: Snapshot) -> None:
        """Requests find what is in ``snapshot`` from now on."""
        self.snapshot = snapshot

    def scan(self) -> Snapshot:
        """Look at every store again, and adopt what is there."""
        self.adopt(self.look())
        return self.snapshot

    def _first_look(self) -> None:
        """Remote stores have a while to answer, side by side; then what they hold is found when they do."""
        remote = [shelf for shelf in self._shelves if isinstance(shelf, RemoteShelf)]
        for shelf in remote:
            shelf.found()
        end = time.monotonic() + FIRST_LOOK_S
        for shelf in remote:
            shelf.wait(max(0.0, end - time.monotonic()))

    def resolve(
        self, *, language: str | None = None, name: str | None = None, principal: object | None = None
    ) -> RegisteredAdapter:
        """The adapter called ``name``, or else the one for ``language``. Every ``principal`` sees everything for now.

        Several adapters may speak one language. Where the query names a region, those of the region come first
        (``pt-BR``); then the one that is the default, then one for no region. A query that names a script finds that
        script alone; one that does not finds an adapter of any, and where there are several scripts the default of the
        usual one. What is no language may be the name of an adapter, such as ``uig-script_arabic``.

        Raises :class:`LanguageRequired`, :class:`UnknownLanguage`, :class:`UnknownAdapter` or
        :class:`AmbiguousLanguage`, each naming what there is.
        """
        snapshot = self.snapshot
        if name is not None:
            return _by_name(snapshot, name, language)
        if language is None:
            raise LanguageRequired(f"say which language is spoken: lang={_spoken(snapshot)}")
        key = language_key(language)
        if key is None and language in snapshot.adapters:
            return snapshot.adapters[language]
        found = snapshot.languages.get(key, ()) if key else ()
        if key and not names_script(language) and not any(adapter.record.default for adapter in found):
            found = tuple(a for a in snapshot.adapters.values() if _key(a).partition("-")[0] == key)
        if not found:
            meant = f"{language[:80]!r} ({language_name(key)})" if key else f"{language[:80]!r}"
            raise UnknownLanguage(f"no adapter for the language {meant}; there are: {_spoken(snapshot)}")
        tag = language_tag(language)
        if tag != key:
            found = tuple(a for a in found if a.record.language == tag) or found
        if len(found) > 1:
            found = tuple(a for a in found if a.record.default) or found
        if len(found) > 1:  # several defaults, of which that for no region is meant where no region is
            found = tuple(a for a in found if a.record.default and a.record.language == key) or found
        if len(found) > 1:
            names = _listed([adapter.name for adapter in found])
            raise AmbiguousLanguage(f"several adapters for the language {key}, say which: adapter={names}")
        return found[0]

    def load(self, adapter: RegisteredAdapter) -> LoadedAdapter:
        """Its weights, read and checked against the backbone. Raises :class:`AdapterError`."""
        return adapter.store.load(adapter.record, size=self.size)


def _reasons(refused: Iterable[RefusedAdapter]) -> list[tuple[str, str]]:
    return [(one.name, one.error.reason) for one in refused]


def _by_name(snapshot: Snapshot, name: str, language: str | None) -> RegisteredAdapter:
    adapter = snapshot.adapters.get(name)
    if adapter is None:
        reasons = [f"it was refused: {refused.error.reason}" for refused in snapshot.refused if refused.name == name]
        there_is = reasons[0] if reasons else f"there are: {_listed(list(snapshot.adapters))}"
        raise UnknownAdapter(f"no adapter {name[:80]!r}; {there_is}")
    spoken = adapter.record.language
    if language is not None and language_key(language) not in (_key(adapter), _key(adapter).partition("-")[0]):
        raise UnknownAdapter(f"the adapter {name!r} is for {spoken!r}, not for the language {language[:80]!r}")
    return adapter


def _key(adapter: RegisteredAdapter) -> str:
    key = language_key(adapter.record.language)
    assert key is not None, "a record's language was checked when it was read"
    return key


def _spoken(snapshot: Snapshot) -> str:
    return _listed(list(snapshot.languages))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more if names else "none"
