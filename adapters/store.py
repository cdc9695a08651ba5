"""Adapters on disk: published whole or not at all, checked before they are worn.

    FOLDER/NAME/adapter.json                what the adapter is; naming it is what publishes a version
    FOLDER/NAME/weights-HASH.safetensors    named by content, never changed
    FOLDER/NAME/vocab-HASH.json
    FOLDER/NAME/words-HASH.arpa.gz          an n-gram model for beam searches, if it brings one

A version's files are written to a free place, synced and read back as any load would, before ``os.replace`` of
``adapter.json`` names them. A crash at any instant leaves the old version or the new one.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from adapters.config import AdapterConfig, BackboneSize
from adapters.durable import check_inside, read_inside, sync_folder, write_whole
from adapters.errors import (
    AdapterCorrupt,
    AdapterFormatError,
    DataError,
    PublishConflict,
    UnknownAdapter,
)
from adapters.fit import check_tensors
from adapters.language_model import LanguageModel
from adapters.loaded import LoadedAdapter, read_language_model
from adapters.record import AdapterRecord, StoredFile, StoredLanguageModel, check_name
from adapters.vocab import Vocab

Signature = tuple[int, int, int]

_RECORD = "adapter.json"
_MAX_RECORD_BYTES = 1 << 20
# What a writer may leave behind; nothing else in a folder is ever deleted.
_OURS = re.compile(
    r"\.?(weights-[0-9a-f]+\.safetensors|vocab-[0-9a-f]+\.json|words-[0-9a-f]+\.arpa\.gz|adapter\.json)(\.[0-9a-f]{16})?"
)


class AdapterStore:
    """The adapters in one folder. Any number of processes may read and publish at once; writers take turns."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"AdapterStore({str(self.folder)!r})"

    def names(self) -> tuple[str, ...]:
        """Folders with a commit record, sorted, whether or not it makes sense: :meth:`record` tells."""
        if not self.folder.exists():
            return ()
        with os.scandir(self.folder) as entries:
            return tuple(sorted(e.name for e in entries if e.name[0] != "." and os.path.lexists(Path(e.path, _RECORD))))

    def signature(self, name: str) -> Signature:
        """Changes whenever another record is published as ``name``. Raises :class:`UnknownAdapter`."""
        try:
            found = os.lstat(self.folder / name / _RECORD)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UnknownAdapter(f"there is no adapter {name!r} in {self.folder}") from error
        return found.st_mtime_ns, found.st_ino, found.st_size

    def record(self, name: str) -> AdapterRecord:
        """The record of the current version. Reads nothing else, so that thousands are cheap.

        Raises :class:`UnknownAdapter`, or :class:`AdapterFormatError` with what is wrong.
        """
        check_name(name)
        try:
            content = read_inside(self.folder / name, _RECORD, _MAX_RECORD_BYTES)
        except FileNotFoundError:
            raise UnknownAdapter(f"there is no adapter {name!r} in {self.folder}") from None
        except OSError as error:
            raise AdapterFormatError(name, f"{_RECORD} cannot be read: {error}") from error
        return AdapterRecord.from_json(name, content)

    def load(self, record: AdapterRecord, *, size: BackboneSize) -> LoadedAdapter:
        """Read the version that ``record`` is of, current or not.

        Raises :class:`AdapterCorrupt` where a file is missing or another than the record's, :class:`AdapterFormatError`
        where its content is not of the form, :class:`AdapterMismatch` where names, shapes or types of its tensors are
        not those of such an adapter on a backbone of this size.
        """
        name = record.name
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
        with self._writing():
            self._write(record, files, size)
            write_whole(self.folder / name / _RECORD, record.to_json().encode())
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
        """Take in a version that was written elsewhere: the bytes of its record and of its files, as
        :attr:`AdapterRecord.files` names them. It can be loaded, and is not published before :meth:`commit`. Raises as
        :meth:`load` does.
        """
        parsed = AdapterRecord.from_json(name, record)
        parsed.check_fits(fingerprint, size)
        for what, stored in parsed.files.items():
            content = files.get(what, b"")
            if (len(content), sha256(content).hexdigest()) != (stored.size_bytes, stored.sha256):
                raise AdapterCorrupt(name, f"what came as {what} is not the file that adapter.json names by its hash")
        with self._writing():
            self._write(parsed, files, size)
        return parsed

    def commit(self, record: AdapterRecord, *, size: BackboneSize, instead_of: str | None = None) -> None:
        """Make a staged version the current one. ``instead_of``: the version that must be current, ``""`` for none.

        Raises :class:`PublishConflict`, and as :meth:`load` does, before anything changes."""
        with self._writing():
            self._check_current(record.name, instead_of)
            self.load(record, size=size)
            write_whole(self.folder / record.name / _RECORD, record.to_json().encode())

    def _write(self, record: AdapterRecord, files: Mapping[str, bytes], size: BackboneSize) -> None:
        """The files of a version, written and read back."""
        written = len(record.to_json().encode())
        if written > _MAX_RECORD_BYTES:
            raise AdapterFormatError(record.name, f"a record of {written} bytes; {_MAX_RECORD_BYTES} are allowed")
        folder = self.folder / record.name
        folder.mkdir(exist_ok=True)
        check_inside(folder)
        sync_folder(self.folder)
        for what, stored in record.files.items():
            write_whole(folder / stored.name, files[what])
        self.load(record, size=size)

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
        with self._writing():
            check_inside(self.folder / name)
            self._check_current(name, instead_of)
            try:
                (self.folder / name / _RECORD).unlink()
            except FileNotFoundError:
                raise UnknownAdapter(f"there is no adapter {name!r} in {self.folder}") from None
            sync_folder(self.folder / name)

    def sweep(self, grace_s: float, keep: Iterable[AdapterRecord] = ()) -> tuple[Path, ...]:
        """Delete what no record has named for ``grace_s`` seconds: old versions, leftovers of killed writers; not the
        files of the versions to ``keep``.

        A folder whose record cannot be read is left as it is. Returns what was deleted.
        """
        deleted: list[Path] = []
        needed = {stored.name for record in keep for stored in record.files.values()}
        with self._writing():
            for folder in sorted(self.folder.iterdir()):
                if folder.is_symlink() or not folder.is_dir():
                    continue
                try:
                    record = self.record(folder.name)
                    kept = {_RECORD, *(stored.name for stored in record.files.values())}
                except UnknownAdapter:
                    kept = set()
                except AdapterFormatError:
                    continue
                # A record replaced or removed touches the folder: that is when its files stopped being named.
                if folder.stat().st_mtime > time.time() - grace_s:
                    continue
                old = [path for path in sorted(folder.iterdir()) if _ours(path) and path.name not in kept | needed]
                for path in old:
                    path.unlink()
                deleted += old
                if not kept and not any(folder.iterdir()):
                    folder.rmdir()
                    deleted.append(folder)
        return tuple(deleted)

    def _content(self, name: str, stored: StoredFile) -> bytes:
        """What is hashed is what is parsed: the file is read once."""
        try:
            content = read_inside(self.folder / name, stored.name, stored.size_bytes)
        except FileNotFoundError:
            raise AdapterCorrupt(name, f"{stored.name} is missing") from None
        except OSError as error:
            raise AdapterCorrupt(name, f"{stored.name} cannot be read: {error}") from error
        if len(content) != stored.size_bytes:
            raise AdapterCorrupt(name, f"{stored.name} is shorter than the {stored.size_bytes} bytes of its record")
        if sha256(content).hexdigest() != stored.sha256:
            raise AdapterCorrupt(name, f"{stored.name} does not hold what its hash says")
        return content

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, of all processes: else a sweep could take files that a publish is about to name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _ours(path: Path) -> bool:
    return bool(_OURS.fullmatch(path.name)) and (path.is_symlink() or path.is_file())
