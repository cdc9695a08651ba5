"""Adapters in a folder or at an address: published whole or not at all, checked before they are worn.

    FOLDER/NAME/adapter.json                what the adapter is; naming it is what publishes a version
    FOLDER/NAME/weights-HASH.safetensors    named by content, never changed
    FOLDER/NAME/vocab-HASH.json
    FOLDER/NAME/words-HASH.arpa.gz          an n-gram model for beam searches, if it brings one

A version's files are written to a free place and read back as any load would, before ``adapter.json`` is replaced at
once and names them. A crash at any instant leaves the old version or the new one. The same holds in an object store,
where replacing is one put.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256
from pathlib import Path, PurePath
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from adapters.cache import CachedLocation
from adapters.config import AdapterConfig, BackboneSize
from adapters.errors import (
    AdapterAway,
    AdapterCorrupt,
    AdapterFormatError,
    DataError,
    PublishConflict,
    StoreAway,
    StoreError,
    UnknownAdapter,
)
from adapters.fit import check_bytes, check_tensors
from adapters.folder import FolderLocation
from adapters.language_model import LanguageModel
from adapters.loaded import LoadedAdapter, read_language_model
from adapters.location import RECORD, Location, Signature
from adapters.record import AdapterRecord, StoredFile, StoredLanguageModel, check_name
from adapters.remote import RemoteLocation, is_address
from adapters.vocab import Vocab

_MAX_RECORD_BYTES = 1 << 20


class AdapterStore:
    """The adapters in one location, that of a folder if it is a path. Any number of processes may read and publish at
    once; writers take turns, as far as the location can have them do so."""

    def __init__(self, location: str | os.PathLike[str] | Location) -> None:
        self.location = FolderLocation(Path(location)) if isinstance(location, str | os.PathLike) else location

    @classmethod
    def at(cls, where: str | os.PathLike[str], *, cache: Path | None = None, cache_bytes: int = 0) -> AdapterStore:
        """The store in a folder, or at an address such as ``s3://bucket/prefix`` or ``hf://user/repo``, of whose files
        up to ``cache_bytes`` are kept in the folder ``cache``.

        Raises :class:`StoreError` where none can be there; whether it can be reached shows when it is read."""
        if not isinstance(where, str) or not is_address(where):
            return cls(where)
        location = RemoteLocation(where)
        return cls(location if cache is None else CachedLocation(location, cache, cache_bytes))

    def __str__(self) -> str:
        return str(self.location)

    def __repr__(self) -> str:
        return f"AdapterStore({str(self)!r})"

    @property
    def remote(self) -> bool:
        """Whether what it holds comes over a network: then any call may take long, and raise :class:`StoreAway`."""
        return self.location.remote

    @property
    def pace_s(self) -> float:
        """Between two looks at what it holds, at least."""
        return self.location.pace_s

    def here(self, record: AdapterRecord) -> bool:
        """Whether its files can be read without a network."""
        return not self.remote

    @property
    def folder(self) -> Path:
        """Where it lies on this machine. Raises :class:`StoreError` for a remote one."""
        if not isinstance(self.location, FolderLocation):
            raise StoreError(f"the store {self} is no folder")
        return self.location.path

    def names(self) -> tuple[str, ...]:
        """Those with a commit record, sorted, whether or not it makes sense: :meth:`record` tells."""
        return tuple(sorted(self.signatures()))

    def signatures(self) -> dict[str, Signature]:
        """For each of :meth:`names` what changes whenever another record is published. One listing, no reading."""
        return self.location.records()

    def record(self, name: str) -> AdapterRecord:
        """The record of the current version. Reads nothing else, so that thousands are cheap.

        Raises :class:`UnknownAdapter`, or :class:`AdapterFormatError` with what is wrong.
        """
        check_name(name)
        try:
            content = self.location.read(name, RECORD, _MAX_RECORD_BYTES)
        except FileNotFoundError:
            raise UnknownAdapter(f"there is no adapter {name!r} in {self}") from None
        except OSError as error:
            raise AdapterFormatError(name, f"{RECORD} cannot be read: {error}") from error
        return AdapterRecord.from_json(name, content)

    def load(self, record: AdapterRecord, *, size: BackboneSize) -> LoadedAdapter:
        """Read the version that ``record`` is of, current or not.

        Raises :class:`AdapterCorrupt` where a file is missing or another than the record's, :class:`AdapterFormatError`
        where its content is not of the form, :class:`AdapterMismatch` where names, shapes or types of its tensors are
        not those of such an adapter on a backbone of this size, :class:`AdapterAway` where they cannot be fetched.
        """
        try:
            return self._load(record, size)
        except StoreAway as error:
            raise AdapterAway(record.name, str(error)) from error

    def _load(self, record: AdapterRecord, size: BackboneSize) -> LoadedAdapter:
        name = record.name
        check_bytes(record, size)
        content = self._content(name, record.vocab)
        try:
            vocab = Vocab.from_json(content)
        except DataError as error:
            raise AdapterFormatError(name, f"{record.vocab.name}: {error}") from error
        content = self._content(name, record.weights)
        try:
            tensors = safetensors.torch.load(content)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise AdapterFormatError(name, f"{record.weights.name} is not safetensors: {error}") from error
        check_tensors(name, record.config, record.dtype, tensors, vocab, size)
        return LoadedAdapter(record, tensors, vocab, self._language_model(record))

    def _language_model(self, record: AdapterRecord) -> LanguageModel | None:
        stored = record.language_model
        if stored is None:
            return None
        return read_language_model(record, self._content(record.name, stored.file))

    def publish(
        self,
        name: str,
        tensors: Mapping[str, torch.Tensor],
        vocab: Vocab,
        *,
        language: str,
        config: AdapterConfig,
        size: BackboneSize,
        fingerprint: str | None,
        default: bool = False,
        metrics: Mapping[str, Mapping[str, float]] | None = None,
        training: Mapping[str, Any] | None = None,
        licence: str | None = None,
        synthetic: bool = False,
        language_model: LanguageModel | None = None,
    ) -> AdapterRecord:
        """Write a version of the adapter ``name`` and make it the current one; tensors keep their type.

        Raises as :meth:`load` does, before anything changes.
        """
        dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.") if tensors else ""
        check_tensors(name, config, dtype, tensors, vocab, size)
        weights = safetensors.torch.save({key: tensors[key].detach().cpu().contiguous() for key in sorted(tensors)})
        files = {"weights": weights, "vocab": vocab.to_json().encode()}
        words = None
        if language_model is not None:
            files["language_model"] = language_model.packed
            stored = StoredFile.of("words", "arpa.gz", files["language_model"])
            words = StoredLanguageModel(stored, language_model.alpha, language_model.beta)
        record = AdapterRecord(
            name=name,
            language=language,
            config=config,
            weights=StoredFile.of("weights", "safetensors", weights),
            vocab=StoredFile.of("vocab", "json", files["vocab"]),
            dtype=dtype,
            default=default,
            fingerprint=fingerprint,
            metrics=metrics or {},
            training=training or {},
            licence=licence,
            synthetic=synthetic,
            language_model=words,
        )
        record = AdapterRecord.from_json(name, record.to_json())  # checked, and nothing shared with the caller
        with self.location.writing():
            self._write(record, files, size)
            self.location.write(name, RECORD, record.to_json().encode())
        return record

    def stage(
        self,
        name: str,
        record: bytes,
        files: Mapping[str, bytes],
        *,
        size: BackboneSize,
        fingerprint: str,
    ) -> AdapterRecord:
        """Take in a version written elsewhere: its record and its files, as :attr:`AdapterRecord.files` names them. It
        can be loaded, and is not published before :meth:`commit`. Raises as :meth:`load` does."""
        if len(record) > _MAX_RECORD_BYTES:
            raise AdapterFormatError(name, f"a record of {len(record)} bytes; {_MAX_RECORD_BYTES} are allowed")
        parsed = AdapterRecord.from_json(name, record)
        parsed.check_fits(fingerprint, size)
        parsed.check_names(files)
        for what, stored in parsed.files.items():
            content = files.get(what, b"")
            if (len(content), sha256(content).hexdigest()) != (stored.size_bytes, stored.sha256):
                came = f"what came as {what} is not" if what in files else f"no {what} came, which should be"
                raise AdapterCorrupt(name, f"{came} the file that adapter.json names by its hash")
        with self.location.writing():
            self._write(parsed, files, size)
        return parsed

    def commit(self, record: AdapterRecord, *, size: BackboneSize, instead_of: str | None = None) -> None:
        """Make a staged version the current one. ``instead_of``: the version that must be current, ``""`` for none.

        Raises :class:`PublishConflict`, and as :meth:`load` does, before anything changes."""
        with self.location.writing():
            self._check_current(record.name, instead_of)
            self._load(record, size)
            self.location.write(record.name, RECORD, record.to_json().encode())

    def _write(self, record: AdapterRecord, files: Mapping[str, bytes], size: BackboneSize) -> None:
        """The files of a version, written and read back."""
        written = len(record.to_json().encode())
        if written > _MAX_RECORD_BYTES:
            raise AdapterFormatError(record.name, f"a record of {written} bytes; {_MAX_RECORD_BYTES} are allowed")
        self.location.prepare(record.name)
        for what, stored in record.files.items():
            self.location.write(record.name, stored.name, files[what])
        self._load(record, size)

    def _check_current(self, name: str, instead_of: str | None) -> None:
        if instead_of is None:
            return
        try:
            version = self.record(name).version
        except UnknownAdapter:
            version = ""
        if version != instead_of:
            raise PublishConflict(f"{name}: {version or 'none'} is current, not {instead_of or 'none'}")

    def remove(self, name: str, *, instead_of: str | None = None) -> None:
        """Unpublish ``name``. Its files stay for who still loads them, until :meth:`sweep`.

        Raises :class:`UnknownAdapter`, and :class:`PublishConflict` where the current version is not ``instead_of``."""
        check_name(name)
        with self.location.writing():
            self._check_current(name, instead_of)
            try:
                self.location.withdraw(name)
            except FileNotFoundError:
                raise UnknownAdapter(f"there is no adapter {name!r} in {self}") from None

    def sweep(self, grace_s: float, keep: Iterable[AdapterRecord] = ()) -> tuple[PurePath, ...]:
        """Delete what no record has named for ``grace_s`` seconds: old versions, leftovers of killed writers; not the
        files of the versions to ``keep``, nor an adapter whose record cannot be read. Returns what was deleted."""
        served: dict[str, set[str]] = {}
        for record in keep:
            served.setdefault(record.name, {RECORD}).update(stored.name for stored in record.files.values())

        def kept(name: str, files: Collection[str]) -> Collection[str] | None:
            needed = served.get(name, {RECORD})
            if RECORD in files and needed.issuperset(files):
                return needed  # and no record need be read
            try:
                return needed.union(stored.name for stored in self.record(name).files.values())
            except UnknownAdapter:
                return needed
            except AdapterFormatError:
                return None

        with self.location.writing():
            return self.location.sweep(kept, grace_s)

    def _content(self, name: str, stored: StoredFile) -> bytes:
        """What is hashed is what is parsed: the file is read once."""
        try:
            content = self.location.read(name, stored.name, stored.size_bytes)
        except FileNotFoundError:
            raise AdapterCorrupt(name, f"{stored.name} is missing") from None
        except OSError as error:
            raise AdapterCorrupt(name, f"{stored.name} cannot be read: {error}") from error
        if len(content) != stored.size_bytes:
            raise AdapterCorrupt(name, f"{stored.name} is shorter than the {stored.size_bytes} bytes of its record")
        if sha256(content).hexdigest() != stored.sha256:
            raise AdapterCorrupt(name, f"{stored.name} does not hold what its hash says")
        return content
